"""One recorded run of a batch: fixed places on the device, and a graph for each mode of the plan.

A row's numbers are read on the device (ops/coefficients.py) at a counter that each graph advances,
so the same graph serves every row of its mode; state, noise and conditioning keep one place each.
What a step asks of the host (its row's number, a generator) is answered here with a place that is
filled before each replay, or refused with CaptureError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import CaptureError
from ..networks.conditioning import plain, write
from ..networks.counter import Counter
from ..networks.denoisers import Denoiser, Number, Place
from ..networks.point import Point
from ..noise import Draws, SampleNoise
from ..ops.coefficients import COLUMNS
from ..profiling import ranges
from .rows import Conds
from .run import Run
from .state import State

__all__ = ["Capture", "Recorder"]

# (work, restore) -> replay of that work; `restore` undoes a run of it, such as a warm-up.
Recorder = Callable[[Callable[[], None], Callable[[], None]], Callable[[], None]]


class _OnDevice:
    """Stands where a row or its number would be; whoever looks at it cannot be captured."""

    def _refuse(self, *args: object) -> Any:
        raise CaptureError("a step asks for its row's number on the host")

    __getattr__ = __index__ = __int__ = __float__ = __bool__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __hash__ = _refuse
    __eq__ = __ne__ = _refuse


class Tape(Draws):
    """Random numbers of one graph: it reads fixed places, which are filled before each replay."""

    def __init__(self) -> None:
        self._places: list[tuple[str, Tensor]] = []
        self._next = 0

    def rewind(self) -> None:
        """Start handing out the first place again."""
        self._next = 0

    def normal(self, like: Tensor) -> Tensor:
        return self._place("normal", like)

    def signs(self, like: Tensor) -> Tensor:
        return self._place("signs", like)

    def _place(self, kind: str, like: Tensor) -> Tensor:
        if self._next == len(self._places):
            self._places.append((kind, torch.ones_like(like)))
        self._next += 1
        return self._places[self._next - 1][1]

    def fill(self, source: Draws) -> None:
        """Draw every place anew."""
        for kind, place in self._places:
            place.copy_(getattr(source, kind)(place))


@dataclass
class DevicePoint(Point):
    """A point at the row where the device's counter stands."""

    capture: Capture = field(kw_only=True)

    @property
    def alpha(self) -> Number:
        return self.capture.number("alpha")

    @property
    def sigma(self) -> Number:
        return self.capture.number("sigma")

    def place(self, denoiser: Denoiser) -> Place:
        return self.capture.place(denoiser)


@dataclass
class Recorded:
    """A graph: the work it stands for, what it asks of memory and leaves there, its random
    numbers."""

    replay: Callable[[], None]
    work: Counter
    asked: dict[str, bool]
    filled: frozenset[str]
    tape: Tape


