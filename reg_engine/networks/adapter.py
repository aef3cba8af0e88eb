"""Guidance distilled into an adapter: a low-rank change, the scales it was trained for, and the
model that it belongs to; in a file."""

from __future__ import annotations

import copy
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..schedules import Schedule
from ..storage.digest import digest
from ..storage.readers import refusing
from ..storage.weights import read, save_weights
from ..values import as_float, shown
from .fingerprint import Model, fingerprint
from .lowrank import LowRank, Shape, Worn, layers_of

__all__ = ["Adapter", "adapter_of", "belonging", "view", "with_adapter", "worn"]

ARCHITECTURE = "adapter"
REMEDY = "Give an adapter that `reg-engine distill` wrote for this very model"
MOST_RANK = 4096
HALVES = torch.float16, torch.bfloat16
PLACES, CHAIN = 8, 100  # where marginals are compared; times of what is called a chain


@dataclass(frozen=True)
class Adapter:
    """Guidance in weights.

    Args:
        change: of the network's weights, by scale.
        scales: (least, most) that it was trained for; 1 <= least < most.
        model: what it belongs to: `belonging` of a denoiser.
        about: what people may read: the teacher, how it was trained.
        extrapolate: take other scales, too, above 1.
    """

    change: LowRank
    scales: tuple[float, float]
    model: Mapping[str, Any]
    about: Mapping[str, Any] = field(default_factory=dict)
    extrapolate: bool = False

    @classmethod
    def load(cls, path: str | os.PathLike[str], extrapolate: bool = False) -> Adapter:
        """Read what `save` wrote.

        Raises:
            InputError: no such file; a damaged or foreign one.
        """
        where = Path(path)
        weights, told = read(where, "adapter", REMEDY)
        if told.get("architecture") != ARCHITECTURE:
            raise InputError("adapter", f"{str(where)!r} holds no adapter", REMEDY)
        with refusing("adapter", f"{str(where)!r} is damaged", REMEDY):
            scales = told["scales"]
            if not (len(scales) == 2 and 1 <= scales[0] < scales[1] < math.inf):
                raise ValueError(f"scales {scales}")
            if not 1 <= int(told["rank"]) <= MOST_RANK:
                raise ValueError(f"rank {told['rank']}")
            layers = told["layers"].items()
            shapes = {name: Shape(int(n), int(m), bool(bias)) for name, (n, m, bias) in layers}
            with torch.device("meta"):
                sketch = LowRank(shapes, int(told["rank"]), float(scales[1])).state_dict()
            ours = {name: tuple(tensor.shape) for name, tensor in sketch.items()}
            if ours != {name: tuple(tensor.shape) for name, tensor in weights.items()}:
                raise ValueError("its tensors are not those of its layers")
            if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
                raise ValueError("it holds NaN or Inf")
            change = LowRank(shapes, int(told["rank"]), float(scales[1]))
            change.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
            model, about = dict(told["model"]), dict(told["about"])
        return cls(change.requires_grad_(False), tuple(scales), model, about, extrapolate)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as safetensors in float16, with all that is said of it.

        Raises:
            InputError: it cannot be written; a number that is not finite.
        """
        told: dict[str, Any] = {"architecture": ARCHITECTURE, "scales": list(self.scales)}
        told |= {"rank": self.change.rank, "model": dict(self.model), "about": dict(self.about)}
        shapes = self.change.shapes.items()
        told["layers"] = {name: [s.rows, s.columns, int(s.bias)] for name, s in shapes}
        save_weights(Path(path), self.change.state_dict(), told)

    def check(self, denoiser: Model) -> None:
        """Raise InputError unless it belongs to this very model."""
        ours = belonging(denoiser)
        same = {name for name in ours if ours[name] == self.model.get(name)}
        if _near(ours.pop("marginals"), self.model.get("marginals", [])):
            same.add("schedule")  # with another grid: solver and steps are free
        if _rounded(ours, ours.pop("rounded"), self.model):
            same.add("weights")
        different = [name for name in ours if name not in same]
        if different:
            pairs = (
                f"{name} {shown(self.model.get(name))} and not {shown(ours[name])}"
                for name in different
            )
            problem = f"belongs to another model: {'; '.join(pairs)}"
            raise InputError("adapter", problem, REMEDY)
        layers_of(denoiser.modules)

    def holding(self, scale: Any, argument: str = "scale") -> tuple[float, str]:
        """A scale as a number, and what is said of a network whose weights hold it; "" for 1.

        Raises:
            InputError: it is no number that the adapter was trained for.
        """
        least, most = self.scales
        remedy = f"Give 1, or {least:g} to {most:g}, or in Python extrapolate=True"
        scale = as_float(argument, scale, remedy, lambda v: 1 <= v < math.inf)
        if scale == 1:
            return scale, ""
        said = f"the adapter holds guidance of scale {scale:g}: one evaluation a step"
        if least <= scale <= most:
            return scale, said
        if not self.extrapolate:
            raise InputError(
                argument, f"is {scale:g}, which the adapter was not trained for", remedy
            )
        warnings.warn(
            f"scale {scale:g} is beyond the adapter's {least:g} to {most:g}", stacklevel=4
        )
        return scale, f"{said}; extrapolated from {least:g} to {most:g}"


def belonging(denoiser: Model) -> dict[str, Any]:
    """What makes a model the same for an adapter: its numbers, its schedule, what it predicts."""
    return {
        "num_classes": denoiser.num_classes,
        "sample_shape": list(denoiser.sample_shape),
        "prediction": denoiser.prediction,
        "schedule": f"{type(denoiser.schedule).__name__} {digest(denoiser.schedule)[:16]}",
        "marginals": _marginals(denoiser.schedule),
        "weights": fingerprint(denoiser)[:32],
        "rounded": [fingerprint(denoiser, dtype)[:32] for dtype in HALVES],
    }


def _marginals(schedule: Schedule) -> list[list[float]]:
    """[t, alpha_t, sigma_t] at eight times up to the noisiest, whole ones of a chain."""
    first, last = schedule.clean_time, schedule.prior_time
    times = [first + (last - first) * part / PLACES for part in range(1, PLACES + 1)]
    if abs(last - first) >= CHAIN:
        times = [float(round(t)) for t in times]
    return [[t, *map(float, schedule(t))] for t in times]


def _rounded(ours: Mapping[str, Any], halves: list[str], theirs: Mapping[str, Any]) -> bool:
    """Whether one model has the other's weights in half precision."""
    told = theirs.get("rounded")
    found = isinstance(told, list) and ours["weights"] in told
    return found or theirs.get("weights") in halves


