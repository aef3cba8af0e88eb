"""Whether 16 bits pay off here: a processor without instructions for them emulates each product.

Asked of the machine, not of a table of processors: one step of a small convolution, both ways.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Speed", "faster", "speed"]

_SHAPE, _WIDTH, _ROUNDS = (8, 64, 16, 16), 64, 5  # of the trial: its batch, channels, rounds


@dataclass(frozen=True)
class Speed:
    """Seconds of one and the same trial step in float32, and in bfloat16 (autocast)."""

    float32: float
    bfloat16: float

    def __str__(self) -> str:
        kind = "slower" if self.bfloat16 > self.float32 else "faster"
        ratio = max(self.bfloat16, self.float32) / min(self.bfloat16, self.float32)
        return f"bfloat16 is {ratio:.1f} times {kind} than float32 on this processor"


@cache
def speed() -> Speed:
    """Measured once; some tenths of a second on a busy machine.

    On one thread and by the processor's clock: what else runs on the machine does not count.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(_SHAPE, generator=generator).to(memory_format=torch.channels_last)
    weight = torch.randn(_WIDTH, _SHAPE[1], 3, 3, generator=generator).requires_grad_()
    taken: dict[bool, list[float]] = {False: [], True: []}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(1 + _ROUNDS):  # the first to warm up
            for halved, seconds in taken.items():
                seconds.append(_seconds(x, weight, halved))
    finally:
        torch.set_num_threads(threads)
    return Speed(min(taken[False][1:]), min(taken[True][1:]))


def faster(dtype: str, device: torch.device) -> tuple[str, str]:
    """(what to train in, why) where `dtype` ("float32" or "bfloat16") is asked for.

    On a CPU bfloat16 is asked for to be fast, and float32 is more exact: where it is faster too, it
    is taken. Elsewhere the dtype stays.
    """
    if dtype != "bfloat16" or device.type != "cpu":
        return dtype, ""
    measured = speed()
    if measured.bfloat16 <= measured.float32:
        return dtype, ""
    return "float32", f"{measured}"


def _seconds(x: Tensor, weight: Tensor, halved: bool) -> float:
    """A forward and a backward pass of a convolution."""
    began = time.thread_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=halved):
        loss = F.conv2d(x, weight, padding=1).float().square().mean()
    torch.autograd.grad(loss, weight)
    return time.thread_time() - began
