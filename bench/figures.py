"""The figures of docs/performance.md: what each method costs beside plain CFG, and the bandwidth
that the kernels reach."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench import records
from bench.contenders import BASELINE, CONTENDERS
from bench.ratios import ratios
from bench.records import Row
from reg_engine.storage.files import replacing

__all__ = ["draw"]

MARKERS = "osD^vPX<>*phH8d"
MEASURES = (("time_to_cfg", "time"), ("memory_to_cfg", "peak memory"))
TICKS = (0.5, 0.7, 1, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50)
RATES = (0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)


def draw(rows: Sequence[Row], folder: Path) -> list[str]:
    """Draw what `rows` hold into PNG files of `folder`; their names."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for device in dict.fromkeys(row.device for row in rows):
        own = [row for row in rows if row.device == device]
        slug = records.device_slug(device)
        for kind, make in (("ratios", _ratios), ("bandwidth", _bandwidth)):
            figure = make(plt, own)
            if figure is None:
                continue
            names.append(f"performance_{slug}_{kind}.png")
            with replacing(folder / names[-1]) as file:
                figure.savefig(file, dpi=110, metadata={"Software": None})
            plt.close(figure)
    return names


def _ratios(plt: Any, rows: Sequence[Row]) -> Any:
    """A row of panels a size: methods from top to bottom, a mark for each model at its ratio to
    plain CFG."""
    sampled = [row for row in rows if row.suite == "sampling" and row.provider != BASELINE]
    sizes = [
        (size, names)
        for size in dict.fromkeys(row.size for row in sampled)
        if (names := _shown({row.provider for row in sampled if row.size == size and row.p50}))
    ]
    if not sizes:
        return None
    heights = [len(names) + 2.5 for _, names in sizes]
    figure, axes = plt.subplots(
        len(sizes),
        2,
        figsize=(10.5, 0.23 * sum(heights) + 0.9),
        layout="constrained",
        squeeze=False,
        sharex="col",
        sharey="row",
        gridspec_kw={"height_ratios": heights},
    )
    figure.get_layout_engine().set(wspace=0.04, hspace=0.03)
    for axis, (key, _) in zip(axes[0], MEASURES, strict=True):
        _scale(axis, [ratios(row, rows).get(key, 1.0) for row in sampled])
    for (size, names), line in zip(sizes, axes, strict=True):
        own = [row for row in sampled if row.size == size]
        for axis, (key, title) in zip(line, MEASURES, strict=True):
            _dots(axis, own, rows, names, key)
            axis.tick_params(axis="x", labelbottom=True)
            axis.set_title(f"{title} / plain CFG, size {size}", fontsize=10)
        line[0].set_yticks(range(len(names)), names, fontsize=9)
        line[0].set_ylim(len(names) - 0.4, -0.6)  # the first on top
        line[1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    return figure


def _dots(
    axis: Any, own: Sequence[Row], rows: Sequence[Row], names: Sequence[str], key: str
) -> None:
    """One panel: a mark a model and method, and the median of a method as a grey stroke."""
    cases = list(dict.fromkeys((row.case, row.shape) for row in own))
    all_found: dict[str, list[float]] = {name: [] for name in names}
    for index, case in enumerate(cases):
        # Of a method measured twice the later row counts, as in the tables.
        last = {row.provider: row for row in own if (row.case, row.shape) == case}
        found = {
            name: ratios(last[name], rows)[key]
            for name in names
            if name in last and key in ratios(last[name], rows)
        }
        for name, value in found.items():
            all_found[name].append(value)
        places = [names.index(name) for name in found]
        mark = MARKERS[index % len(MARKERS)]
        axis.plot(list(found.values()), places, mark, color=f"C{index % 10}", ms=5.5, alpha=0.8)
        axis.plot([], [], mark, color=f"C{index % 10}", ms=5.5, label=case[0])
    if len(cases) > 1:
        for place, values in enumerate(all_found.values()):
            if values:
                middle = median(values)
                axis.plot(
                    [middle] * 2, [place - 0.36, place + 0.36], color="0.45", lw=1.6, zorder=1
                )
    axis.axvline(1.0, color="black", linewidth=1.0)
    axis.grid(alpha=0.3)


def _scale(axis: Any, values: Sequence[float]) -> None:
    """A logarithmic axis of ratios, with room for the line at 1."""
    low, high = 0.9 * min(*values, 1.0), 1.12 * max(*values, 1.0)
    axis.set(xscale="log", xlim=(low, high))
    axis.set_xticks([tick for tick in TICKS if low <= tick <= high], minor=False)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
    axis.tick_params(axis="x", which="minor", bottom=False)


def _shown(measured: set[str]) -> list[str]:
    """What fits into a figure: of `eager` and `captured` the latter where there is one."""
    names = [c.name for c in CONTENDERS if c.name in measured and c.mode != "compiled"]
    return [n for n in names if n.replace("-eager", "-captured") not in measured - {n}]


def _bandwidth(plt: Any, rows: Sequence[Row]) -> Any:
    """Bytes moved in a second over bytes moved, one panel a kernel, beside those of a copy."""
    kernels = [row for row in rows if row.suite == "kernel" and row.p50]
    if not kernels:
        return None
    names = list(dict.fromkeys(row.case for row in kernels))
    figure, axes = plt.subplots(
        1,
        len(names),
        figsize=(3.1 * len(names) + 0.6, 3.9),
        layout="constrained",
        squeeze=False,
        sharex=True,
        sharey=True,
    )
    for axis, name in zip(axes[0], names, strict=True):
        own = [row for row in kernels if row.case == name]
        for index, provider in enumerate(dict.fromkeys(row.provider for row in own)):
            for dtype, line in (("float32", "-"), ("bfloat16", ":")):
                some = [r for r in own if (r.provider, r.dtype) == (provider, dtype)]
                if some:
                    points = sorted((float(r.bytes) / 1e6, ratios(r, rows)["gb_s"]) for r in some)
                    style = {"marker": "o", "ms": 4, "color": f"C{index}", "linestyle": line}
                    axis.plot(*zip(*points, strict=True), label=f"{provider} {dtype}", **style)
        runs = {row.run for row in own}
        copies = [row for row in rows if row.suite == "copy" and row.p50 and row.run in runs]
        for row in copies:
            roof = ratios(row, rows)["gb_s"]
            axis.axhline(roof, color="black", ls="--", lw=0.9, label="copy of the same run")
        axis.set(xscale="log", yscale="log", xlabel="megabytes read and written")
        axis.set_title(f"kernel {name}", fontsize=10)
        for part, ticks in ((axis.xaxis, (0.3, 1, 3, 10, 30, 100, 300)), (axis.yaxis, RATES)):
            limits = part.get_view_interval()
            part.set_ticks([tick for tick in ticks if limits[0] <= tick <= limits[1]], minor=False)
            part.set_major_formatter("{x:g}")
            part.set_minor_formatter("")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("GB/s")
    labels = dict(zip(*reversed(axes[0][0].get_legend_handles_labels()), strict=True))
    figure.legend(labels.values(), labels, fontsize=8, ncols=4, loc="outside lower center")
    return figure
