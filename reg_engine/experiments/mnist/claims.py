"""What the `mnist` experiment found, said with the figures behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..draws import METHODS, Point
from ..image_runs import Difference, Measured, difference
from ..report import Report
from .fronts import front_of, matched, on_front, plain
from .post import SPACES, After
from .sampling import CHEAP

DAMPED = 1.5  # from this scale on guidance costs FID


def equal_scale(measured: Sequence[Measured]) -> dict[float, Difference]:
    """FID of REG minus that of CFG at each scale >= DAMPED."""
    by_point = {m.point: m for m in measured}
    return {
        p.scale: difference(m.fids, by_point[Point("vanilla", p.scale)].fids)
        for p, m in by_point.items()
        if p.method == "vanilla" and plain(m.row) and p.rectified and p.scale >= DAMPED
    }


def tally(found: Mapping[Any, Difference]) -> str:
    """At how many levels the first is lower / not told apart / higher."""
    lower = sum(each.below for each in found.values())
    higher = sum(each.above for each in found.values())
    return f"{lower} / {len(found) - lower - higher} / {higher}"


@dataclass(frozen=True)
class Comparison:
    """A claim that an FID is lower, at several scales or levels of confidence.

    Args:
        text: the claim.
        word: what its levels are of.
        found: scale or level -> difference, the claim's own side first.
    """

    text: str
    word: str
    found: dict[float, Difference]

    @property
    def numbers(self) -> dict[str, list[float]]:
        """For numbers.json."""
        return {f"{level:g}": [each.value, each.error] for level, each in self.found.items()}

    def claim(self, report: Report, key: str) -> None:
        """Claim it: whether it holds everywhere, and where it holds least."""
        won = sum(apart.below for apart in self.found.values())
        at, least = max(self.found.items(), key=lambda each: each[1].value + each[1].error)
        found = f"{won} of {len(self.found)} beyond the error bar, least so at {self.word} {at:g}: "
        report.claim(key, self.text, won == len(self.found), found + least.text)


def comparisons(measured: Sequence[Measured]) -> dict[str, Comparison]:
    """All that both sides reach, by the key of their claim."""
    text = f"at equal scale >= {DAMPED}, REG has a lower FID than CFG"
    found = {"equal_scale": Comparison(text, "scale", equal_scale(measured))}
    for method, name in METHODS.items():
        text = f"at equal confidence, REG lowers the FID of {name}"
        found[key_of(method)] = Comparison(text, "confidence", matched(measured, method))
    text = "at equal confidence, CFG + REG has a lower FID than interval CFG without REG"
    other = matched(measured, "vanilla", "interval")
    found["against_interval"] = Comparison(text, "confidence", other)
    return {key: each for key, each in found.items() if each.found}


def sure_claims(report: Report, measured: Sequence[Measured], steps: int) -> None:
    """What must hold in every run, whatever its size."""
    by_point = {m.point: m.row for m in measured}
    kinds = {(p.method, p.rectified) for p, row in by_point.items() if plain(row)}
    paired = [m for m in METHODS if {(m, True), (m, False)} <= kinds]
    methods = {p.method for p in by_point}
    report.claim(
        "pairs",
        "every method was sampled without and with REG",
        set(paired) == methods,
        f"{len(paired)} of {len(methods)} methods here",
    )
    wanted = {"none": 2 * steps, CHEAP: 3 * steps}
    guided = {
        p: row
        for p, row in by_point.items()
        if p.method == "vanilla" and plain(row) and p.scale > 1
    }
    report.claim(
        "evaluations",
        "CFG takes two evaluations a step, REG three, a calibrated plan no more",
        all(row["nfe"] == wanted[p.estimator] for p, row in guided.items())
        and all(row["nfe"] <= 3 * steps for p, row in by_point.items() if p.plan == "calibrated"),
        ", ".join(sorted({f"{row['nfe']:.3g} ({p.estimator})" for p, row in guided.items()})),
    )
    sure = min(row["agreement"] for p, row in guided.items() if p.scale >= 3)
    report.claim(
        "agreement",
        "at scale 3 and above, 97 % or more of CFG's and REG's samples are read as their label",
        sure >= 0.97,
        f"{sure:.1%} at least",
    )


def claims(report: Report, measured: Sequence[Measured], after: Sequence[After]) -> None:
    """What a full run is asked, answered yes or no."""
    for key, each in comparisons(measured).items():
        each.claim(report, key)
    without, reg = (front_of(measured, "vanilla", rectified) for rectified in (False, True))
    if without is not None and reg is not None:
        apart = difference(reg.lowest(), without.lowest())
        text = "at its best scale REG has a lower FID than CFG at its best scale"
        report.claim("best_scale", text, apart.below, apart.text)
    _claim_plans(report, {m.point: m for m in measured})
    _claim_post(report, after)


def _claim_plans(report: Report, by_point: dict[Point, Measured]) -> None:
    """Calibrated plans: what they save, and whether FID notices."""
    for point, planned in by_point.items():
        if point.plan != "calibrated":
            continue
        full = by_point[replace(point, plan="full")]
        apart, saved = difference(planned.fids, full.fids), full.row["nfe"] - planned.row["nfe"]
        report.claim(
            f"calibrated_{point.scale:g}",
            f"a calibrated plan at scale {point.scale:g} takes fewer evaluations than full REG, "
            "and no higher FID",
            saved > 0 and not apart.above,
            f"{saved:g} fewer of {full.row['nfe']:g}, FID {apart.text}",
        )


def _claim_post(report: Report, after: Sequence[After]) -> None:
    """Postprocessing at the largest scale of CFG and of CG, for each space of neighbours."""
    for method in ("vanilla", "cg-linear"):
        for space, words in SPACES.items():
            own = [a for a in after if (a.before.point.method, a.space) == (method, space)]
            own = [a for a in own if not a.before.point.rectified]
            if not own:
                continue
            last = max(own, key=lambda a: a.before.point.scale)
            apart = difference(last.after.fids, last.before.fids)
            report.claim(
                f"postprocessing_{method.replace('-', '_')}_{space}",
                f"postprocessing (neighbours in {words}) lowers the FID of {METHODS[method]} at "
                f"{last.before.point.scale:g}",
                apart.below,
                apart.text,
            )


def summary(numbers: Mapping[str, Any]) -> str:
    """What was found, as a list in Markdown."""
    differences, rows = differences_of(numbers), numbers["points"]
    scales = differences["equal_scale"]
    won = sum(each.below for each in scales.values())
    largest = max(scales, key=float)
    fids = [
        next(row["fid"] for row in on_front(rows, "vanilla", reg) if row["scale"] == float(largest))
        for reg in (False, True)
    ]
    tallies = [
        f"{METHODS[method]} {tally(differences[key_of(method)])}"
        for method in numbers["fronts"]
        if key_of(method) in differences
    ]
    lines = [
        f"**Equal scale.** REG's FID is below CFG's beyond the error bar at {won} of {len(scales)} "
        f"scales from {DAMPED} on: at scale {largest}, {fids[1]:.3f} against {fids[0]:.3f}.",
        "**Equal confidence.** Levels at which REG's FID is lower / not told apart / higher: "
        f"{'; '.join(tallies) or 'none is reached by both fronts'}. (Of twenty true zeros the "
        "error bars leave out one.)",
    ]
    if "against_interval" in differences:
        said = tally(differences["against_interval"])
        lines.append(f"**CFG + REG against interval CFG without REG**, likewise: {said}.")
    matched = differences.get(key_of("vanilla"), {})
    few = sum(each.below for each in matched.values()) < len(matched) / 2
    if matched and won == len(scales) and few:
        lines.append(
            "So most of what REG does to CFG here at a given scale, a smaller scale does as "
            "well: both follow one front."
        )
    for row in numbers["estimators"]:
        if row["plan"] == "calibrated":
            lines.append(
                f"A calibrated plan takes {row['nfe']:g} evaluations at scale {row['scale']:g}, "
                f"FID {row['fid']:.3f}."
            )
    if "postprocessing" in numbers:
        nearest = max(row["nearer"] for row in numbers["postprocessing"]["memorisation"])
        changes = "; ".join(post_changes(numbers, method) for method in ("vanilla", "cg-linear"))
        lines.append(
            f"**Postprocessing** changes the FID of {changes}. Samples are nearer to the training "
            f"images than test images are in {nearest:.1%} of pairs at most (copies: 100 %)."
        )
    claims = numbers.get("claims", {}).values()
    lines.append(f"{sum(c['holds'] for c in claims)} of {len(claims)} claims hold (last table).")
    return "\n".join(f"* {line}" for line in lines)


def key_of(method: str) -> str:
    """Of a method's comparison with itself, without and with REG."""
    return f"equal_confidence_{method.replace('-', '_')}"


def differences_of(numbers: Mapping[str, Any]) -> dict[str, dict[str, Difference]]:
    """key of a comparison -> scale or level -> difference, of numbers.json."""
    return {
        key: {level: Difference(*each) for level, each in found.items()}
        for key, found in numbers["differences"].items()
    }


def post_changes(numbers: Mapping[str, Any], method: str) -> str:
    """What postprocessing does to a method's FID at its largest scale without REG."""
    found = [
        each
        for each in numbers["postprocessing"]["points"]
        if each["before"]["method"] == method and each["before"]["estimator"] == "none"
    ]
    scale = max(each["before"]["scale"] for each in found)
    changes = ", ".join(
        f"{each['after']['fid'] / each['before']['fid'] - 1:+.0%} (neighbours in "
        f"{SPACES[each['space']]})"
        for each in found
        if each["before"]["scale"] == scale
    )
    return f"{METHODS[method]} at {scale:g} by {changes}"
