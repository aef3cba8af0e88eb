"""How tensors lie in memory, for the launchers: strides, rows, width of the index arithmetic.

Every (B, C, *rest) tensor is read as (B, C, S) with three strides. Contiguous and channels_last
tensors, slices of the batch or of the channels, offset views and expanded tensors all are; what is
not (a cropped picture) is copied first. (B, N) is read as C = N, S = 1.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

__all__ = ["Layout", "arrange", "collapse", "lay_out", "on_device", "readable", "writable"]

Strides = tuple[int, int, int]

# Index arithmetic within a row is 32-bit up to here; the margin is the longest block, whose lanes
# beyond the end must not wrap around to valid elements.
INT32_LIMIT = 2**31 - 2**16


@dataclass(frozen=True)
class Layout:
    """How a kernel walks its tensors: `rows` of `size` elements.

    Args:
        rows, size: B and C S; or 1 and B C S, where the batch needs not be told apart.
        inner: S.
        flat: all tensors of a row lie densely and in the same order: element n is at offset n.
        wide: offsets within a row need 64 bits.
        strides: (row, C, S) strides of each tensor, in elements; zeros for one that is absent.
    """

    rows: int
    size: int
    inner: int
    flat: bool
    wide: bool
    strides: tuple[Strides, ...]

    def blocks(self, block: int) -> int:
        """Blocks of `block` elements in a row."""
        return -(-self.size // block)


@lru_cache(maxsize=4096)
def collapse(shape: tuple[int, ...], stride: tuple[int, ...]) -> Strides | None:
    """Strides of a (B, C, *rest) tensor read as (B, C, S), 0 along a dimension of size 1.

    None where `rest` cannot be read as one dimension.
    """
    steps = [s if size > 1 else 0 for size, s in zip(shape, stride, strict=True)]
    rest = [(size, s) for size, s in zip(shape[2:], steps[2:], strict=True) if size > 1]
    if any(outer != size * s for (_, outer), (size, s) in pairwise(rest)):
        return None
    return steps[0], (steps[1] if len(steps) > 1 else 0), (rest[-1][1] if rest else 0)


@lru_cache(maxsize=4096)
def arrange(
    shape: tuple[int, ...], strides: tuple[Strides | None, ...], by_row: bool, ordered: bool
) -> Layout:
    """The layout of tensors of one shape (B, C, *rest).

    Args:
        strides: of each tensor, as `collapse` returns them; None for one that is absent.
        by_row: the kernel asks which sample an element belongs to.
        ordered: the kernel asks at which place of (C, S) an element is.
    """
    batch, channels, inner = shape[0], math.prod(shape[1:2]), math.prod(shape[2:])
    sample = channels * inner
    given = [s for s in strides if s is not None]

    def dense(channel: int, last: int) -> bool:
        return all(
            (channels == 1 or s[1] == channel) and (inner == 1 or s[2] == last) for s in given
        )

    flat = dense(inner, 1) or (not ordered and dense(1, channels))
    merged = flat and not by_row and (batch == 1 or all(s[0] == sample for s in given))
    rows, size = (1, batch * sample) if merged else (batch, sample)
    reach = max((channels - 1) * s[1] + (inner - 1) * s[2] for s in given)
    wide = max(size, reach) >= INT32_LIMIT
    return Layout(rows, size, inner, flat, wide, tuple(s or (0, 0, 0) for s in strides))


def lay_out(
    tensors: Sequence[Tensor | None],
    *,
    by_row: bool = False,
    ordered: bool = False,
    contiguous: bool = False,
) -> Layout:
    """`arrange` for tensors that `readable` and `writable` returned.

    Args:
        tensors: of one shape; the first is there, others may be None.
        contiguous: the kernel also walks a contiguous buffer, whose strides it knows.
    """
    first = tensors[0]
    assert first is not None
    strides = [None if t is None else collapse(t.shape, t.stride()) for t in tensors]
    return arrange(tuple(first.shape), tuple(strides), by_row, ordered or contiguous)


def readable(tensor: Tensor | None) -> Tensor | None:
    """The tensor, or a contiguous copy where it cannot be read as (B, C, S)."""
    if tensor is None or collapse(tensor.shape, tensor.stride()) is not None:
        return tensor
    return tensor.contiguous()


@contextlib.contextmanager
def writable(out: Tensor) -> Iterator[Tensor]:
    """What a kernel writes for `out`: itself, or a contiguous buffer that is copied there after."""
    if collapse(out.shape, out.stride()) is not None:
        yield out
        return
    buffer = torch.empty_like(out, memory_format=torch.contiguous_format)
    yield buffer
    out.copy_(buffer)


def on_device(tensor: Tensor) -> contextlib.AbstractContextManager[object]:
    """Make the tensor's device current: a launch goes to the current device's current stream."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
