"""What `reg-engine profile` does: run a section under Nsight, or under torch.profiler instead.

Under torch.profiler the ranges of ranges.py become a tree with the time of each, a Chrome trace,
and a picture.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile

from ..errors import InputError
from ..storage.files import replacing
from . import ranges

__all__ = ["Profile", "Line", "Span", "commands", "run", "rows_of", "spans_of", "tool"]

ROOT = ranges.profile.name


@dataclass
class Span:
    """One range as it happened.

    Attributes:
        path: names from the root to this range.
        start, end: ms since the root began.
        python: ms of it outside any op or other range.
        device: ms of the kernels that were launched meanwhile, by any thread.
        parent: index of the span around it; None for the root.
    """

    path: tuple[str, ...]
    start: float
    end: float
    python: float
    parent: int | None
    device: float = 0.0


@dataclass
class Line:
    """All spans of one path: how many, their ms in all, and where those go.

    Attributes:
        total, share: ms, and as a share of the root's.
        own: ms outside the ranges in it.
        python: ms outside ops and the ranges in it: the interpreter's.
        device: ms of kernels launched in it; None without a GPU.
    """

    path: tuple[str, ...]
    calls: int = 0
    total: float = 0.0
    share: float = 0.0
    own: float = 0.0
    python: float = 0.0
    device: float | None = None


@dataclass
class Profile:
    """What was measured.

    Attributes:
        seconds: wall time of the section.
        undisturbed: of the last run of the warm-up, which nothing watched; None without one.
        tool: the one that the section ran under; None: torch.profiler.
        trace: the Chrome trace, if torch.profiler wrote one.
        spans, rows: of the ranges, in order; empty under a tool.
        result: what the section returned.
    """

    seconds: float
    undisturbed: float | None
    tool: str | None
    trace: Path | None = None
    spans: list[Span] = field(default_factory=list)
    rows: list[Line] = field(default_factory=list)
    result: Any = None

    def as_dict(self) -> dict[str, Any]:
        """Everything but the spans and the result, ready for JSON; times in ms but for seconds."""
        return {
            "seconds": self.seconds,
            "undisturbed_seconds": self.undisturbed,
            "tool": self.tool,
            "trace": None if self.trace is None else str(self.trace),
            "ranges": [asdict(row) for row in self.rows],
        }


def tool() -> str | None:
    """The profiling tool that this process runs under, None if there is none."""
    if "NSYS_PROFILING_SESSION_ID" in os.environ:
        return "Nsight Systems"
    if "NV_NSIGHT_INJECTION_TRANSPORT_TYPE" in os.environ:
        return "Nsight Compute"
    injected = {"NVTX_INJECTION64_PATH", "CUDA_INJECTION64_PATH"} & os.environ.keys()
    return "a tool that listens to NVTX or CUDA" if injected or ranges.attached() else None


def commands(arguments: Sequence[str], folder: Path, cuda: bool) -> dict[str, str]:
    """Shell command lines that run this program under Nsight.

    Args:
        arguments: of `reg-engine`.
        folder: where the reports go.
        cuda: whether the run uses a GPU. Without one Nsight Systems waits for the range instead of
            cudaProfilerStart, and Nsight Compute has nothing to measure.
    """
    known = shutil.which("python")
    python = "python" if known and os.path.samefile(known, sys.executable) else sys.executable
    program = [python, "-m", "reg_engine.cli", *arguments]
    nsys = ["nsys", "profile", "--force-overwrite=true", "--capture-range-end=stop"]
    report = str(folder / "nsys")
    if not cuda:
        nsys += ["-t", "nvtx", "--capture-range=nvtx", f"--nvtx-capture={ROOT}@{ranges.DOMAIN}"]
        return {"nsys": shlex.join([*nsys, "-o", report, *program])}
    nsys += ["-t", "cuda,nvtx", "--cuda-graph-trace=node", "--capture-range=cudaProfilerApi"]
    ncu = ["ncu", "--force-overwrite", "--profile-from-start", "off", "--set", "basic"]
    # process: the backward pass launches its kernels from another thread than the range's
    ncu += ["--nvtx", "--nvtx-push-pop-scope", "process", "--graph-profiling", "node"]
    ncu += ["--nvtx-include", f"{ranges.DOMAIN}@{ranges.guided_step.name}/"]
    return {
        "nsys": shlex.join([*nsys, "-o", report, *program]),
        "ncu": shlex.join([*ncu, "-o", str(folder / "ncu"), *program]),
    }


def missing(names: Iterable[str]) -> list[str]:
    """Those of the programs that are not on the path."""
    return [name for name in names if shutil.which(name) is None]


def run(section: Callable[[], Any], device: torch.device, folder: Path, warmup: int = 1) -> Profile:
    """Run `section`, first `warmup` times unmeasured.

    Under a tool the last run stands between cudaProfilerStart and Stop (on CUDA) and in the range
    `profile`; without one torch.profiler measures it and FOLDER/trace.json is written.

    Raises:
        InputError: warmup < 0.
    """
    if warmup < 0:
        raise InputError("--warmup", f"is {warmup}", "Give a number >= 0")
    undisturbed = None
    for _ in range(warmup):
        undisturbed, _ = _timed(section, device)
    found = tool()
    if found is not None:
        with _cuda_section(device), ranges.profile():
            seconds, result = _timed(section, device)
        return Profile(seconds, undisturbed, found, result=result)
    activities = [ProfilerActivity.CPU]
    activities += [ProfilerActivity.CUDA] if device.type == "cuda" else []
    ranges.record(True)
    try:
        with torch_profile(activities=activities) as profiler, ranges.profile():
            seconds, result = _timed(section, device)
    finally:
        ranges.record(False)
    trace = folder / "trace.json"
    with tempfile.TemporaryDirectory() as place, replacing(trace) as file:
        profiler.export_chrome_trace(f"{place}/trace.json")  # writes to names alone
        with open(f"{place}/trace.json", "rb") as made:
            shutil.copyfileobj(made, file)
    spans = spans_of(profiler.events())
    rows = rows_of(spans, device.type == "cuda")
    return Profile(seconds, undisturbed, None, trace, spans, rows, result)


def _timed(section: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Wall seconds until the device is done, and the section's result."""
    begun = time.perf_counter()
    result = section()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun, result


