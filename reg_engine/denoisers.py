"""One view of any network: `denoiser(x_t, t, cond) -> E[x_0 | x_t, cond]`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, NamedTuple

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn

from .conditioning import Cond, plain
from .errors import EstimatorError, InputError, choice
from .modules import COMPUTED, ask, dtype_of, modules_of, search
from .preconditioning import INPUT_SCALINGS, PREDICTIONS, SPELLINGS, preconditioning
from .schedules import Schedule
from .values import as_float, as_int, as_tuple, shown

__all__ = ["Denoiser", "Place"]

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
    x_t
    includes the input scaling: K = alpha_t d denoised / d x_t holds for every prediction type.

    Args:
        net: called as `net(x, t, cond)`: x (B, *sample_shape); t (B,) in the schedule's own time
            (`edm`: c_noise = ln(sigma/alpha)/4); cond as given to the engine, B rows. Returns (B,
            *sample_shape).
        prediction: what it returns: "epsilon", "score", "sample", "v_prediction", "flow" or
            "edm".
        schedule: t -> (alpha_t, sigma_t) of its training.
        sample_shape: shape of one sample, without the batch.
        null_cond: conditioning of the reference call, a scalar or one row; None: there is none.
        sigma_data: deviation of the data, for "edm".
        num_classes: labels lie in [0, num_classes); None where cond is not a label.
        input_scaling: None (as the prediction says), "none", "variance" or "edm": see
            preconditioning.py.
        modules: torch modules that `net` runs, for calls to freeze, move and look into. None =
            those found in it (modules.py): needed only where a function hides them, behind a name
            that it makes up while it runs, say.
        dtype: floating dtype that `net` takes x in. None = its module's own (float32 for one that
            only stores its weights in float8), or that of x where it has no module.

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
        self._modules, self._dtype = _as_modules(modules), _as_dtype(dtype)
        self._views: list[Denoiser] = []  # on other schedules

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
        scaled = (place.c_in * x).to(self.dtype or x.dtype)
        return self.denoised(x, self.output(scaled, place, cond, x), place)

    def output(self, scaled: Tensor, place: Place, cond: Cond, x: Tensor | None = None) -> Tensor:
        """What the network returns for its own, scaled input; `x` is what that was made of.

        The conditioning is copied: a network may write into what it was given.
        """
        time = self._time(scaled, place.time)
        output = ask(self.net, self._held(), scaled, time, plain(cond))
        return self._checked(output, scaled if x is None else x)

    def denoised(self, x: Tensor, output: Tensor, place: Place) -> Tensor:
        """E[x_0 | x_t] from the network's output."""
        return place.c_skip * x + place.c_out * output.to(x.dtype)

    def on(self, schedule: Schedule) -> Denoiser:
        """The same network seen through another schedule (same noise level sigma/alpha, rescaled
        x_t)."""
        if schedule == self.schedule:
            return self
        for view in self._views:
            if schedule == view.schedule:
                return view
        self._views.append(_Rescheduled(self, schedule))
        return self._views[-1]

    def _time(self, x: Tensor, time: Number) -> Tensor:
        # Never below float32: bfloat16 cannot tell the steps 998 and 999 apart.
        dtype = torch.promote_types(self.dtype or x.dtype, torch.float32)
        if isinstance(time, Tensor):
            return time.to(dtype).repeat(x.shape[0])
        return torch.full((x.shape[0],), time, dtype=dtype, device=x.device)

    def _checked(self, output: Any, x: Tensor) -> Tensor:
        if not isinstance(output, Tensor):
            raise InputError(
                "model",
                f"returned a {type(output).__name__}",
                "The network must return one tensor: wrap it in a function that picks it",
            )
        if output.shape != x.shape:
            raise InputError(
                "model",
                f"returned shape {tuple(output.shape)} for an input of {tuple(x.shape)}",
                "The network must return the shape of its input (drop learned-variance channels)",
            )
        if output.device != x.device or not output.is_floating_point():
            raise InputError(
                "model",
                f"returned {output.dtype} on {output.device} for input on {x.device}",
                "The network must return floating point values on its input's device",
            )
        if x.requires_grad and torch.is_grad_enabled() and not output.requires_grad:
            raise EstimatorError(
                "the network cuts the autograd graph (no_grad, detach, numpy or a compiled "
                "engine), so "
                "'paper', 'vjp' and 'diagonal' cannot serve it. Use rectify='fd_batched' or 'fd'."
            )
        if fwAD._current_level >= 0 and _has_tangent(x) and not _has_tangent(output):
            raise EstimatorError(
                "the network drops the forward-mode tangent (a custom op or compiled part), so "
                "'jvp' "
                "would be silently zero. Use rectify='vjp', 'fd_batched' or 'fd'."
            )
        return output


def _as_modules(modules: Iterable[nn.Module] | None) -> tuple[nn.Module, ...] | None:
    listed = [modules] if isinstance(modules, nn.Module) else modules
    kept = None if listed is None else tuple(listed)
    if not all(isinstance(module, nn.Module) for module in kept or ()):
        raise InputError("modules", f"is {modules!r}", "Give the torch.nn.Modules that net runs")
    return kept


def _as_dtype(dtype: torch.dtype | None) -> torch.dtype | None:
    if dtype is not None and dtype not in COMPUTED:
        raise InputError("dtype", f"is {dtype}", "Give a floating dtype that networks compute in")
    return dtype


def _has_tangent(value: Tensor) -> bool:
    return fwAD.unpack_dual(value).tangent is not None


class _Rescheduled(Denoiser):
    """`inner` on another schedule: x_0 + n eps is the same point, whatever alpha multiplies it."""

    def __init__(self, inner: Denoiser, schedule: Schedule) -> None:
        super().__init__(
            inner.net,
            inner.prediction,
            schedule,
            inner.sample_shape,
            inner.null_cond,
            sigma_data=inner.sigma_data,
            num_classes=inner.num_classes,
            input_scaling=inner.input_scaling,
            modules=inner._modules,
            dtype=inner._dtype,
        )
        self._inner = inner

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
