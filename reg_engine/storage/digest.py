"""One digest of whatever a result depends on: equal digests mean equal content, bit for bit.

Numbers count exactly, tensors by dtype, shape and bytes, networks by their class, attributes and
weights, functions by their code and what they close over, other objects by their attributes and,
where their class is of no library, by its functions.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["digest", "parts"]

_PLAIN = (bool, int, str, bytes, complex, range, slice, torch.dtype, torch.device, torch.Size)
LIBRARIES = ("reg_engine", "torch", "numpy", "diffusers")  # part of the key by their versions
_MODULE = ("_parameters", "_buffers", "_modules")  # the private attributes that hold weights


def digest(*values: object) -> str:
    """SHA-256 of the values, in hexadecimal.

    Raises:
        TypeError: something without attributes that is none of the known kinds (a generator, a
            lock): nobody can say whether two of them are equal.
    """
    found = hashlib.sha256()

    def put(piece: bytes | memoryview) -> None:
        found.update(len(piece).to_bytes(8, "little"))
        found.update(piece)

    for value in values:
        _put_pieces(value, (), put)
    return found.hexdigest()


@functools.singledispatch
def parts(value: Any) -> Any:
    """What of an object its digest covers; register a class that holds more than that."""
    slots = [name for each in type(value).__mro__ for name in getattr(each, "__slots__", ())]
    if not (hasattr(value, "__dict__") or slots):
        raise TypeError(f"a {type(value).__name__} has no digest")
    held = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    return {**held, **getattr(value, "__dict__", {})}


@parts.register
def _module(value: nn.Module) -> Any:
    """Attributes and weights, without hooks and without the mode, which a call sets itself."""
    return {
        name: held
        for name, held in vars(value).items()
        if name in _MODULE or not (name.startswith("_") or name == "training")
    }


def _put_pieces(
    value: Any, around: tuple[int, ...], put: Callable[[bytes | memoryview], None]
) -> None:
    """The value as a row of bytes; `around` are the objects that it lies in, for one in itself."""
    put(f"{type(value).__module__}.{type(value).__qualname__}".encode())
    if value is None or isinstance(value, (*_PLAIN, PurePath)):
        put(str(value).encode() if isinstance(value, PurePath) else repr(value).encode())
    elif isinstance(value, float):
        put(value.hex().encode())
    elif isinstance(value, np.generic):
        _put_pieces(value.item(), around, put)
    elif isinstance(value, Tensor):
        put(repr((value.dtype, tuple(value.shape))).encode())
        flat = value.detach().cpu().contiguous().flatten()
        put(flat.view(torch.uint8).numpy().data)
    elif isinstance(value, np.ndarray):
        put(repr((value.dtype.str, value.shape)).encode())
        put(value.tobytes())
    elif isinstance(value, type | types.BuiltinFunctionType | types.ModuleType):
        put(f"{getattr(value, '__module__', '')}.{value.__name__}".encode())
    elif id(value) in around:
        put(f"itself, {around.index(id(value))}".encode())
    else:
        held = [*_held(value), *_own_functions(type(value))]
        put(str(len(held)).encode())
        for part in held:
            _put_pieces(part, (*around, id(value)), put)


def _own_functions(kind: type) -> list[Any]:
    """What an object does, where its class is the user's own; libraries have versions."""
    found = []
    for each in kind.__mro__:
        top = each.__module__.partition(".")[0]
        if top in sys.stdlib_module_names or top in LIBRARIES or issubclass(each, nn.Module):
            continue
        members = sorted(vars(each).items())
        found += [part for _, part in members if isinstance(part, types.FunctionType)]
    return found


def _held(value: Any) -> Iterable[Any]:
    """What lies in a value, in an order of its own."""
    if isinstance(value, Mapping):
        pairs = sorted(value.items(), key=lambda pair: repr(pair[0]))
        return itertools.chain(*pairs)
    if isinstance(value, Set):
        return sorted(digest(part) for part in value)
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return [value.__code__, cells, value.__defaults__, value.__kwdefaults__]
    if isinstance(value, types.CodeType):
        return [value.co_name, value.co_code, value.co_consts, value.co_names]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    return [parts(value)]
