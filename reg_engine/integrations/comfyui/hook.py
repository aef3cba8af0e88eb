"""REG through the hooks of a ComfyUI model: the sampler is told a negative estimate that makes its
own formula REG.

A sampler takes u + s (c - u), with a scale s of its own (its `cfg`). Told u' = c - (g - c)/(s - 1),
where g is the guided estimate at that scale, it takes g; so do the formulas that other nodes put in
its place, each with the direction that REG gives. Two hooks share the work: the one that evaluates
does not know s, so it leaves its answer to the first hook that does.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ...calibration import Damping
from ...errors import EstimatorError, InputError, choice
from ...guidance import Guidance
from ...guide import Guide
from ...loop.stats import Stats
from ...rectifiers import RECTIFIERS
from ...values import as_bool, as_budget, as_float
from .asked import Asked, Calc, Call, named, view_of
from .conds import has_hooks
from .levels import OUTSIDE, plan_of

__all__ = ["Hook", "Settings", "attach"]

KEY = "reg_engine"
_CALC = "sampler_calc_cond_batch_function"
REVERSE = ("paper", "vjp", "diagonal")
# What nodes that reuse a step's work at the next leave in transformer_options.
CACHES = {"easycache": "EasyCache or LazyCache", "rel_l1_thresh": "TeaCache"}


@dataclass(frozen=True)
class Settings:
    """What a node asks for.

    Args:
        rectify: name of an estimator, "auto", or None (plain CFG).
        start, end: shares of the run, in [0, 1], as ComfyUI counts them: REG is on between them.
        outside: what happens elsewhere: "CFG", or "no guidance".
        damping: stands for the estimator, unless it was measured on top of one.
        memory_budget: bytes that a recorded pass may take; None = never recompute.
        check: whether a derivative is compared with differences first.

    Raises:
        InputError: an unknown name, shares that do not rise, or an estimator that a damping
            replaces.
    """

    rectify: str | None = "auto"
    start: float = 0.0
    end: float = 1.0
    outside: str = "CFG"
    damping: Damping | None = None
    memory_budget: float | None = None
    check: bool = True

    def __post_init__(self) -> None:
        if self.rectify is not None:
            choice("rectify", self.rectify, (*RECTIFIERS, "auto"))
        shares = (as_float(n, getattr(self, n), "Give a share in [0, 1]") for n in ("start", "end"))
        if not 0 <= next(shares) < next(shares) <= 1:
            problem = f"is {self.start:g} to {self.end:g}"
            raise InputError("start", problem, "Give rising shares in [0, 1]: 0 to 1 is all")
        choice("outside", self.outside, OUTSIDE)
        if self.damping is not None:
            self.weight(self.damping.scales[0] if self.damping.scales else 2.0)
        as_budget(self.memory_budget)
        as_bool("check", self.check)

    def weight(self, scale: float) -> Any:
        """What Guide takes as `scale`."""
        if self.damping is None:
            return scale
        weight = replace(self.damping(scale), model="")  # a fingerprint tells sizes apart, too
        Guidance(weight, rectify=self.rectify)  # an estimator that does not belong beside it
        return weight


class _Way:
    """What is kept of one sampling run."""

    def __init__(self) -> None:
        self.guide: Guide | None = None
        self.key: tuple[Any, ...] = ()
        self.asked = False


class Hook:
    """The hooks of one model: made by `attach`.

    Args:
        settings: what the node asks for.
        calc: comfy.samplers.calc_cond_batch.
        before: what another node put in its place.
        tell: is told the figures of a run when it ends.

    Attributes:
        stats: of the last run that was guided, as `Guide.stats`; None: there was none.
    """

    def __init__(
        self,
        settings: Settings,
        calc: Calc,
        before: Callable[[dict[str, Any]], list[Tensor]] | None = None,
        tell: Callable[[Stats], object] | None = None,
    ) -> None:
        self.settings, self.before, self.tell = settings, before, tell
        self._calc, self.asked = calc, Asked(calc)
        self.stats: Stats | None = None
        self._way: _Way | None = None  # of the run that goes on
        self._later: list[Tensor] | None = None  # stands for an answer that is yet to be made

    def outer_sample(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """Around a sampling run: nothing of it is kept for another, however it ends."""
        before, self._way, self._later = self._way, _Way(), None
        try:
            return executor(*args, **kwargs)
        finally:
            ended, self._way, self._later = self._way, before, None
            if ended.guide is not None:
                self.stats = ended.guide.stats
                if self.tell is not None:
                    self.tell(self.stats)

    def calc_cond_batch(self, args: dict[str, Any]) -> list[Tensor]:
        """In the place of ComfyUI's own: what stands for the two estimates, or, where there is
        nothing to guide, these."""
        if self._way is not None:
            self._way.asked = True
        conds, x = args["conds"], args["input"]
        if len(conds) != 2 or any(cond is None for cond in conds):  # at cfg 1, say
            self._later = None
            return self._call(args).evaluated(self._calc, conds, x, args["sigma"])
        self._later = [x, x]
        return self._later

    def pre_cfg(self, args: dict[str, Any]) -> list[Tensor]:
        """The first that is told the scale: (c, u')."""
        out, later = args["conds_out"], self._later
        self._later = None
        if later is None and args["model_options"].get(_CALC) == self.calc_cond_batch:
            return list(out) if not isinstance(out, list) else out
        if later is None or out is not later:
            raise InputError(
                "model",
                "another node evaluates the model in the place of REG guidance, or before its turn",
                "Put REG guidance behind that node, next to the sampler",
            )
        scale, sigma = float(args["cond_scale"]), args["sigma"]
        if math.isclose(scale, 1.0) or not bool(sigma.any()):  # nothing to guide, no noise
            call = self._call(args)
            return call.evaluated(self._calc, args["conds"], args["input"], sigma)
        way = _Way() if self._way is None else self._way
        with self.asked.about(self._call(args)):
            c, g = self._estimates(way, args, scale)
        return [c, c - (g - c) / (scale - 1)]

    def post_cfg(self, args: dict[str, Any]) -> Tensor:
        """Changes nothing: a guider that evaluates the model by itself is noticed here."""
        if self._way is not None and not self._way.asked:
            raise InputError(
                "guider",
                "evaluates the model by itself (DualCFGGuider, PerpNegGuider), past REG guidance",
                "Take KSampler or CFGGuider, or leave REG guidance out",
            )
        denoised: Tensor = args["denoised"]
        return denoised

    def _call(self, args: dict[str, Any]) -> Call:
        conds, count = tuple(args["conds"]), len(args["input"])
        return Call(args["model"], conds, args["model_options"], count, self.before)

    def _estimates(self, way: _Way, args: dict[str, Any], scale: float) -> tuple[Tensor, Tensor]:
        x, weight = args["input"], self.settings.weight(scale)
        key = (x.shape, x.device, x.dtype)
        if way.guide is None or way.key != key:
            way.guide, way.key = self._began(args, weight), key
        way.guide.weigh(weight)
        try:
            return way.guide.estimates(x, args["sigma"])
        except EstimatorError as error:
            broke = self.asked.broke
            if broke is None:
                raise
            self.asked = Asked(self._calc)  # with what was learned of the old one
            raise broke from error  # the user's interruption, met in forward mode

    def _began(self, args: dict[str, Any], weight: Any) -> Guide:
        settings, options, conds = self.settings, args["model_options"], list(args["conds"])
        _check(settings, options)
        _warn_of_another(settings.damping, args["model"])
        check = settings.check and not has_hooks(conds)
        view, rows = view_of(args["model"], args["input"], self.asked)
        sampling = args["model"].model_sampling  # a node may have shifted it behind this one
        return Guide(
            view,
            {"row": rows},
            scale=weight,
            rectify=settings.rectify,
            plan=plan_of(sampling, settings.start, settings.end, settings.outside, view.place),
            memory_budget=settings.memory_budget,
            check=check,
        )


def _check(settings: Settings, options: dict[str, Any]) -> None:
    """InputError for what cannot go together."""
    kept = options.get("transformer_options", {})
    for key, name in CACHES.items():
        if key in kept:
            raise InputError(
                "model",
                f"{name} answers some evaluations with those of earlier steps, which have no "
                "derivative",
                "Take it out of the workflow, or REG guidance",
            )
    if "multigpu_clones" in options and settings.rectify in REVERSE and settings.damping is None:
        problem = f"'{settings.rectify}' cannot record what other GPUs compute"
        raise InputError("rectify", problem, "Take 'auto', 'fd' or 'fd_batched'")


def _warn_of_another(damping: Damping | None, model: Any) -> None:
    measured = None if damping is None else damping.report.get("network")
    if measured and measured != named(model):
        warnings.warn(
            f"the damping was measured on {measured}, and this is {named(model)}: calibrate it on "
            "this kind",
            RuntimeWarning,
            stacklevel=2,
        )


def attach(
    patcher: Any, settings: Settings, calc: Calc, tell: Callable[[Stats], object] | None = None
) -> Any:
    """A clone of a ComfyUI MODEL (ModelPatcher) that samples with REG, at the sampler's own scale.

    Args:
        patcher: the model; left as it is.
        settings: what to do.
        calc: comfy.samplers.calc_cond_batch.
        tell: is told the figures (Stats) of every run.

    Raises:
        InputError: REG guidance is there already, or a ComfyUI without these hooks. While it
            samples: what `Guide` refuses; another node or guider evaluates the model in its place;
            a cache of steps is on.
    """
    for name in ("set_model_sampler_calc_cond_batch_function", "add_wrapper_with_key"):
        if not hasattr(patcher, name):
            raise InputError("model", f"has no {name}", "Update ComfyUI: 0.3.8 or newer")
    clone = patcher.clone()
    options = clone.model_options
    there = options.get("sampler_pre_cfg_function", [])
    if any(isinstance(getattr(one, "__self__", None), Hook) for one in there):
        raise InputError("model", "has REG guidance already", "Keep one of the two nodes")
    hook = Hook(settings, calc, options.get(_CALC), tell)
    clone.set_model_sampler_calc_cond_batch_function(hook.calc_cond_batch)
    clone.set_model_sampler_post_cfg_function(hook.post_cfg)
    # First, though it may be the last that was added: nobody else knows what is yet to be made.
    clone.model_options["sampler_pre_cfg_function"] = [hook.pre_cfg, *there]
    clone.add_wrapper_with_key("outer_sample", KEY, hook.outer_sample)
    return clone
