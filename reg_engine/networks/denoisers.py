"""One view of any network: `denoiser(x_t, t, cond) -> E[x_0 | x_t, cond]`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import InputError, choice
from ..schedules import VP, Schedule
from ..values import as_bool, as_float, as_int, as_range, as_tuple, shown
from .adapter import Adapter, with_adapter
from .calls import as_computed, as_extra, as_modules, checked, told_scale
from .conditioning import Cond, each, plain
from .modules import ask, dtype_of, modules_of, search
from .preconditioning import INPUT_SCALINGS, PREDICTIONS, SPELLINGS, preconditioning
from .variance import halves

__all__ = ["Denoiser", "Place"]

TIMES = ("float", "integer")
LOOKED_UP = "scalar types: Long, Int; but got"  # of torch.nn.Embedding
VIEWS = 8  # that a denoiser keeps on other schedules
Number = float | Tensor  # of the host, or 0-dim on the device


class Place(NamedTuple):
    """How a network is asked at one time: denoised = c_skip x + c_out net(c_in x, time, cond)."""

    c_in: Number
    c_skip: Number
    c_out: Number
    time: Number


class Denoiser:
    """A network, with what it predicts and the schedule it was trained on.

    `denoised = c_skip x_t + c_out net(c_in x_t, t, cond)`, so a derivative taken with respect to
    x_t includes the input scaling: K = alpha_t d denoised / d x_t holds for every prediction type.

    Args:
        net: called as `net(x, t, cond, **extra)`: x (B, *sample_shape); t (B,), a float in the
            schedule's own time (`edm`: c_noise = ln(sigma/alpha)/4); cond as given to the engine,
            B rows. Returns (B, *sample_shape).
        prediction: what it returns: "epsilon", "score", "sample", "v_prediction", "flow" or
            "edm".
        schedule: t -> (alpha_t, sigma_t) of its training.
        sample_shape: shape of one sample, without the batch.
        null_cond: conditioning of the reference call: a scalar, one row, or one row a sample (of a
            dict's tensors likewise); None: there is none.
        sigma_data: deviation of the data, for "edm".
        num_classes: labels lie in [0, num_classes); None where cond is not a label.
        input_scaling: None (as the prediction says), "none", "variance" or "edm": see
            preconditioning.py.
        modules: torch modules that `net` runs, for calls to freeze, move and look into. None =
            those found in it (modules.py): needed only where a function hides them, behind a name
            that it makes up while it runs, say.
        dtype: floating dtype that `net` takes x in. None = its module's own (float32 for one that
            only stores its weights in float8), or that of x where it has no module.
        extra: keyword arguments of `net` that are the same for every sample and have no rows, such
            as position ids (L, 3); their tensors are moved to the device of x.
        time: "float", or "integer" for a network that looks t up in a table: the nearest step of a
            VP schedule, as int64.
        value_range: (black, white) of samples that are images, for `out.images`.
        learned_variance: whether it returns twice the channels, the second half being where the
            logarithm of the step's variance lies (Nichol & Dhariwal 2021, Eq. 15): -1 the smallest,
            1 the largest. They are used by solver "ddpm" with variance="learned" alone.

    Raises:
        InputError: an argument of the wrong kind or range.
    """

    def __init__(
        self,
        net: Callable[..., Any],
        prediction: str,
        schedule: Schedule,
        sample_shape: Iterable[int],
        null_cond: object = None,
        *,
        sigma_data: float = 0.5,
        num_classes: int | None = None,
        input_scaling: str | None = None,
        modules: Iterable[nn.Module] | None = None,
        dtype: torch.dtype | None = None,
        extra: Mapping[str, Any] | None = None,
        time: str = "float",
        value_range: tuple[float, float] = (-1.0, 1.0),
        learned_variance: bool = False,
    ) -> None:
        if not callable(net) or isinstance(net, type):
            raise InputError("net", f"is {shown(net)}", "Give a function net(x, t, cond)")
        if not isinstance(schedule, Schedule):
            raise InputError(
                "schedule", f"is a {type(schedule).__name__}", "Give one of reg_engine.schedules"
            )
        self.net = net
        self.prediction = choice("prediction", prediction, PREDICTIONS, SPELLINGS)
        self.schedule = schedule
        sizes = as_tuple("sample_shape", sample_shape, "Give sizes, such as (3, 32, 32)")
        self.sample_shape = tuple(as_int("sample_shape", size) for size in sizes)
        if not sizes:
            raise InputError("sample_shape", "is empty", "Give (1,) for samples of one number")
        if input_scaling is not None:
            choice("input_scaling", input_scaling, INPUT_SCALINGS)
        self.null_cond = null_cond
        self.sigma_data = as_float(
            "sigma_data", sigma_data, "Give a positive number", lambda v: 0 < v < math.inf
        )
        self.num_classes = None if num_classes is None else as_int("num_classes", num_classes)
        self.input_scaling = input_scaling
        self._modules, self._dtype = as_modules(modules), as_computed(dtype)
        self.extra, self.time = as_extra(extra, net), choice("time", time, TIMES)
        if time == "integer" and (prediction == "edm" or not isinstance(schedule, VP)):
            raise InputError("time", "'integer' counts the steps of a VP schedule", "Give 'float'")
        self.value_range = as_range("value_range", value_range)
        self.learned_variance = as_bool("learned_variance", learned_variance)
        self._moved: dict[torch.device, Any] = {}  # extra, where it was asked for
        self.returned: torch.dtype | None = None  # by the last call
        self._views: tuple[Denoiser, ...] = ()  # on other schedules, the last one used first
        self.adapter: Adapter | None = None
        self.holds = ""  # guidance that is in the weights: what is said of it
        self.plain: Denoiser | None = None  # the model without it

    def __repr__(self) -> str:
        net = type(self.net) if isinstance(self.net, nn.Module) else self.net
        name = getattr(net, "__name__", type(net).__name__)
        schedule, null = type(self.schedule).__name__, self.null_cond
        null = null if isinstance(null, (int, float, str)) else type(null).__name__
        told = "" if null == "NoneType" else f", null_cond={null}"
        return f"Denoiser({name}, {self.prediction!r}, {schedule}, {self.sample_shape}{told})"

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The torch modules to freeze during a call: those that `net` is or holds now."""
        return modules_of(self.net) if self._modules is None else self._modules

    @property
    def device(self) -> torch.device | None:
        """Where the network's parameters are; None if it has none."""
        tensors = (t for m in self._held() for t in chain(m.parameters(), m.buffers()))
        return next((t.device for t in tensors if t.is_floating_point()), None)

    @property
    def dtype(self) -> torch.dtype | None:
        """Floating dtype that the network computes in; None if it has no module that says."""
        return self._dtype or dtype_of(self._held())

    def _held(self) -> Iterable[nn.Module]:
        return search(self.net) if self._modules is None else self._modules

    def coefficients(self, t: float) -> tuple[float, float, float]:
        """(c_in, c_skip, c_out) at time t, in float64."""
        alpha, sigma = self.schedule(t)
        if alpha == 0 and self.prediction in ("epsilon", "score", "edm"):
            raise InputError(
                "prediction",
                f"{self.prediction!r} says nothing about x_0 at t = {t:g}, where alpha = 0",
                "Start at an earlier time: solver_options={'times': [...]}",
            )
        return preconditioning(self.prediction, alpha, sigma, self.sigma_data, self.input_scaling)

    def to_prediction(self, denoised: Tensor, x: Tensor, t: float) -> Tensor:
        """The network output that belongs to `denoised` at (x_t, t): the inverse of the view."""
        place = self.at(t)
        return (denoised - place.c_skip * x) / place.c_out

    def at(self, t: float) -> Place:
        """How the network is asked at time t, in float64."""
        return Place(*self._numbers(t))

    def _numbers(self, t: float) -> tuple[float, float, float, float]:
        coefficients = self.coefficients(t)
        if self.prediction != "edm":
            return *coefficients, float(t)
        alpha, sigma = self.schedule(t)
        return *coefficients, math.log(float(sigma) / float(alpha)) / 4

    def __call__(self, x: Tensor, t: float, cond: Cond) -> Tensor:
        """E[x_0 | x_t, cond], shape (B, *sample_shape), in the dtype of x.

        Raises:
            InputError: the network returned something else than a tensor of x's shape.
            EstimatorError: x carries a derivative and the network's output does not.
        """
        return self.evaluate(x, self.at(t), cond)

    def evaluate(self, x: Tensor, place: Place, cond: Cond) -> Tensor:
        """As a call, at a place that is known already."""
        return self.denoised(x, self.output(self.scaled(x, place), place, cond, x), place)

    def scaled(self, x: Tensor, place: Place) -> Tensor:
        """The network's input for a state, a tensor of its own."""
        return (place.c_in * x).to(self.dtype or x.dtype)

    def output(self, scaled: Tensor, place: Place, cond: Cond, x: Tensor | None = None) -> Tensor:
        """What the network predicts for its own, scaled input; `x` is what that was made of."""
        return self.answer(scaled, place, cond, x)[0]

    def answer(
        self, scaled: Tensor, place: Place, cond: Cond, x: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """As `output`, and what the network says beside: a learned variance, or None.

        The conditioning is copied: a network may write into what it was given.
        """
        told_scale(self.adapter)
        time = self._time(scaled, place.time)
        extra = self._extra(scaled.device) if self.extra else {}
        try:
            output = ask(self.net, self._held(), scaled, time, plain(cond), **extra)
        except RuntimeError as error:
            if LOOKED_UP in str(error) and self.time == "float":
                raise InputError(
                    "time",
                    f"the network looks floats up in a table ({str(error).splitlines()[0]})",
                    "t arrives as a float: give Denoiser(time='integer'), if t is what it looks up",
                ) from error
            raise
        like, beside = scaled if x is None else x, None
        if self.learned_variance:
            output, beside = halves(output, like)
        self.returned = checked(output, like).dtype
        return output, beside

    def denoised(self, x: Tensor, output: Tensor, place: Place) -> Tensor:
        """E[x_0 | x_t] from the network's output."""
        return place.c_skip * x + place.c_out * output.to(x.dtype)

    def on(self, schedule: Schedule) -> Denoiser:
        """The same network seen through another schedule (same noise level sigma/alpha, rescaled
        x_t)."""
        if schedule == self.schedule:
            return self
        views = self._views
        view = next((v for v in views if v.schedule == schedule), None)
        view = _Rescheduled(self, schedule) if view is None else view
        self._views = (view, *(v for v in views if v is not view))[:VIEWS]
        return view

    def with_adapter(
        self, adapter: str | os.PathLike[str] | Adapter, extrapolate: bool = False
    ) -> Denoiser:
        """The same model with guidance distilled into an adapter: see networks/adapter.py."""
        return with_adapter(self, adapter, extrapolate)

    def _time(self, x: Tensor, time: Number) -> Tensor:
        # Never below float32: bfloat16 cannot tell the steps 998 and 999 apart.
        dtype = torch.promote_types(self.dtype or x.dtype, torch.float32)
        if isinstance(time, Tensor):
            told = time.to(dtype).expand(x.shape[0]).clone()
        else:
            told = torch.full((x.shape[0],), time, dtype=dtype, device=x.device)
        return told if self.time == "float" else told.round().clamp_min(0).long()

    def _extra(self, device: torch.device) -> Any:
        """`extra` on the device, where a recorded graph finds it again."""
        if device not in self._moved:
            self._moved[device] = each(lambda tensor: tensor.to(device), self.extra)
        return plain(self._moved[device])  # a network may write into it


class _Rescheduled(Denoiser):
    """`inner` on another schedule: x_0 + n eps is the same point, whatever alpha multiplies it."""

    def __init__(self, inner: Denoiser, schedule: Schedule) -> None:
        self.__dict__.update(inner.__dict__)
        self.schedule, self._inner, self._views = schedule, inner, ()

    def _numbers(self, t: float) -> tuple[float, float, float, float]:
        level, inner = self.schedule.noise_level(t), self._inner.schedule
        try:
            inner_t = inner.time_of(level)
        except InputError as error:
            raise InputError(
                "schedule",
                f"{type(self.schedule).__name__} has sigma/alpha = {level:.6g} at t = {t:g}, where "
                f"the model's {type(inner).__name__} has no time",
                "Leave schedule out, or start later: solver_options={'times': [...]}",
            ) from error
        # x_t of both differ by this factor: of alpha, or of sigma where that is the larger one.
        here, there = self.schedule(t), inner(inner_t)
        factor = there[1] / here[1] if here[1] > here[0] else there[0] / here[0]
        c_in, c_skip, c_out, time = self._inner._numbers(inner_t)
        return c_in * factor, c_skip * factor, c_out, time

    def coefficients(self, t: float) -> tuple[float, float, float]:
        c_in, c_skip, c_out, _ = self._numbers(t)
        return c_in, c_skip, c_out
