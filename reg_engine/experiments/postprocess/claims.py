"""What the `postprocess` experiment says, held against its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from ...evaluation.fronts import Difference
from ..report import Report

__all__ = ["PAPER", "claims", "of", "rises"]

# App. B.2 of arXiv 2503.10638, CIFAR-10: FID of EDM samples at CFG 2.75, and after the flow at its
# own guidance scale.
PAPER_BEFORE = 10.75
PAPER = {
    1.0: 6.176,
    1.25: 6.842,
    1.5: 7.394,
    1.75: 7.856,
    2.0: 8.361,
    2.25: 8.918,
    2.5: 9.545,
    2.75: 10.29,
    3.0: 11.27,
}
Row = Mapping[str, Any]


def of(row: Row, key: str) -> Difference:
    """After minus before, of a row of Fig. S7."""
    return Difference(row[key]["difference"], row[key]["error"])


def rises(rows: Sequence[Row]) -> int:
    """In how many steps from one of the flow's own scales to the next the FID is higher."""
    return sum(after["fid"] > before["fid"] for before, after in pairwise(rows))


def claims(report: Report) -> None:
    """The paper's statements, and what it does not measure, answered beyond 95 % error bars."""
    own, few = report.numbers["own"], report.numbers["few"]
    rows = own["after"]
    first, last = rows[0], rows[-1]
    change, rise = Difference(**first["change"]), Difference(**last["rise"])
    report.claim(
        "flow_lowers_fid",
        f"The flow at its own scale {first['own']:g} lowers the FID of CFG at {own['scale']:g} "
        "(App. B.2)",
        change.below,
        f"{own['before']['fid']:.3f} to {first['fid']:.3f}: {change.text}",
    )
    report.claim(
        "own_scale_raises_fid",
        f"FID rises with the flow's own scale, from {first['own']:g} to {last['own']:g} (App. B.2)",
        rise.above,
        f"{rise.text}; higher in {rises(rows)} of {len(rows) - 1} steps",
    )
    for row in few:
        _of_row(report, row)
    for scale in dict.fromkeys(row["scale"] for row in few):
        same = [row for row in few if row["scale"] == scale]
        least, most = same[0], same[-1]
        gap = least["fid"]["after"] - most["fid"]["after"]
        error = least["fid"]["error"] + most["fid"]["error"]  # no smaller than that of the gap
        report.claim(
            f"few_{scale:g}_worse",
            f"CFG at {scale:g}: the flow towards {least['real']:,} real images leaves a higher FID "
            f"than that towards {most['real']:,} (Fig. S7)",
            gap > error,
            f"{gap:+.3f} ± {error:.3f} at most",
        )


def _of_row(report: Report, row: Row) -> None:
    towards = f"CFG at {row['scale']:g}, towards {row['real']:,} real images"
    key = f"{row['real']}_{row['scale']:g}"
    for name, (text, sign) in {
        "fid": ("FID falls", -1),
        "distance": ("samples come nearer to these images", -1),
        "recall": ("recall falls", -1),
        "nearer": ("memorisation rises", 1),
    }.items():
        found = of(row, name)
        holds = found.below if sign < 0 else found.above
        values = f"{row[name]['before']:.3f} to {row[name]['after']:.3f}: {found.text}"
        report.claim(f"{name}_{key}", f"{towards}: {text}", holds, values)
