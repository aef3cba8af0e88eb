"""Random numbers that belong to a sample, not to a batch: one generator a seed, on the host.

Sample k is the same whatever the batch size, the device, the state's dtype or the number of
processes. NumPy's generators are used, because PyTorch's on the CPU keeps 32 bits of a seed; they
leave the interpreter free while they draw, so that a batch's generators can draw side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Draws", "SampleNoise", "seed_dropout"]

_STREAMS = {"noise": 0, "probes": 1, "calibration": 2, "conditions": 3}
_CHUNK = 2**18  # numbers drawn ahead at once: 1 MiB, or one draw of the batch where that is more
_RING = 3  # chunks: one is read, one is drawn, one may still be on its way to the device
_WORTH_A_THREAD = 2**16  # numbers; fewer take no longer than handing work to threads


class Draws(Protocol):
    """Where random numbers come from, sample by sample."""

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers in the shape, dtype and device of `like` (B, ...)."""
        ...

    def signs(self, like: Tensor) -> Tensor:
        """Rademacher numbers (+1 or -1, equal chances), likewise."""
        ...


class SampleNoise:
    """Draws of standard normal numbers and of signs, sample by sample.

    Args:
        seeds: one integer a sample, in [0, 2^63).
        stream: "noise" (the initial state and the solver's noise), "probes" (Hutchinson),
            "calibration" (what finished samples are noised with) or "conditions" (drawn ones, as a
            reference). They are independent: choosing a rectifier does not change a sample's noise.
    """

    def __init__(self, seeds: Sequence[int], stream: str = "noise") -> None:
        self._seeds, self._stream = tuple(seeds), _STREAMS[stream]

    def __len__(self) -> int:
        """The number of samples."""
        return len(self._seeds)

    @cached_property
    def _generators(self) -> list[np.random.Generator]:
        """Made when first asked for: most runs draw from one stream, and some from none."""
        pairs = ((seed, self._stream) for seed in self._seeds)
        return [np.random.Generator(np.random.PCG64(pair)) for pair in pairs]

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers in the shape, dtype and device of `like` (B, ...)."""
        return next(self.ahead(like, 1))

    def ahead(self, like: Tensor, count: int) -> Iterator[Tensor]:
        """What `count` calls of `normal` give, drawn by threads while the caller works.

        Each is valid until the next is asked for: on the CPU it is a view of a reused buffer. On
        CUDA the buffers are pinned, and the host waits for no step to end.
        """
        size = max(1, like.numel())
        rows = max(1, min(count, _CHUNK // size))
        chunks = [min(rows, count - start) for start in range(0, count, rows)]
        options: dict[str, Any] = {"dtype": torch.float32, "pin_memory": like.is_cuda}
        ring = [torch.empty((rows, *like.shape), **options) for _ in chunks[:_RING]]
        copied: list[torch.cuda.Event] = []  # for each chunk, when the device has all of it
        with _Threads(len(self), rows * size) as threads:
            generators = self._generators  # made here, before threads ask for them

            def begin(index: int) -> list[Future[None]]:
                if len(copied) > index - _RING >= 0:
                    copied[index - _RING].synchronize()  # long ago: keeps the host from running off
                buffer = ring[index % _RING][: chunks[index]].numpy()
                own = [buffer[:, sample : sample + 1] for sample in range(len(self))]
                return threads.begin(lambda sample: _fill(generators[sample], own[sample]))

            pending = begin(0) if chunks else []
            for index, length in enumerate(chunks):
                for future in pending:
                    future.result()
                if index + 1 < len(chunks):
                    pending = begin(index + 1)
                for row in ring[index % _RING][:length]:
                    yield row.to(like.device, non_blocking=True).to(like.dtype)
                if like.is_cuda:
                    copied.append(torch.cuda.current_stream(like.device).record_event())

    def signs(self, like: Tensor) -> Tensor:
        """Rademacher numbers (+1 or -1, equal chances) in the shape, dtype and device of `like`."""
        shape = tuple(like.shape[1:])
        rows = [g.integers(0, 2, shape, dtype=np.int8) for g in self._generators]
        return _moved(np.stack(rows), like).mul_(2).sub_(1)

    def below(self, count: int) -> list[int]:
        """An integer in [0, count) of each sample, count <= 2^63."""
        return [int(generator.integers(count)) for generator in self._generators]


class _Threads:
    """Spreads samples over as many threads as torch computes with; small work is done at once."""

    def __init__(self, samples: int, numbers: int) -> None:
        count = min(samples, torch.get_num_threads())
        self._shares = [range(first, samples, count) for first in range(count)]
        self._pool = ThreadPoolExecutor(count) if numbers >= _WORTH_A_THREAD else None

    def __enter__(self) -> _Threads:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def begin(self, fill: Callable[[int], None]) -> list[Future[None]]:
        """Start `fill(sample)` for every sample; what is still to be waited for."""

        def several(samples: range) -> None:
            for sample in samples:
                fill(sample)

        if self._pool is not None:
            return [self._pool.submit(several, share) for share in self._shares]
        for share in self._shares:
            several(share)
        return []


def _fill(generator: np.random.Generator, rows: NDArray[np.float32]) -> None:
    # Always drawn in float32, so that a float64 run follows the float32 one.
    for row in rows:
        generator.standard_normal(out=row, dtype=np.float32)


def _moved(values: NDArray[Any], like: Tensor) -> Tensor:
    """On the device and in the dtype of `like`; the host does not wait for the copy."""
    tensor = torch.from_numpy(values)
    if like.is_cuda:
        tensor = tensor.pin_memory().to(like.device, non_blocking=True)
    return tensor.to(like.device, like.dtype)


def seed_dropout(seed: int, device: torch.device) -> None:
    """Seed torch's own generators, which dropout draws from: for the CPU that one alone.

    `torch.manual_seed` notes for every other kind of device, with a stack trace, what it is to do
    later; where none is asked, that takes longer than a small network's step.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
