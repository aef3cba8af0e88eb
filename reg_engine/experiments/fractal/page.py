"""The page of the fractal experiment, from its numbers: summary, tables, claims, the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..image_runs import wrapped
from ..report import Report
from . import text
from .figures import NAMES, STAGES, curves
from .measures import mean_of
from .models import FLOW_STEPS, METHODS, NEAREST

# arXiv 2503.10638, Tab. 1 (CFG; three numbers a cell). Neither metric nor scales are known to us.
PAPER = {
    "class 0": ((5.95, 3.11, 1.57), (5.31, 1.70, 1.01), (11.7, 2.05, 1.12)),
    "class 1": ((12.4, 3.25, 1.70), (6.09, 1.88, 1.00), (6.51, 1.41, 0.79)),
}
TRIPLE = ("before", "dedicated", "one")
MEASURES = {  # column -> key and format of a measure
    "distance x 100": ("distance", ".2f"),
    "precision": ("precision", ".2f"),
    "recall": ("recall", ".2f"),
    "energy to class": ("energy", ".1e"),
    "energy to target": ("energy_target", ".1e"),
    "own class": ("own_class", ".1%"),
    "memory": ("nearer", ".2f"),
}

Numbers = Mapping[str, Any]


def ratios(
    numbers: Numbers, over: str, under: str, key: str = "distance"
) -> dict[str, dict[str, float]]:
    """method -> scale -> a measure of stage `over` by that of `under`, averages of the classes."""
    return {
        method: {
            scale: mean_of(stages[over], key) / mean_of(stages[under], key)
            for scale, stages in table.items()
            if over in stages and under in stages
        }
        for method, table in numbers["methods"].items()
    }


def at_large(numbers: Numbers, over: str, under: str, key: str = "distance") -> dict[str, Any]:
    """method -> those ratios at the large scales."""
    large = [f"{scale:g}" for scale in numbers["setting"]["large"]]
    found = ratios(numbers, over, under, key)
    return {method: [table[scale] for scale in large] for method, table in found.items()}


def claims(report: Report) -> None:
    """What the paper says of postprocessing, and what REG does instead."""
    numbers = report.numbers
    at = f"at scales {', '.join(f'{scale:g}' for scale in numbers['setting']['large'])}"
    dedicated, one = (at_large(numbers, "before", stage) for stage in ("dedicated", "one"))
    for method in METHODS:
        report.claim(
            f"halved_{method}",
            f"{NAMES[method]}: {at} postprocessing makes the mean distance to the nearest real "
            "point at least 2 times smaller",
            min(dedicated[method] + one[method]) >= 2,
            f"dedicated {_times(dedicated[method])}, one-for-all {_times(one[method])}",
        )
    for method in METHODS:
        shares = numbers["one_by_dedicated"][method]
        report.claim(
            f"one_for_all_{method}",
            f"{NAMES[method]}: one-for-all stays within 10 % of dedicated flows in that distance",
            max(each["ratio"] for each in shares.values()) <= 1.1,
            ", ".join(
                f"scale {scale}: {each['ratio'] - 1:+.0%} "
                f"({each['low'] - 1:+.0%} to {each['high'] - 1:+.0%})"
                for scale, each in shares.items()
            ),
        )
    for method, factors in at_large(numbers, "before", "reg", "energy_target").items():
        report.claim(
            f"target_{method}",
            f"{NAMES[method]}: {at} REG is nearer to the distribution that guidance aims at than "
            "plain guidance (energy distance)",
            min(factors) > 1,
            f"{_times(factors)} smaller",
        )


def _times(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values) + " times"


def summary(numbers: Numbers) -> str:
    """What was found, as a list in Markdown."""
    setting, methods = numbers["setting"], numbers["methods"]
    at = ", ".join(f"{scale:g}" for scale in setting["large"])
    last = f"{setting['large'][-1]:g}"
    lines = []
    dedicated, one = (at_large(numbers, "before", stage) for stage in ("dedicated", "one"))
    reg = at_large(numbers, "before", "reg", "energy_target")
    for method, name in NAMES.items():
        shares = [each["ratio"] - 1 for each in numbers["one_by_dedicated"][method].values()]
        recall = {stage: mean_of(each, "recall") for stage, each in methods[method][last].items()}
        lines += [
            f"**{name}, scales {at}.** Postprocessing makes the distance to real points "
            f"{_times(dedicated[method])} smaller (dedicated) and {_times(one[method])} "
            f"(one-for-all, {min(shares):+.0%} to {max(shares):+.0%} against dedicated). REG "
            f"comes {_times(reg[method])} nearer to what guidance aims at (energy distance).",
            f"**What it leaves.** At scale {last} recall is {recall['before']:.2f} before and "
            f"{recall['one']:.2f} after the flow; {recall['reg']:.2f} with REG.",
        ]
    exact = numbers["parts"][last]
    parts = {name: mean_of(exact[f"{name} denoiser, CFG"], "distance") for name in _DENOISERS}
    lines.append(
        f"**Whose error.** At scale {last} CFG's samples lie {parts['exact']:.2f} hundredths from "
        f"the data with the exact denoiser, {parts['trained']:.2f} with the trained one."
    )
    held = [claim["holds"] for claim in numbers["claims"].values()]
    lines.append(f"{sum(held)} of {len(held)} claims hold (last table).")
    return "\n".join(f"* {line}" for line in lines)


_DENOISERS = ("exact", "trained")


def write(report: Report, figures: Mapping[str, Any]) -> None:
    """The page, from report.numbers; figures: "clouds" and "rectified"."""
    numbers = report.numbers
    setting = numbers["setting"]
    report.section("In short", wrapped(f"{text.INTRO}\n\n{summary(numbers)}"))
    scales = ", ".join(f"{scale:g}" for scale in setting["scales"])
    shown = {**setting, "scales": scales, "nearest": NEAREST, "flow_steps": FLOW_STEPS}
    report.section("Setting", wrapped(text.SETTING.format(**shown)))
    report.section("Before and after")
    report.figure("clouds", figures["clouds"], wrapped(text.CLOUDS))
    report.figure("curves", curves(numbers), wrapped(text.CURVES_CAPTION))
    for method in METHODS:
        _distances(report, method)
    _more(report)
    report.section("What the distance does not see")
    for method in METHODS:
        _measures(report, method)
    scale = f"{setting['shown']:g}"
    cg = numbers["methods"]["cg"][scale]
    shares = {
        "target": sum(numbers["target_own_class"][scale]) / 2,
        "plain": mean_of(cg["before"], "own_class"),
        "reg": mean_of(cg["reg"], "own_class"),
    }
    report.section("REG instead", wrapped(text.REG_TEXT.format(**setting, **shares)))
    report.figure("rectified", figures["rectified"], wrapped(text.REG_CAPTION.format(**setting)))
    _costs(report)
    _parts(report)
    _paper(report)


def _distances(report: Report, method: str) -> None:
    """As the paper's Tab. 1."""
    table, floor = report.numbers["methods"][method], report.numbers["floor"]
    table = {scale: stages for scale, stages in table.items() if "dedicated" in stages}
    rows = []
    for y in (0, 1):
        cells = [
            " / ".join(f"{stages[stage][y]['distance']:.2f}" for stage in TRIPLE)
            for stages in table.values()
        ]
        rows.append([f"class {y}", *cells, f"{floor[y]['distance']:.2f}"])
    # The largest half width of an interval, as a share of its value.
    widest = max(
        (each["high"] - each["low"]) / 2 / each["distance"]
        for stages in report.numbers["methods"][method].values()
        for stage in TRIPLE
        for each in stages.get(stage, [])
    )
    caption = f"""Mean distance to the nearest real point of the class, x 100: before / dedicated /
        one-for-all. 95 % intervals are within {widest:.0%} of each value."""
    columns = [NAMES[method], *(f"scale {scale}" for scale in table), "fresh real points"]
    report.table(columns, rows, wrapped(caption))


