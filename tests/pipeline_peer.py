"""REG in a diffusers pipeline, stated plainly: what its scheduler is given, by a backward pass."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

PROMPTS, NEGATIVES = ["a cat", "two dogs"], ["bad", "worse"]
SIZE = 16  # pixels; the tiny VAEs halve them
NAMES = ("sd", "sd_v", "sdxl", "dit", "pixart", "sd3", "flux", "auraflow", "wan")


def called(name: str, pipe: Any, scale: float = 4.0, steps: int = 3, **more: Any) -> Tensor:
    """Latents of two samples, with negative prompts; for DiT pictures, since it has no others."""
    seeds = [torch.Generator().manual_seed(seed) for seed in range(2)]
    common: dict[str, Any] = {"num_inference_steps": steps, "output_type": "latent", **more}
    if name == "dit":
        common |= {"output_type": "np", "generator": torch.Generator().manual_seed(0)}
        return torch.as_tensor(pipe([1, 2], guidance_scale=scale, **common)[0])
    common |= {"prompt": PROMPTS, "negative_prompt": NEGATIVES, "generator": seeds}
    common["true_cfg_scale" if name == "flux" else "guidance_scale"] = scale
    common |= {"height": SIZE, "width": SIZE}
    if name in ("pixart", "flux", "auraflow", "wan"):
        common["max_sequence_length"] = 16
    if name == "pixart":
        common |= {"use_resolution_binning": False, "clean_caption": False}
    if name == "wan":
        common |= {"height": 64, "width": 64, "num_frames": 9}
    return pipe(**common)[0]


@contextmanager
def peer(name: str, pipe: Any, scale: float = 4.0, forwards: bool = False) -> Iterator[None]:
    """While it is open the scheduler's step takes c + w K^T (c - u) instead of what it is given.

    c and u are asked again, at the input and with the arguments of the step's calls; K^T is the
    backward pass of alpha D(x), D the estimate of the clean sample.

    Args:
        forwards: K (c - u), by a backward pass through the backward pass.
    """
    net = getattr(pipe, "unet", None) or pipe.transformer
    forward, step = net.forward, pipe.scheduler.step
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def recorded(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return forward(*args, **kwargs)

    @wraps(step)  # a pipeline looks whether it takes a generator
    def stepped(prediction: Tensor, t: Tensor, latents: Tensor, *args: Any, **kwargs: Any) -> Any:
        with sdpa_kernel(SDPBackend.MATH) if forwards else nullcontext():
            guided = _guided(name, pipe.scheduler, forward, calls, float(t), scale, forwards)
        calls.clear()
        return step(guided.to(prediction.dtype), t, latents, *args, **kwargs)

    net.forward, pipe.scheduler.step = recorded, stepped
    try:
        yield
    finally:
        del net.forward, pipe.scheduler.step


def _guided(
    name: str,
    scheduler: Any,
    forward: Any,
    calls: list[Any],
    t: float,
    scale: float,
    forwards: bool,
) -> Tensor:
    args, kwargs = calls[0]
    key = "hidden_states" if "hidden_states" in kwargs else "sample"
    x = kwargs[key] if key in kwargs else args[0]
    n = len(x) if len(calls) == 2 else len(x) // 2
    axis = -1 if x.dim() == 3 else 1
    channels = 4 if x.dim() == 4 else x.shape[axis]

    def prediction(state: Tensor) -> Tensor:
        given = {**kwargs, key: state} if key in kwargs else kwargs
        out = forward(*(args if key in kwargs else (state, *args[1:])), **given)
        return out[0].narrow(axis, 0, channels)

    with torch.enable_grad():
        whole = x if len(calls) == 2 else x[:n]
        rest = whole.narrow(axis, channels, x.shape[axis] - channels)
        state = whole.narrow(axis, 0, channels).clone().requires_grad_(True)
        both = prediction(torch.cat([state, rest], axis).repeat(len(x) // n, *[1] * (x.dim() - 1)))
        if len(calls) == 2:
            c, (args, kwargs) = both, calls[1]
            u = prediction(x).detach()
        else:
            c, u = (both[:n], both[n:]) if name == "dit" else (both[n:], both[:n])
            u = u.detach()
        alpha, sigma, kind = _marginal(scheduler, t)
        clean = {
            "flow": lambda p: state - sigma * p,
            "epsilon": lambda p: (state - sigma * p) / alpha,
            "v_prediction": lambda p: alpha * state - sigma * p,
        }[kind]
        ours, theirs = clean(c), clean(u).detach()
        delta = (ours - theirs).detach()
        if forwards:
            along = torch.zeros_like(ours, requires_grad=True)
            (back,) = torch.autograd.grad(ours, state, along, create_graph=True)
            (pulled,) = torch.autograd.grad(back, along, delta)
        else:
            (pulled,) = torch.autograd.grad(ours, state, delta)
    x_t, target = state.detach(), (ours + (scale - 1) * alpha * pulled).detach()
    back = {
        "flow": (x_t - target) / sigma,
        "epsilon": (x_t - alpha * target) / sigma,
        "v_prediction": (alpha * x_t - target) / sigma,
    }[kind]
    if name != "dit":
        return back
    # The pipeline hands both halves, each with the variances that it drops itself.
    return torch.cat([back, back])


def _marginal(scheduler: Any, t: float) -> tuple[float, float, str]:
    times = [float(time) for time in scheduler.timesteps]
    if type(scheduler).__name__.startswith("FlowMatch"):
        sigma = float(scheduler.sigmas[times.index(t)])
        return 1 - sigma, sigma, "flow"
    if hasattr(scheduler, "sigmas"):
        level = float(scheduler.sigmas[times.index(t)])
        if scheduler.timesteps.is_floating_point():  # stages between the sigmas have no own
            levels = (1 / scheduler.alphas_cumprod.double().numpy() - 1) ** 0.5
            level = float(np.interp(t, np.arange(len(levels)), levels))
        return 1 / math.hypot(1, level), level / math.hypot(1, level), "epsilon"
    product = float(scheduler.alphas_cumprod[int(t)])
    return math.sqrt(product), math.sqrt(1 - product), scheduler.config.prediction_type
