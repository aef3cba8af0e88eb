"""`reg-engine profile`: where the time of a sampling call goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import torch

from ..engine import Engine
from ..errors import InputError
from ..models import load_model
from ..networks.attention import BACKENDS
from ..networks.attention_models import set_attention
from ..pictures.plots import check_matplotlib, save_profile
from ..profiling import report as profiling
from ..storage.files import check_writable
from .options import (
    apply,
    arguments_of,
    emit,
    guided_options,
    json_option,
    labels_of,
    plan_of,
    run_options,
)

__all__ = ["profile"]


@click.command(
    epilog="Example: reg-engine profile --rectify vjp --steps 8 --plot --out out/profile"
)
@apply([*run_options, *guided_options])
@click.option(
    "--attention", default="auto", show_default=True, help=f"One of {', '.join(BACKENDS)}."
)
@click.option(
    "--graphs/--no-graphs",
    default=False,
    show_default=True,
    help="Replay CUDA graphs, which hide the ranges of a step.",
)
@click.option("--warmup", default=2, show_default=True, type=int, help="Runs before the profile.")
@click.option("--plot", is_flag=True, help="Draw profile.png (matplotlib).")
@click.option("--out", default="profile", show_default=True, help="Folder of the results.")
@json_option
@click.pass_context
def profile(
    context: click.Context,
    labels: str,
    per_label: int,
    scale: float,
    rectify: str,
    plan: str,
    attention: str,
    graphs: bool,
    warmup: int,
    plot: bool,
    out: str,
    as_json: bool,
    model: str,
    **run: Any,
) -> None:
    """Sample once and say where the time went.

    Under Nsight Systems or Nsight Compute (the command lines are printed) the run is marked for
    them. Otherwise torch.profiler measures it: a Chrome trace, and a table of the ranges.
    """
    if warmup < 0:
        raise InputError("--warmup", f"is {warmup}", "Give a number >= 0")
    if plot:
        check_matplotlib()
    denoiser = load_model(model)
    chosen = labels_of(labels, per_label, denoiser)
    folder = check_writable(Path(out) / "trace.json", "--out").parent
    engine = Engine(
        denoiser,
        scale=scale,
        rectify=None if rectify == "none" else rectify,
        plan=plan_of(plan),
        capture=graphs,
        **{**run, "progress": False},
    )
    set_attention(engine.denoiser, attention)

    def section() -> Any:
        output = engine.sample(torch.tensor(chosen))
        return output.images, output.stats

    found = profiling.run(section, engine.device, folder, warmup)
    words = arguments_of(context, "as_json", "plot")
    lines = profiling.commands(words, folder, engine.device.type == "cuda")
    if plot and found.spans:
        save_profile(found.spans, found.rows, folder / "profile.png")
    report: dict[str, Any] = {
        "model": model,
        "device": str(engine.device),
        "stats": found.result[1].as_dict(),
        **found.as_dict(),
        "picture": str(folder / "profile.png") if plot and found.spans else None,
        "commands": lines,
        "missing": profiling.missing(lines),
    }
    emit(report, as_json, _text(report))


def _text(report: dict[str, Any]) -> str:
    stats, lines = report["stats"], []
    lines.append(
        f"{stats['samples']} samples, nfe {stats['nfe']:g}, {stats['backward']:g} backward, "
        f"estimator {stats['estimator']}, backend {stats['backend']}, on {report['device']}"
    )
    if report["undisturbed_seconds"] is not None:
        lines.append(f"{report['undisturbed_seconds']:.3f} s unwatched (last run of the warm-up)")
    lines.append(f"{report['seconds']:.3f} s under {report['tool'] or 'torch.profiler'}")
    if report["tool"] is None:
        lines += ["", *_table(report["ranges"]), "", f"trace: {report['trace']}"]
        lines += [] if report["picture"] is None else [f"picture: {report['picture']}"]
        lines += ["", "not under Nsight; to run this under it:"]
        for name, line in report["commands"].items():
            absent = " (not found on this machine)" if name in report["missing"] else ""
            lines.append(f"{name}{absent}:\n  {line}")
        if "ncu" not in report["commands"]:
            lines.append("ncu: measures kernels of a GPU; this run has none")
    return "\n".join(lines)


def _table(rows: list[dict[str, Any]]) -> list[str]:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    cuda = any(row["device"] is not None for row in rows)
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("range")
    for name in ("calls", "total ms", "share", "own ms", "Python ms", *(["CUDA ms"] * cuda)):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        numbers = [str(row["calls"]), f"{row['total']:.1f}", f"{row['share']:.1%}"]
        numbers += [f"{row['own']:.1f}", f"{row['python']:.1f}"]
        numbers += [f"{row['device']:.1f}"] if cuda else []
        table.add_row("  " * (len(row["path"]) - 1) + row["path"][-1], *numbers)
    console = Console(width=100, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines() if line.strip()]