def _measures(report: Report, method: str) -> None:
    numbers = report.numbers
    rows = [
        [scale, STAGES[stage][0], *_cells(stages[stage])]
        for scale, stages in numbers["methods"][method].items()
        for stage in STAGES
        if stage in stages
    ]
    floor = [{**each, "energy_target": None} for each in numbers["floor"]]  # it has no target
    rows.append(["", "fresh real points", *_cells(floor)])
    columns = [f"{NAMES[method]}: scale", "samples", *MEASURES]
    report.table(columns, rows, "Averages of both classes.")


def _cells(classes: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        "" if classes[0][key] is None else f"{mean_of(classes, key):{form}}"
        for key, form in MEASURES.values()
    ]


def _more(report: Report) -> None:
    """Whether more training closes the gap between one-for-all and dedicated flows."""
    numbers = report.numbers
    found = ratios(numbers, "more", "dedicated").get("cg")
    if not found:
        return
    gaps = [
        abs(mean_of(stages["one"], "distance") - mean_of(stages["dedicated"], "distance"))
        for table in numbers["methods"].values()
        for stages in table.values()
        if "dedicated" in stages
    ]
    said = text.MORE.format(
        more=numbers["setting"]["more"],
        found=", ".join(f"{value - 1:+.0%} (scale {scale})" for scale, value in found.items()),
        why=text.NOT_TRAINING if max(found.values()) > 1.1 else "That is within 10 %.",
        gap=max(gaps),
        floor=mean_of(numbers["floor"], "distance"),
    )
    report.text(wrapped(said))


