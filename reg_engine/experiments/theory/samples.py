"""Section of `theory`: guided samples against the tilted target."""

from __future__ import annotations

from dataclasses import asdict

from ...oracles import GaussianMixture
from ...rectifiers import RECTIFIERS
from ..report import Report
from . import figures
from .scores import INTERVAL, SCHEDULE
from .tables import (
    Scores,
    Size,
    best_interval,
    method_scores,
    plan_scores,
    solver_scores,
)

__all__ = ["plans", "samples"]


def samples(report: Report, mixture: GaussianMixture, size: Size) -> None:
    """Clouds, methods and solvers, with their claims."""
    scores = method_scores(report, mixture, size)
    tuned = best_interval(report, mixture, size)
    solvers = solver_scores(report, mixture, size)
    lo, hi = INTERVAL
    report.section(
        "In one picture",
        f"Class 0 of a 2-D mixture of two classes (four Gaussians each), {size.count} samples a "
        f"method from the same noise, 18 Heun steps in EDM time from sigma {SCHEDULE.sigma_max:g} "
        f"to {SCHEDULE.sigma_min:g}. Interval CFG guides at noise levels in [{lo:g}, {hi:g}], as "
        "the authors of REG did for EDM2; REG is K delta (`vjp`).",
    )
    report.figure(
        "clouds",
        figures.clouds(mixture, scores),
        "What to see: CFG (second column) pushes the samples out of the target (black contours) "
        "and away from the other class (grey), the more the larger w, and collapses the clusters; "
        "with K the same guidance stays close to it. The number is the energy distance to the "
        "target, in the last column what two sets of target draws score.",
    )
    _methods_table(report, scores, tuned, size)
    report.figure(
        "distances",
        figures.distances(scores, solvers, size),
        "Left: energy distance over w (bars: standard deviation over noises and target draws). "
        "REG lies between golden guidance and CFG; CFG is further from the target than no guidance "
        "from w = 1 on. Right: over solvers and steps. More steps bring golden guidance and REG "
        "closer. CFG's error is not the solver's: the deterministic solvers meet at one distance, "
        "and with noise in every step CFG ends elsewhere, far from the target too.",
    )
    columns = ["solver", "steps", "evaluations", "CFG", "REG `vjp`", "golden"]
    rows = [[s.solver, s.steps, s.visits, s.cfg, s.reg, s.golden] for s in solvers]
    report.table(
        columns,
        rows,
        f"Energy distance at w = {size.solver_weight:g}. In EDM time `ddim` is `euler`; the `ddim` "
        "row steps through the linear schedule of 1,000 training steps. `euler_ancestral` draws "
        "noise of its own, so that its rows scatter more. Evaluations are of the guided model.",
    )
    report.numbers["solvers"] = [asdict(s) for s in solvers]
    _sample_claims(report, scores, tuned)


def _methods_table(
    report: Report,
    scores: dict[float, Scores],
    tuned: dict[float, tuple[float, float, float]],
    size: Size,
) -> None:
    def cell(found: Scores, name: str) -> str:
        spread = f" ± {found.spread(name):.0e}" if len(found.values[name]) > 1 else ""
        return f"{found.mean(name):.1e}{spread}"

    methods = ["unguided", "CFG", "interval", *RECTIFIERS, "golden"]
    rows: list[list[str]] = [[name, *(cell(s, name) for s in scores.values())] for name in methods]
    best = [f"{score:.1e} in [{lo:g}, {hi:g}]" for lo, hi, score in tuned.values()]
    rows.insert(3, ["interval, tuned on this score", *best])
    rows.append(["floor", *(f"{s.floor:.1e}" for s in scores.values())])
    report.table(
        ["energy distance", *(f"w = {w:g}" for w in scores)],
        rows,
        f"{size.count} samples against 4 sets of {size.count} target draws"
        + (f"; ± over {size.replicas} scrambles and targets. " if size.replicas > 1 else ". ")
        + "*floor* is what two sets of that many independent draws of the target score on average; "
        "it is a bias of the measure and halves when the counts double. The noise is a scrambled "
        "Sobol sequence, the same for every method: it covers the plane more evenly than "
        "independent draws do, so that scores repeat to a few per cent (independent noise: a half "
        "at w = 1), differences are the methods' own, and an exact sampler may score below the "
        "floor. The estimators are those of the README; `paper` is the released form, column sums "
        "of K times delta; `vjp`, `jvp`, `fd` and `fd_batched` are K delta.",
    )
    report.numbers["methods"] = {
        f"{w:g}": {"floor": s.floor, "scores": s.values, "tuned_interval": tuned[w]}
        for w, s in scores.items()
    }


