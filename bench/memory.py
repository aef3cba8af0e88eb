"""Peak memory of a call, apart from what was there before it: the weights and the inputs."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["LiveBytes", "held_bytes", "peak_bytes"]


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations inside the block create, while they live.

    Works on every device and exactly; sees neither what compiled code allocates nor scratch memory
    inside an operation.

    Attributes:
        live, peak: bytes now, and at most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = {_place(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and _place(tensor) not in given | self._known:
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        place, size = storage._cdata, storage.nbytes()
        self._known.add(place)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._remove, place, size)

    def _remove(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.live -= size


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def held_bytes(call: Callable[[], object], device: torch.device) -> int | str:
    """Bytes that the allocator of CUDA keeps after the call and cannot give back: graphs' pools.

    "" elsewhere.
    """
    if device.type != "cuda":
        call()
        return ""
    reserved = []
    for act in (gc.collect, call):
        act()
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        reserved.append(int(torch.cuda.memory_reserved(device)))
    return reserved[1] - reserved[0]


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Most bytes that were alive during the call beyond those alive before it.

    On CUDA the allocator says it; elsewhere LiveBytes counts.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device)) - before
    with LiveBytes() as counted:
        call()
    return counted.peak