def _costs(report: Report) -> None:
    setting = report.numbers["setting"]
    stages = report.numbers["methods"]["cfg"][f"{setting['shown']:g}"]
    at_scale: dict[str, float] = {"shown": setting["shown"]}
    for stage in ("before", "reg", "one", "reg_post"):
        at_scale[stage] = mean_of(stages[stage], "distance")
        at_scale[f"energy_{stage}"] = mean_of(stages[stage], "energy")
    rows = [
        [name, f"{cost['nfe']:.0f}", f"{cost['backward']:.0f}", cost["needs"]]
        for name, cost in report.numbers["costs"].items()
    ]
    columns = ["CFG, one sample", "network evaluations", "backward passes", "needs besides"]
    report.table(columns, rows, wrapped(text.COSTS.format(**at_scale)))


def _parts(report: Report) -> None:
    parts = report.numbers["parts"]
    measures = {"distance": ".2f", "energy": ".2f", "own_class": ".0%"}
    rows = []
    for name in dict.fromkeys(name for row in parts.values() for name in row):
        cells = [
            ", ".join(f"{mean_of(row[name], key):{form}}" for key, form in measures.items())
            if name in row
            else ""
            for row in parts.values()
        ]
        rows.append([name, *cells])
    question = """The mixture's denoiser and p(y|x_t) are exact, so each part can be replaced by
        what it should be. CFG with the exact denoiser is CG with the exact classifier: the same
        trajectories, by Bayes' rule."""
    report.section("Whose error is it?", wrapped(question))
    caption = f"""Distance x 100, energy distance to the class, share in the own class;
        {report.numbers["setting"]["exact"]} samples a class. {text.PARTS}"""
    report.table(["parts", *(f"scale {scale}" for scale in parts)], rows, wrapped(caption))


def _paper(report: Report) -> None:
    rows = [
        [name, *(" / ".join(f"{value:g}" for value in cell) for cell in cells)]
        for name, cells in PAPER.items()
    ]
    theirs = [cell[0] / value for cells in PAPER.values() for cell in cells for value in cell[1:]]
    dedicated, one = (
        ratios(report.numbers, "before", stage)["cfg"] for stage in ("dedicated", "one")
    )
    ours = [*dedicated.values(), *(one[scale] for scale in dedicated)]
    said = text.AGAINST.format(theirs=(min(theirs), max(theirs)), ours=(min(ours), max(ours)))
    report.section("Against the paper", wrapped(said))
    shares = ratios(report.numbers, "one", "dedicated")["cfg"].values()
    caption = f"""The paper's numbers, metric not named. If a cell reads before / dedicated /
        one-for-all, which is a guess, one-for-all has 0.5 to 0.6 times the value of dedicated; here
        it has {min(shares):.2f} to {max(shares):.2f} times."""
    report.table(["", "scale A", "scale B", "scale C"], rows, wrapped(caption))
