"""A stand-in for ComfyUI: the protocol of its sampling hooks, around any small network.

Written from the facts of the protocol: which hook is called when, with which arguments, and what it
returns. REG_COMFYUI=/path/to/ComfyUI lets the same tests run on ComfyUI itself (comfyui_real.py).
"""

from __future__ import annotations

import copy
import math
import os
from typing import Any

import torch
from comfyui_models import SAMPLINGS, TABLE, Control, Model, Told
from torch import Tensor

__all__ = [
    "REAL",
    "SAMPLINGS",
    "TABLE",
    "Control",
    "Guider",
    "Model",
    "Patcher",
    "Told",
    "calc_cond_batch",
    "sampling_function",
]
REAL = os.environ.get("REG_COMFYUI")
LISTS = ("sampler_pre_cfg_function", "sampler_post_cfg_function")


def calc_cond_batch(
    model: Any, conds: Any, x: Tensor, sigma: Tensor, options: dict[str, Any]
) -> list[Tensor]:
    """One estimate for each of conds: the mean of its entries, weighed by mask and strength."""
    sums = [torch.zeros_like(x) for _ in conds]
    weights = [torch.full_like(x, 1e-37) for _ in conds]
    jobs = [(side, entry) for side, cond in enumerate(conds) for entry in cond or ()]
    groups: dict[Any, list[Any]] = {}
    for side, entry in jobs:
        if entry.get("timestep_start", math.inf) < float(sigma[0]):
            continue
        told = {k: v.process_cond(len(x)).cond for k, v in entry["model_conds"].items()}
        shapes = tuple((k, v.shape) for k, v in told.items())
        alone = id(entry) if entry.get("control") else None
        groups.setdefault((shapes, entry.get("area"), alone), []).append((side, entry, told))
    for (_, area, _), members in groups.items():
        height, width, top, left = area or (*x.shape[2:], 0, 0)
        where = (..., slice(top, top + height), slice(left, left + width))
        input_x = torch.cat([x[where]] * len(members))
        time = torch.cat([sigma] * len(members))
        c = {k: torch.cat([told[k] for _, _, told in members]) for k in members[0][2]}
        sides = [side for side, _, _ in members]
        kept = dict(options.get("transformer_options", {}), cond_or_uncond=sides)
        if control := members[0][1].get("control"):
            c["control"] = control.get_control(input_x)
        c["transformer_options"] = kept
        model.calls.append((len(x), sides))
        wrapper = options.get("model_function_wrapper")
        if wrapper is None:
            output = model.apply_model(input_x, time, **c)
        else:
            told = {"input": input_x, "timestep": time, "c": c, "cond_or_uncond": sides}
            output = wrapper(model.apply_model, told)
        for (side, entry, _), out in zip(members, output.chunk(len(members)), strict=True):
            mult = entry.get("mask", torch.ones(1, *x.shape[2:]))[:, None].to(x) * entry.get(
                "strength", 1
            )
            mult = mult.expand(len(x) if len(mult) == 1 else -1, *x.shape[1:])[where]
            sums[side][where] += out * mult
            weights[side][where] += mult
    return [total / weight for total, weight in zip(sums, weights, strict=True)]


def sampling_function(
    model: Any, x: Tensor, sigma: Tensor, uncond: Any, cond: Any, scale: float, options: Any
) -> Tensor:
    if math.isclose(scale, 1.0) and not options.get("disable_cfg1_optimization"):
        uncond = None
    conds, base = [cond, uncond], {"input": x, "sigma": sigma, "model": model}
    base["model_options"] = options
    own = options.get("sampler_calc_cond_batch_function")
    args = {**base, "conds": conds}
    out = own(args) if own else calc_cond_batch(model, conds, x, sigma, options)
    for hook in options.get("sampler_pre_cfg_function", []):
        out = hook({**args, "conds_out": out, "cond_scale": scale, "timestep": sigma})
    c, u = out[0], out[1]
    told = {**base, "cond_scale": scale, "cond_denoised": c, "uncond_denoised": u}
    formula = options.get("sampler_cfg_function")
    if formula:
        more = {"cond": x - c, "uncond": x - u, "timestep": sigma}
        denoised = x - formula({**told, **more, "input_cond": cond, "input_uncond": uncond})
    else:
        denoised = u + (c - u) * scale
    for hook in options.get("sampler_post_cfg_function", []):
        denoised = hook({**told, "denoised": denoised, "cond": cond, "uncond": uncond})
    return denoised


