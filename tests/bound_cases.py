"""Where an argument's range ends, to the last bit, and the plain value that is kept of it."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from reg_engine import InputError

LEAST, MOST = math.ulp(0.0), sys.float_info.max


def above(value: float) -> float:
    """The next float."""
    return math.nextafter(value, math.inf)


def below(value: float) -> float:
    """The float before."""
    return math.nextafter(value, -math.inf)


def holds(
    kind: Callable[..., Any],
    name: str,
    taken: tuple[Any, ...],
    refused: tuple[Any, ...],
    **others: Any,
) -> None:
    """`kind` keeps each value of `taken` as a plain one, written in Python, NumPy or torch, and
    refuses each of `refused` by the argument's name and the value."""
    for value in taken:
        array = np.asarray(value)
        for written in (value, array[()], torch.from_numpy(array)):
            kept = getattr(kind(**others, **{name: written}), name)
            assert kept == value and type(kept) is type(value), (value, kept)
    for value in refused:
        with pytest.raises(InputError, match=f"^{name}: is {re.escape(repr(value))}"):
            kind(**others, **{name: value})
