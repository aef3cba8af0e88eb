"""Reference statistics as EDM2 publishes them: a pickle, read without running anything of it."""

from __future__ import annotations

import math
import os
from typing import Any

import torch
from torch import Tensor

from ..convert.pickles import read
from ..convert.records import Record
from ..errors import InputError, choice
from ..storage.readers import refusing

__all__ = ["SPACES", "read_pickled"]

SPACES = (
    "fid",
    "fd_dinov2",
)  # what EDM2's files hold: statistics in Inception's and DINOv2's features
REMEDY = "Give a .pkl of EDM2's dataset-refs, or an .npz with mu and sigma"
_KINDS = {"f4": torch.float32, "f8": torch.float64}


def read_pickled(path: str | os.PathLike[str], space: str) -> tuple[Tensor, Tensor]:
    """mu (F,) and sigma (F, F) of a file {space: {"mu": array, "sigma": array}, ...}.

    Raises:
        InputError: it is no such file, or lacks that space; it names something to be run.
    """
    where = repr(str(path))
    tree = read(path, "stats")
    if not isinstance(tree, dict):
        raise InputError("stats", f"{where} holds no statistics", REMEDY)
    found = tree.get(choice("stats", space, SPACES))
    if not isinstance(found, dict):
        held = ", ".join(str(key)[:40] for key in list(tree)[:5])
        raise InputError("stats", f"{where} holds {held or 'nothing'}, not {space}", REMEDY)
    with refusing("stats", f"{space} in {where} is no mean and covariance", REMEDY):
        return _array(found.get("mu")), _array(found.get("sigma"))


def _array(told: Any) -> Tensor:
    """A numpy array from what its pickle says: since protocol 5 a buffer, before it a state."""
    if not isinstance(told, Record):
        raise ValueError("no array")
    if told.kind.name == "_frombuffer":
        data, kind, shape, order = told.args
        by_columns = order == "F"
    else:
        _, shape, kind, by_columns, data = told.state
    name, ends = kind.args[0], kind.state[1]
    # The file's lists may hold one another: they are neither written out nor hashed.
    if type(name) is not str or type(ends) is not str or name not in _KINDS or len(shape) > 2:
        raise ValueError("an array of other numbers, or of more than two axes")
    dtype = _KINDS[name]
    if ends != "<" or not all(type(size) is int and 0 <= size < 1 << 32 for size in shape):
        raise ValueError("an array of another machine, or of no shape")
    if len(data) != math.prod(shape) * dtype.itemsize or not len(data):
        raise ValueError("an array that is not as long as it says")
    values = torch.frombuffer(bytearray(data), dtype=dtype)
    return (
        values.view(shape[::-1]).permute(*range(len(shape))[::-1])
        if by_columns
        else values.view(shape)
    )
