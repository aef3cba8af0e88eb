"""A published checkpoint -> a file that `load_model` reads, tensor by tensor."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ..errors import InputError, choice
from ..storage.files import check_writable, replacing
from ..storage.readers import refusing
from ..storage.weights import DTYPES as LOADED
from ..storage.weights import FORMAT
from .layouts import Layout, recognise
from .states import State, state_of
from .tensors import DTYPES, Stored

__all__ = ["KEEP", "Converted", "convert"]

KEEP = "keep"
_CODES = {dtype: code for code, dtype in DTYPES.items()}
_KINDS = {KEEP: None, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class Converted:
    """What was found and written.

    Args:
        model: its name for people. architecture: of reg_engine.models.
        by_name: whether the file's name told DiT from SiT.
        place: where the network lay in the checkpoint: "ema", ...; "" = all of it.
        parameters: numbers in the written tensors. dtypes: of the written tensors.
        tensors: how many were written. dropped: names that sampling does not ask.
        description: what load_model is told. path: of the file. size: of it, in bytes.
    """

    model: str
    architecture: str
    by_name: bool
    place: str
    parameters: int
    dtypes: tuple[str, ...]
    tensors: int
    dropped: tuple[str, ...]
    description: Mapping[str, Any]
    path: str
    size: int


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    model: str | None = None,
    dtype: str = KEEP,
    heads: int | None = None,
) -> Converted:
    """Write the network of a published checkpoint as safetensors with its description.

    Nothing of the checkpoint is run or imported, and it is read tensor by tensor.

    Args:
        source: a checkpoint of DiT or SiT (torch.save), a snapshot of EDM2 (pickle), or one of them
            as safetensors.
        out: a .safetensors file; replaced if it is there.
        model: "dit", "sit" or "edm2"; None = told by the tensors' names, DiT from SiT by the
            file's.
        dtype: "keep", "float16" or "float32".
        heads: of attention, for a DiT or SiT of a width that is not published.

    Raises:
        InputError: see pickles.read, states.state_of and layouts.recognise; `out` is no
            .safetensors, is the source, or cannot be written; a tensor with NaN or Inf, or with one
            in the dtype asked for.
    """
    source, out = Path(source), Path(out)
    kind = _KINDS[choice("--dtype", dtype, _KINDS)]
    if source.is_dir():
        remedy = "Give the file of weights; a folder of diffusers is loaded by denoiser_of(folder)"
        raise InputError("IN", f"{str(source)!r} is a folder", remedy)
    if out.suffix != ".safetensors":
        raise InputError("OUT", f"is {str(out)!r}", "Give a .safetensors file")
    if out.exists() and source.exists() and out.samefile(source):
        raise InputError("OUT", f"{str(out)!r} is the checkpoint itself", "Give another path")
    state = state_of(source, "IN")
    with refusing("IN", f"{str(source)!r} is not converted", "Give it as its authors publish it"):
        layout = recognise(state, source.name, model, heads)
    description = {
        "architecture": layout.architecture,
        "arguments": dict(layout.arguments),
        **layout.description,
        "source": {"file": source.name, "place": state.place, "model": layout.model},
    }
    tensors = {name: state.tensors[theirs] for name, theirs in layout.names.items()}
    check_writable(out, "OUT")
    written = _write(out, tensors, description, kind)
    by_name = model is None and layout.architecture in ("dit", "sit")
    return _checked(out, state, layout, by_name, description, written)


def _write(
    out: Path, tensors: Mapping[str, Stored], description: Mapping[str, Any], kind: Any
) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Write them, one in memory at a time; dtype and shape of each."""
    kinds = {name: kind or value.dtype for name, value in tensors.items()}
    for name, value in tensors.items():
        if _CODES[value.dtype] not in LOADED:
            problem = f"{name!r} holds {str(value.dtype).removeprefix('torch.')}"
            raise InputError("IN", problem, "Give a checkpoint of weights of 16 bits or more")
    # The order of safetensors: the widest first, so that all are aligned.
    order = sorted(tensors, key=lambda name: (-kinds[name].itemsize, name))
    table: dict[str, Any] = {"__metadata__": {FORMAT: json.dumps(description, sort_keys=True)}}
    place = 0
    for name in order:
        end = place + tensors[name].numel * kinds[name].itemsize
        entry = {"dtype": _CODES[kinds[name]], "shape": list(tensors[name].shape)}
        table[name] = {**entry, "data_offsets": [place, end]}
        place = end
    head = json.dumps(table).encode()
    head += b" " * (-len(head) % 8)
    with replacing(out, "OUT") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for name in order:
            numbers = _finite(name, tensors[name].read(), kinds[name])
            file.write(numbers.flatten().view(torch.uint8).numpy().data)
    return {name: (kinds[name], tensors[name].shape) for name in order}


def _finite(name: str, value: Tensor, kind: torch.dtype) -> Tensor:
    if not value.isfinite().all():
        raise InputError("IN", f"{name!r} holds NaN or Inf", "Give an undamaged checkpoint")
    cast = value.to(kind)
    if not cast.isfinite().all():
        problem = f"{name!r} is not finite in {str(kind).removeprefix('torch.')}"
        raise InputError("--dtype", problem, "Give keep or float32")
    return cast


def _checked(
    out: Path,
    state: State,
    layout: Layout,
    by_name: bool,
    description: Mapping[str, Any],
    written: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
) -> Converted:
    """The file as another reader finds it, compared with what was written."""
    with safe_open(out, framework="pt", device="cpu") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        found = {n: (DTYPES[s.get_dtype()], tuple(s.get_shape())) for n, s in slices.items()}
    if found != written:
        raise InputError("OUT", f"{str(out)!r} was damaged as it was written", "Try again")
    return Converted(
        layout.model,
        layout.architecture,
        by_name,
        state.place,
        sum(value.numel for name, value in state.tensors.items() if name not in layout.dropped),
        tuple(sorted({str(kind).removeprefix("torch.") for kind, _ in written.values()})),
        len(written),
        layout.dropped,
        description,
        str(out),
        out.stat().st_size,
    )
