"""The network of a ComfyUI model as a Denoiser asks it: any states, of any of its samples.

ComfyUI evaluates conditionings for a whole batch: one state a sample, and one prediction for each
of `conds`. A batch of the engine ([ref; cond; cond moved], or the samples that are due) is cut into
such calls: what asks for both conditions at one state goes together, as the sampler's own call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import RegEngineError
from ...forward import is_dual, rows_of, stack
from ...forward.tensor import edges, raw
from ...networks.conditioning import Cond
from ...networks.denoisers import Place
from ..running import Running
from .conds import Conds, models_of, ordinary, part
from .levels import schedule_of

__all__ = ["Asked", "Calc", "Call", "View", "named", "view_of"]

Calc = Callable[[Any, list[Conds | None], Tensor, Tensor, dict[str, Any]], list[Tensor]]


@dataclass(frozen=True)
class Call:
    """What a sampler asked for at one state.

    Args:
        model: ComfyUI's BaseModel.
        conds: the positive and the negative conditioning.
        options: the sampler's model_options.
        count: samples.
        before: what another node put in the place of `calc_cond_batch`.
    """

    model: Any
    conds: tuple[Conds, Conds]
    options: dict[str, Any]
    count: int
    before: Callable[[dict[str, Any]], list[Tensor]] | None = None

    def evaluated(
        self, calc: Calc, conds: list[Conds | None], x: Tensor, sigma: Tensor
    ) -> list[Tensor]:
        """ComfyUI's own answer, by whoever gives it."""
        if self.before is None:
            return calc(self.model, conds, x, sigma, self.options)
        told = {"conds": conds, "input": x, "sigma": sigma, "model": self.model}
        return self.before({**told, "model_options": self.options})


