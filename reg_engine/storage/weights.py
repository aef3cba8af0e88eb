"""Weights on disk: safetensors with a JSON description; nothing here ever unpickles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import InputError
from .files import write_whole
from .readers import open_regular, refusing

__all__ = ["DTYPES", "FORMAT", "REMEDY", "describe", "opened", "read", "save_weights"]

FORMAT = "reg_engine"  # the metadata key of the description
PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin")
MOST_HEADER = 1 << 20  # bytes, before anything is compared with the tensors
DTYPES = ("F16", "BF16", "F32", "F64")
ARGUMENT = "name_or_path"
REMEDY = "Give a .safetensors file that `reg-engine train` or `reg-engine convert` wrote"


def save_weights(
    path: Path,
    weights: dict[str, Tensor],
    description: dict[str, Any],
    dtype: torch.dtype | None = torch.float16,
) -> None:
    """Write weights as safetensors with their description, atomically.

    Args:
        path: a .safetensors file; replaced if it exists.
        weights: a state dict.
        description: plain values; `architecture` (a key of ARCHITECTURES) and `arguments` (of its
            constructor) at least.
        dtype: of what is written: float16, bfloat16, float32 or float64; None = each weight's own.

    Raises:
        InputError: a weight that is not finite in that dtype; `path` cannot be written.
    """
    stored = {
        name: value.detach().to("cpu", dtype or value.dtype) for name, value in weights.items()
    }
    for name, value in stored.items():
        if not value.isfinite().all():
            kind = str(value.dtype).removeprefix("torch.")
            raise InputError(
                "weights", f"{name} is not finite in {kind}", "Train with a lower rate"
            )
    data = save(
        {name: value.contiguous() for name, value in stored.items()},
        metadata={FORMAT: json.dumps(description, sort_keys=True)},
    )
    write_whole(path, data, "path")


def read(
    path: Path, argument: str = ARGUMENT, remedy: str = REMEDY
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(weights, description) of a file that save_weights wrote.

    Args:
        path: of the file. argument, remedy: of the error.

    Raises:
        InputError: no such file; a pickle; a truncated, corrupt or foreign file.
    """
    with opened(path, argument, remedy) as (file, description):
        return {name: file.get_tensor(name) for name in file.keys()}, description  # noqa: SIM118


def describe(path: Path) -> dict[str, Any]:
    """The description alone; raises as `read`."""
    with opened(path) as (_, description):
        return description


@contextmanager
def opened(
    path: Path, argument: str = ARGUMENT, remedy: str = REMEDY
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The open safetensors file and its description; an error inside is the file's fault."""
    where = repr(str(path))
    if path.suffix.lower() in PICKLES:
        raise InputError(
            argument, f"{where} is a pickle, which can run code when it is read", remedy
        )
    if not path.is_file():
        raise InputError(argument, f"there is no file {where}", remedy)
    with refusing(argument, f"{where} is damaged or no safetensors file", remedy):
        with open_regular(path) as raw:
            size = int.from_bytes(raw.read(8), "little")
        if size > MOST_HEADER:
            raise ValueError(f"a header of {size} bytes")
        with safe_open(path, framework="pt", device="cpu") as file:
            for name in file.keys():  # noqa: SIM118
                if file.get_slice(name).get_dtype() not in DTYPES:
                    raise ValueError(f"{name[:80]!r} is {file.get_slice(name).get_dtype()}")
            yield file, _described(file.metadata() or {}, where, argument, remedy)


def _described(metadata: dict[str, str], where: str, argument: str, remedy: str) -> dict[str, Any]:
    if FORMAT not in metadata:
        raise InputError(
            argument, f"{where} does not say what network its weights belong to", remedy
        )
    with refusing(argument, f"the description in {where} is damaged", remedy):
        description = json.loads(metadata[FORMAT])
    if not isinstance(description, dict):
        raise InputError(argument, f"the description in {where} is no table", remedy)
    return description
