"""What a call returns: the samples, and what they cost."""

from __future__ import annotations

from collections import Counter as Tally
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..networks.counter import Counter
from ..profiling import ranges

__all__ = ["Output", "Stats"]


@dataclass
class Stats:
    """Cost of a call.

    Attributes:
        seconds: wall time of the batches.
        samples: number of samples N.
        nfe: network evaluations a sample (one conditional forward = 1; a tangent of `jvp` = 1).
        backward: backward passes a sample.
        checks: evaluations and backward passes, of one sample each, that were spent on choosing and
            checking the estimator; not part of nfe and backward.
        peak_memory: bytes, the most allocated on a CUDA device during the call; None on CPU.
        modes: how many evaluations of each mode the plan holds.
        estimator, reason: the rectifier used and why.
        fallbacks: how often forward mode met each op that it has no rule for, in the last batch:
            right, and slower.
        solver: its name.
        backend: which of `ops.BACKENDS` did the guidance steps.
        postprocess_nfe, postprocess_seconds: of `postprocess`; not part of nfe and seconds.
        capture: "captured" where the last batch was replayed from CUDA graphs, else why not.
    """

    seconds: float = 0.0
    samples: int = 0
    nfe: float = 0.0
    backward: float = 0.0
    checks: int = 0
    peak_memory: int | None = None
    modes: dict[str, int] = field(default_factory=dict)
    estimator: str = "none"
    reason: str = ""
    fallbacks: dict[str, int] = field(default_factory=dict)
    solver: str = ""
    backend: str = ""
    capture: str = "not captured: not asked for"
    postprocess_nfe: float = 0.0
    postprocess_seconds: float = 0.0
    _forward_rows: int = field(default=0, repr=False)
    _backward_rows: int = field(default=0, repr=False)

    def __repr__(self) -> str:
        work = f"{self.nfe:g} nfe" + (f" + {self.backward:g} backward" if self.backward else "")
        return (
            f"Stats({self.solver or 'no solver'}, {self.estimator}: {self.samples} samples, "
            f"{work}, {self.seconds:.2f} s)"
        )

    def begin(self, device: torch.device) -> None:
        """Start a call: peak memory is counted from here."""
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def add(self, counter: Counter, modes: Tally[str], estimator: str, reason: str) -> None:
        """Count one batch's work."""
        self._forward_rows += counter.forward
        self._backward_rows += counter.backward
        self.modes, self.fallbacks = dict(modes), dict(counter.fallbacks)
        self.estimator, self.reason = estimator, reason

    def beside(self, rows: int) -> None:
        """Count network evaluations of `rows` samples that no batch asked for."""
        self._forward_rows += rows
        self.nfe = self._forward_rows / max(1, self.samples)

    def finish_batch(self, samples: int, seconds: float, device: torch.device) -> None:
        """Close one batch: per-sample figures follow from the totals."""
        self.samples += samples
        self.seconds += seconds
        self.nfe = self._forward_rows / self.samples
        self.backward = self._backward_rows / self.samples
        self._peak(device)

    def add_postprocess(
        self, samples: int, nfe: float, seconds: float, device: torch.device
    ) -> None:
        """Count the postprocessing of a batch whose sampling is counted already."""
        before = self.postprocess_nfe * (self.samples - samples)
        self.postprocess_nfe = (before + nfe * samples) / self.samples
        self.postprocess_seconds += seconds
        self._peak(device)

    def _peak(self, device: torch.device) -> None:
        if device.type == "cuda":
            self.peak_memory = max(self.peak_memory or 0, torch.cuda.max_memory_allocated(device))

    def merge(self, other: dict[str, Any]) -> None:
        """Add another run of the same engine, given as its `as_dict()`."""
        total = self.samples + other["samples"]
        for name in ("nfe", "backward", "postprocess_nfe"):
            # Batches kept by an earlier version say nothing of postprocessing: they had none.
            mean = getattr(self, name) * self.samples + other.get(name, 0) * other["samples"]
            setattr(self, name, mean / total)
        peaks = [p for p in (self.peak_memory, other["peak_memory"]) if p is not None]
        self.peak_memory = max(peaks, default=None)
        self.samples, self.seconds = total, self.seconds + other["seconds"]
        self.postprocess_seconds += other.get("postprocess_seconds", 0)
        self.checks += other.get("checks", 0)
        for name in ("modes", "estimator", "reason", "solver", "backend", "capture"):
            setattr(self, name, other[name])

    def as_dict(self) -> dict[str, Any]:
        """The public figures, ready for JSON."""
        return {k: v for k, v in asdict(self).items() if not k.startswith("_")}


@dataclass(frozen=True)
class Output:
    """Samples (N, *sample_shape) in the state's dtype, and the cost of making them.

    `value_range` is the model's (Denoiser): what black and white are in `samples`.
    """

    samples: Tensor
    stats: Stats
    value_range: tuple[float, float] = (-1.0, 1.0)

    def __repr__(self) -> str:
        kind = str(self.samples.dtype).removeprefix("torch.")
        where = f"{tuple(self.samples.shape)} {kind} on {self.samples.device}"
        return f"Output(samples {where}, {self.stats!r})"

    @property
    def images(self) -> Tensor:
        """uint8 (N, H, W, C), for samples (N, C, H, W) in `value_range` with 1 or 3 channels."""
        from ..pictures.images import to_uint8

        with ranges.decode():
            return to_uint8(self.samples, self.value_range)
