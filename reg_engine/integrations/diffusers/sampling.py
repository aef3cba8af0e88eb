"""Prompts to pictures: a pipeline encodes and decodes, this library's engine samples between.

The pipeline is called once. Its network is asked nothing by it: from the first step's calls the
engine knows the conditionings and the state that the pipeline would begin with, and what the
engine makes of them is handed over where the scheduler would step.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial, wraps
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ...checks import no_choices
from ...engine import Engine
from ...errors import InputError
from ...guidance import Guidance
from ...loop.stats import Stats
from ...networks.adapter import Adapter
from ...plan import Plan
from ...rectifiers import Rectifier
from ...schedules import from_diffusers, solver_from_diffusers
from ...values import as_int
from .asking import fitting, listed, seeds_of, words_of
from .belongs import Held
from .calls import Call
from .enabled import ENABLED, networks_of
from .hook import Hook, halves
from .levels import levels_of
from .student import Student

__all__ = ["Pictures", "sample"]


@dataclass(frozen=True)
class Pictures:
    """What `sample` gives.

    Args:
        images: uint8 (N, H, W, 3) as the pipeline decoded them; of a video (N, frames, H, W, 3).
        latents: the samples, in the form that the pipeline keeps them in.
        stats: what they cost.
    """

    images: Tensor
    latents: Tensor
    stats: Stats

    @property
    def pil(self) -> list[Any]:
        """The same for PIL; of a video a list of pictures a sample."""
        from PIL import Image

        def shown(picture: Tensor) -> Any:
            if picture.dim() == 4:
                return [shown(frame) for frame in picture]
            return Image.fromarray(picture.numpy())

        return [shown(picture) for picture in self.images]


class _Stepped(tuple[Tensor]):
    """What a scheduler's step returns, by place and by name."""

    @property
    def prev_sample(self) -> Tensor:
        return self[0]


def sample(
    pipe: Any,
    prompt: str | Sequence[Any] | None = None,
    *,
    negative: str | Sequence[str] | None = None,
    scale: Any = None,
    guidance: Guidance | None = None,
    rectify: str | Rectifier | None = "auto",
    plan: Plan | None = None,
    solver: str | None = None,
    solver_options: dict[str, Any] | None = None,
    steps: int | None = None,
    seeds: Iterable[int] | None = None,
    per_prompt: int = 1,
    size: int | tuple[int, int] | None = None,
    progress: bool = True,
    adapter: str | os.PathLike[str] | Adapter | None = None,
    **call: Any,
) -> Pictures:
    """Sample from a diffusers pipeline with the engine.

    Args:
        pipe: a pipeline that starts from noise and takes prompts, or class labels.
        prompt: a text, or a list of texts; labels for DiT. None: `prompt_embeds` (N, L, D) is
            given among `call`, with what else the pipeline wants beside it.
        negative: one for all, or one a prompt; None = the pipeline's empty one.
        scale, guidance, rectify, plan: as for Engine; scale None = 2.
        solver, solver_options: as for Engine; None = that of the pipeline's scheduler.
        steps: None = the pipeline's usual number.
        seeds: one a picture, of the pipeline's own generators; None = 0 .. N-1.
        per_prompt: pictures of each prompt >= 1, one after the other.
        size: pixels, or (height, width); None = the pipeline's usual size.
        progress: show a progress bar.
        adapter: a file of a distillation, or an Adapter: guidance comes from it, with one
            evaluation a step; scale is a number, and neither negative nor guidance go with it.
        call: other keywords of the pipeline's call (max_sequence_length, num_frames, ...).

    Raises:
        InputError: numbers of prompts, negatives and seeds that do not fit; a pipeline that starts
            from a picture or asks for one prediction a step; a scheduler that is not read; the
            adapter of another network or chain.
    """
    networks_of(pipe)
    held = None
    if adapter is not None:
        no_choices(guidance, rectify, plan)
        held = Held.of(pipe, adapter, scale, negative)
    conds, negatives = listed(prompt, call, negative, per_prompt)
    chosen = seeds_of(seeds, len(conds))
    given = words_of(pipe, conds, negatives, chosen)
    if size is not None:
        given["height"], given["width"] = (size, size) if isinstance(size, int) else size
    if steps is not None:
        given["num_inference_steps"] = as_int("steps", steps)
    given |= fitting(pipe, given, call)
    choices = {"scale": scale, "guidance": guidance, "plan": plan, "progress": progress}
    choices |= {"rectify": rectify} if guidance is None else {}
    choices |= {"solver": solver, "solver_options": solver_options, "steps": steps}
    return _Run(pipe, choices, chosen, held).pictures(given)


