"""What the `mnist` experiment found, said with the figures behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..report import Report
from .fronts import Difference, Front, difference, front_of
from .grid import CHEAP, CLASSIFIER_METHODS, METHODS, Point
from .measures import Measured
from .post import SPACES, After

__all__ = [
    "claims",
    "equal_scale",
    "levels",
    "summary",
    "tally",
    "matched",
    "matched_rows",
    "sure_claims",
]

# Of confidence; test images have about 8.3, which classifier guidance hardly reaches.
LEVELS = (8.3, 8.6, 8.9, 9.2, 9.4)
DAMPED = 1.5  # from this scale on guidance costs FID
CLASSIFIER_LEVELS = (6.0, 6.5, 7.0, 7.5)


def equal_scale(measured: Sequence[Measured]) -> dict[float, Difference]:
    """FID of REG minus that of CFG at each scale >= DAMPED."""
    by_point = {m.point: m for m in measured}
    return {
        p.scale: difference(m.fids, by_point[Point("vanilla", p.scale)].fids)
        for p, m in by_point.items()
        if p.method == "vanilla" and p.plain and p.rectified and p.scale >= DAMPED
    }


def summary(measured: Sequence[Measured]) -> str:
    """What the fronts say, in a few lines of Markdown."""
    scales = equal_scale(measured)
    won = sum(each.below for each in scales.values())
    lines = [
        f"* **Equal scale.** REG's FID is below CFG's beyond the error bar at {won} of "
        f"{len(scales)} scales from {DAMPED} on.",
    ]
    tallies = []
    for method, name in METHODS.items():
        found = matched(measured, method)
        if found:
            tallies.append(f"{name} {tally(found)}")
    lines.append(
        "* **Equal confidence.** Levels at which REG's FID is lower / not told apart / higher: "
        f"{'; '.join(tallies) or 'none is reached by both fronts'}. (Of twenty true zeros the "
        "error bars leave out one.)"
    )
    other = matched(measured, "vanilla", "interval")
    lines.append(f"* **CFG + REG against interval CFG without REG**, likewise: {tally(other)}.")
    plain = matched(measured, "vanilla")
    few = sum(each.below for each in plain.values()) < len(plain) / 2
    if plain and won == len(scales) and few:
        lines.append(
            "* So most of what REG does to CFG here at a given scale, a smaller scale does as "
            "well: both follow one front."
        )
    lines.append(
        "* REG's factor K goes to 0 at high noise: there it takes guidance back. It can repair "
        "most where a method guides wrongly at high noise: a linear weight that is largest "
        "there, a classifier that reads noise badly. The table of fronts says whether it does."
    )
    return "\n".join(lines)


def tally(found: dict[float, Difference]) -> str:
    """Lower / not told apart / higher."""
    lower = sum(each.below for each in found.values())
    higher = sum(each.above for each in found.values())
    return f"{lower} / {len(found) - lower - higher} / {higher}"


def levels(method: str) -> tuple[float, ...]:
    """The levels of confidence at which a method's fronts are compared."""
    return CLASSIFIER_LEVELS if method in CLASSIFIER_METHODS else LEVELS


def matched(
    measured: Sequence[Measured],
    method: str,
    other: str = "",
    rectified: tuple[bool, bool] = (True, False),
) -> dict[float, Difference]:
    """FID of one front minus another's at every level of confidence that both reach.

    Args:
        method: of the first front; `other` of the second, the same if empty.
        rectified: whether each is with REG.
    """
    one = front_of(measured, method, rectified[0])
    two = front_of(measured, other or method, rectified[1])
    found = {}
    for level in levels(method) if one is not None and two is not None else ():
        ours, theirs = one.fid_at(level), two.fid_at(level)  # type: ignore[union-attr]
        if ours is not None and theirs is not None:
            found[level] = difference(ours, theirs)
    return found


def matched_rows(measured: Sequence[Measured], methods: Sequence[str]) -> list[list[object]]:
    """Two table rows a method, without and with REG; a column for each level of its kind.

    Args:
        measured: all points.
        methods: keys of METHODS that share their levels.
    """
    rows: list[list[object]] = []
    for method in methods:
        name = METHODS[method]
        apart = matched(measured, method)
        for rectified in (False, True):
            front = front_of(measured, method, rectified)
            if front is None:
                continue
            cells = [
                _cell(front, level, apart.get(level) if rectified else None)
                for level in levels(method)
            ]
            rows.append([name + (" + REG" if rectified else ""), *cells])
    return rows


