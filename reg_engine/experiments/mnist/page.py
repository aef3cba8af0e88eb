"""The page of the `mnist` experiment, from its numbers; claims.py says what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from ...data.mnist import DATA_SETS
from ...evaluation.fronts import Difference
from ..draws import CLASSIFIER_METHODS, INTERVAL, METHODS, Point
from ..image_runs import draw_samples, wrapped
from ..report import Report, shown
from . import text
from .claims import differences_of, key_of, post_changes, summary
from .figures import draw_estimators, draw_fronts, draw_post, draw_scales
from .fronts import Row, levels, on_front, plain
from .post import NEIGHBOURS, SOLVER, SOLVER_STEPS, SPACES
from .sampling import CALIBRATION, CHEAP, TOLERANCE


def write(report: Report, sets: Mapping[str, Tensor]) -> None:
    """The page of report.numbers.

    Args:
        sets: name -> samples of the picture; empty without data.
    """
    numbers = report.numbers
    real = numbers["real_images"]
    images = DATA_SETS[report.data_set]
    question = text.QUESTION.format(count=numbers["samples_a_point"], title=images.title)
    found = summary(numbers) if real and not report.quick else text.QUICK
    report.section("In short", wrapped(f"{question}\n\n{found}"))
    _setting(report)
    if not real:
        said = text.WITHOUT_DATA.format(title=images.title, file=images.file)
        report.section("No real images", wrapped(said))
        keys = ("estimator", "plan", "agreement", "confidence", "nfe")
        rows = [[_title(row), *(row[key] for key in keys)] for row in numbers["points"]]
        report.table(["point", *keys[:-1], "evaluations"], rows)
        return
    _fronts(report)
    _scales(report)
    if numbers["estimators"]:
        _estimators(report)
    _postprocessing(report, sets)
    verdict = post_changes(numbers, "vanilla")
    report.section("Against the papers", wrapped(text.PAPERS.format(k=NEIGHBOURS, verdict=verdict)))


def _title(row: Row) -> str:
    return Point(row["method"], row["scale"], row["estimator"]).title


def _setting(report: Report) -> None:
    numbers = report.numbers
    title = DATA_SETS[report.data_set].title
    said = text.SETTING.format(
        title=title,
        count=numbers["samples_a_point"],
        size="" if report.quick else " (10,000 on a GPU, over a denser grid)",
        solver=numbers["solver"],
        steps=len(numbers["times"]) - 1,
        times=", ".join(f"{t:g}" for t in numbers["times"]),
        estimator=CHEAP,
        minutes=numbers["sampling_seconds"] / 60,
    )
    real = (
        f"the images of {title}'s test set" if numbers["real_images"] else "real images (none here)"
    )
    report.section("Setting", wrapped(said) + "\n\n" + wrapped(text.MEASURES.format(real=real)))
    steps = {name.replace("-", "_"): f"{count:,}" for name, count in numbers["trained"].items()}
    right = {name.replace("-", "_"): r for name, r in numbers["guides_read_right"].items()}
    rows = text.METHODS if numbers["real_images"] else text.METHODS[:4]  # the others are trained
    words = {"interval": INTERVAL, "steps": steps, "right": right}
    cells = [[name, " ".join(each.split()).format(**words)] for name, each in rows]
    report.table(["method", "what it is"], cells)


def _fronts(report: Report) -> None:
    """The main figure and its tables."""
    numbers = report.numbers
    report.section("FID at equal confidence")
    report.figure("fronts", draw_fronts(numbers), wrapped(text.CONFIDENCE))
    rows = []
    for method, found in numbers["fronts"].items():
        best = [
            min(on_front(numbers["points"], method, reg), key=lambda row: float(row["fid"]))
            for reg in (False, True)
        ]
        sign = "w" if method in CLASSIFIER_METHODS else "scale"
        cells = [
            f"{_fid(row)} ({sign} {row['scale']:g}, confidence {row['confidence']:.2f})"
            for row in best
        ]
        rows.append([METHODS[method], *cells, Difference(*found["lowest"]).text])
    columns = ["method", "lowest FID without REG", "with REG", "difference"]
    report.table(columns, rows, "The lowest FID over scales, and the confidence there.")
    guided = [method for method in METHODS if method not in CLASSIFIER_METHODS]
    for methods in (guided, CLASSIFIER_METHODS):
        columns = [f"{level:g}" for level in levels(methods[0], report.data_set)]
        report.table(["FID at a confidence of", *columns], level_rows(numbers, methods))
    said = """Lowest FID on each front at that confidence or more, ln(FID) a straight line between
        scales; in brackets REG minus not, with its 95 % error bar. A dash: not reached."""
    report.text(wrapped(said))


def level_rows(numbers: Mapping[str, Any], methods: Iterable[str]) -> list[list[object]]:
    """Two table rows a method, without and with REG; a column for each level of its kind."""
    rows: list[list[object]] = []
    for method in (method for method in methods if method in numbers["fronts"]):
        apart = differences_of(numbers).get(key_of(method), {})
        table = numbers["fronts"][method]["levels"]
        cells = [["–" if fid is None else f"{fid:.3f}" for fid in pair] for pair in table.values()]
        brackets = [f" ({apart[level].text})" if level in apart else "" for level in table]
        rows.append([METHODS[method], *(without for without, _ in cells)])
        reg = [cell[1] + extra for cell, extra in zip(cells, brackets, strict=True)]
        rows.append([f"{METHODS[method]} + REG", *reg])
    return rows


def _fid(row: Row) -> str:
    return f"{row['fid']:.3f} ± {row['fid_error']:.3f}"


def _scales(report: Report) -> None:
    """The scales figure, CFG's points at equal scale, and the ends of every method's scales."""
    points = report.numbers["points"]
    report.section("Over the scale")
    report.figure("scales", draw_scales(report.numbers), wrapped(text.SCALES))
    equal = differences_of(report.numbers).get("equal_scale", {})
    fids = {
        (row["scale"], row["estimator"]): _fid(row)
        for row in points
        if row["method"] == "vanilla" and plain(row)
    }
    rows: list[list[object]] = [
        [scale, fids[float(scale), "none"], fids[float(scale), CHEAP], each.text]
        for scale, each in equal.items()
    ]
    if rows:
        report.table(["scale", "FID of CFG", "of CFG + REG", "difference"], rows)
    rows = []
    for method in METHODS:
        for reg in (False, True):
            own = [row for row in points if row["method"] == method and plain(row)]
            own = [row for row in own if (row["estimator"] != "none") is reg]
            if not own:
                continue
            ends = [min(own, key=lambda row: row["fid"]), max(own, key=lambda row: row["scale"])]
            rows += [_cells(row) for row in ends[: 1 if ends[0] is ends[1] else 2]]
    columns = ["point", "FID", "agreement", "confidence", "precision", "recall"]
    report.table(
        [*columns, "evaluations + backward passes"],
        rows,
        f"Each method's lowest FID and its largest scale; numbers.json has all {len(points)} "
        "points.",
    )


def _cells(row: Row) -> list[object]:
    low, high = row["agreement_interval"]
    back = f" + {row['backward']:.3g}" if row["backward"] else ""
    return [
        _title(row),
        _fid(row),
        f"{row['agreement']:.1%} ({100 * low:.1f}-{100 * high:.1f})",
        f"{row['confidence']:.2f} ± {row['confidence_error']:.2f}",
        row["precision"],
        row["recall"],
        f"{row['nfe']:.3g}{back}",
    ]


def _estimators(report: Report) -> None:
    """Every estimator and the calibrated plan at one scale of CFG."""
    found = report.numbers["estimators"]
    said = f"""The calibrated plan is `Plan.calibrate`'s with tolerance {TOLERANCE}, found on
        {CALIBRATION} samples with seeds of their own."""
    report.section(f"Every estimator, scale {found[0]['scale']:g}", wrapped(said))
    report.figure("estimators", draw_estimators(found), wrapped(text.ESTIMATORS))
    rows = []
    for row in found:
        plan = row["plan"] + (f", {row['solver'][0]} {row['solver'][1]}" if row["solver"] else "")
        cfg, apart = row.get("cfg"), row.get("difference")
        cells = [
            f"{cfg:.3f}" if cfg is not None else "–",
            Difference(*apart).text if apart else "–",
        ]
        rows.append([row["estimator"], plan, _fid(row), f"{row['confidence']:.2f}", *cells])
    columns = ["estimator", "plan", "FID", "confidence", "CFG's FID at that confidence"]
    said = """An estimator that damps more has a lower FID at equal scale, and less confidence: the
        last two columns compare it with CFG at a smaller scale."""
    report.table([*columns, "difference"], rows, wrapped(said))


def _postprocessing(report: Report, sets: Mapping[str, Tensor]) -> None:
    """Before and after the flow: fidelity, memorisation, pictures."""
    numbers = report.numbers["postprocessing"]
    settings = numbers["settings"]
    said = text.POST.format(
        k=NEIGHBOURS,
        count=report.numbers["samples_a_point"],
        pool="; ".join(Point(*each).title for each in numbers["pool"]),
        solver=SOLVER,
        solver_steps=SOLVER_STEPS,
        **{**settings, "channels": tuple(settings["channels"])},
    )
    report.section("Postprocessing", wrapped(said))
    caption = "Before and after the flow. Open: samples made without REG; filled: with REG."
    report.figure("postprocessing", draw_post(numbers["points"]), caption)
    last: dict[str, float] = {}
    for row in (each["before"] for each in numbers["points"]):
        last[row["method"]] = max(row["scale"], last.get(row["method"], 0))
    rows = []
    for each in numbers["points"]:
        row, moved = each["before"], each["after"]
        if row["scale"] == last[row["method"]]:
            cells = [f"{row[key]:.3f} → {moved[key]:.3f}" for key in ("precision", "recall")]
            agreement = f"{row['agreement']:.1%} → {moved['agreement']:.1%}"
            fid = f"{row['fid']:.3f} → {_fid(moved)}"
            rows.append([_title(row), SPACES[each["space"]], fid, agreement, *cells])
    columns = ["samples", "neighbours in", "FID", "agreement", "precision", "recall"]
    report.table(columns, rows, "Largest scales; numbers.json has all points.")
    caption = "The same twenty seeds in every row: the flow moves a sample and draws no other one."
    if sets:
        report.figure(
            "samples", draw_samples(sets, names=DATA_SETS[report.data_set].classes), caption
        )
    memory, keys = numbers["memorisation"], ("set", "nearer", "below_typical", "samples_median")
    said = f"""Memorisation: distances in pixels to the nearest training image, against those of
        test images (median {shown(memory[0]["heldout_median"])}). First column: how often a sample
        is nearer than a test image, 0.5 for real data, towards 1 for copies."""
    columns = ["samples", "nearer than test images", "nearer than their median", "median distance"]
    report.table(columns, [[row[key] for key in keys] for row in memory], wrapped(said))
