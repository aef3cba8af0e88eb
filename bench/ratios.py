"""Figures of rows beside their baseline: what one costs against plain CFG, and which rows count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.contenders import BASELINE, CAPTURED_CFG
from bench.records import Row

__all__ = ["latest", "number", "ratios"]

SAME = ("run", "suite", "case", "size", "batch", "dtype", "shape", "steps")


def ratios(row: Row, rows: Iterable[Row]) -> dict[str, float]:
    """What a row is compared with, within its run; nothing where a figure is missing.

    Returns:
        Of a batch of samples: `time_to_cfg`, `time_to_captured_cfg`, `memory_to_cfg`,
        `seconds_per_image`. Of a kernel: `speedup` over eager, `gb_s`, `share_of_copy`.
    """
    rows = list(rows)
    p50 = number(row.p50)
    if p50 is None:
        return {}
    found: dict[str, float | None] = {}
    if row.suite == "sampling":
        base, captured = (_peer(row, rows, name) for name in (BASELINE, CAPTURED_CFG))
        found = {
            "seconds_per_image": p50 / int(row.batch),
            "time_to_cfg": _over(p50, base and base.p50),
            "time_to_captured_cfg": _over(p50, captured and captured.p50),
            "memory_to_cfg": _over(row.memory, base and base.memory),
        }
    else:
        moved = number(row.bytes)
        rate = None if moved is None else moved / p50 / 1e9
        eager = _peer(row, rows, "eager")
        slower = None if eager is None else _over(number(eager.p50), row.p50)
        found = {"speedup": slower, "gb_s": rate}
        roof = next((r for r in rows if r.run == row.run and r.suite == "copy"), None)
        if row.suite == "kernel" and roof is not None:
            found["share_of_copy"] = _over(rate, ratios(roof, [roof])["gb_s"])
    return {name: value for name, value in found.items() if value is not None}


def _peer(row: Row, rows: Sequence[Row], provider: str) -> Row | None:
    """The same case of the same run by another provider: the last one, should it be there twice."""
    own = [getattr(row, name) for name in SAME]
    peers = [
        other
        for other in rows
        if other.provider == provider and [getattr(other, name) for name in SAME] == own
    ]
    return peers[-1] if peers else None


def _over(value: float | None, base: str | float | None) -> float | None:
    below = number(base) if isinstance(base, str) else base
    return value / below if value is not None and below else None


def number(text: str) -> float | None:
    """A field of a row; None where it is empty."""
    return float(text) if text else None


def latest(rows: Sequence[Row]) -> list[Row]:
    """Of every case the rows of its latest run with a baseline (else of its latest run)."""
    groups: dict[tuple[str, ...], dict[str, list[Row]]] = {}
    for row in rows:
        if row.suite != "copy":
            case = (row.device, row.suite, row.case, row.size, row.shape, row.dtype)
            groups.setdefault(case, {}).setdefault(row.run, []).append(row)
    chosen = []
    for runs in groups.values():
        whole = [
            found
            for found in runs.values()
            if any(row.provider in (BASELINE, "eager") and row.p50 for row in found)
        ]
        chosen += (whole or list(runs.values()))[-1]
    kept = {row.run for row in chosen}
    return chosen + [row for row in rows if row.suite == "copy" and row.run in kept]