class Asked:
    """A function net(x, t, cond) -> denoised; cond["row"] is a sample's number, for the negative
    conditioning that of the sample plus their count.

    Args:
        calc: comfy.samplers.calc_cond_batch.

    Attributes:
        broke: what ended the last call, where it was neither an error of torch nor of this engine.
    """

    def __init__(self, calc: Calc) -> None:
        self.calc = calc
        self.broke: Exception | None = None
        self._call: Call | None = None

    @contextmanager
    def about(self, call: Call) -> Iterator[None]:
        """Answer for this call in the block."""
        before, self._call, self.broke = self._call, call, None
        try:
            yield
        finally:
            self._call = before

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The networks of the call."""
        if self._call is None:
            return ()
        return tuple(dict.fromkeys([self._call.model, *models_of(list(self._call.conds))]))

    def __call__(self, x: Tensor, t: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        try:
            return self._answer(x, t, cond["row"].tolist())
        except Exception as error:
            if not isinstance(error, RuntimeError | RegEngineError):
                self.broke = error
            raise

    def _answer(self, x: Tensor, t: Tensor, rows: list[int]) -> Tensor:
        assert self._call is not None
        if is_dual(x):
            return self._stacked(x, t, rows)
        count = self._call.count
        blocks = [_Block(x[a:b], t[a:b], rows[a:b], count) for a, b in _runs(rows, count)]
        found: dict[int, Tensor] = {}
        for index, block in enumerate(blocks):
            if index in found:
                continue
            later = (i for i in range(index + 1, len(blocks)) if i not in found)
            other = next((i for i in later if block.pairs(blocks[i])), None)
            sides = {block.side} if other is None else {0, 1}
            answers = self._evaluated((block.x,), block.t, block.samples, sides)
            (found[index],) = answers[block.side]
            if other is not None:
                (found[other],) = answers[1 - block.side]
        return torch.cat([found[i] for i in range(len(blocks))])

    def _stacked(self, x: Any, t: Tensor, rows: list[int]) -> Tensor:
        """Forward mode: the tangents go with the rows that they belong to, in a call of their own;
        the rows before are answered as they are."""
        (begin, end), plain = edges(x, len(x)), raw(x)
        assert self._call is not None
        side, samples = _placed(rows[begin:end], self._call.count)
        ahead, product = self._evaluated(
            (plain[begin:end], plain[end:]), t[begin:end], samples, {side}
        )[side]
        before = [self._answer(plain[:begin], t[:begin], rows[:begin])] if begin else []
        return stack([*before, ahead], [product])

    def _evaluated(
        self, states: tuple[Tensor, ...], t: Tensor, samples: list[int], sides: set[int]
    ) -> list[tuple[Tensor, ...]]:
        """Answers of (positive, negative) at states of some samples, and at these tangents, if
        there are any; only those of `sides` mean anything."""
        call = self._call
        assert call is not None
        conds: list[Conds | None] = [call.conds[i] if i in sides else None for i in (0, 1)]
        where = None
        if samples != list(range(call.count)):
            parts = [None if c is None else part(c, samples, call.count) for c in conds]
            if all((p is None) == (c is None) for p, c in zip(parts, conds, strict=True)):
                conds = list(parts)
            else:  # a whole batch, with something in the other rows
                where = torch.tensor(samples, device=t.device)
                index = torch.zeros(call.count, dtype=torch.int64, device=t.device)
                index[where] = torch.arange(len(samples), device=t.device)
                states, t = tuple(state[index] for state in states), t[index]
        if states[0].requires_grad:
            conds = [None if c is None else ordinary(c) for c in conds]
        x = states[0] if len(states) == 1 else stack(states[:1], states[1:])
        found = call.evaluated(self.calc, conds, x, torch.cat([t] * len(states)))
        answers = [(one,) if len(states) == 1 else rows_of(one, x).chunk(2) for one in found]
        return [tuple(a if where is None else a[where] for a in one) for one in answers]


class _Block:
    """Rows of a batch that one call of ComfyUI answers: samples, each once, of one conditioning."""

    def __init__(self, x: Tensor, t: Tensor, rows: list[int], count: int) -> None:
        self.x, self.t = x, t
        self.side, self.samples = _placed(rows, count)

    def pairs(self, other: _Block) -> bool:
        """Whether both ask at the same states, under the two conditions."""
        same = self.side != other.side and self.samples == other.samples
        return same and torch.equal(self.x, other.x)


def _placed(rows: list[int], count: int) -> tuple[int, list[int]]:
    """(0 = positive or 1 = negative, numbers of the samples)."""
    return int(rows[0] >= count), [row % count for row in rows]


def _runs(rows: list[int], count: int) -> Iterator[tuple[int, int]]:
    """Stretches of one side in which no sample comes twice: from and to."""
    start = 0
    for i in range(1, len(rows) + 1):
        ends = (
            i == len(rows) or rows[i] <= rows[i - 1] or (rows[i] >= count) != (rows[i - 1] >= count)
        )
        if ends:
            yield start, i
            start = i


class View(Running):
    """A ComfyUI model as a Denoiser: what it returns is denoised already.

    Attributes:
        computes: dtype of the network inside; states and answers are float32.
    """

    net: Asked
    computes: torch.dtype

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        return self.net.modules

    def answer(
        self, scaled: Tensor, place: Place, cond: Cond, x: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        found = super().answer(scaled, place, cond, x)
        self.returned = self.computes  # the step of a difference follows the network's rounding
        return found


def named(model: Any) -> str:
    """Which kind of model it is: a damping serves that kind at every size of image."""
    config = getattr(model, "model_config", None)
    return f"{type(model).__name__} of {type(config).__name__}"


def view_of(model: Any, x: Tensor, asked: Asked) -> tuple[View, Tensor]:
    """A ComfyUI model (BaseModel) as a Denoiser of samples like x, and their rows: its `cond` is
    {"row": rows}, also of some of them.

    Raises:
        InputError: its sigma stands for no marginal that is known.
    """
    rows = torch.arange(2 * len(x), device=x.device)
    view = View(
        asked,
        "sample",
        schedule_of(model.model_sampling, x.device),
        tuple(x.shape[1:]),
        {"row": rows[len(x) :]},
        dtype=torch.promote_types(x.dtype, torch.float32),
    )
    view.place = x.device
    computes = getattr(model, "manual_cast_dtype", None) or model.get_dtype()
    view.returned = view.computes = computes if computes.itemsize > 1 else torch.bfloat16
    return view, rows[: len(x)]
