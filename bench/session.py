"""One run of the benchmarks: what is measured at which size, and where the figures go."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bench import agreement, contenders, kernels
from bench.cases import KernelCase, ModelCase
from bench.contenders import Contender, Outcome, Work
from bench.memory import held_bytes, peak_bytes
from bench.models import Loaded, build
from bench.records import Row, append, device_slug, environment
from bench.timing import copy_bandwidth, in_turn, interleaved, percentiles
from reg_engine import EstimatorError
from reg_engine.errors import CaptureError

__all__ = ["LeftOut", "Measured", "Session", "Unmeasured"]

OUT_OF_MEMORY, LEFT_OUT = "out of memory", "no time was left"
ALONE = "timed alone: no memory beside the others"


class Unmeasured(Exception):
    """A contender has no figures, for a reason that is worth a row."""


class LeftOut(Unmeasured):
    """No time was left for a contender; it has no row."""


class Measured(NamedTuple):
    """A row and the seconds behind it."""

    row: Row
    durations: list[float]


class Sampled(NamedTuple):
    """Seconds of a batch, evaluations a sample, peak memory ("": nobody can count it), what graphs
    keep, and what is to be said of it."""

    durations: list[float]
    nfe: float
    peak: int | str
    held: int | str
    note: str = ""


class Session:
    """Measures and keeps; nothing here knows pytest.

    Args:
        device: where.
        size: "tiny" checks results and measures nothing; "shrunk" and "real" measure.
        out: folder of the CSV files.
        steps, rounds: of the solver; timed rounds. None = by size.
        measure: None = unless `size` is "tiny".
    """

    def __init__(
        self,
        device: torch.device,
        size: str,
        out: Path,
        steps: int | None = None,
        rounds: int | None = None,
        measure: bool | None = None,
    ) -> None:
        self.device, self.size, self.out = device, size, out
        self.steps = steps or {"tiny": 1, "shrunk": 4, "real": 8}[size]
        self._rounds = rounds
        self.until = math.inf  # when what is measured now should end, by time.monotonic()
        self.measures = size != "tiny" if measure is None else measure
        self.rows: list[Row] = []
        self._kernels: dict[tuple[str, str], dict[str, list[float]]] = {}
        self._sampled: dict[tuple[str, str], Sampled | str] = {}
        self._model: tuple[str, Loaded] | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Of the networks."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32

    @property
    def compiler(self) -> str:
        """Of `compile`: a smoke test does not wait for code to be generated."""
        return "eager" if self.size == "tiny" else "inductor"

    def kernel(
        self, kernel: kernels.Kernel, case: KernelCase, provider: str, others: Iterable[str]
    ) -> Measured | None:
        """Check a kernel; when measuring, time it interleaved with the `others` of its case.

        Raises:
            AssertionError: it does not agree with the reference.
            Unmeasured: there is not enough memory; a row says so.
        """
        columns: dict[str, Any] = {
            "suite": "kernel",
            "case": kernel.name,
            "provider": provider,
            "batch": case.shape[0],
            "dtype": case.dtype,
            "shape": _sizes(case.shape),
            "bytes": kernel.bytes_moved(case),
        }
        try:
            kernels.check(kernel, case, provider, self.device, self.compiler)
            if not self.measures:
                return None
            self._copy()
            key = (kernel.name, case.name)
            if provider not in self._kernels.setdefault(key, {}):
                self._kernels[key] |= self._race(kernel, case, others)
        except torch.OutOfMemoryError as error:
            self._row([], note=OUT_OF_MEMORY, **columns)
            raise Unmeasured(OUT_OF_MEMORY) from error
        finally:
            self._tidy()
        durations = self._kernels[key][provider]
        return Measured(self._row(durations, **columns), durations)

    def _race(
        self, kernel: kernels.Kernel, case: KernelCase, providers: Iterable[str]
    ) -> dict[str, list[float]]:
        torch.compiler.reset()  # or the eighth shape of a function would run uncompiled
        able = [name for name in providers if not kernels.unable(name, self.device)]
        sets = kernels.inputs(kernel, case, self.device)
        calls = {name: kernels.contender(kernel, sets, name, self.compiler) for name in able}
        return interleaved(calls, self.device, self._rounds or 30, self.until)

    def _copy(self) -> None:
        """The copy bandwidth, once a run: the roof over every kernel."""
        if not any(row.suite == "copy" for row in self.rows):
            moved, durations = copy_bandwidth(self.device)
            self._row(
                durations, suite="copy", case="copy", provider="torch", dtype="float32", bytes=moved
            )

    def sampling(
        self, case: ModelCase, contender: Contender, others: Iterable[Contender]
    ) -> Measured | None:
        """Check a contender (tiny) or measure it.

        The `others` of its case are timed with it, in turn; what finds no memory beside them is
        timed alone afterwards, and its row says so.

        Raises:
            AssertionError: its samples are not what an independent loop gives.
            Unmeasured: it cannot do this case; a row says so.
        """
        work = Work(self._loaded(case), case, case.count(self.size), self.steps)
        if not self.measures:
            self._agrees(contender, work)
            return None
        if (case.name, contender.name) not in self._sampled:
            for name, figures in self._together(others, work).items():
                self._sampled[case.name, name] = figures
        found = self._sampled[case.name, contender.name]
        columns: dict[str, Any] = {
            "suite": "sampling",
            "case": case.name,
            "model": case.title,
            "resolution": case.resolution,
            "provider": contender.name,
            "batch": work.count,
            "dtype": str(self.dtype).removeprefix("torch."),
            "shape": _sizes((work.count, *work.loaded.denoiser.sample_shape)),
            "solver": case.solver,
            "steps": self.steps,
            "size": "real" if case.family == "mnist" else self.size,
        }
        if found == LEFT_OUT:
            raise LeftOut(LEFT_OUT)
        if isinstance(found, str):
            self._row([], note=found, **columns)
            raise Unmeasured(found)
        figures = {"peak_bytes": found.peak, "held_bytes": found.held, "note": found.note}
        row = self._row(found.durations, nfe=f"{found.nfe:g}", **figures, **columns)
        return Measured(row, found.durations)

    def _together(self, group: Iterable[Contender], work: Work) -> dict[str, Sampled | str]:
        """Figures of each contender that can run here, or why it has none."""
        found: dict[str, Sampled | str] = {}
        group = [contender for contender in group if not contender.unable(self.device)]
        late = self._race_samplers(group, work, found)
        for contender in late:
            note = ALONE if len(late) < len(group) else ""
            if self._race_samplers([contender], work, found, note):
                found[contender.name] = OUT_OF_MEMORY
        self._tidy(any(contender.mode == "compiled" for contender in group))
        return found

    def _race_samplers(
        self,
        group: Sequence[Contender],
        work: Work,
        found: dict[str, Sampled | str],
        note: str = "",
    ) -> list[Contender]:
        """Time the group in turn, into `found`; those for which there was no memory."""
        ready: dict[str, Callable[[], Outcome]] = {}
        figures: dict[str, Sampled] = {}
        late = []
        for contender in group:
            name = contender.name
            if time.monotonic() > self.until:
                found[name] = LEFT_OUT
                continue
            try:
                ready[name], figures[name] = self._first(contender, work)
            except (EstimatorError, CaptureError) as error:
                found[name] = str(error).splitlines()[0]
            except torch.OutOfMemoryError:
                late.append(contender)
                self._tidy()
        for name, durations in in_turn(ready, self.device, self._rounds or 5, self.until).items():
            found[name] = figures[name]._replace(durations=durations, note=note)
        ready.clear()
        self._tidy()
        return late

    def _first(self, contender: Contender, work: Work) -> tuple[Callable[[], Outcome], Sampled]:
        """Make the sampler and run it: capturing, compiling, and counting memory.

        On CUDA memory is that of the second run: libraries' workspaces fall on whoever runs first.
        """
        make = contender.prepared(work, self.device)
        kept: list[Callable[[], Outcome]] = []
        outcomes: list[Outcome] = []

        def first() -> None:
            kept.append(make())
            outcomes.append(kept[0]())

        if self.device.type == "cuda":
            held = held_bytes(first, self.device)
            peak: int | str = peak_bytes(kept[0], self.device)
            return kept[0], Sampled(
                [], outcomes[0].nfe, peak, held if contender.captures(self.device) else ""
            )
        if contender.mode == "compiled":
            first()  # compiled code allocates where nobody can count
            return kept[0], Sampled([], outcomes[0].nfe, "", "")
        peak = peak_bytes(first, self.device)
        return kept[0], Sampled([], outcomes[0].nfe, peak, "")

    def _agrees(self, contender: Contender, work: Work) -> None:
        found = contender.prepared(work, self.device)()().samples
        wanted = contenders.exact(contender, work)
        if contender.estimator == "none":
            error = float((found - wanted).norm() / wanted.norm())
            assert error < 1e-4, f"{contender.name}: samples are off by {error:.3g}"
            return
        plain = next(c for c in contenders.CONTENDERS if c.name == contenders.BASELINE)
        unrectified = plain.prepared(work, self.device)()().samples
        agreement.check_rectified(contender.name, found, wanted, unrectified)

    def _loaded(self, case: ModelCase) -> Loaded:
        """The case's model; one is kept."""
        if self._model is None or self._model[0] != case.name:
            self._model = None
            self._tidy()
            self._model = (case.name, build(case, self.size, self.device, self.dtype))
        return self._model[1]

    def _tidy(self, compiled: bool = False) -> None:
        if compiled:
            torch.compiler.reset()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _row(self, durations: list[float], **columns: Any) -> Row:
        times = dict.fromkeys(("p20", "p50", "p80"), "")
        if durations:
            values = percentiles(durations)
            times = {k: f"{v:.6g}" for k, v in zip(times, values, strict=True)}
        text = {name: str(value) for name, value in columns.items()}
        row = Row(**{"size": self.size, **environment(self.device), **times, **text})
        self.rows.append(row)
        append(self.out / f"{device_slug(row.device)}.csv", [row])
        return row


def _sizes(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