class _Run(Hook):
    """The network that is asked nothing, and the step that takes the place of all."""

    def __init__(
        self, pipe: Any, choices: dict[str, Any], seeds: list[int], held: Held | None
    ) -> None:
        networks = networks_of(pipe)
        if isinstance(ENABLED.get(pipe), Student):
            problem = "is enabled with an adapter for its own call"
            raise InputError("pipe", problem, "Call disable(pipe), and give adapter= here")
        if len(networks) > 1:
            problem = f"is a {type(pipe).__name__} with {len(networks)} networks"
            raise InputError("pipe", problem, "Use `with reg(pipe): pipe(...)`")
        super().__init__(pipe, networks[0], choices, own=True)
        self.seeds, self.held = seeds, held
        self.latents: Tensor | None = None
        self.cost: Stats | None = None
        self._asked_for: list[Call] = []

    def pictures(self, given: dict[str, Any]) -> Pictures:
        """Of the pipeline's call with these keywords."""
        with self.placed():
            found = self.pipe(**given, output_type="np")[0]
        images = (torch.as_tensor(found) * 255).round().clamp(0, 255).to(torch.uint8)
        assert self.latents is not None and self.cost is not None
        return Pictures(images, self.latents, self.cost)

    @contextmanager
    def placed(self) -> Iterator[None]:
        """While it is open the pipeline runs on the engine."""
        before = {k: v for k, v in vars(self.pipe.scheduler).items() if k == "step"}
        self.place()
        # Pipelines look which arguments a step takes.
        self.pipe.scheduler.step = wraps(self.pipe.scheduler.step)(partial(self._stepped))
        try:
            yield
        finally:
            self.lift()
            del self.pipe.scheduler.step
            vars(self.pipe.scheduler).update(before)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = Call.of(self._form, self.module, args, kwargs)
        if self.latents is None:
            self._asked_for.append(call)
        shape = list(call.state.shape)
        learned = getattr(self.module, "config", {}).get("out_channels")
        if len(shape) > 3 and learned:
            shape[call.axis] = learned
        nothing = call.x.new_zeros(shape)
        named = kwargs.get("return_dict", True)
        return SimpleNamespace(sample=nothing) if named else (nothing,)

    def _stepped(self, prediction: Tensor, t: Any, latents: Tensor, *_: Any, **__: Any) -> _Stepped:
        if self.latents is None:
            own = vars(self.pipe.scheduler).pop("step")  # a scheduler that is copied takes it along
            try:
                self.latents = self._sampled()
            finally:
                self.pipe.scheduler.step = own
        copies = len(latents) // len(self.latents)  # DiT steps both halves
        return _Stepped([torch.cat([self.latents] * copies).to(latents.dtype)])

    def _sampled(self) -> Tensor:
        cond, ref = self._conditions()
        levels = levels_of(self.pipe.scheduler)
        begun, state = levels.time(cond.told, cond.rounding), cond.state
        if begun != levels.time(float(self.pipe.scheduler.timesteps[0])):
            problem = f"is a {type(self.pipe).__name__} that starts from a picture"
            raise InputError("pipe", problem, "Use `with reg(pipe): pipe(...)`")
        self.asked.about(cond, ref)
        self.asked.unit = cond.told / begun if begun else 1.0
        schedule = from_diffusers(self.pipe.scheduler)
        denoiser, rows = self._denoiser(replace(levels, schedule=schedule), state)
        choices = {k: v for k, v in self.choices.items() if v is not None or k == "rectify"}
        if "solver" not in choices:
            choices["solver"], options = solver_from_diffusers(self.pipe.scheduler)
            choices["solver_options"] = {**options, **choices.get("solver_options", {})}
        choices.setdefault("steps", len(self.pipe.scheduler.timesteps))
        with self.held.on(denoiser, choices) if self.held else nullcontext():
            engine = Engine(denoiser, **choices)
            start = state.to(torch.promote_types(state.dtype, torch.float32))
            start = start / engine.table.init_scale
            out = engine.sample({"row": rows}, seeds=self.seeds, noise=start)
        self.cost = out.stats
        return out.samples

    def _conditions(self) -> tuple[Call, Call]:
        calls = self._asked_for
        both = halves(self.pipe, calls[0]) if len(calls) == 1 else (calls[0], calls[1])
        if both is None or len(calls) > 2:
            raise InputError(
                "pipe",
                f"a {type(self.pipe).__name__} does not ask for two predictions a step",
                "Take a pipeline with guidance, and give `negative` where it wants one",
            )
        return both
