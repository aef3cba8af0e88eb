"""What the `mnist` experiment found, said with the figures behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...data.mnist import DATA_SETS
from ...evaluation.fronts import Difference, Measured, difference
from ..draws import METHODS, Point
from ..report import Report
from .fronts import Row, front_of, matched, on_front, plain
from .post import SPACES, After
from .sampling import CHEAP

AGREEMENT = {"mnist": 0.97, "fashion": 0.9}  # at scale 3 and above; real clothes are read worse
DAMPED = 1.5  # from this scale on guidance costs FID


@dataclass(frozen=True)
class Comparison:
    """A claim that an FID is lower, at several scales or levels of confidence.

    Args:
        key, text: of the claim.
        found: scale or level -> difference, the claim's own side first.
        word: what the levels are of; none: there is one.
    """

    key: str
    text: str
    found: dict[float, Difference]
    word: str = ""

    def claim(self, report: Report) -> None:
        """Claim it: whether it holds everywhere, and where it holds least."""
        won = sum(apart.below for apart in self.found.values())
        at, least = max(self.found.items(), key=lambda each: each[1].value + each[1].error)
        where = f"{won} of {len(self.found)} beyond the error bar, least so at {self.word} {at:g}: "
        found = (where if self.word else "") + least.text
        claim(report, self.key, self.text, won == len(self.found), found)


def claim(report: Report, key: str, text: str, holds: bool, found: str) -> None:
    """Report.claim that says which images it is about."""
    report.claim(key, f"on {DATA_SETS[report.data_set].title}, {text}", holds, found)


def comparisons(measured: Sequence[Measured], data_set: str) -> Iterator[Comparison]:
    """All that both sides reach, of samples before postprocessing."""
    text = f"at equal scale >= {DAMPED}, REG has a lower FID than CFG"
    yield Comparison("equal_scale", text, equal_scale(measured), "scale")
    for method, name in METHODS.items():
        text = f"at equal confidence, REG lowers the FID of {name}"
        found = matched(measured, method, data_set=data_set)
        yield Comparison(key_of(method), text, found, "confidence")
    text = "at equal confidence, CFG + REG has a lower FID than interval CFG without REG"
    other = matched(measured, "vanilla", "interval", data_set=data_set)
    yield Comparison("against_interval", text, other, "confidence")


def key_of(method: str) -> str:
    """Of a method's comparison with itself, without and with REG."""
    return f"equal_confidence_{method.replace('-', '_')}"


def equal_scale(measured: Sequence[Measured]) -> dict[float, Difference]:
    """FID of REG minus that of CFG at each scale >= DAMPED."""
    by_point = {m.point: m for m in measured}
    return {
        p.scale: difference(m.fids, by_point[Point("vanilla", p.scale)].fids)
        for p, m in by_point.items()
        if p.method == "vanilla" and plain(m.row) and p.rectified and p.scale >= DAMPED
    }


def difference_numbers(
    measured: Sequence[Measured], data_set: str = "mnist"
) -> dict[str, dict[str, list[float]]]:
    """key -> scale or level -> [difference, error], for numbers.json."""
    return {
        each.key: {f"{at:g}": [apart.value, apart.error] for at, apart in each.found.items()}
        for each in comparisons(measured, data_set)
        if each.found
    }


def differences_of(numbers: Mapping[str, Any]) -> dict[str, dict[str, Difference]]:
    """The same read back."""
    return {
        key: {level: Difference(*each) for level, each in found.items()}
        for key, found in numbers["differences"].items()
    }


def sure_claims(report: Report, rows: Sequence[Row], steps: int) -> None:
    """What must hold in every run, whatever its size."""
    kinds = {(row["method"], row["estimator"] != "none") for row in rows if plain(row)}
    methods = {row["method"] for row in rows}
    paired = [m for m in methods if {(m, True), (m, False)} <= kinds]
    claim(
        report,
        "pairs",
        "every method was sampled without and with REG",
        len(paired) == len(methods),
        f"{len(paired)} of {len(methods)} methods here",
    )
    guided = [r for r in rows if r["method"] == "vanilla" and plain(r) and r["scale"] > 1]
    wanted = {"none": 2 * steps, CHEAP: 3 * steps}
    claim(
        report,
        "evaluations",
        "CFG takes two evaluations a step, REG three, a calibrated plan no more",
        all(row["nfe"] == wanted[row["estimator"]] for row in guided)
        and all(row["nfe"] <= 3 * steps for row in rows if row["plan"] == "calibrated"),
        ", ".join(sorted({f"{row['nfe']:.3g} ({row['estimator']})" for row in guided})),
    )
    sure = min(row["agreement"] for row in guided if row["scale"] >= 3)
    least = AGREEMENT[report.data_set]
    claim(
        report,
        "agreement",
        f"at scale 3 and above, {100 * least:g} % or more of CFG's and REG's samples are read as "
        "their label",
        sure >= least,
        f"{sure:.1%} at least",
    )