class Capture:
    """Fixed places and graphs for one batch size, conditioning and set of weights.

    Args:
        run: whose steps are recorded.
        conds: conditionings of a batch: their shapes and dtypes are kept.
        count: samples in the batch.
        recorder: makes a replayable graph of a function.
    """

    def __init__(self, run: Run, conds: Conds, count: int, recorder: Recorder) -> None:
        self._run, self._record = run, recorder
        x = torch.zeros((count, *run.denoiser.sample_shape), dtype=run.dtype)
        x = x.to(run.device)
        self.state = State.new(x, run.table, run.coefficients, captured=True)
        self.conds = plain(conds)
        self.step = torch.zeros(1, dtype=torch.int64, device=x.device)
        self.noise = torch.zeros_like(x)
        self.missed = torch.zeros((), dtype=torch.bool, device=x.device)
        self._places: dict[Denoiser, Tensor] = {}
        self._graphs: dict[tuple[str, bool, tuple[bool, ...]], list[Recorded]] = {}
        terms = torch.tensor(run.choices.term_weights or [()], dtype=torch.float64)
        self._terms = terms.to(run.dtype).to(x.device)

    def number(self, name: str) -> Tensor:
        """A coefficient of the row where the counter stands, 0-dim."""
        table = self.state.coefficients.estimates
        return table.index_select(0, self.step)[0, COLUMNS.index(name)]

    def terms(self, guided: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        """w of several terms there, 0-dim; None for those that are not guided."""
        values = self._terms.index_select(0, self.step)[0].unbind() if guided else ()
        pairs = zip(values, guided, strict=True)
        return tuple(value if yes else None for value, yes in pairs)

    def place(self, denoiser: Denoiser) -> Place:
        """How `denoiser` is asked at that row."""
        if denoiser not in self._places:
            rows = [denoiser.at(row.t) for row in self._run.table.rows]
            with torch.inference_mode(False):  # autograd may keep them
                values = torch.tensor(rows, dtype=torch.float64)
                self._places[denoiser] = values.to(self.state.x.dtype).to(self.state.x.device)
        return Place(*self._places[denoiser].index_select(0, self.step)[0].unbind())

    def run(
        self,
        conds: Conds,
        noise: SampleNoise,
        probes: SampleNoise,
        unit: Tensor | None,
    ) -> Counter | None:
        """Sample a batch into `state.x`; the work done, or None where an eager run is needed."""
        state = self.state
        write(self.conds, conds)
        draws = self._run.draws(noise)
        state.x.copy_(self._run.start(next(draws), unit))
        for tensor in (self.step, self.missed, state.watch.nonfinite):
            tensor.zero_()
        state.memory.forget()
        counter = self.replay(draws, probes)
        return None if bool(self.missed) else counter

    def replay(self, draws: Iterator[Tensor], probes: SampleNoise) -> Counter:
        """All rows, from the state as it stands; the host waits for nothing. The work done.

        Args:
            draws: one for each row that adds noise.
        """
        run, state, counter = self._run, self.state, Counter()
        rows = zip(run.table.rows, run.modes, run.weights, strict=True)
        for index, (row, mode, w) in enumerate(rows):
            if row.fresh:
                state.memory.forget()
            if row.c:
                self.noise.copy_(next(draws))
            guided = tuple(weight is not None for weight in run.terms_at(index))
            graph = self._graph(mode, bool(w), guided)
            graph.tape.fill(probes)
            with ranges.replay():
                graph.replay()
            state.memory.filled = state.memory.filled | graph.filled
            counter.forward += graph.work.forward
            counter.backward += graph.work.backward
        return counter

    def _graph(self, mode: str, guided: bool, terms: tuple[bool, ...]) -> Recorded:
        """The graph of a mode that meets the memory it asks for, recorded where there is none.

        Args:
            guided: whether the row has a weight.
            terms: and which of several terms.
        """
        known = self._graphs.setdefault((mode, guided, terms), [])
        filled = self.state.memory.filled
        for graph in known:
            if all((name in filled) == there for name, there in graph.asked.items()):
                return graph
        known.append(self._recorded(mode, guided, terms))
        return known[-1]

    def _recorded(self, mode: str, guided: bool, terms: tuple[bool, ...]) -> Recorded:
        run, state, before = self._run, self.state, self.state.memory.filled
        counter, tape = Counter(), Tape()

        def work() -> None:
            state.memory.filled, state.memory.asked = before, {}
            counter.forward = counter.backward = 0
            tape.rewind()
            away: Any = _OnDevice()
            point = DevicePoint(
                state.x,
                away,
                away,
                run.denoiser,
                run.guidance.reference,
                self.conds[0],
                state.memory,
                counter,
                tape,
                run.coefficients.estimates,
                self.step,
                run.backend,
                self.missed,
                self.conds[1],
                run.coefficients.landing,
                self.terms(terms),
                capture=self,
            )
            w = self.number("w") if guided else 0.0
            drawn = self.noise if run.table.stochastic else None
            run.advance(state, point, mode, w, drawn)
            self.step.add_(1)

        kept = [self.step, self.missed, state.x, state.watch.nonfinite, *state.memory.places()]
        kept += [] if state.history is None else [state.history]
        saved = [tensor.clone() for tensor in kept]

        def restore() -> None:
            for tensor, value in zip(kept, saved, strict=True):
                tensor.copy_(value)

        try:
            replay = self._record(work, restore)
        finally:
            restore()
            after, state.memory.filled = state.memory.filled, before
        return Recorded(replay, replace(counter), state.memory.asked, after - before, tape)