@contextmanager
def _cuda_section(device: torch.device) -> Iterator[None]:
    with torch.cuda.profiler.profile() if device.type == "cuda" else nullcontext():
        yield


def spans_of(events: Iterable[Any]) -> list[Span]:
    """The ranges among torch.profiler's events, in order of their start, parents first.

    Only those of the root's thread, which is the one that samples. A kernel belongs to the ranges
    that were open when it was launched: the backward pass launches from another thread, so the
    profiler's own tree does not know them.
    """
    events = [event for event in events if event.device_type.name == "CPU"]
    marks = [event for event in events if event.name.startswith(ranges.PREFIX)]
    roots = [event for event in marks if event.name == ranges.PREFIX + ROOT]
    if not roots:
        return []
    root = roots[-1]
    marks = [m for m in marks if m.thread == root.thread and m.time_range.start >= _start(root)]
    marks.sort(key=lambda m: (m.time_range.start, -m.time_range.end))
    spans: list[Span] = []
    parent: int | None = None
    for mark in marks:
        start, end = (
            (t - _start(root)) / 1e3 for t in (mark.time_range.start, mark.time_range.end)
        )
        while parent is not None and spans[parent].end <= start:
            parent = spans[parent].parent
        path = () if parent is None else spans[parent].path
        name = mark.name.removeprefix(ranges.PREFIX)
        python = mark.self_cpu_time_total / 1e3
        spans.append(Span((*path, name), start, end, python, parent))
        parent = len(spans) - 1
    starts = [span.start for span in spans]
    for event in events:
        if event.kernels:
            launched = (event.time_range.start - _start(root)) / 1e3
            total = sum(kernel.duration for kernel in event.kernels) / 1e3
            _charge(spans, starts, launched, total)
    return spans


def _start(event: Any) -> float:
    return float(event.time_range.start)


def _charge(spans: list[Span], starts: list[float], launched: float, total: float) -> None:
    """Add a kernel's time to every span that was open at its launch."""
    index: int | None = bisect_right(starts, launched) - 1
    while index is not None and index >= 0:
        span = spans[index]
        if launched <= span.end:
            span.device += total
        index = span.parent


def rows_of(spans: Sequence[Span], cuda: bool) -> list[Line]:
    """Sums by path, each path after its parent and in order of first appearance."""
    rows: dict[tuple[str, ...], Line] = {}
    for span in spans:
        row = rows.setdefault(span.path, Line(span.path, device=0.0 if cuda else None))
        length = span.end - span.start
        row.calls += 1
        row.total += length
        row.own += length
        row.python += span.python
        if row.device is not None:
            row.device += span.device
        if span.parent is not None:
            rows[spans[span.parent].path].own -= length
    whole = sum(row.total for row in rows.values() if len(row.path) == 1)
    for row in rows.values():
        row.share = row.total / whole
    order = {path: index for index, path in enumerate(rows)}
    return sorted(rows.values(), key=lambda r: [order[r.path[: i + 1]] for i in range(len(r.path))])
