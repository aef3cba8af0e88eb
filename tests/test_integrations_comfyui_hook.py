"""What stands beside REG guidance in a workflow: other nodes, conditionings of every form."""

from __future__ import annotations

from typing import Any

import comfyui_peer
import pytest
import torch
from comfyui_cases import (
    SHAPE,
    SIGMAS,
    Sampler,
    network,
    noise,
    patched,
    peer,
    prompts,
    sampled,
)
from torch import Tensor

from reg_engine import Damping, EstimatorError, InputError
from reg_engine.integrations.comfyui import Settings, attach

CALC = "set_model_sampler_calc_cond_batch_function"
REVERSE_AND_NOT = ("vjp", "fd_batched")
double = pytest.mark.skipif(bool(comfyui_peer.REAL), reason="ComfyUI's states are float32")


def plain(kind: str = "eps") -> Any:
    return peer.Patcher(peer.Model(network(), kind))


def with_reg(patcher: Any, **settings: Any) -> Any:
    return attach(patcher, Settings(**settings), peer.calc_cond_batch)


# Other nodes


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


# Conditionings


def told(rows: Tensor, **more: Any) -> Any:
    return [[rows, more]]


def masked(count: int = 1) -> Tensor:
    mask = torch.zeros(count, *SHAPE[1:])
    mask[:, :, :4] = torch.linspace(0.2, 1.0, 4)
    return mask


def conds_of(name: str, count: int) -> tuple[Any, Any]:
    (positive, negative), (second, _) = prompts(), prompts(1)
    control = None if name != "control" else peer.Control(_control())
    entries = {
        "two": [[positive, {}], [second, {"strength": 0.4}]],
        "mask": [[positive, {"mask": masked()}], [second, {"mask": 1 - masked()}]],
        "mask a sample": [[positive, {"mask": masked(count)}], [second, {}]],
        "area": [[positive, {}], [second, {"area": (4, 4, 2, 3), "strength": 0.7}]],
        "rows": told(prompts(2, 3)[0] * torch.linspace(0.5, 1.5, count).reshape(-1, 1, 1)),
        "tokens": told(prompts(0, 6)[0]),
        "times": [[positive, {}], [second, {"start_percent": 0.3}]],
        "control": told(positive, control=control),
    }
    return entries[name], told(negative, **({"control": control} if control else {}))


def _control() -> Any:
    torch.manual_seed(8)
    with torch.inference_mode():
        made = torch.nn.Conv2d(4, 16, 3, padding=1).requires_grad_(False)
        return made if comfyui_peer.REAL else made.double()


CONDS = ("two", "mask", "mask a sample", "area", "rows", "tokens", "times", "control")


@pytest.mark.parametrize("name", CONDS)
@pytest.mark.parametrize("kind", SIGMAS)
def test_the_derivative_is_that_of_the_whole_estimate(name: str, kind: str) -> None:
    """Areas, masks, several prompts and ControlNets included: K delta by forward mode and by
    differences agree, and K^T delta with the products of K."""
    if comfyui_peer.REAL and name == "control":
        pytest.skip("no ControlNet without its own loader")
    count, seen = 3, {}
    for rectify in ("fd", "vjp", "fd_batched", "jvp"):
        net = network() if comfyui_peer.REAL else network(torch.float64)
        patcher = patched(kind, net, rectify=rectify)
        hook = patcher.model_options["sampler_pre_cfg_function"][0].__self__
        x = noise(count, dtype=net.first.weight.dtype)

        def look(guider: Any, sigma: float, hook: Any = hook, key: str = rectify) -> None:
            seen.setdefault(key, hook._way.guide._memory["delta"].clone())

        try:
            found = sampled(patcher, x, 3.0, kind, conds=conds_of(name, count), after=look)
        except EstimatorError as error:
            assert rectify == "jvp" and name in ("two", "mask", "mask a sample", "times")
            assert "cat works along the batch" in str(error)
            continue
        seen[rectify, "out"] = found
    close = 0.2 if comfyui_peer.REAL else 2e-4  # of a difference, over six steps
    torch.testing.assert_close(seen["fd"], seen["vjp"], rtol=1e-4, atol=1e-4)  # delta itself
    assert (seen["fd", "out"] - seen["vjp", "out"]).abs().max() > 1e-3  # K is not symmetric
    assert (("jvp", "out") in seen) == (name in ("area", "rows", "tokens", "control"))
    wanted = seen["fd_batched", "out"]  # along the same directions
    torch.testing.assert_close(seen.get(("jvp", "out"), wanted), wanted, rtol=close, atol=close)


