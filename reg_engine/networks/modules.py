"""The torch modules inside a callable, found without running it, and the dtype they compute in."""

from __future__ import annotations

import dis
import inspect
import os
import threading
import types
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

__all__ = ["COMPUTED", "ask", "dtype_of", "modules_of", "search"]

COMPUTED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # others only store
LIMIT = 10_000  # objects looked at in one search
HOME = os.path.join(Path(__file__).resolve().parents[1], "")  # this package
_BARE = (str, bytes, int, float, complex, type(None), Tensor, type, types.ModuleType)
_PLAIN = frozenset((bool, int, float, str, type(None)))  # most of what a module keeps
_MISSING = object()


def modules_of(*roots: object) -> tuple[nn.Module, ...]:
    """The outermost nn.Modules that `roots` are or hold, without running any of them.

    Looked at: what a function's code reads (of its closure and globals, as far down as the code
    names attributes), its defaults and attributes; the parts of bound methods and partials; the
    attributes of other objects, and of modules past the registered ones; members of containers.
    """
    modules = tuple(search(*roots))
    inner = {id(m) for module in modules for m in module.modules() if m is not module}
    return tuple(module for module in modules if id(module) not in inner)


def search(*roots: object) -> Iterator[nn.Module]:
    """As `modules_of`, one by one, and perhaps a module before the one that it is part of."""
    seen: dict[int, object] = {}  # kept alive, so that an id stays its own
    waiting = deque(roots)
    while waiting and len(seen) < LIMIT:
        value = waiting.popleft()
        if isinstance(value, _BARE) or id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, nn.Module):
            yield value  # before its parts are listed: most who ask need no more than this one
            seen.update((id(module), module) for module in value.modules())
        waiting.extend(_parts(value))


def _parts(value: Any) -> Iterable[object]:
    if isinstance(value, types.FunctionType):
        keywords = value.__kwdefaults__ or {}
        parts = value.__defaults__ or (), keywords.values(), value.__dict__.values()
        return chain(_read(value), *parts)
    if isinstance(value, types.MethodType):
        return chain(_read(value.__func__, value.__self__), (value.__self__,))
    if isinstance(value, partial):
        return (value.func, *value.args, *value.keywords.values())
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset | deque):
        return list(value)
    if isinstance(value, nn.Module):
        return chain(_read(type(value).forward, value), _unregistered(value))
    called = inspect.getattr_static(type(value), "__call__", None)
    return chain(_read(called, value), _attributes(value))


def _unregistered(root: nn.Module) -> Iterator[object]:
    for module in root.modules():
        for name, value in vars(module).items():
            if type(value) in _PLAIN or name in ("_parameters", "_buffers", "_modules"):
                continue
            if not isinstance(value, dict) or value:  # hooks, most often none
                yield value


def _attributes(value: object) -> Iterator[object]:
    """What the object holds, past whatever its class does when it is asked."""
    known = _static(value, "__dict__")
    yield from list(known.values()) if isinstance(known, dict) else ()
    slots = (vars(kind).get("__slots__", ()) for kind in type(value).__mro__)
    for name in chain(("__self__",), *((s,) if isinstance(s, str) else s for s in slots)):
        yield _static(value, name)


def _static(value: object, name: str) -> object:
    try:
        return object.__getattribute__(value, name)
    except (AttributeError, TypeError):
        return None


def _read(function: object, instance: object = None) -> Iterator[object]:
    """What a function's code reads; `instance` is what its first argument stands for."""
    if not isinstance(function, types.FunctionType):
        return
    code, names = function.__code__, {}
    library = _is_library(code.co_filename)
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not bound yet
            continue
    if instance is not None and code.co_argcount and not library:
        names[code.co_varnames[0]] = instance
    for where, name, attributes in _names(code):
        if where == "local":
            value = names.get(name)
        else:
            value = None if library else function.__globals__.get(name)
        yield _followed(value, attributes)


def _is_library(path: str) -> bool:
    """Code that keeps no network of the caller's in its globals: installed code, and this package,
    whose caches hold the networks of other calls."""
    return "site-packages" in path or path.startswith(HOME)


def _followed(value: Any, attributes: Iterable[str]) -> object:
    for name in attributes:
        if isinstance(value, nn.Module):
            break
        attribute = inspect.getattr_static(value, name, _MISSING)
        if isinstance(attribute, types.FunctionType) and not isinstance(value, types.ModuleType):
            return types.MethodType(attribute, value)
        if attribute is _MISSING or hasattr(type(attribute), "__get__"):
            break
        value = attribute
    return value


@lru_cache(maxsize=1024)
def _names(code: types.CodeType) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """("local" or "global", name, attributes read of it) of a function and those inside it."""
    names: list[tuple[str, str, tuple[str, ...]]] = []
    reading = False
    for instruction in dis.get_instructions(code):
        kind, name = instruction.opname, instruction.argval
        if kind in ("LOAD_ATTR", "LOAD_METHOD") and reading:
            names[-1] = (*names[-1][:2], (*names[-1][2], name))
            continue
        reading = kind.startswith(("LOAD_FAST", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_GLOBAL"))
        if reading:
            name = name[-1] if isinstance(name, tuple) else name  # two loads in one
            names.append(("global" if kind == "LOAD_GLOBAL" else "local", name, ()))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            own = set(constant.co_varnames)
            names += [n for n in _names(constant) if n[0] == "global" or n[1] not in own]
    return tuple(names)


def dtype_of(modules: Iterable[nn.Module]) -> torch.dtype | None:
    """Floating dtype that the first of `modules` with floating tensors computes in, or None.

    A module's own `dtype` (diffusers, transformers) counts unless its tensors contradict it.
    Dtypes that only store, such as float8, do not count.
    """
    for module in modules:
        said, first = _MISSING, None
        for tensor in chain(module.parameters(), module.buffers()):
            dtype = tensor.dtype
            if not dtype.is_floating_point:
                continue
            if said is _MISSING:
                said = getattr(module, "dtype", None)
            if said in COMPUTED and (dtype == said or dtype not in COMPUTED):
                return said
            if first is None and dtype in COMPUTED:
                first = dtype
            if first is not None and said not in COMPUTED:
                break
        if first is not None:
            return first
    return None


_ASKED: dict[int, weakref.ref[Any]] = {}  # networks that were looked at, weakly


def ask(
    net: Callable[..., Any], modules: Iterable[nn.Module], *args: object, **keywords: object
) -> Any:
    """The call of net, and once a warning if a torch network runs in it that `modules` lacks."""
    known = _ASKED.get(id(net))
    if known is not None and known() is net:
        return net(*args, **keywords)
    key = id(net)
    with suppress(TypeError):  # objects without weak references are looked at in each call
        _ASKED[key] = weakref.ref(net, lambda _: _ASKED.pop(key, None))
    if any(True for _ in modules):
        return net(*args, **keywords)
    thread, met = threading.get_ident(), []

    def hook(module: nn.Module, _: object) -> None:
        if threading.get_ident() == thread and any(True for _ in module.parameters()):
            met.append(type(module).__name__)

    handle = register_module_forward_pre_hook(hook)
    try:
        return net(*args, **keywords)
    finally:
        handle.remove()
        if met:
            warnings.warn(
                f"the network's function runs a torch module ({met[0]}) that is not found in it, "
                "so evaluation mode, freezing, device, dtype and memory budget pass it by. Name "
                "it: Denoiser(..., modules=[...])",
                stacklevel=2,
            )