def _sample_claims(
    report: Report,
    scores: dict[float, Scores],
    tuned: dict[float, tuple[float, float, float]],
) -> None:
    strong = {w: s for w, s in scores.items() if w >= 1}
    ratios = {
        w: min(s.mean("CFG") / s.mean(name) for name in RECTIFIERS) for w, s in scores.items()
    }
    report.numbers["cfg_over_reg"] = {f"{w:g}": r for w, r in ratios.items()}
    report.claim(
        "reg_beats_cfg",
        "every estimator of REG is at least 5 times closer to the target than CFG at w >= 1",
        all(ratios[w] >= 5 for w in strong),
        "least ratio " + ", ".join(f"{r:.1f} at w = {w:g}" for w, r in ratios.items()),
    )
    between = [
        max(s.mean(name) for name in RECTIFIERS) < s.mean("interval") < s.mean("CFG")
        for s in strong.values()
    ]
    report.claim(
        "interval_between",
        "interval guidance (the authors' interval) lies between CFG and every REG at w >= 1",
        all(between),
        ", ".join(
            f"w = {w:g}: {s.mean('CFG'):.1e} > {s.mean('interval'):.1e} > {s.mean('vjp'):.1e}"
            for w, s in scores.items()
        ),
    )
    won = [w for w, (_, _, score) in tuned.items() if score >= scores[w].values["vjp"][0]]
    report.claim(
        "reg_beats_tuned_interval",
        "REG (K delta) is closer than interval guidance even when that is tuned on the score",
        len(won) == len(tuned),
        ", ".join(
            f"w = {w:g}: {scores[w].values['vjp'][0]:.1e} against {t[2]:.1e}"
            for w, t in tuned.items()
        ),
    )
    golden = {w: s.mean("golden") / s.floor for w, s in scores.items()}
    report.claim(
        "golden_reaches",
        "golden guidance reaches the target: within twice the sampling floor of as many samples",
        all(ratio <= 2 for ratio in golden.values()),
        ", ".join(f"{ratio:.2f} floors at w = {w:g}" for w, ratio in golden.items()),
    )


def plans(report: Report, mixture: GaussianMixture, size: Size) -> None:
    """What each plan costs, and what it loses."""
    found = plan_scores(report, mixture, size)
    weights = list(dict.fromkeys(p.w for p in found))
    names = list(dict.fromkeys(p.name for p in found))
    cells = {(p.name, p.w): p for p in found}
    columns = ["plan (`fd_batched`)"]
    columns += [f"{what}, w = {w:g}" for w in weights for what in ("nfe", "distance")]
    rows: list[list[object]] = []
    for name in names:
        row: list[object] = [name]
        for w in weights:
            row += [round(cells[name, w].nfe, 1), cells[name, w].score]
        rows.append(row)
    report.section(
        "Where the rectifier is worth its cost",
        "K is 0 where there is much noise, so that the reference is wasted there, and 1 where "
        "there is little, so that REG is CFG. A plan says which work each noise level gets. nfe "
        "counts network evaluations a sample, one conditional pass being 1.",
    )
    report.table(
        columns,
        rows,
        "A calibrated plan is the cheapest found whose samples stay within the tolerance of full "
        "REG (root mean square, measured on 32 samples); distance is to the target.",
    )
    report.numbers["plans"] = [asdict(p) for p in found]
    full = {w: cells["REG at every step", w] for w in weights}
    tight = {w: cells["calibrated, tolerance 0.05", w] for w in weights}
    cfg = {w: cells["CFG at every step", w] for w in weights}
    report.claim(
        "plan_is_free",
        "a calibrated plan (tolerance 0.05) costs no more evaluations than CFG and stays within a "
        "quarter of full REG's distance",
        all(tight[w].nfe <= cfg[w].nfe and tight[w].score <= 1.25 * full[w].score for w in weights),
        ", ".join(
            f"w = {w:g}: {tight[w].nfe:.0f} against {cfg[w].nfe:.0f} nfe, "
            f"{tight[w].score:.1e} against {full[w].score:.1e}"
            for w in weights
        ),
    )
