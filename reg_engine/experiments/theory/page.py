"""The page of `theory` from its numbers: tables, sentences that depend on them, claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ...rectifiers import PRODUCTS
from ..report import Report, table
from .samples import METHODS
from .scores import INTERVAL, SCHEDULE

WS = ("1", "2", "4")
PAPER, OURS = "paper's 1-D", "two classes"  # settings in one dimension
# Places in a row of numbers["chains"]["rows"].
SETTING, W, STEPS, CFG, GOLDEN, KERNEL = range(6)


def spread(values: Sequence[float]) -> float:
    """Standard deviation over the replicas, 0 where there is one."""
    return stdev(values) if len(values) > 1 else 0.0


def by_w(values: Mapping[str, float], form: str) -> str:
    """`values` in the given form, each with its weight."""
    return ", ".join(f"{form.format(value)} at w = {w}" for w, value in values.items())


def write(report: Report) -> None:
    """The page, from report.numbers alone."""
    numbers = report.numbers
    setting, methods = numbers["setting"], numbers["methods"]
    guided = numbers["field_errors"]["guided"]
    excess = [rows[0]["cfg"]["length"] for rows in guided.values()]
    replicas = setting["replicas"]
    report.page(
        Path(__file__).with_name("page.md"),
        summary=_summary(methods),
        found={key: claim["found"] for key, claim in numbers["claims"].items()},
        count=setting["count"],
        interval=INTERVAL,
        schedule=SCHEDULE,
        repeats=f"; ± over {replicas} scrambles and targets" if replicas > 1 else "",
        methods_table=_methods_table(methods),
        solver_table=table(
            ["solver", "steps", "evaluations", "CFG", "REG `vjp`", "golden"],
            [list(row.values()) for row in numbers["solvers"]],
        ),
        solver_weight=f"{setting['solver_weight']:g}",
        chains_table=table(
            ["setting", "w", "steps", "CFG", "golden", "joint kernels"]
            + [f"end: {end}" for end in ("unguided", "CFG", "REG", "golden")],
            numbers["chains"]["rows"],
        ),
        renyi_table=table(
            ["setting", "noise level", *(f"w = {w}" for w in WS)], numbers["renyi"]["rows"]
        ),
        excess=f"{min(excess):.1f} to {max(excess):.1f}",
        fields_table=_fields_table(guided["2"]),
        noisiest=guided["2"][0],
        wins_table=_wins_table(numbers),
        plans_table=_plans_table(numbers["plans"]),
    )


def _summary(methods: Mapping[str, Any]) -> str:
    names = {"unguided": "no guidance", "CFG": "CFG", "vjp": "REG (`vjp`)", "golden": "golden"}
    rows = [
        [title, *(f"{fmean(found['scores'][name]):.1e}" for found in methods.values())]
        for name, title in names.items()
    ]
    rows.append(
        ["floor: two sets of target draws", *(f"{f['floor']:.1e}" for f in methods.values())]
    )
    return table(["energy distance to the target", *(f"w = {w}" for w in methods)], rows)


def _methods_table(methods: Mapping[str, Any]) -> str:
    def cell(scores: Sequence[float]) -> str:
        return f"{fmean(scores):.1e}" + (f" ± {spread(scores):.0e}" if len(scores) > 1 else "")

    found = list(methods.values())
    rows = [[name, *(cell(each["scores"][name]) for each in found)] for name in METHODS]
    tuned = (each["tuned_interval"] for each in found)
    best = [f"{score:.1e} in [{lo:g}, {hi:g}]" for lo, hi, score in tuned]
    rows.insert(METHODS.index("interval") + 1, ["interval, tuned on this score", *best])
    rows.append(["floor", *(f"{each['floor']:.1e}" for each in found)])
    return table(["energy distance", *(f"w = {w}" for w in methods)], rows)


def _fields_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Every other level."""
    measures = ("angle", "length", "relative")
    pairs = ((row, row["cfg"], row["reg"]["product"]) for row in rows[::2])
    cells = [
        [row["sigma"], *(of[key] for key in measures for of in (cfg, reg))]
        for row, cfg, reg in pairs
    ]
    heads = [f"{key} {of}" for key in ("angle", "length", "error") for of in ("CFG", "REG")]
    return table(["noise level", *heads], cells)


def _inside(numbers: Mapping[str, Any]) -> list[int]:
    return [k for k, yes in enumerate(numbers["middle_third"]) if yes]


def _wins_table(numbers: Mapping[str, Any]) -> str:
    """The least of the three forms of REG, in the middle third of the levels."""
    inside = _inside(numbers)
    rows = [
        [label, w, *(f"{100 * min(found[k]['wins'].values()):.0f}" for k in inside)]
        for kind, label in (("all", "whole mixture"), ("guided", "guided"))
        for w, found in numbers["field_errors"][kind].items()
    ]
    return table(["points", "w", *(f"sigma {numbers['levels'][k]:.2g}" for k in inside)], rows)


def _plans_table(plans: Sequence[Mapping[str, Any]]) -> str:
    weights = list(dict.fromkeys(plan["w"] for plan in plans))
    cells = {(plan["name"], plan["w"]): plan for plan in plans}
    rows: list[list[object]] = []
    for name in dict.fromkeys(plan["name"] for plan in plans):
        found = [cells[name, w] for w in weights]
        rows.append([name, *(v for plan in found for v in (round(plan["nfe"], 1), plan["score"]))])
    heads = [f"{what}, w = {w:g}" for w in weights for what in ("nfe", "distance")]
    return table(["plan (`fd_batched`)", *heads], rows)


def claims(report: Report) -> None:
    """All claims of the page; `cfg_over_reg` goes into the numbers."""
    _sample_claims(report)
    _scaling_claims(report)
    _field_claims(report)
    _plan_claim(report)


