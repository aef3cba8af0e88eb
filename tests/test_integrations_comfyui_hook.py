"""What other nodes set beside REG guidance: hooks before and behind it, guiders, caches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comfyui_cases import (
    network,
    noise,
    patched,
    peer,
    sampled,
)
from torch import Tensor

from reg_engine import Damping, InputError
from reg_engine.integrations.comfyui import Settings, attach

CALC = "set_model_sampler_calc_cond_batch_function"
REVERSE_AND_NOT = ("vjp", "fd_batched")


def plain(kind: str = "eps") -> Any:
    return peer.Patcher(peer.Model(network(), kind))


def with_reg(patcher: Any, **settings: Any) -> Any:
    return attach(patcher, Settings(**settings), peer.calc_cond_batch)


def rescaled(args: dict[str, Any]) -> Tensor:
    """A formula of another node: half of the guidance."""
    return args["cond"] + (args["cond_scale"] / 2 - 0.5) * (args["cond"] - args["uncond"])


@pytest.mark.parametrize("first", [True, False])
def test_another_formula_takes_our_direction(first: bool) -> None:
    """Before or behind us: half of w is what the sampler would have taken at half of it."""
    x, patcher = noise(2), plain()
    if first:
        patcher.set_model_sampler_cfg_function(rescaled)
    patcher = with_reg(patcher, rectify="vjp")
    if not first:
        patcher.set_model_sampler_cfg_function(rescaled)
    wanted = sampled(patched(rectify="vjp"), x, 2.5)
    torch.testing.assert_close(sampled(patcher, x, 4.0), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("first", [True, False])
def test_functions_around_the_formula_see_estimates(first: bool) -> None:
    x, seen = noise(2), []

    def pre(args: dict[str, Any]) -> list[Tensor]:
        seen.append(args["conds_out"])
        return [args["conds_out"][0], 0.5 * sum(args["conds_out"])]

    def post(args: dict[str, Any]) -> Tensor:
        told = args["uncond_denoised"] + 4.0 * (args["cond_denoised"] - args["uncond_denoised"])
        torch.testing.assert_close(args["denoised"], told)
        return 0.9 * args["denoised"]

    patcher = plain()
    for step in (0, 1):
        if step == first:
            patcher = with_reg(patcher, rectify="vjp")
        else:
            patcher.set_model_sampler_pre_cfg_function(pre)
            patcher.set_model_sampler_post_cfg_function(post)
    found = sampled(patcher, x)
    assert len(seen) == 6 and all(len(out) == 2 for out in seen)
    again = with_reg(plain(), rectify="vjp")
    again.set_model_sampler_cfg_function(  # halving c - u' by hand
        lambda a: a["input"] - 0.9 * (a["cond_denoised"] + 1.5 * _difference(a))
    )
    torch.testing.assert_close(found, sampled(again, x), rtol=1e-5, atol=1e-5)


def _difference(args: dict[str, Any]) -> Tensor:
    return args["cond_denoised"] - args["uncond_denoised"]


@pytest.mark.parametrize("rectify", [*REVERSE_AND_NOT, "jvp"])
def test_wrappers_of_the_network_run_inside(rectify: str) -> None:
    """What changes the network's answer is part of what is differentiated."""
    x, sides = noise(2), []

    def wrapper(apply_model: Any, args: dict[str, Any]) -> Tensor:
        sides.append(args["cond_or_uncond"])
        return 0.5 * apply_model(args["input"], args["timestep"], **args["c"])

    patcher = plain()
    patcher.set_model_unet_function_wrapper(wrapper)
    found = sampled(with_reg(patcher, rectify=rectify), x)
    assert {tuple(one) for one in sides} <= {(0,), (1,), (0, 1), (1, 0)} and sides
    other = plain()
    other.set_model_unet_function_wrapper(wrapper)
    assert (found - sampled(other, x)).abs().max() > 0.01


