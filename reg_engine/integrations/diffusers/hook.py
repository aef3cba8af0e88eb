"""The network of a running pipeline, answering so that the pipeline's own formula is REG.

A pipeline asks for c and u and goes on with u + s (c - u) = c + (s - 1)(c - u), with a scale s of
its own. Told u' = 2 c - g, where g is the guided prediction at w = 1, it goes on with
c + (s - 1)(g - c): what s would have given, as g - c is linear in w. Where the guidance is the
user's, it is told g twice.

Two ways of asking are known: both in one batch, and one after the other. In the second way the
first call cannot know the other's arguments at the first step, where it is answered as it is and c
is evaluated twice; from then on the pair of the step before serves.
"""

from __future__ import annotations

import warnings
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...guide import Guide
from ...loop.stats import Stats
from ..running import Running
from .calls import Call, signature_of
from .levels import Levels, levels_of

__all__ = ["Asked", "Hook", "cost_of", "halves", "pair"]

# What a call of a module runs before its forward, which offloading may replace between two calls of
# a pipeline; copies and pickles of a module are without it.
PLACE = "_compiled_call_impl"
COND_FIRST = ("DiTPipeline",)  # of those that ask both in one batch; the others: reference first
THREE = ("do_perturbed_attention_guidance", "image_guidance_scale")  # have those that ask for three


