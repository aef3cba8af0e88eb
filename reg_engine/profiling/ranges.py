"""Named ranges of a sampling call, for Nsight (NVTX) and for torch.profiler.

    with ranges.evaluate():
        ...

A range is a call and a `nullcontext` unless somebody listens: Nsight, which the package `nvtx`
finds when it is imported, or torch.profiler after `record(True)`. In code that torch.compile traces
it is nothing. docs/profiling.md says what it costs.

    check         the estimator settled before the first row: a derivative against differences
    plan          what a batch prepares: its state on the device
    evaluate      one evaluation of the plan: the networks, the direction and the rectifier
    cond, ref     in it: the conditional network; the reference
    cond_ref      in it: both in one batch (with the moved state of `fd_batched`)
    rectifier     in it: the rectified direction; what is left of it beside the networks is its own
    guided_step   guidance and the solver's step
    decode        samples to images
    capture       the recording of a CUDA graph
    replay        the launch of one; a graph holds no ranges of its own
    profile       the section that `reg-engine profile` measures
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any

from torch.autograd.profiler import record_function
from torch.compiler import is_dynamo_compiling

__all__ = [
    "PREFIX",
    "Range",
    "attached",
    "capture",
    "check",
    "cond",
    "cond_ref",
    "decode",
    "evaluate",
    "guided_step",
    "plan",
    "profile",
    "record",
    "rectifier",
    "ref",
    "replay",
]

DOMAIN = "reg_engine"
PREFIX = DOMAIN + "."  # of the names in torch.profiler, which has no domains


def _attach() -> Any:
    """The NVTX domain, or None where no tool listens (tools attach before Python starts)."""
    try:
        nvtx = import_module("nvtx")
    except ImportError:
        return None
    domain = nvtx.get_domain(DOMAIN)
    return None if type(domain).__name__ == "DummyDomain" else domain


_domain = _attach()
_recording = False
_heard = _domain is not None  # by anybody
_NOTHING = nullcontext()


class Range:
    """Called, it gives a context manager that marks what runs in it.

    It is one and the same `nullcontext` while nobody listens, which torch.compile also sees as
    nothing; who began to listen inside a range hears of the next one.

    Args:
        name: as tools show it.
        color: 0xRRGGBB, in tools and in plots.
    """

    __slots__ = ("attributes", "color", "name")

    def __init__(self, name: str, color: int) -> None:
        self.name, self.color = name, color
        # made once: a push then hands over a pointer, and the name is a registered string
        self.attributes = _domain and _domain.get_event_attributes(message=name, color=color)

    def __call__(self) -> AbstractContextManager[None]:
        if not _heard or is_dynamo_compiling():
            return _NOTHING
        return _Heard(self)


class _Heard:
    """One range that is heard: it closes what it has opened, whoever listens by then."""

    __slots__ = ("_range", "_recorded")

    def __init__(self, which: Range) -> None:
        self._range = which
        self._recorded = record_function(PREFIX + which.name) if _recording else None

    def __enter__(self) -> None:
        if _domain is not None:
            _domain.push_range(self._range.attributes)
        if self._recorded is not None:
            self._recorded.__enter__()

    def __exit__(self, *exc: object) -> None:
        if self._recorded is not None:
            self._recorded.__exit__(None, None, None)
        if _domain is not None:
            _domain.pop_range()


def attached() -> bool:
    """Whether an NVTX tool listens."""
    return _domain is not None


def record(on: bool) -> None:
    """Let torch.profiler hear the ranges as well, or no longer."""
    global _recording, _heard
    _recording = on
    _heard = on or _domain is not None


check = Range("check", 0xBCBD22)
plan = Range("plan", 0x999999)
evaluate = Range("evaluate", 0x0072B2)
cond = Range("cond", 0x009E73)
ref = Range("ref", 0xE69F00)
cond_ref = Range("cond_ref", 0xF0E442)
rectifier = Range("rectifier", 0xCC79A7)
guided_step = Range("guided_step", 0xD55E00)
decode = Range("decode", 0x56B4E9)
capture = Range("capture", 0x8C564B)
replay = Range("replay", 0x9467BD)
profile = Range("profile", 0xBBBBBB)
