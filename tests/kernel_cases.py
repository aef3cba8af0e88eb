"""What the tests of the kernels share: devices, memory layouts, the rule of accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reg_engine.ops import formulas
from reg_engine.ops.coefficients import COLUMNS, FIRST_B

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
FLOATS = (F32, F16, BF16, F64)

# One element, one pixel, odd and prime, several blocks, no picture, no sample.
SHAPES = ((1, 1), (1, 1, 1, 1), (3, 5, 7, 11), (2, 4, 24, 24), (4, 9), (0, 3, 4, 4))

SHAPE = (3, 5, 4, 6)
# Whether there is a reference, and a term.
VARIANTS = {
    "none": (False, False),
    "cfg": (True, False),
    "rectifier": (True, True),
    "vector": (False, True),
}

ROWS, ROW = 6, 3  # of the tables of steps, and the one that is taken

Make = Callable[[tuple[int, ...], torch.dtype], Tensor]


def rand(shape: tuple[int, ...], dtype: torch.dtype = F32) -> Tensor:
    return torch.randn(shape, dtype=F64).to(DEVICE, dtype)


def nan(shape: tuple[int, ...], dtype: torch.dtype = F32) -> Tensor:
    return torch.full(shape, math.nan, dtype=dtype, device=DEVICE)


def _strided(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return rand((*shape[:-1], 2 * shape[-1]), dtype)[..., ::2]


def _offset(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return rand((math.prod(shape) + 3,), dtype)[3:].view(shape)


def _channels_last(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return rand(shape, dtype).to(memory_format=torch.channels_last)


def _channel_slice(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return rand((shape[0], shape[1] + 3, *shape[2:]), dtype)[:, 2:-1]


def _batch_slice(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return rand((2 * shape[0], *shape[1:]), dtype)[1::2]


def _crop(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return rand((*shape[:-1], shape[-1] + 2), dtype)[..., 1:-1]


def _transposed(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return rand((*shape[:-2], shape[-1], shape[-2]), dtype).mT


def _one_sample(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return rand((1, *shape[1:]), dtype).expand(shape)


def _one_number(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return rand((1,) * len(shape), dtype).expand(shape)


# Memory layouts that anything may have, for shapes (B, C, H, W).
WRITABLE: dict[str, Make] = {
    "contiguous": rand,
    "strided": _strided,
    "offset": _offset,
    "channels_last": _channels_last,
    "channel_slice": _channel_slice,
    "batch_slice": _batch_slice,
    "crop": _crop,
    "transposed": _transposed,
}
# And those that only an input may have.
LAYOUTS: dict[str, Make] = {**WRITABLE, "one_sample": _one_sample, "one_number": _one_number}


def poisoned(make: Make, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An output in the layout of `make`, full of NaN: what is not written shows."""
    return make(shape, dtype).fill_(math.nan)


def doubled(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if t is None else t.double().contiguous() for t in tensors]


def check(got: Tensor, twin: Tensor, exact: Tensor) -> None:
    """The rule of accuracy: twice the error of plain torch in the same dtypes, and one ulp.

    Args:
        got: of the kernel. twin: of plain torch. exact: of plain torch in float64.
    """
    assert got.shape == exact.shape
    assert torch.isfinite(got).all()
    if got.numel() == 0:
        return
    largest = float(exact.abs().max())
    ulp = torch.finfo(got.dtype).eps * 2.0 ** math.floor(math.log2(largest)) if largest else 0.0
    error, allowed = (float((t.double() - exact).abs().max()) for t in (got, twin))
    assert error <= 2 * allowed + ulp, (error, allowed, ulp)


def bits(tensor: Tensor) -> Tensor:
    """The tensor as bytes: equality of these is bitwise, NaN and the sign of 0 included."""
    return tensor.contiguous().view(-1).view(torch.uint8)


def coefficients(
    shape: tuple[int, ...], dtype: torch.dtype = F32, limit: float = math.inf
) -> Tensor:
    """A random table that clips to `limit`."""
    table = rand(shape, dtype)
    table[..., COLUMNS.index("limit")] = limit
    return table