def claims(report: Report, measured: Sequence[Measured], after: Sequence[After]) -> None:
    """What a full run is asked, answered yes or no."""
    asked = list(comparisons(measured, report.data_set))
    without, reg = (front_of(measured, "vanilla", rectified) for rectified in (False, True))
    if without is not None and reg is not None:
        apart = difference(reg.lowest(), without.lowest())
        text = "at its best scale REG has a lower FID than CFG at its best scale"
        asked.append(Comparison("best_scale", text, {0: apart}))
    for each in asked:
        if each.found:
            each.claim(report)
    by_point = {m.point: m for m in measured}
    for point, planned in by_point.items():
        if point.plan != "calibrated":
            continue
        full = by_point[replace(point, plan="full")]
        apart, saved = difference(planned.fids, full.fids), full.row["nfe"] - planned.row["nfe"]
        claim(
            report,
            f"calibrated_{point.scale:g}",
            f"a calibrated plan at scale {point.scale:g} takes fewer evaluations than full REG, "
            "and no higher FID",
            saved > 0 and not apart.above,
            f"{saved:g} fewer of {full.row['nfe']:g}, FID {apart.text}",
        )
    # Postprocessing at the largest scale without REG, for each space of neighbours.
    for method in ("vanilla", "cg-linear"):
        for space, words in SPACES.items():
            own = [a for a in after if (a.before.point.method, a.space) == (method, space)]
            own = [a for a in own if not a.before.point.rectified]
            last = max(own, key=lambda a: a.before.point.scale)
            at, apart = last.before.point.scale, difference(last.after.fids, last.before.fids)
            key = f"postprocessing_{method.replace('-', '_')}_{space}"
            text = f"postprocessing (neighbours in {words}) lowers the FID of {METHODS[method]} at "
            Comparison(key, f"{text}{at:g}", {at: apart}).claim(report)


def tally(found: Mapping[Any, Difference]) -> str:
    """At how many levels the first is lower / not told apart / higher."""
    lower = sum(each.below for each in found.values())
    higher = sum(each.above for each in found.values())
    return f"{lower} / {len(found) - lower - higher} / {higher}"


def summary(numbers: Mapping[str, Any]) -> str:
    """What was found, as a list in Markdown."""
    differences, rows = differences_of(numbers), numbers["points"]
    scales = differences["equal_scale"]
    won = sum(each.below for each in scales.values())
    last = max(scales, key=float)
    fids = {
        reg: row["fid"]
        for reg in (False, True)
        for row in on_front(rows, "vanilla", reg)
        if row["scale"] == float(last)
    }
    own = {name: differences.get(key_of(method)) for method, name in METHODS.items()}
    tallies = "; ".join(f"{name} {tally(found)}" for name, found in own.items() if found)
    lines = [
        f"**Equal scale.** REG's FID is below CFG's beyond the error bar at {won} of {len(scales)} "
        f"scales from {DAMPED} on: at scale {last}, {fids[True]:.3f} against {fids[False]:.3f}.",
        "**Equal confidence.** Levels at which REG's FID is lower / not told apart / higher: "
        f"{tallies}. (Of twenty true zeros the error bars leave out one.)",
        "**CFG + REG against interval CFG without REG**, likewise: "
        f"{tally(differences.get('against_interval', {}))}.",
    ]
    cfg = own["CFG"] or {}
    if won == len(scales) and sum(each.below for each in cfg.values()) < len(cfg) / 2:
        lines.append(
            "So most of what REG does to CFG here at a given scale, a smaller scale does as "
            "well: both follow one front."
        )
    lines += [
        f"A calibrated plan takes {row['nfe']:g} evaluations at scale {row['scale']:g}, "
        f"FID {row['fid']:.3f}."
        for row in numbers["estimators"]
        if row["plan"] == "calibrated"
    ]
    if "postprocessing" in numbers:
        nearest = max(row["nearer"] for row in numbers["postprocessing"]["memorisation"])
        changes = "; ".join(post_changes(numbers, method) for method in ("vanilla", "cg-linear"))
        lines.append(
            f"**Postprocessing** changes the FID of {changes}. Samples are nearer to the training "
            f"images than test images are in {nearest:.1%} of pairs at most (copies: 100 %)."
        )
    held = [claim["holds"] for claim in numbers["claims"].values()]
    lines.append(f"{sum(held)} of {len(held)} claims hold (last table).")
    return "\n".join(f"* {line}" for line in lines)


def post_changes(numbers: Mapping[str, Any], method: str) -> str:
    """What postprocessing does to a method's FID at its largest scale without REG."""
    found = [
        each
        for each in numbers["postprocessing"]["points"]
        if (each["before"]["method"], each["before"]["estimator"]) == (method, "none")
    ]
    scale = max(each["before"]["scale"] for each in found)
    changes = [
        f"{each['after']['fid'] / each['before']['fid'] - 1:+.0%} (neighbours in {each['space']})"
        for each in found
        if each["before"]["scale"] == scale
    ]
    return f"{Point(method, scale).title}, by {', '.join(changes)}"
