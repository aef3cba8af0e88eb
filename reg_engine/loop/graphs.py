"""CUDA graphs for the engine: when to capture, which captures to keep, when to go without.

Between the rows of a captured batch the host never waits for the device. Where a step cannot be
captured the engine samples eagerly instead, and says why in `out.stats.capture`.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections import OrderedDict
from collections.abc import Callable
from threading import RLock

import torch
from torch import Tensor

from ..errors import CaptureError, InputError
from ..networks.conditioning import signature
from ..noise import SampleNoise
from ..profiling import ranges
from ..rectifiers.precision import autocast_dtype
from ..values import as_bool
from .capture import Capture, Recorder
from .rows import Conds
from .run import Batch, Run
from .stats import Stats

__all__ = ["CudaRecorder", "Graphs", "graphs_for"]

KEPT = 4  # captures of different shapes that an engine keeps
WARM_UP = 2  # runs before the capture: lazy initialisation, JIT compilation, autotuning


def graphs_for(capture: bool | str, device: torch.device) -> tuple[Graphs | None, str]:
    """Who captures on `device`, and why nobody does.

    Raises:
        InputError: `capture` is no choice, or is True where there are no CUDA graphs.
    """
    if not isinstance(capture, str) or capture != "auto":
        capture = as_bool("capture", capture, "Give True, False or 'auto'")
    if capture is False:
        return None, "not captured: not asked for"
    if device.type == "cuda":
        return Graphs(CudaRecorder(device), always=capture is True), ""
    if capture is True:
        raise InputError(
            "capture", f"needs a CUDA device, the network is on {device}", "Give 'auto'"
        )
    return None, f"not captured: {device.type} has no CUDA graphs"


class CudaRecorder:
    """Turns work on the device into a graph; the graphs of one recorder share a memory pool."""

    def __init__(self, device: torch.device) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)

    def __call__(self, work: Callable[[], None], restore: Callable[[], None]) -> Callable[[], None]:
        with ranges.capture():
            return self._captured(work, restore)

    def _captured(
        self, work: Callable[[], None], restore: Callable[[], None]
    ) -> Callable[[], None]:
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP):
                work()
                restore()  # each run moves to the next row, and past the last there is none
        current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # thread_local: the backward pass runs on autograd's own thread
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            work()
        return graph.replay


class Graphs:
    """The captures of an engine, the least recently used dropped first.

    Args:
        recorder: makes graphs on the engine's device.
        always: True captures at once and raises where that fails. False leaves the first batch of
            its kind to the eager loop, captures from the second on, and where that fails stays
            eager.
    """

    def __init__(self, recorder: Recorder, always: bool) -> None:
        self._recorder, self.always = recorder, always
        self._kept: OrderedDict[object, Capture] = OrderedDict()
        self._seen: set[object] = set()
        self._failed = ""
        self._lock = RLock()  # a capture has one place for the state of a batch

    def run(self, run: Run, batch: Batch, stats: Stats) -> Tensor | None:
        """Samples of a batch, or None: then it is to be sampled eagerly, as `stats.capture` says.

        Raises:
            CaptureError, RuntimeError: a step cannot be captured and `always` is set.
        """
        places, context = _places_of(run), autocast_dtype(run.device)
        key = (len(batch.seeds), signature(batch.conds), places, context)
        with self._lock:
            if self._failed:
                stats.capture = self._failed
            elif not self.always and key not in self._seen:
                self._seen.add(key)
                stats.capture = "not captured: the first batch of its kind"
            else:
                return self._captured(run, batch, stats, key)
        return None

    def _captured(self, run: Run, batch: Batch, stats: Stats, key: object) -> Tensor | None:
        conds, seeds = batch.conds, batch.seeds
        noise, probes = SampleNoise(seeds), SampleNoise(seeds, "probes")
        try:
            capture = self._capture(run, conds, len(seeds), key)
            counter = capture.run(conds, noise, probes, batch.unit)
        except (CaptureError, RuntimeError) as error:
            if self.always:
                raise
            self._failed = f"not captured: {str(error).splitlines()[0]}"
            self._kept.clear()
            if isinstance(error, torch.OutOfMemoryError):
                torch.cuda.empty_cache()  # the eager run needs what the graphs had reserved
            stats.capture = self._failed
            return None
        if counter is None:
            stats.capture = "not captured: a lagged direction vanished, which needs a second pass"
            return None
        stats.capture = "captured"
        capture.state.watch.finish()
        stats.add(counter, Tally(run.modes), *run.chosen)
        return capture.state.x.clone()

    def _capture(self, run: Run, conds: Conds, count: int, key: object) -> Capture:
        if key not in self._kept:
            with torch.inference_mode(False), torch.no_grad():
                self._kept[key] = Capture(run, conds, count, self._recorder)
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]


def _places_of(run: Run) -> tuple[int, ...]:
    """Where the weights are: a graph reads them there."""
    return tuple(
        tensor.data_ptr()
        for module in run.modules
        for tensor in (*module.parameters(), *module.buffers())
    )