def test_an_evaluation_of_another_node_is_asked() -> None:
    """It was there before: we evaluate through it."""
    x, calls = noise(2), []

    def calc(args: dict[str, Any]) -> list[Tensor]:
        calls.append(len(args["conds"]))
        told = args["model"], args["conds"], args["input"], args["sigma"], args["model_options"]
        return peer.calc_cond_batch(*told)

    patcher = plain()
    getattr(patcher, CALC)(calc)
    patcher = with_reg(patcher, rectify="vjp")
    assert torch.equal(sampled(patcher, x), sampled(patched(rectify="vjp"), x))
    assert calls and set(calls) == {2}
    calls.clear()
    assert torch.equal(sampled(patcher, x, 1.0), sampled(plain(), x, 1.0)) and len(calls) == 6


def test_who_evaluates_in_our_place_is_noticed() -> None:
    x, patcher = noise(1), patched()
    getattr(patcher, CALC)(
        lambda args: peer.calc_cond_batch(
            args["model"], args["conds"], args["input"], args["sigma"], args["model_options"]
        )
    )
    with pytest.raises(InputError, match="next to the sampler"):
        sampled(patcher, x)
    patcher = patched()
    first = patcher.model_options["sampler_pre_cfg_function"]
    first.insert(0, lambda args: [2 * one for one in args["conds_out"]])
    with pytest.raises(InputError, match="next to the sampler"):
        sampled(patcher, x)


def test_a_guider_of_its_own_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As DualCFGGuider: it evaluates, and calls the functions behind the formula alone."""

    def own(guider: Any, x: Tensor, sigma: Tensor, options: Any, seed: Any = None) -> Tensor:
        denoised = x / 2
        for hook in options["sampler_post_cfg_function"]:
            denoised = hook({"denoised": denoised})
        return denoised

    monkeypatch.setattr(peer.Guider, "predict_noise", own)
    with pytest.raises(InputError, match="guider"):
        sampled(patched(), noise(1))


@pytest.mark.parametrize("key", ["easycache", "rel_l1_thresh"])
def test_caches_of_steps_are_refused(key: str) -> None:
    patcher = patched()
    patcher.model_options["transformer_options"][key] = 0.2
    with pytest.raises(InputError, match="Take it out"):
        sampled(patcher, noise(1))


def test_several_gpus_record_nothing() -> None:
    hook = patched(rectify="vjp").model_options["sampler_pre_cfg_function"][0].__self__
    from reg_engine.integrations.comfyui.hook import _check

    with pytest.raises(InputError, match="other GPUs"):
        _check(hook.settings, {"multigpu_clones": {}})
    damping = Damping("rayleigh", (1.0,), ((0.5,),))
    for served in (Settings("fd"), Settings(damping=damping)):
        _check(served, {"multigpu_clones": {}})


def test_what_is_no_model_for_it_is_refused() -> None:
    patcher = patched()
    with pytest.raises(InputError, match="already"):
        with_reg(patcher)
    with pytest.raises(InputError, match="Update ComfyUI"):
        with_reg(object())
    with pytest.raises(InputError, match="rectify"):
        Settings("cfg++")
    with pytest.raises(InputError, match="x_0 \\+ sigma noise"):
        sampled(patched("image"), noise(1))


def test_a_weight_that_is_switched_on_at_scale_1() -> None:
    """Another node turned the shortcut off: it wants both estimates, and gets them."""
    x, patcher = noise(1), patched(rectify="vjp")
    patcher.model_options["disable_cfg1_optimization"] = True
    found = sampled(patcher, x, 1.0)
    assert {s for _, sides in patcher.model.calls for s in sides} == {0, 1}
    torch.testing.assert_close(found, sampled(plain(), x, 1.0))


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0001])
def test_scales_of_every_kind(scale: float) -> None:
    x = noise(1)
    found = sampled(patched(rectify=None), x, scale)
    torch.testing.assert_close(found, sampled(plain(), x, scale), rtol=1e-4, atol=1e-4)
