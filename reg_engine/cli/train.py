"""`reg-engine train`: the packaged models, and colour ones, from scratch; resumable."""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..training import Result

__all__ = ["train"]


@click.command(
    epilog="Example: reg-engine train mnist --data mnist.npz --out out/mnist "
    "--minutes 70 --dtype bfloat16"
)
@click.argument("task", metavar="TASK")
@click.option(
    "--data",
    default=None,
    help="mnist.npz or fashion_mnist.npz (default: REG_ENGINE_DATA, or a download), or CIFAR-10: "
    "pictures in a folder or .tar.gz, an .npz, or cifar-10-binary.tar.gz.",
)
@click.option("--out", default=None, help="Folder of the run; default: out/TASK.")
@click.option(
    "--epochs",
    default=None,
    type=float,
    help="Passes through the data [default: mnist and fashion 40, mnist-classifier 6, "
    "fashion-classifier 20, cifar10 and cifar10-edm 60, cifar10-classifier 30].",
)
@click.option(
    "--minutes", default=None, type=float, help="Instead of --epochs: as many steps as fit."
)
@click.option(
    "--piece",
    default=None,
    type=float,
    help="Stop by itself after so many minutes, start and compiling counted, with the run saved; "
    "the same command goes on.",
)
@click.option(
    "--compact",
    is_flag=True,
    help="A checkpoint of 12 bits a weight (57 MB for cifar10), not 128; going on from it is near "
    "an uninterrupted run, not bitwise that run.",
)
@click.option("--batch-size", default=128, show_default=True, type=int, help="Images a step.")
@click.option(
    "--lr",
    default=None,
    type=float,
    help="Peak learning rate [default: mnist and fashion 0.002, cifar10 0.0002, "
    "cifar10-classifier 0.001].",
)
@click.option("--seed", default=0, show_default=True, type=int, help="Of weights, order and noise.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option(
    "--dtype",
    default="float32",
    show_default=True,
    help="float32, or bfloat16 where it is faster: else it is float32, and said.",
)
@click.option(
    "--compile", "compiled", is_flag=True, help="Train what torch.compile makes of the network."
)
@click.option(
    "--start", default=None, help="Weights (.safetensors) to go on from; default: new ones."
)
@click.option(
    "--noise-mean",
    default=None,
    type=float,
    help="Mean of ln(sigma) in training (mnist, fashion)  [default: -0.4].",
)
@click.option(
    "--export",
    "export_now",
    is_flag=True,
    help="Do not train: write the averaged weights of the run's checkpoint as they are.",
)
@click.option("--progress/--no-progress", default=True, help="Show progress on standard error.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(
    task: str,
    data: str | None,
    out: str | None,
    lr: float | None,
    noise_mean: float | None,
    piece: float | None,
    device: str,
    export_now: bool,
    progress: bool,
    as_json: bool,
    **chosen: Any,  # named as train_task's arguments
) -> None:
    """Train a model and write its averaged weights to OUT.

    \b
    mnist               the digits model, an EDM U-Net
    mnist-classifier    its noise-aware judge
    fashion             the clothes model: the same network on Fashion-MNIST
    fashion-classifier  its noise-aware judge
    cifar10             a class-conditional rectified flow at 32x32; needs diffusers and a GPU
    cifar10-edm         the same network, preconditioned and trained as Karras et al. 2022
    cifar10-classifier  a noise-aware judge of colour images

    Stop it with Ctrl-C at any time: the same command goes on where it stopped, and ends with the
    same weights as a run that was never stopped. OUT/loss.csv logs the loss. With --piece it stops
    by itself.
    """
    began = time.monotonic()
    # Here, so that the other commands start without the trainer.
    from ..errors import choice
    from ..storage.files import check_writable
    from ..training import TASKS, train_task
    from ..values import as_float, usable

    choice("task", task, TASKS)
    folder = Path(out or f"out/{task}")
    check_writable(folder / "checkpoint.pt", "--out")
    usable(device)
    if piece is not None:
        piece = as_float("--piece", piece, "Give minutes", lambda v: 0 < v < math.inf)
    given = {"lr": lr, "noise_mean": noise_mean}  # else the recipe's
    chosen |= {name: value for name, value in given.items() if value is not None}
    result = train_task(
        task,
        TASKS[task].load(data),
        folder,
        device=device,
        show=progress,
        announce=True,
        export_now=export_now,
        deadline=None if piece is None else began + 60 * piece,
        **chosen,
    )
    click.echo(json.dumps(asdict(result), indent=1) if as_json else _words(result))
    if result.stopped not in (None, "piece"):
        sys.exit(130)  # stopped by a signal, as shells count it


def _words(result: Result) -> str:
    lines = [
        f"{result.task}: step {result.step} of {result.steps}, {result.seconds:.0f} s, "
        f"{result.parameters} parameters"
    ]
    if result.stopped == "piece":
        lines.append("the piece is over: the same command goes on")
    lines += [f"{name.replace('_', ' ')}: {value:.2%}" for name, value in result.scores.items()]
    return "\n".join(lines + ([f"weights: {result.weights}"] if result.weights else []))
