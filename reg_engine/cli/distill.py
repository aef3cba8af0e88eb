"""`reg-engine distill`: guidance into an adapter, so that a step takes one evaluation."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..distillation import Difference, Distilled

__all__ = ["distill"]

SHOWN = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the trained scales, in ln s, at which it is compared
SEEDS = 1 << 40  # first seed of the comparison, and of no training


@click.command(
    epilog="Example: reg-engine distill --model mnist --guidance vjp --scales 1:6 --out out/distill"
)
@click.option(
    "--model", default="mnist", show_default=True, help="mnist, fashion, or a .safetensors."
)
@click.option(
    "--guidance",
    default="vjp",
    show_default=True,
    help="The teacher: cfg, an estimator, interval=LO:HI or damping=FILE, as for `evaluate`.",
)
@click.option("--scales", default="1:6", show_default=True, help="LEAST:MOST guidance scales.")
@click.option("--out", default="out/distill", show_default=True, help="Folder of the run.")
@click.option("--steps", default=3000, show_default=True, type=int, help="Optimizer steps.")
@click.option(
    "--share", default=0.05, show_default=True, type=float, help="Of the model's numbers, at most."
)
@click.option(
    "--weighting",
    default="karras",
    show_default=True,
    help="Of noise levels: karras, or relative to what guidance does there.",
)
@click.option("--lr", default=3e-3, show_default=True, type=float, help="Peak learning rate.")
@click.option("--seed", default=0, show_default=True, type=int, help="Of all that is drawn.")
@click.option("--dtype", default="float32", show_default=True, help="float32 or bfloat16.")
@click.option("--device", default=None, help="cpu or cuda; default: where the model is.")
@click.option("--piece", type=float, help="Stop after so many minutes; the same command goes on.")
@click.option(
    "--compared", default=32, show_default=True, type=int, help="Samples of the comparison."
)
@click.option("--progress/--no-progress", default=True, help="Show progress on standard error.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def distill(
    model: str,
    guidance: str,
    scales: str,
    out: str,
    device: str | None,
    piece: float | None,
    compared: int,
    progress: bool,
    as_json: bool,
    **numbers: Any,  # of Distillation
) -> None:
    """Teach a model its own guidance. OUT/adapter.safetensors is the result, for `sample --adapter`
    and Denoiser.with_adapter; OUT/differences.json says how far it is from its teacher.

    Stop it with Ctrl-C at any time: the same command goes on where it stopped, and ends with the
    same adapter as a run that was never stopped.
    """
    began = time.monotonic()
    from ..distillation import Distillation, Teacher
    from ..distillation import distill as run
    from ..models import load_model
    from ..values import as_float, as_int
    from .options import emit

    compared = as_int("--compared", compared)
    if piece is not None:
        piece = as_float("--piece", piece, "Give minutes", lambda v: 0 < v < math.inf)
    settings = Distillation(scales=_range(scales), **numbers)
    denoiser = load_model(model)
    _placed(denoiser.modules, device)
    teacher = Teacher(denoiser, _law(guidance), guidance)
    result = run(
        denoiser,
        out=out,
        guidance=teacher,
        settings=settings,
        show=progress,
        deadline=None if piece is None else began + 60 * piece,
    )
    report: dict[str, Any] = {**vars(result), "path": result.path and str(result.path)}
    report["adapter"] = None
    found = []
    if result.adapter is not None:
        found = _compared(Path(out), result, teacher, compared)
        report["differences"] = _rows(found)
    emit(report, as_json, _words(result, found))
    if result.stopped not in (None, "piece"):
        sys.exit(130)  # stopped by a signal, as shells count it


def _placed(modules: Any, device: str | None) -> None:
    """On the device, and channels last: a CPU's convolutions are a fifth faster so."""
    import torch

    from ..checks import as_device

    for module in modules:
        module.to(memory_format=torch.channels_last)
    if device is not None:
        as_device(device, None, modules, torch.float32)


def _range(text: str) -> tuple[float, float]:
    from ..errors import InputError

    least, _, most = text.partition(":")
    try:
        return float(least), float(most)
    except ValueError as error:
        raise InputError("--scales", f"is {text!r}", "Write LEAST:MOST, such as 1:6") from error


def _law(text: str) -> Any:
    """Guidance by scale, as `evaluate --methods` names it."""
    from ..errors import InputError
    from ..plan import Plan
    from .methods import methods_of

    methods = methods_of(text, (2.0,), Plan.full())
    if len(methods) != 1 or "@" in text:
        raise InputError("--guidance", f"is {text!r}", "Name one method, without scales")
    (method,) = methods
    if method.refine is not None or not method.plan == Plan.full():
        raise InputError("--guidance", "takes no plan and no refine", "Leave them out")
    return method.guidance


def _compared(out: Path, result: Distilled, teacher: Any, count: int) -> list[Difference]:
    import torch

    from ..distillation import differences
    from ..storage.files import write_whole

    assert result.adapter is not None
    least, most = result.adapter.scales
    scales = [least * (most / least) ** part for part in SHOWN if part or least > 1]
    student = teacher.denoiser.with_adapter(result.adapter)
    classes = teacher.denoiser.num_classes
    labels = torch.arange(count) % classes
    found = differences(student, teacher, labels, range(SEEDS, SEEDS + count), scales)
    write_whole(out / "differences.json", json.dumps(_rows(found), indent=1).encode())
    return found


def _rows(found: list[Difference]) -> list[dict[str, Any]]:
    """As JSON, which has no infinity: null where the teacher does nothing, and the student not."""
    told = [[part if math.isfinite(part) else None for part in one.estimates] for one in found]
    return [{**one._asdict(), "estimates": own} for one, own in zip(found, told, strict=True)]


def _words(result: Distilled, found: list[Difference]) -> str:
    lines = [
        f"step {result.step} of {result.steps}, {result.seconds:.0f} s; {result.numbers} numbers, "
        f"{result.share:.1%} of the model's"
    ]
    if result.adapter is None:
        return "\n".join([*lines, "not finished: the same command goes on"])
    lines += [f"adapter: {result.path}", "distance from the teacher, of no guidance's distance:"]
    lines += [f"{'scale':>6}{'samples':>9}  estimates, from noise to image"]
    lines += [_line(one) for one in found]
    return "\n".join(lines)


def _line(one: Difference) -> str:
    parts = (f"{part:.2f}" if math.isfinite(part) else "   –" for part in one.estimates)
    return f"{one.scale:6.2f}{one.samples:9.2f}  {' '.join(parts)}"
