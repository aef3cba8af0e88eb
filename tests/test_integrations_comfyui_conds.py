"""Conditionings of every form under REG guidance: areas, masks, rows, ranges, ControlNets."""

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

from reg_engine import EstimatorError

double = pytest.mark.skipif(bool(comfyui_peer.REAL), reason="ComfyUI's states are float32")


def plain() -> Any:
    return peer.Patcher(peer.Model(network(), "eps"))


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
