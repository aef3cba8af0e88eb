"""Where a checkpoint keeps a network: in a state dict, in one inside, or in a module's parts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..storage.readers import refusing
from .pickles import read
from .records import Record
from .tensors import Stored

__all__ = ["State", "state_of"]

# Where a network lies in what its training saved: the averaged one before the last.
_PLACES = ("ema", "model_ema", "ema_model", "state_dict", "model", "module", "net")
_PREFIXES = ("module.", "_orig_mod.", "model.")  # of DistributedDataParallel, compile, a wrapper
_INSIDE = 4  # dicts within dicts
_NAME, _PARTS = 512, 1 << 15  # characters of a tensor's name; modules and tensors
_REPEATED = 4  # times the file's bytes: tensors may share a storage


@dataclass(frozen=True)
class State:
    """A network's tensors.

    Args:
        tensors: by name.
        place: where they lay: "ema", "", ...
        settings: the attributes of the module that they were parts of; empty for a state dict.
        tree: all of the checkpoint.
    """

    tensors: Mapping[str, Stored]
    place: str
    settings: Mapping[str, Any]
    tree: Any


def state_of(path: str | os.PathLike[str], argument: str = "path") -> State:
    """The tensors of the network in a published checkpoint.

    Raises:
        InputError: as pickles.read; nothing in it is a network; tensors that together are far
            larger than the file.
    """
    tree = read(path, argument)
    remedy = "Give a checkpoint that holds a state dict, or one under 'ema' or 'model'"
    with refusing(argument, f"{str(path)!r} is not converted", remedy):
        place, held, settings = _search(tree, ())
        if not held:
            raise ValueError("a network without tensors")
        size = sum(each.nbytes for each in held.values())
        if size > _REPEATED * Path(path).stat().st_size:
            raise ValueError(f"its tensors are {size} bytes, far more than the file")
        if max(map(len, held)) > _NAME:
            raise ValueError(f"a name of more than {_NAME} characters")
        return State(_plain(held), place, settings, tree)


def _search(tree: Any, place: tuple[str, ...]) -> tuple[str, dict[str, Stored], dict[str, Any]]:
    """(place, tensors, attributes) of the first network below."""
    if isinstance(tree, Record) and type(tree.state) is dict and "_modules" in tree.state:
        found: dict[str, Stored] = {}
        _parts(tree, "", found, [0])
        return ".".join(place), found, tree.state
    inside = items_of(tree)
    if any(type(value) is Stored for value in inside.values()):
        for name, value in inside.items():
            if type(name) is not str or type(value) is not Stored:
                raise ValueError(f"{str(name)[:80]!r} among its tensors is none")
        return ".".join(place), inside, {}
    key = next((key for key in _PLACES if key in inside), None)
    if key is None or len(place) == _INSIDE:
        keys = ", ".join(repr(str(key)[:40]) for key in list(inside)[:8])
        raise ValueError(f"no network in it; there are {keys or 'no names at all'}")
    return _search(inside[key], (*place, key))


def items_of(value: Any) -> dict[Any, Any]:
    """What lies in a dict, or in an object that is one; nothing in anything else."""
    value = value.items if isinstance(value, Record) else value
    return value if type(value) is dict else {}


def _parts(module: Any, before: str, found: dict[str, Stored], seen: list[int]) -> None:
    """Parameters and buffers of a module and those in it, by the names of its state dict."""
    state = module.state if isinstance(module, Record) else None
    if type(state) is not dict or len(before) > _NAME:
        raise ValueError(f"a module without parts, or nested too deep, at {before[:80]!r}")
    parameters, buffers = (items_of(state.get(kind)) for kind in ("_parameters", "_buffers"))
    left_out = state.get("_non_persistent_buffers_set")
    left_out = left_out if type(left_out) is list else []
    seen[0] += 1 + len(parameters) + len(buffers) + len(left_out)
    if seen[0] > _PARTS:  # the same few may be named over and over
        raise ValueError(f"more than {_PARTS} modules and tensors")
    hidden = {name for name in left_out if type(name) is str}
    kept = {name: value for name, value in buffers.items() if name not in hidden}
    for name, value in (*parameters.items(), *kept.items()):
        if value is None:
            continue
        if type(name) is not str or type(value) is not Stored:
            raise ValueError(f"{before + str(name)[:80]!r} is no tensor")
        found[before + name] = value
    for name, value in items_of(state.get("_modules")).items():
        if value is not None:
            _parts(value, f"{before}{name}.", found, seen)


def _plain(tensors: dict[str, Stored]) -> dict[str, Stored]:
    """Names without what wrappers put before all of them."""
    for prefix in _PREFIXES * 2:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name[len(prefix) :]: value for name, value in tensors.items()}
    return tensors