@double
@pytest.mark.parametrize("rectify", ["lazy", "auto", "lazy_blend"])
@pytest.mark.parametrize("name", ["tokens", "rows", "mask a sample", "control", "two"])
def test_samples_that_are_due_alone(name: str, rectify: str) -> None:
    """A batch equals its samples one by one, where some are asked and others not: conditionings
    with a row a sample are cut, or, where nobody knows, the whole batch is evaluated."""
    count, net = 3, network(torch.float64)
    x = noise(count, dtype=torch.float64) * torch.tensor([0.2, 1.0, 3.0]).reshape(-1, 1, 1, 1)
    positive, negative = conds_of(name, count)
    patcher = patched(net=net, rectify=rectify)
    whole = sampled(patcher, x, 6.0, conds=(positive, negative))
    sizes = {rows for rows, _ in patcher.model.calls}
    assert name == "control" or sizes & {1, 2}  # some were asked alone
    for i in range(count):
        own = [[t[i : i + 1] if len(t) > 1 else t, dict(more)] for t, more in positive]
        for _, more in own:
            if "mask" in more and len(more["mask"]) > 1:
                more["mask"] = more["mask"][i : i + 1]
        alone = sampled(
            patched(net=network(torch.float64), rectify=rectify),
            x[i : i + 1],
            6.0,
            conds=(own, negative),
        )
        torch.testing.assert_close(whole[i : i + 1], alone, rtol=1e-6, atol=1e-6)


def test_both_prompts_go_together() -> None:
    """The pair at one state is one call of ComfyUI, which makes one batch of it where it fits; the
    negative prompt keeps its number."""
    patcher = patched(rectify="fd", check=False)
    sampled(patcher, noise(2))
    calls = patcher.model.calls
    assert all(sorted(sides) == [0, 1] for _, sides in calls[0::2])
    assert all(sides == [0] for _, sides in calls[1::2])
    assert len(calls) == 12 and {rows for rows, _ in calls} == {2}


def test_hooks_in_conditionings_are_asked_at_their_own_times_only() -> None:
    """Keyframes of a LoRA advance as the noise falls: nothing is tried at other levels."""
    seen: list[float] = []
    hook = patched(rectify="vjp").model_options["sampler_pre_cfg_function"][0].__self__
    hook._calc = hook.asked.calc = lambda model, conds, x, sigma, options: (
        seen.append(float(sigma[0])) or peer.calc_cond_batch(model, conds, x, sigma, options)
    )
    model, x = peer.Model(network(), "eps"), noise(1)
    conds = [
        [{"model_conds": {"c_crossattn": comfyui_peer.Told(c)}, "hooks": object()}]
        for c in prompts()
    ]
    if comfyui_peer.REAL:
        pytest.skip("its hooks are more than a mark")
    sigma = torch.tensor([2.0])
    args = {"conds": conds, "input": x, "sigma": sigma, "model": model}
    args |= {"model_options": {"sampler_calc_cond_batch_function": hook.calc_cond_batch}}
    out = hook.calc_cond_batch(args)
    hook.pre_cfg({**args, "conds_out": out, "cond_scale": 3.0})
    assert set(seen) == {2.0}


def test_the_last_sigma_of_a_run_may_be_0() -> None:
    """A sampler that asks at sigma 0 gets the network's own estimates."""
    patcher, x = patched(rectify="vjp"), noise(1)

    class Once(Sampler):
        def sample(self, guider: Any, sigmas: Tensor, extra: Any, *rest: Any) -> Tensor:
            return guider(rest[1], sigmas[-1:], **extra)

    def asked(patcher: Any) -> Tensor:
        with torch.inference_mode():
            given = [[[c, {}]] for c in prompts()]
            guider = peer.Guider(patcher, *given, 3.0)
            return guider.sample(x, torch.zeros_like(x), Once(), torch.tensor([0.1, 0.0]))

    torch.testing.assert_close(asked(patcher), asked(plain()))
