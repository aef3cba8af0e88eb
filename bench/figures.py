"""The figures of docs/performance.md: ratios to plain CFG as bars, the kernels as a roofline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import records
from bench.contenders import BASELINE, CONTENDERS
from bench.ratios import ratios
from bench.records import Row
from reg_engine.storage.files import replacing

__all__ = ["draw"]


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
        for kind, make in (("ratios", _bars), ("roofline", _roofline)):
            figure = make(plt, own)
            if figure is None:
                continue
            names.append(f"performance_{slug}_{kind}.png")
            with replacing(folder / names[-1]) as file:
                figure.savefig(file, dpi=110, metadata={"Software": None})
            plt.close(figure)
    return names


def _bars(plt: Any, rows: Sequence[Row]) -> Any:
    """Time and memory over those of plain CFG, a group of bars for each model."""
    sampled = [row for row in rows if row.suite == "sampling" and row.provider != BASELINE]
    groups = list(dict.fromkeys((row.case, row.size, row.shape) for row in sampled))
    providers = _shown({row.provider for row in sampled if row.p50})
    if not providers:
        return None
    figure, axes = plt.subplots(
        2, 1, figsize=(max(8.0, 1.6 * len(groups)), 8), layout="constrained", sharex=True
    )
    colours = plt.get_cmap("tab20")
    for axis, key, title in zip(
        axes, ("time_to_cfg", "memory_to_cfg"), ("time", "peak memory"), strict=True
    ):
        for index, provider in enumerate(providers):
            values = []
            for group in groups:
                same = [r for r in sampled if (r.case, r.size, r.shape) == group]
                row = next((r for r in same if r.provider == provider), None)
                values.append(ratios(row, rows).get(key, float("nan")) if row else float("nan"))
            width = 0.85 / len(providers)
            places = [g + (index - len(providers) / 2) * width for g in range(len(groups))]
            hatch = "//" if index >= 20 else None
            axis.bar(places, values, width, label=provider, color=colours(index % 20), hatch=hatch)
        axis.axhline(1.0, color="black", linewidth=0.8)
        axis.set_ylabel(f"{title} / plain CFG")
        axis.grid(axis="y", alpha=0.3)
    axes[1].set_yscale("log")
    axes[1].set_yticks([1, 2, 5, 10, 20, 50], minor=False)
    axes[1].yaxis.set_major_formatter("{x:g}")
    axes[1].yaxis.set_minor_formatter("")
    labels = [case if size == "real" else f"{case}\n{size}" for case, size, _ in groups]
    axes[1].set_xticks(range(len(groups)), labels, rotation=30, ha="right")
    figure.legend(
        *axes[0].get_legend_handles_labels(), fontsize=7, ncols=6, loc="outside upper left"
    )
    return figure


def _shown(measured: set[str]) -> list[str]:
    """What fits into a figure: of `eager` and `captured` the latter where there is one."""
    names = [c.name for c in CONTENDERS if c.name in measured and c.mode != "compiled"]
    return [n for n in names if n.replace("-eager", "-captured") not in measured - {n}]


def _roofline(plt: Any, rows: Sequence[Row]) -> Any:
    """Achieved GB/s against bytes moved, under the measured copy bandwidth."""
    kernels = [row for row in rows if row.suite == "kernel" and row.p50]
    if not kernels:
        return None
    names = list(dict.fromkeys(row.case for row in kernels))
    figure, axes = plt.subplots(
        1, len(names), figsize=(4.2 * len(names), 4), layout="constrained", squeeze=False
    )
    roofs = [ratios(row, rows)["gb_s"] for row in rows if row.suite == "copy" and row.p50]
    for axis, name in zip(axes[0], names, strict=True):
        own = [row for row in kernels if row.case == name]
        for index, provider in enumerate(dict.fromkeys(row.provider for row in own)):
            for dtype, line in (("float32", "-"), ("bfloat16", ":")):
                some = [r for r in own if (r.provider, r.dtype) == (provider, dtype)]
                if some:
                    points = sorted((float(r.bytes), ratios(r, rows)["gb_s"]) for r in some)
                    label = f"{provider} {dtype}"
                    style = {"marker": "o", "color": f"C{index}", "linestyle": line}
                    axis.plot(*zip(*points, strict=True), label=label, **style)
        for roof in roofs:
            axis.axhline(roof, color="black", linestyle="--", linewidth=0.8, label="copy")
        axis.set(title=name, xscale="log", yscale="log", xlabel="bytes moved")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
        axis.tick_params(axis="y", which="both", labelsize=7)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("GB/s")
    labels = dict(zip(*reversed(axes[0][0].get_legend_handles_labels()), strict=True))
    figure.legend(labels.values(), labels, fontsize=8, ncols=7, loc="outside lower center")
    return figure
