"""`reg-engine convert`: a published checkpoint as a file of this package."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from .options import emit, json_option

if TYPE_CHECKING:
    from ..convert.door import Converted

__all__ = ["convert"]


@click.command(
    epilog="Example: reg-engine convert DiT-XL-2-256x256.pt dit-xl-256.safetensors --model dit"
)
@click.argument("source", metavar="IN")
@click.argument("out", metavar="OUT")
@click.option(
    "--model",
    default=None,
    help="dit, sit or edm2 [default: told by the tensors; DiT from SiT by the file's name].",
)
@click.option(
    "--dtype", default="keep", show_default=True, help="keep, float16 or float32: of the weights."
)
@click.option(
    "--heads",
    default=None,
    type=click.IntRange(1),
    help="Attention heads of a DiT or SiT whose width is not a published one.",
)
@json_option
def convert(
    source: str, out: str, model: str | None, dtype: str, heads: int | None, as_json: bool
) -> None:
    """Write the network of a published checkpoint, IN, as OUT, a .safetensors that --model takes.

    IN is a checkpoint of DiT or SiT, or a snapshot of EDM2. Nothing in it is run or imported: it is
    read by a reader of its own that knows tensors and the few names around them.
    """
    # Here, so that the other commands start without it.
    from ..convert.door import convert as converted

    done = converted(source, out, model=model, dtype=dtype, heads=heads)
    emit(asdict(done), as_json, _words(done))


def _words(done: Converted) -> str:
    place = f", from {done.place!r}" if done.place else ""
    lines = [
        f"{done.model}: {done.parameters:,} parameters in {done.tensors} tensors{place}",
        f"dtype: {', '.join(done.dtypes)}",
    ]
    if done.by_name:
        lines.append("DiT and SiT are named alike: the file's name said which; --model goes before")
    if done.dropped:
        lines.append(f"not written, sampling does not ask it: {', '.join(sorted(done.dropped))}")
    return "\n".join([*lines, f"weights: {done.path} ({done.size / 1e6:.1f} MB)"])
