"""The names that a published pickle may use, and what each stands for here: nothing of the file's.

`FUNCTIONS` are called by REDUCE with the arguments of the file; they are ours, and give tensors
or dicts. `_RECORDS`, and torch's layers, may be called, too: that gives a `Record` of what was
said. Whatever is in neither is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch

from .records import Name, Record
from .tensors import DTYPES, Storage, Stored

__all__ = ["FUNCTIONS", "call", "dtype_of", "named"]

_STORAGES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.storage.UntypedStorage": torch.uint8,
}
_NUMBERS = {**_STORAGES, **{str(dtype): dtype for dtype in DTYPES.values()}}
_RECORDS = {
    "argparse.Namespace",
    "builtins.bytes",
    "builtins.object",
    "__builtin__.bytes",
    "__builtin__.object",
    "dnnlib.EasyDict",
    "dnnlib.util.EasyDict",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.core.numeric._frombuffer",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.numeric._frombuffer",
    "numpy.dtype",
    "numpy.ndarray",
    "torch.Size",
    "torch.device",
    *_NUMBERS,
}
_LAYERS = re.compile(r"torch\.nn\.modules\.[a-z]+\.[A-Z]\w*")
_ARGUMENTS = 16


def named(module: str, name: str) -> Name:
    """The name, if a file may use it.

    Raises:
        ValueError: it may not.
    """
    found = Name(module, name)
    full = str(found)
    if "." in name or not (full in FUNCTIONS or full in _RECORDS or _LAYERS.fullmatch(full)):
        raise ValueError(f"it names {full[:120]!r}, which is not read here")
    return found


def call(name: Name, args: tuple[Any, ...]) -> Any:
    """What stands for the result of a function or class of the file: a value of ours, or a Record.

    Raises:
        ValueError: arguments that the function does not take.
    """
    function = FUNCTIONS.get(str(name))
    if function is None:
        return Record(name, args)
    try:
        return function(*args[:_ARGUMENTS])
    except TypeError as error:
        raise ValueError(f"{name} is called in an unusual way") from error


def dtype_of(name: Any) -> torch.dtype:
    """The dtype of a storage's class or of a dtype's name, else ValueError."""
    found = _NUMBERS.get(str(name)) if type(name) is Name else None
    if found is None:
        raise ValueError("numbers of no known type")
    return found


def _tensor(
    storage: Any,
    offset: Any,
    shape: Any,
    stride: Any,
    _gradient: Any,
    _hooks: Any,
    more: Any = None,
) -> Stored:
    """torch._utils._rebuild_tensor_v2."""
    if more:  # of conjugated and negated views
        raise ValueError("a tensor with metadata")
    dtype = storage.dtype if type(storage) is Storage else torch.uint8
    return _typed(storage, offset, shape, stride, dtype)


def _tensor_of_dtype(
    storage: Any, offset: Any, shape: Any, stride: Any, _gradient: Any, _hooks: Any, dtype: Any
) -> Stored:
    """torch._utils._rebuild_tensor_v3."""
    return _typed(storage, offset, shape, stride, dtype_of(dtype))


def _typed(storage: Any, offset: Any, shape: Any, stride: Any, dtype: torch.dtype) -> Stored:
    if type(storage) is not Storage or type(shape) is not tuple or type(stride) is not tuple:
        raise ValueError("a tensor without storage, sizes or strides")
    return Stored(storage, dtype, offset, shape, stride)


def _parameter(data: Any, _gradient: Any, _hooks: Any, _state: Any = None) -> Stored:
    if type(data) is not Stored:
        raise ValueError("a parameter without a tensor")
    return data


def _ordered() -> dict[Any, Any]:
    return {}


def _reconstructor(kind: Any, _base: Any, _state: Any) -> Any:
    """copyreg's, of objects without a state of their base's."""
    if type(kind) is not Name:
        raise ValueError("an object of no class")
    return call(kind, ())


def _persistent(meta: Any) -> Record:
    """An object of NVIDIA's persistent classes: its state; the source in it is text, never read."""
    said = meta if type(meta) is dict else {}
    kind, state = said.get("class_name"), said.get("state")
    if said.get("type") != "class" or type(kind) is not str or type(state) is not dict:
        raise ValueError("a persistent object without class and state")
    return Record(Name("persistent", kind), (), state)


def _same(values: Any = (), _encoding: Any = None) -> Any:
    """A set is kept as its list, bytes that were written as text as that text."""
    return values


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _same,
    "builtins.set": _same,
    "__builtin__.set": _same,
    "collections.OrderedDict": _ordered,
    "copyreg._reconstructor": _reconstructor,
    "copy_reg._reconstructor": _reconstructor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
}
