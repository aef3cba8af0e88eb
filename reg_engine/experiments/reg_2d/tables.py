"""The tables of reg-2d: win ratios, and samples against the tilted target."""

from __future__ import annotations

from ..report import Report
from ..shapes import SHAPES
from .figures import energy_figure, steps_figure
from .golden import CFG, WORSE
from .models import STEPS
from .results import RESOLVED, VIEWS, WIN_WEIGHT, Results, felt_wins, mean_win
from .win import ESTIMATORS, FELT, METHODS

__all__ = ["write_energies", "write_win_ratios"]


def write_win_ratios(report: Report, results: Results) -> None:
    """Table 1, its set by set form, and the figure over steps."""
    report.section(
        "Table 1: win ratios",
        "Share of points, in %, where guidance with REG is nearer to golden guidance than without, "
        "mean over steps and sets; above 50 is an improvement. First the paper's measure, where "
        "golden guidance is simulated with the network's own chains:",
    )
    _win_table(report, results, "chains")
    report.text(
        "A simulated golden gradient has errors of its own: chance, and the coarseness of a chain "
        "whose last steps are large against the width of the set, to which autoguidance's ratio is "
        "most sensitive (finer chains come nearer to the exact gradient). Where these errors are "
        "larger than what REG repairs, they decide which of the two is nearer, and the ratio tends "
        f"to 50 whatever REG does. Mean lengths over steps, points and sets, w = {WIN_WEIGHT:g}:"
    )
    _simulated_table(report, results)
    report.text("Against *exact* golden guidance, same network and points:")
    _win_table(report, results, "oracle")
    report.text("Without any network error (exact denoisers, exact golden guidance):")
    _win_table(report, results, "exact")
    rows = []
    for view in ("chains", "oracle", "exact", "square"):
        for name in results.sizes.shapes:
            found = results.views[view][name]
            wins = (f"{100 * found[m]['paper'].mean:.0f}" for m in METHODS)
            rows.append([SHAPES[name][0], VIEWS[view], *wins])
    report.table(
        ["set", "what, against what", *METHODS],
        rows,
        "Estimator `paper`, set by set. The last rows take x_t from a square lattice, the same at "
        "every step, as the paper's 1-D figure does; much of it is never visited by a sampler.",
    )
    shown = {view: results.views[view] for view in ("chains", "oracle", "exact")}
    titles = {"chains": "network, chains", "oracle": "network, exact", "exact": "exact, exact"}
    felt, count = felt_wins(results.views["exact"], "vanilla", "vjp", 1)
    report.figure(
        "win_steps",
        steps_figure(shown, titles, STEPS),
        "Win ratio at every step, mean over sets (band: from set to set, for `paper`). Upper "
        "row: golden guidance by chains, whose errors pull the ratio to 50; "
        "middle and lower row: exact golden guidance. At the last step most x_t lie well inside "
        "one class, both errors are next to nothing and the ratio counts digits; where the error "
        f"without REG is above {FELT:g} ({count} points of all sets), REG (`vjp`, exact) wins at "
        f"{felt:.0f} %.",
    )


def _win_table(report: Report, results: Results, view: str) -> None:
    sets = results.views[view]
    rows = [
        [method, *(f"{mean_win(sets, method, estimator):.1f}" for estimator in ESTIMATORS)]
        for method in METHODS
    ]
    report.table(["method", *(f"`{name}`" for name in ESTIMATORS)], rows)


def _simulated_table(report: Report, results: Results) -> None:
    rows: list[list[object]] = []
    for method, kind in (("vanilla", CFG), ("autoguidance", WORSE)):
        errors = [found[kind] for found in results.simulated.values()]
        scores = [found[method]["paper"] for found in results.views["oracle"].values()]
        plain, rectified = ([getattr(s, of) for s in scores] for of in ("baseline", "errors"))
        rows.append(
            [
                method,
                *(sum(e[of] for e in errors) / len(errors) for of in ("size", "error")),
                *(sum(map(sum, lists)) / STEPS / len(scores) for lists in (plain, rectified)),
            ]
        )
    report.table(
        ["", "exact golden", "error of the simulated one", "error without REG", "error with REG"],
        rows,
    )


def write_energies(report: Report, results: Results) -> None:
    """Energy distances to the tilted targets, of CFG and of autoguidance."""
    report.section(
        "Samples against the tilted target",
        "Energy distance of samples to exact draws of p(x_0|y) R_0(x_0) (lower is better; mean "
        f"over both classes, {results.sizes.samples} samples each). `floor` is what as many draws "
        "of the target itself score; what golden guidance scores above it is the error of 25 "
        "ancestral steps. Methods whose weight changes have no target of their own; interval is "
        "scored against vanilla's.",
    )
    names = ["floor", "golden", "unguided", "cfg", "interval", "reg_paper", "reg_vjp"]
    heads = ["floor", "golden", "unguided", "CFG", "interval", "REG `paper`", "REG `vjp`"]
    rows = _energy_rows(results, names)
    report.table(["", *heads], rows)
    auto = ["auto_floor", "auto_golden", "auto_unguided", "auto", "auto_paper", "auto_vjp"]
    report.text("Autoguidance, against its own target:")
    columns = ["", "floor", "golden", "unguided", "autoguidance", "REG `paper`", "REG `vjp`"]
    report.table(columns, _energy_rows(results, auto))
    report.figure(
        "energy",
        energy_figure(results.energies["trained"]),
        "The trained network's samples against the tilted target; black lines: the floor. Golden "
        "guidance is what can be reached in 25 steps; CFG is to be compared with REG below it.",
    )
    report.text(
        "Unguided samples are near the target wherever the classes hardly meet: there p(x_0|y) "
        "is its own tilted target, golden guidance is next to nothing, and all that CFG does is "
        "error. Nearer to the target than unguided samples of the network are: "
        f"{_improvements(results)}. Where two clouds are both near the floor, the ratio of their "
        f"scores changes by a tenth from seed to seed: ratios above {RESOLVED:g} are no difference."
    )


def _improvements(results: Results) -> str:
    """Where guidance with the network helps at all."""
    parts = []
    for w, sets in results.energies["trained"].items():
        for cloud, title in (("cfg", "CFG"), ("reg_paper", "REG (`paper`)")):
            better = [SHAPES[n][0] for n, found in sets.items() if found[cloud] < found["unguided"]]
            parts.append(f"at w = {w:g} {title} on {', '.join(better) or 'no set'}")
    return "; ".join(parts)


def _energy_rows(results: Results, names: list[str]) -> list[list[object]]:
    kinds = {"trained": "network", "exact": "exact"}
    return [
        [f"{SHAPES[name][0]}, {label}, w = {w:g}", *(scores[cloud] for cloud in names)]
        for kind, label in kinds.items()
        for w, sets in results.energies[kind].items()
        for name, scores in sets.items()
    ]