def _near(ours: list[list[float]], theirs: Any) -> bool:
    """Whether marginals agree, as far as chains in float32 do."""
    try:
        pairs = list(zip(sum(ours, []), sum(theirs, []), strict=True))
        return all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-4) for a, b in pairs)
    except (TypeError, ValueError):  # what a file says may be anything
        return False


def with_adapter(
    denoiser: Any, adapter: str | os.PathLike[str] | Adapter, extrapolate: bool = False
) -> Any:
    """The same model with guidance in an adapter: `sample(..., scale=3.0)` then takes one
    evaluation a step, and scale 1 is the model as it is, bitwise.

    Args:
        denoiser: a Denoiser.
        adapter: a file of `reg-engine distill`, or an Adapter.
        extrapolate: take scales that it was not trained for, too; a warning says so once.

    Raises:
        InputError: a damaged file; the adapter of another model.
    """
    adapter = adapter_of(adapter)
    adapter.check(denoiser)
    other = copy.copy(denoiser)
    other.adapter, other._views = replace(adapter, extrapolate=extrapolate), ()
    return other


def adapter_of(adapter: str | os.PathLike[str] | Adapter) -> Adapter:
    """An adapter, or that of a file; errors as of Adapter.load."""
    return adapter if isinstance(adapter, Adapter) else Adapter.load(adapter)


def worn(denoiser: Any, adapter: Adapter, scale: Any) -> Any:
    """The denoiser whose weights hold the guidance of a scale; for 1 the one without the adapter.

    Raises:
        InputError: the scale is no number that the adapter was trained for.
    """
    scale, holds = adapter.holding(scale)
    plain = copy.copy(denoiser)
    plain.adapter, plain._views = None, ()
    if scale == 1:
        return plain
    other = copy.copy(plain)
    other.holds, other.plain = holds, plain
    copied = Worn(denoiser.net, denoiser.modules)
    with torch.no_grad():
        copied.wear(adapter.change.to(denoiser.device), scale)
    return view(other, copied)


def view(denoiser: Any, copied: Worn) -> Any:
    """The denoiser that asks a copy of its network."""
    other = copy.copy(denoiser)
    other.net, other._views = copied.net, ()
    if other._modules is not None:
        other._modules = copied.modules
    return other
