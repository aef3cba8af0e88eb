"""The page of the frontier from its numbers: tables, dependent sentences, claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..report import Report, table
from .rivals import beaten, cells, floors, worse_than

__all__ = ["claims", "write"]

OURS = (
    *("fd_batched", "lazy", "alternate", "lazy_blend", "blend"),
    *("rayleigh", "skipping", "tilt"),
)
MOON = {1.0: 3.0, 2.0: 3.0, 4.0: 10.0}  # floors that one default should stay within
ALIKE = 0.1  # relative, of two distances that rotation leaves as they are


def write(report: Report) -> None:
    """The page, from report.numbers alone."""
    numbers = report.numbers
    report.page(
        Path(__file__).with_name("page.md"),
        best=_best(numbers),
        mixture_table=_mixture_table(numbers),
        tables="\n\n".join(
            f"### {name}\n\n{_table(numbers, found)}" for name, found in numbers["mixtures"].items()
        ),
        cells=sum(1 for cell in cells(numbers) if cell.method == "cfg"),
        beaten_table=_beaten_table(numbers),
        losses=_losses(numbers),
        axes=_axes(numbers),
        advice=_advice(numbers),
    )


def distance(numbers: Mapping[str, Any], mixture: str, method: str, w: float) -> float:
    """Mean energy distance of a cell."""
    column = numbers["setting"]["weights"].index(w)
    return float(numbers["mixtures"][mixture]["methods"][method]["distance"][column])


def within(numbers: Mapping[str, Any], method: str) -> list[tuple[float, str, float]]:
    """By weight of MOON: floors at the mixture where the method is furthest, and which that is."""
    found = []
    for w in (w for w in numbers["setting"]["weights"] if w in MOON):
        worst = max(numbers["mixtures"], key=lambda name: floors(numbers, method, name, w))
        found.append((w, worst, floors(numbers, method, worst, w)))
    return found


def _cheap(numbers: Mapping[str, Any], name: str) -> list[str]:
    """Our methods that cost what CFG costs, or less."""
    methods = numbers["mixtures"][name]["methods"]
    return [m for m in OURS if m in methods and methods[m]["cost"] <= methods["cfg"]["cost"]]


def _best(numbers: Mapping[str, Any]) -> str:
    """At every weight, the method whose furthest mixture is nearest, and how far that is."""
    mixtures, parts = numbers["mixtures"], []
    shared = set.intersection(*(set(found["methods"]) for found in mixtures.values()))
    for w in numbers["setting"]["weights"]:
        worst = {
            method: max((floors(numbers, method, name, w), name) for name in mixtures)
            for method in numbers["titles"]
            if method in shared
        }
        best = min(worst, key=lambda method: worst[method])
        far, name = worst[best]
        cfg = worst["cfg"][0]
        parts.append(
            f"at w = {w:g} {_title(numbers, best)}, {far:.1f} floors away at worst ({name}; CFG "
            f"{cfg:.0f})"
        )
    return f"no method is best everywhere. The least bad over all mixtures is {'; '.join(parts)}."


def _title(numbers: Mapping[str, Any], method: str) -> str:
    return str(numbers["titles"][method])


def _mixture_table(numbers: Mapping[str, Any]) -> str:
    weights = numbers["setting"]["weights"]
    columns = ["mixture", "dimensions", "classes", *(f"rejected, w = {w:g}" for w in weights)]
    rows = [
        [name, found["dim"], found["classes"], *(f"{float(v):.0%}" for v in found["rejected"])]
        for name, found in numbers["mixtures"].items()
    ]
    return table(columns, rows)


def _table(numbers: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    columns = ["method", "F", *(f"w = {w:g}" for w in numbers["setting"]["weights"])]
    rows = [["floor", "", *(f"{1e3 * float(v):.2g}" for v in found["floor"])]]
    for method, result in found["methods"].items():
        pairs = zip(result["distance"], result["deviation"], strict=True)
        values = (f"{1e3 * float(v):.3g} ± {1e3 * float(s):.1g}" for v, s in pairs)
        rows.append([_title(numbers, method), f"{result['cost']:.0f}", *values])
    return table(columns, rows)


def _beaten_table(numbers: Mapping[str, Any]) -> str:
    rows = []
    for method, lost in beaten(numbers).items():
        rivals = Counter(rival.method for _, rival in lost).most_common(2)
        by = ", ".join(f"{_title(numbers, name)} ({count})" for name, count in rivals)
        unguided = 0 if method == "unguided" else len(worse_than(numbers, method, "unguided"))
        rows.append([_title(numbers, method), len(lost), by or "nobody", unguided])
    return table(["method", "beaten in", "most often by", "further than no guidance in"], rows)


def _losses(numbers: Mapping[str, Any]) -> str:
    """Where our own methods are further than CFG, the intervals or no guidance at all."""
    lines = []
    for rival in ("unguided", "cfg", "interval", "low"):
        for method in (m for m in OURS if m in numbers["titles"]):
            lost = worse_than(numbers, method, rival)
            if lost:
                where = ", ".join(f"{c.mixture} w = {c.w:g}" for c in lost)
                lines.append(
                    f"* {_title(numbers, method)} is further than {_title(numbers, rival)}: {where}"
                )
    return (
        "\n".join(lines) or "None of our methods is further than CFG, an interval or no guidance."
    )


def _axes(numbers: Mapping[str, Any]) -> str:
    parts = []
    for w in numbers["setting"]["weights"]:
        found = {
            method: [1e3 * distance(numbers, name, method, w) for name in ("2-D", "2-D turned")]
            for method in ("paper", "vjp")
        }
        both = ", ".join(f"`{m}` {a:.2g} and {b:.2g}" for m, (a, b) in found.items())
        parts.append(f"w = {w:g}: {both}")
    return f"Distances times 1000 along the axes and turned, at {'; at '.join(parts)}."


def _advice(numbers: Mapping[str, Any]) -> str:
    lines = []
    for method in (m for m in ("cfg", *OURS) if m in numbers["titles"]):
        parts = (f"{far:.1f} at w = {w:g} ({name})" for w, name, far in within(numbers, method))
        lines.append(f"* {_title(numbers, method)}: {', '.join(parts)}")
    return "How far each is, in floors, at the mixture that suits it least:\n\n" + "\n".join(lines)


def claims(report: Report) -> None:
    """What the methods should reach, each with the figure behind it."""
    numbers = report.numbers
    weights, mixtures = numbers["setting"]["weights"], numbers["mixtures"]
    for w, share in ((2.0, 0.06), (4.0, 0.03)):
        if w in weights:
            ratio = distance(numbers, "2-D", "rayleigh", w) / distance(numbers, "2-D", "cfg", w)
            text = f"2-D, w = {w:g}: rayleigh damping within {share:g} of CFG's distance"
            report.claim(f"rayleigh_{w:g}", text, ratio <= share, f"{ratio:.3f}")
    for name in (name for name in ("8-D", "16-D") if name in mixtures):
        _cheaper_is_nearer(report, name)
    if "16-D" in mixtures:
        far = max(floors(numbers, "tilt", "16-D", w) for w in weights if w <= 4)
        text = "16-D: tilt damping within 2.5 floors up to w = 4"
        report.claim("tilt_16", text, far <= 2.5, f"{far:.2f}")
    for w in (w for w in (1.0, 2.0) if w in weights):
        near = min(
            (distance(numbers, "1-D", m, w), m)
            for m in OURS
            if m in numbers["titles"] and mixtures["1-D"]["methods"][m]["cost"] <= 3 * 35
        )
        ratio = near[0] / distance(numbers, "1-D", "golden", w)
        text = f"1-D, w = {w:g}: a method of at most 3 evaluations a step within 3 times golden's"
        report.claim(f"one_{w:g}", text, ratio <= 3, f"{ratio:.1f} ({near[1]})")
    _turned(report)
    _moonshot(report)


def _cheaper_is_nearer(report: Report, name: str) -> None:
    numbers = report.numbers
    found = []
    for w in numbers["setting"]["weights"]:
        best = min(distance(numbers, name, m, w) for m in _cheap(numbers, name))
        rival = min(distance(numbers, name, m, w) for m in ("paper", "vjp"))
        found.append((best / rival, w))
    report.claim(
        f"cheap_{name}",
        f"{name}: at CFG's cost one of ours is no further than `paper` and `vjp`, at every w",
        max(found)[0] <= 1,
        ", ".join(f"{ratio:.2f} at w = {w:g}" for ratio, w in found),
    )


def _turned(report: Report) -> None:
    numbers = report.numbers
    w = numbers["setting"]["weights"][-1]
    change = {
        m: distance(numbers, "2-D turned", m, w) / distance(numbers, "2-D", m, w)
        for m in ("paper", "vjp")
    }
    report.claim(
        "axes",
        f"w = {w:g}: turning the plane changes the distance of `paper` more than that of `vjp`",
        change["paper"] > 1 + ALIKE + abs(change["vjp"] - 1),
        f"{change['paper']:.2f} times, {change['vjp']:.2f} times",
    )


def _moonshot(report: Report) -> None:
    numbers = report.numbers
    found = {}
    for method in _cheap(numbers, next(iter(numbers["mixtures"]))):
        found[method] = max(far / MOON[w] for w, _, far in within(numbers, method))
    best = min(found, key=lambda m: found[m])
    limits = ", ".join(f"{limit:g} at w = {w:g}" for w, limit in MOON.items())
    report.claim(
        "moonshot",
        f"one method at CFG's cost stays within {limits} floors on every mixture",
        found[best] <= 1,
        f"nearest: {best}, {found[best]:.2f} times the limit",
    )