class Asked:
    """The pipeline's network as a Denoiser asks: any states, as if of rows of the pipeline's call.

    Args:
        forward: the network's own forward, or what wrapped it before.
        unit: what the network is told at time 1; None = what the call was told, at every time.
    """

    def __init__(self, forward: Callable[..., Any], unit: float | None = None) -> None:
        self.forward, self.unit = forward, unit
        self.kind: Any
        self.named, self.kind = True, Any  # return_dict, and the class of what it returns
        self.beyond = 0  # channels that it returns beyond the state's

    def about(self, cond: Call, ref: Call) -> None:
        """The two calls of a step: rows 0 .. n-1 are the first's, n .. 2n-1 the other's."""
        both = cond.beside(ref)
        self._calls = (cond, ref) if both is None else (both,)

    def __call__(self, x: Tensor, t: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        rows = cond["row"]
        if len(self._calls) == 1:
            return self._asked(self._calls[0], x, t, rows)
        # Prompts of two lengths, say: one after the other.
        n = len(self._calls[0].x)
        found: Tensor | None = None
        for number, call in enumerate(self._calls):
            here = ((rows >= n) == bool(number)).nonzero().flatten()
            if len(here):
                part = self._asked(call, x[here], t[here], rows[here] - number * n)
                found = x.new_zeros(x.shape, dtype=part.dtype) if found is None else found
                found = found.index_copy(0, here, part)
        assert found is not None
        return found

    def _asked(self, call: Call, x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        given = call.told_about(x, rows)
        if self.unit is not None:
            given["timestep"] = call.at(self.unit * t)
        output = self.forward(given.pop(""), **given)
        self.named, self.kind = not isinstance(output, tuple), type(output)
        found: Tensor = output[0]
        self.beyond = found.shape[call.axis] - call.channels
        return found.narrow(call.axis, 0, call.channels)

    def answered(self, prediction: Tensor, axis: int) -> Any:
        """A prediction in the form in which the network returns it; channels beyond the state's,
        which are learned variances, are 0."""
        if self.beyond:
            like = prediction.narrow(axis, 0, 1)
            zeros = torch.zeros_like(like).expand_as(prediction).narrow(axis, 0, self.beyond)
            prediction = torch.cat([prediction, zeros], axis)
        return self.kind(sample=prediction) if self.named else (prediction,)


class Hook:
    """Stands in for a call of `module` while a pipeline runs.

    Args:
        pipe: the pipeline; its scheduler is looked at in every call.
        module: its network.
        choices: of Guide (scale, guidance, rectify, plan, memory_budget, backend, check).
        own: whether the guidance is the user's; else the pipeline's scale counts.

    Attributes:
        calls, guided: of the network, and pairs of them that were answered.
    """

    def __init__(self, pipe: Any, module: nn.Module, choices: Mapping[str, Any], own: bool) -> None:
        self.pipe, self.module, self.choices, self.own = pipe, module, dict(choices), own
        self.asked, self._form = Asked(self._plainly), signature_of(module)
        self._before = module.__dict__.get(PLACE)  # a compiled call
        # Pipelines with a true CFG ask one after the other; of others the second call tells.
        self._turns = "true_cfg_scale" in signature(type(pipe).__call__).parameters
        self.calls = self.guided = 0
        self._guide: Guide | None = None
        self._way: tuple[Any, ...] = ()
        self._cond: Call | None = None  # the first of a pair, of which the other has not come
        self._run: Any = None  # the times of the way at which it came
        self._last: tuple[Call, Call] | None = None  # the pair before
        self._ref: Call | None = None  # what that makes of the other
        self._told: Tensor | None = None  # the pipeline holds it as the answer to the first
        self._next: Tensor | None = None  # the answer to the other, where it is known already

    @property
    def stats(self) -> Stats | None:
        """What the pipeline's last way cost, as of `Guide.stats`; None: nothing was guided."""
        return None if self._guide is None else self._guide.stats

    def place(self) -> None:
        """Take the place of what a call of the module runs."""
        self.module.__dict__[PLACE] = self

    def lift(self) -> None:
        """Give the place back."""
        self.module.__dict__.pop(PLACE, None)
        if self._before is not None:
            self.module.__dict__[PLACE] = self._before

    def _plainly(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own answer."""
        self.lift()
        try:
            return self.module(*args, **kwargs)
        finally:
            self.place()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if getattr(self.module, "is_cache_enabled", False):
            problem = f"its {type(self.module).__name__} keeps what it computed from call to call"
            raise InputError("pipe", problem, "Call disable_cache() of the network first")
        if not getattr(self.pipe, "do_classifier_free_guidance", True):
            return self._plainly(*args, **kwargs)
        call = Call.of(self._form, self.module, args, kwargs)
        first, same = self._cond, self._run is self.pipe.scheduler.timesteps
        self._run = self.pipe.scheduler.timesteps
        if first is not None and same and pair(first, call):
            return self._second(first, call)
        return self._one(call, lambda: self._plainly(*args, **kwargs))

    def _one(self, call: Call, plainly: Callable[[], Any]) -> Any:
        """The only call of a step, or the first."""
        if self._turns:
            return self._first(call, plainly)
        if call.repeats(3) and (not call.repeats(2) or any(hasattr(self.pipe, a) for a in THREE)):
            raise InputError(
                "pipe",
                f"a {type(self.pipe).__name__} asks for three predictions a step",
                "Take a pipeline that asks for two: with and without the condition",
            )
        both = halves(self.pipe, call)
        return self._first(call, plainly) if both is None else self._both(call, *both)

    def _both(self, call: Call, cond: Call, ref: Call) -> Any:
        answers = self._answers(cond, ref)
        turned = type(self.pipe).__name__ in COND_FIRST
        # Samples that begin alike look like this too; then the other call of the step is to come.
        self._cond, self._last, self._next = call, None, None
        self._told = torch.cat(answers if turned else answers[::-1])
        return self.asked.answered(self._told, call.axis)

    def _first(self, call: Call, plainly: Callable[[], Any]) -> Any:
        self._cond, self._next = call, None
        run = self._way and self._way[0] is self.pipe.scheduler.timesteps
        if self._last is None or not run or self._last[0].x.shape != call.x.shape:
            self._warn()
            output = plainly()
            self._told = output[0]
            return output
        self._ref = call.other(*self._last)
        self._told, self._next = self._answers(call, self._ref)
        return self.asked.answered(self._told, call.axis)

    def _second(self, first: Call, call: Call) -> Any:
        known, answer = self._ref, self._next
        self._cond, self._last, self._turns = None, (first, call), True
        if answer is None or known is None or not known.like(call):
            plainly = answer is None
            told, answer = self._answers(first, call)
            assert self._told is not None and self._guide is not None
            self._told.copy_(told)
            if plainly:
                self._guide.stats.beside(len(call.x))  # what the first was answered with
        return self.asked.answered(answer, call.axis)

    def _warn(self) -> None:
        """Once, where a second step begins and no second prediction was asked for at the first."""
        if self.calls == 2 and self.guided == 0:
            warnings.warn(
                f"the {type(self.pipe).__name__} asks for one prediction a step, so nothing is "
                "guided: give it guidance_scale > 1, or true_cfg_scale > 1 and a negative_prompt",
                RuntimeWarning,
                stacklevel=2,
            )

    def _answers(self, cond: Call, ref: Call) -> tuple[Tensor, Tensor]:
        """What the pipeline is told for cond and for the reference, (n, C, ...) each."""
        levels = levels_of(self.pipe.scheduler)
        time, state = levels.time(cond.told, cond.rounding), cond.state
        self.asked.about(cond, ref)
        way = (self.pipe.scheduler.timesteps, levels.prediction, state.shape, state.device)
        if self._guide is None or way[0] is not self._way[0] or way[1:] != self._way[1:]:
            self._guide, self._way = self._began(levels, state), way
        x = state.to(torch.promote_types(state.dtype, torch.float32))
        found = self._guide.estimates(x, time)
        denoiser = self._guide.denoiser
        c, g = (denoiser.to_prediction(one, x, time) for one in found)
        self.guided += 1
        learned = str(levels.scheduler.config.get("variance_type")).startswith("learned")
        if self.asked.beyond and learned:
            raise InputError(
                "scheduler", "takes variances that the network learned", "Take DDIM, or DPM++"
            )
        c, u = (g, g) if self.own else (c, 2 * c - g)
        return c.to(state.dtype), u.to(state.dtype)

    def _began(self, levels: Levels, state: Tensor) -> Guide:
        denoiser, rows = self._denoiser(levels, state)
        return Guide(denoiser, {"row": rows}, **self.choices)

    def _denoiser(self, levels: Levels, state: Tensor) -> tuple[Running, Tensor]:
        """The network as a model, and the rows of cond; the reference's come after them."""
        rows = torch.arange(2 * len(state), device=state.device)
        denoiser = Running(
            self.asked,
            levels.prediction,
            levels.schedule,
            tuple(state.shape[1:]),
            {"row": rows[len(state) :]},
            modules=(self.module,),
        )
        denoiser.place = state.device
        return denoiser, rows[: len(state)]


def pair(first: Call, other: Call) -> bool:
    """Whether both ask at one state and time, for two conditions."""
    same = first.x.shape == other.x.shape and torch.equal(first.x, other.x)
    return same and first.told == other.told and not first.like(other)


def halves(pipe: Any, call: Call) -> tuple[Call, Call] | None:
    """The call's rows for cond and for the reference; None: it does not ask for both."""
    n = len(call.x) // 2
    parts = call.part(slice(n)), call.part(slice(n, None))
    if not call.repeats(2) or parts[0].like(parts[1]):
        return None
    return parts if type(pipe).__name__ in COND_FIRST else parts[::-1]


def cost_of(hooks: Iterable[Hook]) -> Stats | None:
    """What the last way cost over all of them: networks take turns along it. None: nothing was
    guided."""
    found = [hook.stats for hook in hooks if hook.stats is not None]
    if not found:
        return None
    sums = {name: sum(getattr(one, name) for one in found) for name in ("nfe", "backward")}
    modes = sum((Tally(one.modes) for one in found), Tally[str]())
    checks = sum(one.checks for one in found)
    return replace(found[-1], **sums, checks=checks, modes=dict(modes))
