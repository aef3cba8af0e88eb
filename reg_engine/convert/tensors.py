"""Tensors in a file: held against its bytes when they are named, read when they are asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["DTYPES", "Storage", "Stored"]

# As safetensors calls them.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_AXES = 16
_EMPTY = 1 << 40  # the product of an empty tensor's other sides


@dataclass(slots=True, eq=False)
class Storage:
    """A row of numbers in a file.

    Args:
        dtype: of its elements.
        size: their number, as the file claims.
        data: their bytes; None until a later part of the file says where they are.
    """

    dtype: torch.dtype
    size: int
    data: memoryview | None = None

    @property
    def nbytes(self) -> int:
        """The claimed size in bytes."""
        return self.size * self.dtype.itemsize

    def __post_init__(self) -> None:
        if type(self.size) is not int or self.size < 0:
            raise ValueError("a storage without a size")
        if self.data is not None:
            self.attach(self.data)

    def attach(self, data: memoryview) -> None:
        """Give it its bytes; ValueError where they are fewer than it claims."""
        if len(data) < self.nbytes:
            raise ValueError(f"a storage claims {self.nbytes} bytes, {len(data)} are there")
        self.data = data[: self.nbytes]


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A tensor in a storage.

    Args:
        storage: where its elements lie.
        dtype: of the elements.
        offset, shape, stride: in elements.

    Raises:
        ValueError: an element would lie outside of the storage, or the tensor is larger than it.
    """

    storage: Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.stride) or len(self.shape) > _AXES:
            raise ValueError(f"a tensor of {len(self.shape)} sizes and {len(self.stride)} strides")
        sizes: tuple[Any, ...] = (self.offset, *self.shape, *self.stride)
        if not all(type(size) is int and 0 <= size < 1 << 63 for size in sizes):
            raise ValueError("a tensor whose sizes are no integers >= 0")
        if self.numel == 0:
            if math.prod(size or 1 for size in self.shape) > _EMPTY:
                raise ValueError("an empty tensor of too large sizes")
            return
        item = self.dtype.itemsize
        claimed = max(self.numel, self.offset + self._extent) * item
        if claimed > self.storage.nbytes:
            raise ValueError(
                f"a tensor claims {claimed} bytes of a storage of {self.storage.nbytes}"
            )

    @property
    def numel(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """What it takes, dense."""
        return self.numel * self.dtype.itemsize

    @property
    def _extent(self) -> int:
        """Elements from its first to its last, inclusive."""
        pairs = zip(self.shape, self.stride, strict=True)
        return 1 + sum((size - 1) * step for size, step in pairs)

    def read(self) -> Tensor:
        """The tensor, dense, in memory of its own.

        Raises:
            ValueError: its storage has no bytes.
        """
        if self.numel == 0:
            return torch.empty(self.shape, dtype=self.dtype)
        if self.storage.data is None:
            raise ValueError("a storage without bytes")
        start = self.offset * self.dtype.itemsize
        piece = bytearray(self.storage.data[start : start + self._extent * self.dtype.itemsize])
        flat = torch.frombuffer(piece, dtype=self.dtype)
        return flat.as_strided(self.shape, self.stride).contiguous()