class Patcher:
    """As ModelPatcher: a model, and what nodes have put around it."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.model_options: dict[str, Any] = {"transformer_options": {}}
        self.wrappers: dict[str, dict[str, list[Any]]] = {}

    def clone(self) -> Patcher:
        other = type(self)(self.model)
        other.model_options = {
            k: list(v) if isinstance(v, list) else dict(v) if isinstance(v, dict) else v
            for k, v in self.model_options.items()
        }
        other.wrappers = copy.deepcopy({k: {n: [] for n in v} for k, v in self.wrappers.items()})
        for kind, names in self.wrappers.items():
            for name, functions in names.items():
                other.wrappers[kind][name] = list(functions)
        return other

    def add_wrapper_with_key(self, kind: str, key: str, function: Any) -> None:
        self.wrappers.setdefault(kind, {}).setdefault(key, []).append(function)

    def set_model_sampler_calc_cond_batch_function(self, function: Any) -> None:
        self.model_options["sampler_calc_cond_batch_function"] = function

    def set_model_sampler_cfg_function(self, function: Any, disable: bool = False) -> None:
        self.model_options["sampler_cfg_function"] = function
        if disable:
            self.model_options["disable_cfg1_optimization"] = True

    def set_model_unet_function_wrapper(self, function: Any) -> None:
        self.model_options["model_function_wrapper"] = function

    def set_model_sampler_pre_cfg_function(self, function: Any) -> None:
        self._append(LISTS[0], function)

    def set_model_sampler_post_cfg_function(self, function: Any) -> None:
        self._append(LISTS[1], function)

    def _append(self, name: str, function: Any) -> None:
        self.model_options[name] = [*self.model_options.get(name, []), function]


class Guider:
    """As CFGGuider."""

    def __init__(
        self, patcher: Any, positive: Any = None, negative: Any = None, cfg: float = 1.0
    ) -> None:
        self.model_patcher, self.cfg = patcher, cfg
        self.set_conds(positive, negative)

    def set_conds(self, positive: Any, negative: Any) -> None:
        self.given = {"positive": positive, "negative": negative}

    def set_cfg(self, cfg: float) -> None:
        self.cfg = cfg

    def sample(
        self,
        noise: Tensor,
        latent: Tensor,
        sampler: Any,
        sigmas: Tensor,
        disable_pbar: bool = False,
        seed: int = 0,
    ) -> Tensor:
        functions = [
            f for fs in self.model_patcher.wrappers.get("outer_sample", {}).values() for f in fs
        ]
        return _Executor(self.outer_sample, functions, self)(noise, latent, sampler, sigmas, seed)

    def outer_sample(
        self, noise: Tensor, latent: Tensor, sampler: Any, sigmas: Tensor, seed: int
    ) -> Tensor:
        self.inner_model = self.model_patcher.model
        self.conds = {k: _converted(v, len(noise)) for k, v in self.given.items() if v is not None}
        options = self.model_patcher.clone().model_options
        options["transformer_options"]["sample_sigmas"] = sigmas
        extra = {"model_options": options, "seed": seed}
        return sampler.sample(self, sigmas, extra, None, noise, latent, None, True)

    def predict_noise(self, x: Tensor, sigma: Tensor, options: Any) -> Tensor:
        positive, negative = self.conds["positive"], self.conds.get("negative")
        return sampling_function(self.inner_model, x, sigma, negative, positive, self.cfg, options)

    def __call__(self, x: Tensor, sigma: Tensor, model_options: Any, seed: Any = None) -> Tensor:
        return self.predict_noise(x, sigma, model_options)


def _converted(given: Any, count: int) -> list[dict[str, Any]]:
    found = []
    for tensor, more in given:
        told = {"c_crossattn": Told(tensor), **more.get("told", {})}
        found.append({k: v for k, v in more.items() if k != "told"} | {"model_conds": told})
    return found


class _Executor:
    def __init__(self, function: Any, wrappers: list[Any], owner: Any) -> None:
        self.function, self.wrappers, self.class_obj = function, wrappers, owner

    def __call__(self, *args: Any) -> Any:
        if not self.wrappers:
            return self.function(*args)
        rest = _Executor(self.function, self.wrappers[1:], self.class_obj)
        return self.wrappers[0](rest, *args)
