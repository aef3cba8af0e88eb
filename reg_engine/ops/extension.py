"""The compiled ops, C++ on the CPU and CUDA C++: loaded when first asked for, or why they are not.

Schemas stand here; the libraries `_C_cpu.so` and `_C_cuda.so` of the package bring the
implementations. They use torch's stable ABI only, so one build serves every torch from 2.10 on and
every Python. REG_ENGINE_EXT: unset = use what is built; 0 = ignore it; 1 = it must work.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from ..errors import BackendError, InputError, choice

__all__ = ["SCHEMAS", "load", "op"]

# Each writes its result into `out`; guided_step also d into its slot of `history`.
SCHEMAS = {
    "combine": "(Tensor cond, Tensor? ref, Tensor? term, float w, int channels, Tensor(a!) out)"
    " -> ()",
    "guided_step": "(Tensor x, Tensor cond, Tensor table, Tensor step, Tensor? ref, Tensor? term,"
    " Tensor? weight, Tensor? gain, Tensor? noise, Tensor(a!)? history, Tensor(c!)? nonfinite,"
    " int channels, Tensor(b!) out) -> ()",
    "reduce": "(Tensor u, Tensor? v, Tensor? w, Tensor(a!) out) -> ()",
    "probe": "(Tensor x, Tensor direction, Tensor length, Tensor table, Tensor step, int copies,"
    " Tensor(a!) out) -> ()",
}
FOLDER = Path(__file__).parents[1]  # of the package

_library = torch.library.Library("reg_engine_csrc", "DEF")
for _name, _schema in SCHEMAS.items():
    _library.define(_name + _schema)


def load() -> dict[str, str]:
    """For each kind of device "loaded", or why its ops cannot be used.

    Raises:
        BackendError: REG_ENGINE_EXT=1, and the ops of a device that torch has are missing or
            failed to load. InputError: REG_ENGINE_EXT is anything but 0 or 1.
    """
    return dict(_load(os.environ.get("REG_ENGINE_EXT", "")))


@cache
def _load(mode: str) -> dict[str, str]:
    if mode not in ("", "0", "1"):
        raise InputError("REG_ENGINE_EXT", f"is {mode!r}", "Set it to 0 or 1, or unset it")
    if mode == "0":
        return dict.fromkeys(("cpu", "cuda"), "switched off by REG_ENGINE_EXT=0")
    report = {"cpu": _load_library(FOLDER / "_C_cpu.so")}
    has_cuda = torch.version.cuda is not None
    report["cuda"] = (
        _load_library(FOLDER / "_C_cuda.so") if has_cuda else "this torch is built without CUDA"
    )
    for kind in ("cpu", "cuda") if has_cuda else ("cpu",):
        if mode == "1" and report[kind] != "loaded":
            raise BackendError(f"REG_ENGINE_EXT=1, but the {kind} ops are {report[kind]}")
    return report


def _load_library(path: Path) -> str:
    if not path.exists():
        return f"not built ({path.name} is missing)"
    try:
        torch.ops.load_library(str(path))
    except (OSError, RuntimeError) as error:
        return f"not loadable: {error.__cause__ or error}"
    return "loaded"


@cache
def op(name: str) -> Callable[..., None]:
    """The raw op `name`, its overload bound once; arguments as in SCHEMAS, of one device.

    Raises:
        InputError: unknown name. BackendError: as `load`.
    """
    choice("op", name, SCHEMAS)
    load()
    bound: Callable[..., None] = getattr(torch.ops.reg_engine_csrc, name).default
    return bound