@dataclass(frozen=True)
class Step:
    """The arguments of guided_step; `twin` runs it in plain torch, `run` through a kernel.

    Both return x_s, and what else was written: the history, and which samples are not finite.
    """

    x: Tensor
    cond: Tensor
    table: Tensor
    ref: Tensor | None = None
    term: Tensor | None = None
    weight: Tensor | None = None
    gain: Tensor | None = None
    noise: Tensor | None = None
    history: Tensor | None = None
    channels: int = -1
    step: int = ROW

    def in_float64(self) -> Step:
        named = ("x", "cond", "table", "ref", "term", "weight", "gain", "noise", "history")
        tensors = {name: getattr(self, name) for name in named}
        return replace(self, **{k: t.double() for k, t in tensors.items() if t is not None})

    def twin(self) -> tuple[Tensor, Tensor | None]:
        """x_s and the history after the step."""
        history = None if self.history is None else self.history.clone()
        x_s = formulas.guided_step(
            self.x,
            self.cond,
            self.table,
            torch.tensor(self.step, device=DEVICE),
            ref=self.ref,
            term=self.term,
            weight=self.weight,
            gain=self.gain,
            noise=self.noise,
            history=history,
            channels=self.channels,
        )
        return x_s, history

    def marks(self) -> Tensor:
        """`nonfinite` before anything was found: (rows, B)."""
        return torch.zeros((len(self.table), len(self.x)), dtype=self.x.dtype, device=DEVICE)

    def run(self, op: Callable[..., None], out: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same through a raw op; the slot of this step is full of NaN before."""
        history = None if self.history is None else self.history.clone()
        if history is not None:
            history[self.step % len(history)] = math.nan
        step = torch.tensor([self.step], device=DEVICE)
        inputs = (self.x, self.cond, self.table, step, self.ref, self.term, self.weight, self.gain)
        marks = self.marks()
        op(*inputs, self.noise, history, marks, self.channels, out)
        if out.numel() and 0 <= self.step < len(self.table):
            finite = out.reshape(len(out), -1).isfinite().all(1)
            wanted = self.marks()
            wanted[self.step] = (~finite).to(out.dtype)
            assert torch.equal(marks, wanted)
        return out, history


def make_step(
    shape: tuple[int, ...] = (3, 5, 4, 6),
    dtype: torch.dtype = F32,
    given: tuple[bool, bool] = (True, False),
    make: Make = rand,
    net: torch.dtype = F16,
    lags: int = 0,
    ring: int = 0,
    gain: bool = False,
    noise: bool = False,
    channels: int = -1,
    weight: bool = False,
    limit: float = math.inf,
) -> Step:
    """A step with random coefficients; `make` lays out everything but table, gain and history."""
    ref, term = (make(shape, net) if there else None for there in given)
    return Step(
        x=make(shape, dtype),
        cond=make(shape, net),
        table=coefficients((ROWS, FIRST_B + 1 + lags), dtype, limit),
        ref=ref,
        term=term,
        weight=rand((shape[0],), dtype) if weight else None,
        gain=rand((shape[0],), dtype) if gain else None,
        noise=make(shape, dtype) if noise else None,
        history=rand((ring, *shape), dtype) if ring else None,
        channels=channels,
    )


def full(shape: tuple[int, ...] = (3, 5, 4, 6), **changes: object) -> Step:
    """Everything at once."""
    options = {"given": (True, True), "lags": 2, "ring": 3, "gain": True, "noise": True}
    return make_step(shape, **{**options, **changes})  # type: ignore[arg-type]


def verify(op: Callable[..., None], step: Step, make_out: Make = rand) -> None:
    """x_s and the written slot by the rule of accuracy, every other slot untouched."""
    out, history = step.run(op, poisoned(make_out, tuple(step.x.shape), step.x.dtype))
    (twin, twin_ring), (exact, exact_ring) = step.twin(), step.in_float64().twin()
    check(out, twin, exact)
    if history is not None:
        assert twin_ring is not None and exact_ring is not None and step.history is not None
        slot = step.step % len(history)
        check(history[slot], twin_ring[slot], exact_ring[slot])
        others = [h for h in range(len(history)) if h != slot]
        assert torch.equal(history[others], step.history[others])