def _cell(front: Front, level: float, apart: Difference | None) -> str:
    found = front.fid_at(level)
    if found is None:
        return "–"
    return f"{float(found[0]):.3f}" + (f" ({apart.text})" if apart else "")


def sure_claims(report: Report, measured: Sequence[Measured], steps: int) -> None:
    """What must hold in every run, whatever its size."""
    by_point = {m.point: m.row for m in measured}
    methods = {m.point.method for m in measured}
    paired = [
        method
        for method in METHODS
        if {True, False} <= {p.rectified for p in by_point if p.method == method and p.plain}
    ]
    report.claim(
        "pairs",
        "every method was sampled without and with REG",
        set(paired) == methods,
        f"{len(paired)} of {len(methods)} methods here",
    )
    wanted = {"none": 2 * steps, CHEAP: 3 * steps}
    plain = {
        p: row for p, row in by_point.items() if p.method == "vanilla" and p.plain and p.scale > 1
    }
    report.claim(
        "evaluations",
        "CFG takes two evaluations a step, REG three, a calibrated plan no more",
        all(row["nfe"] == wanted[p.estimator] for p, row in plain.items())
        and all(row["nfe"] <= 3 * steps for p, row in by_point.items() if p.plan == "calibrated"),
        ", ".join(sorted({f"{row['nfe']:.3g} ({p.estimator})" for p, row in plain.items()})),
    )
    sure = [row["agreement"] for p, row in plain.items() if p.scale >= 3]
    report.claim(
        "agreement",
        "at scale 3 and above, 97 % or more of CFG's and REG's samples are read as their label",
        min(sure) >= 0.97,
        f"{min(sure):.1%} at least",
    )


def claims(report: Report, measured: Sequence[Measured], after: Sequence[After]) -> None:
    """What a full run is asked, answered yes or no."""
    by_point = {m.point: m for m in measured}
    text = f"at equal scale >= {DAMPED}, REG has a lower FID than CFG"
    _claim_differences(report, "equal_scale", text, equal_scale(measured), "scale")
    for method, name in METHODS.items():
        found = matched(measured, method)
        _claim_differences(
            report,
            f"equal_confidence_{method.replace('-', '_')}",
            f"at equal confidence, REG lowers the FID of {name}",
            found,
            "at",
        )
    _claim_differences(
        report,
        "against_interval",
        "at equal confidence, CFG + REG has a lower FID than interval CFG without REG",
        matched(measured, "vanilla", "interval"),
        "at",
    )
    fronts = [front_of(measured, "vanilla", rectified) for rectified in (False, True)]
    if fronts[0] is not None and fronts[1] is not None:
        apart = difference(fronts[1].lowest(), fronts[0].lowest())
        report.claim(
            "best_scale",
            "at its best scale REG has a lower FID than CFG at its best scale",
            apart.below,
            apart.text,
        )
    _claim_plans(report, by_point)
    _claim_post(report, after)


def _claim_differences(
    report: Report, key: str, text: str, found: dict[float, Difference], word: str
) -> None:
    """Holds where every difference lies below 0 beyond its error bar."""
    if not found:
        return
    won = sum(each.below for each in found.values())
    listed = "; ".join(f"{word} {level:g}: {each.text}" for level, each in sorted(found.items()))
    report.claim(
        key, text, won == len(found), f"{won} of {len(found)} beyond the error bar: {listed}"
    )
    report.numbers.setdefault("differences", {})[key] = {
        f"{level:g}": [each.value, each.error] for level, each in found.items()
    }


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
        plain = [
            a for a in after if a.before.point.method == method and not a.before.point.rectified
        ]
        for space in SPACES:
            own = [a for a in plain if a.space == space]
            if not own:
                continue
            last = max(own, key=lambda a: a.before.point.scale)
            apart = difference(last.after.fids, last.before.fids)
            report.claim(
                f"postprocessing_{method.replace('-', '_')}_{space}",
                f"postprocessing (neighbours in {SPACES[space]}) lowers the FID of "
                f"{METHODS[method]} at {last.before.point.scale:g}",
                apart.below,
                apart.text,
            )
