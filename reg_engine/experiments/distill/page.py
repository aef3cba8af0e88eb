"""The page of the experiment `distill`, from its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...data.mnist import DATA_SETS
from ...evaluation.fronts import Difference
from ..report import Report, table
from . import mixture, subject
from .claims import settings_of
from .figures import draw_fronts, draw_plane

__all__ = ["write"]

Numbers = Mapping[str, Any]
HERE = Path(__file__).parent
HARDLY = 100.0  # from here on a distance without guidance is too small to divide by


def write(report: Report) -> None:
    """The page, from report.numbers alone."""
    report.page(HERE / "page.md")
    if "mixture" in report.numbers:
        _mixture(report)
    if "images" in report.numbers:
        _images(report)


def _mixture(report: Report) -> None:
    plane = report.numbers["mixture"]
    report.draw("mixture", draw_plane(plane))
    tables = {steps: _distances(plane, k) for k, steps in enumerate(plane["steps"])}
    text = "\n\n".join(f"### {steps} Heun steps\n\n{each}" for steps, each in tables.items())
    report.page(HERE / "mixture.md", tables=text, shortfall=_levels(plane["shortfall"]))


def _images(report: Report) -> None:
    found = report.numbers["images"]
    parts = {"title": DATA_SETS[report.data_set].title, "percent": f"{found['share']:.1%}"}
    parts |= {"teacher": subject.METHODS[found["teacher"]]}
    parts |= {"times": _times(found), "setting": _setting(settings_of(found)[0])}
    report.page(HERE / "images.md", **parts)
    if found["real_images"]:
        report.draw("fronts", draw_fronts(found))
        tables = {name: _against(found, name) for name in ("against", "against_cfg")}
        report.page(HERE / "fronts.md", **tables)
    report.page(HERE / "points.md", points=_points(found), classes=_classes(report))


def _setting(setting: tuple[str, int]) -> str:
    return f"{setting[0]}, {setting[1]} steps"


def _distances(plane: Numbers, line: int) -> str:
    columns = ["method", "F", *(f"w = {w:g}" for w in plane["weights"])]
    rows: list[list[object]] = [
        ["floor", "", *(f"{1e3 * float(v):.2g}" for v in plane["floor"])],
    ]
    for name, found in plane["methods"].items():
        pairs = zip(found["distance"][line], found["deviation"][line], strict=True)
        values = (f"{1e3 * float(v):.3g} ± {1e3 * float(s):.1g}" for v, s in pairs)
        rows.append([mixture.METHODS[name], f"{float(found['cost'][line]):.0f}", *values])
    return table(columns, rows)


def _levels(shortfall: Numbers) -> str:
    """Estimates by noise level, samples, of every student and scale."""
    first = next(iter(shortfall.values()))[0]
    # Heun asks twice at most levels: along the teacher's own way, and where a corrector looks.
    places = {round(level, 4): k for k, level in enumerate(first["levels"])}
    columns = ["student of", "scale", "samples", *(f"{level:.3g}" for level in places)]
    rows = [
        [
            mixture.METHODS[name].removeprefix("student of "),
            f"{each['scale']:g}",
            f"{each['samples']:.2f}",
            *(_part(each["estimates"][k]) for k in places.values()),
        ]
        for name, found in shortfall.items()
        for each in found
    ]
    return table(columns, rows)


def _part(value: float) -> str:
    """Where guidance does next to nothing, its parts say nothing."""
    return f"{value:.2f}" if value < HARDLY else "–"


def _against(found: Numbers, name: str) -> str:
    """The student against its teacher's front, or CFG's."""
    other, rows = ("CFG" if name == "against_cfg" else "teacher"), []
    for row in found[name]:
        apart = Difference(*row["difference"]) if row["difference"] else None
        words = (
            f"surer than {'' if other == 'CFG' else 'the '}{other} gets"
            if apart is None
            else apart.text
        )
        told = apart is not None and (apart.above or apart.below)
        rows.append(
            [
                _setting((row["solver"], row["steps"])),
                f"{row['scale']:g}",
                f"{row['confidence']:.2f}",
                f"{row['fid']:.3f}",
                "–" if row["front"] is None else f"{row['front']:.3f}",
                f"**{words}**" if told else words,
            ]
        )
    columns = ["solver", "scale", "confidence", "student's FID", f"{other}'s FID there"]
    return table([*columns, "difference"], rows)


def _times(found: Numbers) -> str:
    named = subject.titles(found["teacher"])
    rows = [
        [named[name], f"{1e3 * own['seconds']:.1f}", f"{own['part']:.2f}"]
        for name, own in found["times"].items()
    ]
    return table(["method", "ms a sample", "of CFG's"], rows)


def _points(found: Numbers) -> str:
    rows, named = [], subject.titles(found["teacher"])
    for row in found["points"]:
        cells: list[object] = [named[row["method"]], f"{row['scale']:g}"]
        cells += [_setting((row["solver"], row["steps"])), f"{row['nfe'] + row['backward']:g}"]
        if "fid" in row:
            cells += [f"{row['fid']:.3f} ± {row['fid_error']:.3f}"]
        cells += [f"{row['confidence']:.2f} ± {row['confidence_error']:.2f}"]
        rows.append([*cells, f"{row['agreement']:.1%}"])
    fid = ["FID"] if found["real_images"] else []
    columns = ["method", "scale", "solver", "F", *fid, "confidence", "agreement"]
    return table(columns, rows)


def _classes(report: Report) -> str:
    names = DATA_SETS[report.data_set].classes
    rows = [
        [f"{row['scale']:g}", f"{float(row['all']):.2f}", *(f"{float(v):.2f}" for v in classes)]
        for row in report.numbers["images"]["by_class"]
        for classes in [row["classes"]]
    ]
    return table(["scale", "all", *names], rows)
