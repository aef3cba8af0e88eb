"""The page of the trajectories experiment from its numbers: tables and claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..report import Report, table
from .measures import SOURCES
from .nets import MEAN, STD

PANELS = (1.0, 2.0, 4.0, 8.0)  # scales of the trajectory figures and of the tables
SCALES = [f"scale {scale:g}" for scale in PANELS]
NETS = {"exact": "exact", "mlp": "MLP", "linear": "linear"}
SOURCE_NAMES = {**{key: f"CG, {name} classifier" for key, name in NETS.items()}, "cfg": "CFG"}
BOTH = "CFG = CG, exact classifier"  # with an exact denoiser they are one

Rows = Sequence[Mapping[str, Any]]


def find(rows: Rows, **wanted: object) -> Mapping[str, Any]:
    """The first row whose entries are the wanted ones."""
    return next(row for row in rows if all(row[key] == value for key, value in wanted.items()))


def over_scales(rows: Rows, measure: str, scales: Sequence[float], **wanted: object) -> list[float]:
    """A measure of the rows with the wanted entries, by scale."""
    return [find(rows, scale=scale, **wanted)[measure] for scale in scales]


def short(value: float) -> str:
    """Two digits; what is zero to rounding is 0."""
    if abs(value) < 1e-12:
        return "0"
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.2g}" if abs(value) < 1 else f"{value:.2f}"


def hundredths(value: float) -> str:
    """Two places after the point, for what is measured in units of x_t."""
    return f"{value:.2f}".replace("-0.00", "0.00")


def write(report: Report) -> None:
    """The page, from report.numbers alone."""
    numbers = report.numbers
    training = numbers["setting"]["training"]
    report.page(
        Path(__file__).with_name("page.md"),
        summary=_summary(numbers["rows"]),
        found={key: claim["found"] for key, claim in numbers["claims"].items()},
        mean=f"{MEAN:g}",
        std=f"{STD:g}",
        training=f"{training:,} steps (classifiers {training // 2:,})",
        sides_table=_sides_table(numbers["eq6"]),
        displacement_table=_table(numbers["rows"], "displacement"),
        energy_table=_table(numbers["rows"], "energy"),
        errors_table=_errors_table(numbers["errors"]),
        budget_table=_budget_table(numbers["budget"]),
        k_table=_k_table(numbers["k_of"]),
        misled_table=_misled_table(numbers["misled"]),
    )


def _summary(rows: Rows) -> str:
    """Exact parts: displacement and energy distance, without guidance and with each."""
    runs: dict[str, dict[str, Any]] = {
        "no guidance": {"source": "unguided"},
        "CFG (and CG)": {"denoiser": "exact", "source": "exact", "rectified": False},
        "with REG": {"denoiser": "exact", "source": "exact", "rectified": True},
        "golden guidance": {"source": "golden"},
    }
    cells = [
        [
            title,
            *map(hundredths, over_scales(rows, "displacement", PANELS[1:], **wanted)),
            *map(short, over_scales(rows, "energy", PANELS[1:], **wanted)),
        ]
        for title, wanted in runs.items()
    ]
    heads = [f"{what}, {at}" for what in ("displacement", "distance") for at in SCALES[1:]]
    return table(["all parts exact", *heads], cells)


def _sides_table(eq6: Mapping[str, float]) -> str:
    rows = [
        [f"{name} denoiser", *(short(eq6[f"{key}_{source}"]) for source in SOURCES[:3])]
        for name, key in (("exact", "exact"), ("trained", "learned"))
    ]
    return table(
        ["distance to the conditional model (rms)", "exact", "MLP", "linear classifier"], rows
    )


def _table(rows: Rows, measure: str) -> str:
    """A row for each denoiser and source; cells `without / with REG` over PANELS."""
    show = short if measure == "energy" else hundredths
    found = []
    for denoiser, name in (("exact", "exact"), ("learned", "trained")):
        for source in SOURCES:
            if (denoiser, source) == ("exact", "cfg"):
                continue  # equal to CG with the exact classifier
            label = BOTH if denoiser == source == "exact" else SOURCE_NAMES[source]
            run = {"denoiser": denoiser, "source": source}
            both = (over_scales(rows, measure, PANELS, **run, rectified=r) for r in (False, True))
            cells = [f"{show(one)} / {show(reg)}" for one, reg in zip(*both, strict=True)]
            found.append([f"{label}; {name} denoiser", *cells])
    for source in ("unguided", "golden") if measure == "energy" else ("golden",):
        found.append([source, *map(show, over_scales(rows, measure, PANELS, source=source))])
    title = "energy distance to the target" if measure == "energy" else measure
    return table([title, *SCALES], found)


def _errors_table(errors: Mapping[str, Any]) -> str:
    rows = [
        [NETS[kind], short(e["slope_rms"]), short(e["guidance"]), f"{e['agreement']:.1%}"]
        for kind, e in errors.items()
    ]
    columns = ["rms slope error at the boundary", "relative error of Eq. 9's term"]
    return table(["classifier", *columns, "agreement with the exact class"], rows)


def _budget_table(budget: Rows) -> str:
    causes = {"guidance": "guidance itself", "linear": "linear", "mlp": "MLP", "network": "network"}
    rows = [
        [f"{row['scale']:g}", _rectifier(row), *(short(row[cause]) for cause in causes)]
        for row in budget
        if row["scale"] in PANELS
    ]
    return table(["scale", "rectifier", *causes.values()], rows)


def _k_table(k_of: Rows) -> str:
    labels = {
        "plain": "CG, exact parts",
        "conditional": "REG, K of the Bayes conditional model",
        "unconditional": "REG, K of the unconditional model",
    }
    rows = [[label, *(short(row[key]) for row in k_of)] for key, label in labels.items()]
    wrong = (f"{row['unconditional_wrong']:.0%}" for row in k_of)
    rows.append(["the last one's samples on the wrong side", *wrong])
    return table(["energy distance to the target", *SCALES], rows)


def _misled_table(misled: Rows) -> str:
    rows = [
        [
            row["source"],
            f"{row['scale']:g}",
            _rectifier(row),
            f"{row['wrong']:.1%}",
            hundredths(row["displacement"]),
            short(row["energy"]),
        ]
        for row in misled
    ]
    columns = ["classifier", "scale", "rectifier", "wrong class", "displacement", "energy distance"]
    return table(columns, rows)


def _rectifier(row: Mapping[str, Any]) -> str:
    return "REG" if row["rectified"] else "none"


def claims(report: Report) -> None:
    """All claims of the page."""
    numbers = report.numbers
    rows, sides, errors = numbers["rows"], numbers["eq6"], numbers["errors"]
    report.claim(
        "bayes",
        "With exact parts CG at scale 1 is the conditional model (Eq. 6 holds)",
        sides["exact_exact"] < 1e-10,
        f"distance {sides['exact_exact']:.1e}; MLP {sides['exact_mlp']:.2g}, linear "
        f"{sides['exact_linear']:.2g}",
    )
    scales = sorted({row["scale"] for row in rows})
    runs = [("exact", "exact"), ("exact", "cfg"), *(("learned", s) for s in SOURCES[1:])]
    for denoiser, source in runs:
        run = {"denoiser": denoiser, "source": source, "rectified": False}
        moved = over_scales(rows, "displacement", scales, **run)
        name = "CFG" if source == "cfg" else f"CG ({source} classifier)"
        report.claim(
            f"grows_{denoiser}_{source}",
            f"{name}, {'trained' if denoiser == 'learned' else 'exact'} denoiser: the displacement "
            "grows with the scale",
            all(one < more for one, more in pairwise(moved)),
            ", ".join(hundredths(value) for value in moved),
        )
    _reg_claims(report)
    report.claim(
        "slope",
        "The linear classifier's slope error is larger than the MLP's",
        errors["linear"]["slope_rms"] > errors["mlp"]["slope_rms"],
        f"{errors['linear']['slope_rms']:.2f} against {errors['mlp']['slope_rms']:.2f}",
    )
    flipped = [row["wrong"] for row in numbers["misled"] if row["source"] == "flipped"]
    report.claim(
        "misleading",
        "A classifier that takes the classes for each other sends samples to the wrong class, also "
        "with REG",
        min(flipped) > 0.9,
        ", ".join(f"{share:.1%}" for share in flipped),
    )


def _reg_claims(report: Report) -> None:
    rows = report.numbers["rows"]
    scales = sorted({row["scale"] for row in rows if row["scale"] >= 2})

    def values(measure: str, source: str = "exact", rectified: bool = False) -> list[float]:
        run = {"denoiser": "exact", "source": source, "rectified": rectified}
        return over_scales(rows, measure, scales, **run)

    plain, rectified = values("energy"), values("energy", rectified=True)
    report.claim(
        "reg_energy",
        "Exact parts, scale >= 2: REG is at least 5 times closer to the target than CFG and CG",
        all(5 * reg < cg for reg, cg in zip(rectified, plain, strict=True)),
        ", ".join(f"{cg / reg:.0f}x" for reg, cg in zip(rectified, plain, strict=True)),
    )
    asked = values("displacement", "golden")
    pushes = zip(values("displacement"), values("displacement", rectified=True), asked, strict=True)
    excess = [(cg - golden, abs(reg - golden)) for cg, reg, golden in pushes]
    report.claim(
        "reg_push",
        "Exact parts, scale >= 2: REG takes away at least 80 % of the push beyond what the target "
        "asks",
        all(reg < 0.2 * cg for cg, reg in excess),
        ", ".join(f"{1 - reg / cg:.0%}" for cg, reg in excess),
    )
    pairs = list(zip(scales, rectified, values("energy", "unguided"), strict=True))
    report.claim(
        "reg_unguided",
        "Exact parts, scale >= 2: REG is closer to the target than no guidance at all",
        all(reg < no for _, reg, no in pairs),
        ", ".join(f"scale {scale:g}: {reg:.1e} against {no:.1e}" for scale, reg, no in pairs),
    )