def _sample_claims(report: Report) -> None:
    methods = report.numbers["methods"]
    means = {
        w: {name: fmean(scores) for name, scores in found["scores"].items()}
        for w, found in methods.items()
    }
    strong = {w: mean for w, mean in means.items() if float(w) >= 1}
    ratios = {w: min(m["CFG"] / m[name] for name in PRODUCTS) for w, m in means.items()}
    report.numbers["cfg_over_reg"] = ratios
    report.claim(
        "reg_beats_cfg",
        "every estimator of REG is at least 5 times closer to the target than CFG at w >= 1",
        all(ratios[w] >= 5 for w in strong),
        "least ratio " + by_w(ratios, "{:.1f}"),
    )
    report.claim(
        "interval_between",
        "interval guidance (the authors' interval) lies between CFG and every REG at w >= 1",
        all(max(m[n] for n in PRODUCTS) < m["interval"] < m["CFG"] for m in strong.values()),
        ", ".join(
            f"w = {w}: {m['CFG']:.1e} > {m['interval']:.1e} > {m['vjp']:.1e}"
            for w, m in means.items()
        ),
    )
    pairs = {
        w: (found["scores"]["vjp"][0], found["tuned_interval"][2]) for w, found in methods.items()
    }
    report.claim(
        "reg_beats_tuned_interval",
        "REG (K delta) is closer than interval guidance even when that is tuned on the score",
        all(tuned >= reg for reg, tuned in pairs.values()),
        ", ".join(f"w = {w}: {reg:.1e} against {tuned:.1e}" for w, (reg, tuned) in pairs.items()),
    )
    golden = {w: means[w]["golden"] / found["floor"] for w, found in methods.items()}
    report.claim(
        "golden_reaches",
        "golden guidance reaches the target: within twice the sampling floor of as many samples",
        all(ratio <= 2 for ratio in golden.values()),
        by_w(golden, "{:.2f} floors"),
    )


def _scaling_claims(report: Report) -> None:
    chains, renyi = report.numbers["chains"], report.numbers["renyi"]["largest_relative_error"]
    worst, end = max(row[KERNEL] for row in chains["rows"]), max(chains["joint_end"])
    report.claim(
        "joint_closes",
        "joint scaling closes: its kernels integrate to 1 and end in the target",
        worst < 1e-7 and end < 1e-7,
        f"largest deviation of a kernel {worst:.0e}, of the end {end:.0e}",
    )
    ours = [row for row in chains["rows"] if row[SETTING] == OURS]
    few, many = (of(row[STEPS] for row in ours) for of in (min, max))
    pairs = [
        [row for row in ours if row[W] == w and row[STEPS] in (few, many)]
        for w in dict.fromkeys(row[W] for row in ours)
    ]
    stays, shrinks = (
        of(last[kind] / first[kind] for first, last in pairs)
        for of, kind in ((min, CFG), (max, GOLDEN))
    )
    report.claim(
        "marginal_does_not",
        "marginal scaling does not: with more steps CFG's mismatch stays, golden's goes to 0",
        stays > 0.8 and shrinks < 0.5,
        f"from {few} to {many} steps: CFG x {stays:.2f}, golden x {shrinks:.2f}",
    )
    report.claim(
        "renyi_identity",
        "golden guidance minus CFG is w times the gradient of the Renyi divergence",
        renyi < 1e-8,
        f"largest difference {renyi:.0e} of the term's size",
    )


def _field_claims(report: Report) -> None:
    found, inside = report.numbers["field_errors"], _inside(report.numbers)
    for kind, where in (("all", "of the whole mixture"), ("guided", "of the guided distribution")):
        least = {
            w: 100 * min(min(rows[k]["wins"].values()) for k in inside)
            for w, rows in found[kind].items()
        }
        report.claim(
            f"win_ratio_{kind}",
            "the win ratio is above 50 % at every step with sigma in the middle third, at points "
            + where,
            all(value > 50 for value in least.values()),
            "least " + by_w(least, "{:.0f} %"),
        )
    shares = [
        (row["sigma"], row["reg"]["product"]["relative"] / row["cfg"]["relative"])
        for weights in found.values()
        for rows in weights.values()
        for row in rows
    ]
    above = max(share for sigma, share in shares if sigma > 0.05)
    below = max(share for sigma, share in shares if sigma <= 0.05)
    report.claim(
        "reg_error_smaller",
        "REG's error against golden (root mean square) is smaller than CFG's at every noise level "
        "above 0.05, and nowhere larger by more than 3 %",
        above < 1 and below < 1.03,
        f"largest ratio {above:.2f} above, {below:.3f} below",
    )


def _plan_claim(report: Report) -> None:
    cells: dict[str, dict[float, Mapping[str, Any]]] = {}
    for plan in report.numbers["plans"]:
        cells.setdefault(plan["name"], {})[plan["w"]] = plan
    names = ("REG at every step", "calibrated, tolerance 0.05", "CFG at every step")
    full, tight, cfg = (cells[name] for name in names)
    report.claim(
        "plan_is_free",
        "a calibrated plan (tolerance 0.05) costs no more evaluations than CFG and stays within a "
        "quarter of full REG's distance",
        all(
            tight[w]["nfe"] <= cfg[w]["nfe"] and tight[w]["score"] <= 1.25 * full[w]["score"]
            for w in full
        ),
        ", ".join(
            f"w = {w:g}: {tight[w]['nfe']:.0f} against {cfg[w]['nfe']:.0f} nfe, "
            f"{tight[w]['score']:.1e} against {full[w]['score']:.1e}"
            for w in full
        ),
    )
