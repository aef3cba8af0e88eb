"""REG through ComfyUI's hooks equals the engine: same model, noise and sigmas."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import comfyui_peer
import pytest
import torch
from comfyui_cases import (
    EDM,
    SIGMAS,
    by_engine,
    denoiser,
    dpmpp_2m,
    network,
    noise,
    patched,
    peer,
    prompts,
    sampled,
)

from reg_engine import Damping, Guide, InputError, Plan, calibrate_damping
from reg_engine.integrations.comfyui import Calibrator, Settings
from reg_engine.rectifiers import RECTIFIERS

alone = pytest.mark.skipif(bool(comfyui_peer.REAL), reason="ComfyUI's states are float32")
DAMPING = Damping("rayleigh", (0.05, 0.3, 1.0, 4.0), ((0.9, 0.7, 0.4, 0.1),))
# A difference of float32 estimates over a step of 1 %: their rounding, a hundred times.
CLOSE = dict.fromkeys((None, "paper", "vjp", "jvp"), 1e-5) | dict.fromkeys(("fd", "lazy"), 2e-3)


def hook_of(patcher: Any) -> Any:
    return patcher.model_options["sampler_calc_cond_batch_function"].__self__


@alone
@pytest.mark.parametrize("rectify", [None, "auto", *RECTIFIERS])
@pytest.mark.parametrize("kind", SIGMAS)
def test_a_run_equals_the_engines(kind: str, rectify: str | None) -> None:
    x = noise(2, dtype=torch.float64)
    patcher = patched(kind, network(torch.float64), rectify=rectify)
    out = by_engine(x, kind, scale=4.0, rectify=rectify)
    found = sampled(patcher, x, 4.0, kind)
    torch.testing.assert_close(found, out.samples, rtol=1e-6, atol=1e-6)
    stats = hook_of(patcher).stats
    assert (stats.nfe, stats.modes) == (out.stats.nfe, out.stats.modes)
    assert stats.estimator == out.stats.estimator


@pytest.mark.parametrize("rectify", CLOSE)
@pytest.mark.parametrize(
    ("kind", "solver"), [(k, s) for k in SIGMAS for s in ("euler", "dpmpp_2m")]
)
def test_in_float32(kind: str, solver: str, rectify: str | None) -> None:
    x = noise(2)
    found = sampled(patched(kind, rectify=rectify), x, 4.0, kind, solver)
    if (kind, solver) == ("flow", "dpmpp_2m"):  # ComfyUI steps flows in log sigma: no engine does
        choices = {"scale": 4.0, "rectify": rectify, "seeds": range(2)}
        guide = Guide(denoiser(kind), prompts()[0], **choices)
        sigmas = torch.tensor(SIGMAS[kind])
        wanted = dpmpp_2m(lambda x, sigma: guide(x, sigma), x, sigmas)
    else:
        wanted = by_engine(x, kind, solver, scale=4.0, rectify=rectify).samples
    torch.testing.assert_close(found, wanted, rtol=CLOSE[rectify], atol=CLOSE[rectify])


@pytest.mark.parametrize("kind", SIGMAS)
def test_a_damping_stands_for_the_estimator(kind: str) -> None:
    x, patcher = noise(2), patched(kind, damping=DAMPING)
    wanted = by_engine(x, kind, scale=DAMPING(4.0)).samples
    found = sampled(patcher, x, 4.0, kind)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert (sampled(patched(kind, rectify=None), x, 4.0, kind) - found).abs().max() > 0.01
    with pytest.raises(InputError, match="rectify"):
        Settings(rectify="vjp", damping=DAMPING)


@pytest.mark.parametrize(
    ("kind", "edges"),
    [("eps", (comfyui_peer.TABLE[300], comfyui_peer.TABLE[700])), ("flow", (3 / 7, 7 / 3))],
)
@pytest.mark.parametrize("outside", [("CFG", "cfg"), ("no guidance", "cond")])
def test_a_share_of_the_run(kind: str, edges: Any, outside: tuple[str, str]) -> None:
    """From 30 % to 70 %: of an eps model by the steps of its table, of a flow by sigma."""
    x, (name, mode) = noise(2), outside
    patcher = patched(kind, rectify="vjp", start=0.3, end=0.7, outside=name)
    low, high = map(float, edges)
    plan = Plan((low * (1 - 1e-4), high * (1 + 1e-4)), (mode, "reg", mode))
    out = by_engine(x, kind, scale=4.0, rectify="vjp", plan=plan)
    torch.testing.assert_close(sampled(patcher, x, 4.0, kind), out.samples, rtol=1e-5, atol=1e-5)
    assert hook_of(patcher).stats.modes == out.stats.modes
    assert set(out.stats.modes) == {mode, "reg"}


@pytest.mark.parametrize("shares", [(0.5, 0.5), (-0.1, 1.0), (0.0, 1.5), ("a", 1.0)])
def test_shares_rise(shares: Any) -> None:
    with pytest.raises(InputError, match="share"):
        Settings(start=shares[0], end=shares[1])


def test_at_cfg_1_nothing_is_guided() -> None:
    """Bitwise, and the shortcut that leaves the negative prompt out is on."""
    x, patcher = noise(2), patched()
    plain = sampled(peer.Patcher(peer.Model(network(), "eps")), x, 1.0)
    assert torch.equal(sampled(patcher, x, 1.0), plain)
    assert {sides for _, (*sides,) in patcher.model.calls for sides in [tuple(sides)]} == {(0,)}
    assert len(patcher.model.calls) == len(SIGMAS["eps"]) - 1 and hook_of(patcher).stats is None
    positive = [[prompts()[0], {}]]
    assert torch.equal(sampled(patched(), x, 1.0, conds=(positive, None)), plain)


def test_the_model_that_was_given_is_as_it_was() -> None:
    x, patcher = noise(2), patched()
    mine = peer.Patcher(patcher.model)  # of the same network
    plain = sampled(peer.Patcher(peer.Model(network(), "eps")), x)
    sampled(patcher, x)
    assert torch.equal(sampled(mine, x), plain)


@pytest.mark.parametrize("rectify", ["lazy", "fd_batched", "vjp"])
def test_runs_share_no_memory(rectify: str) -> None:
    x, patcher = noise(2), patched(rectify=rectify)
    first = sampled(patcher, x, 4.0)
    other = sampled(patcher, noise(3, (4, 8, 12)), 2.0)  # another batch, size and scale
    again = patched(rectify=rectify)
    assert torch.equal(other, sampled(again, noise(3, (4, 8, 12)), 2.0))
    assert torch.equal(first, sampled(patcher, x, 4.0))
    assert hook_of(patcher)._way is None  # nothing is kept on the device between runs


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("rectify", ["auto", "vjp", "jvp"])
@pytest.mark.parametrize("call", [1, 9])
def test_an_interruption_leaves_nothing_behind(rectify: str, call: int) -> None:
    """Also one that is met while the derivative is checked, or in the middle of a forward pass."""
    x, net = noise(1), network()
    patcher = patched(net=net, rectify=rectify)
    weights = dict(net.named_parameters())
    left = [call]

    def breaking(*_: Any) -> None:
        left[0] -= 1
        if not left[0]:
            raise Interrupted

    handle = net.middle.register_forward_hook(breaking)
    with pytest.raises(Interrupted):
        sampled(patcher, x)
    handle.remove()
    assert all(dict(net.named_parameters())[name] is one for name, one in weights.items())
    assert torch.equal(sampled(patcher, x), sampled(patched(rectify=rectify), x))


def test_the_scale_may_follow_a_schedule() -> None:
    x, scales = noise(2), [4.0, 1.0, 6.0, 2.0, 2.0, 3.0]
    guide = Guide(
        denoiser("eps"), prompts()[0], scale=4.0, rectify="vjp", schedule=EDM, seeds=range(2)
    )
    wanted = SIGMAS["eps"][0] * x
    for scale, (sigma, then) in zip(scales, pairwise(SIGMAS["eps"]), strict=True):
        guide.weigh(scale)
        wanted = wanted + (then - sigma) * (wanted - guide(wanted, sigma)) / sigma
    steps = iter(scales[1:])

    def after(guider: Any, sigma: float) -> None:
        guider.cfg = next(steps, 1.0)

    found = sampled(patched(rectify="vjp"), x, scales[0], after=after)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rectify", ["vjp", "fd"])
@pytest.mark.parametrize("when", ["between", "within"])
def test_weights_that_are_swapped_stay_swapped(rectify: str, when: str) -> None:
    """As a LoRA or offloading does, between two steps or inside one: new tensors, made in inference
    mode, for the same parameter."""
    x, net = noise(1), network()
    patcher, first = patched(net=net, rectify=rectify), []

    def swap(*_: Any) -> None:
        if not first and len(patcher.model.calls) > 8:
            with torch.inference_mode():
                first.append(torch.nn.Parameter(net.last.weight * 1.5, requires_grad=False))
            net.last._parameters["weight"] = first[0]

    if when == "within":
        net.middle.register_forward_hook(swap)
    found = sampled(patcher, x, after=swap if when == "between" else None)
    assert first and net.last.weight is first[0] and first[0].is_inference()
    assert bool(found.isfinite().all())
    plain = sampled(patched(rectify=rectify), x)
    assert (found - plain).abs().max() > 0.01


@pytest.mark.parametrize(
    ("dtype", "rectify", "share"),
    [
        (torch.bfloat16, "vjp", 0.05),
        (torch.float16, "vjp", 0.01),
        (torch.bfloat16, "fd_batched", 0.15),  # a step of 10 %
        (torch.float16, "fd_batched", 0.05),  # of 3 %
    ],
)
def test_weights_of_16_bits(dtype: torch.dtype, rectify: str, share: float) -> None:
    """The step of a difference follows the network's rounding, though its answers are float32,
    and whether anything was measured or not."""
    x = noise(2)
    known = None, "vjp" if rectify == "vjp" else "jvp"
    cfg, exact = (by_engine(x, "eps", scale=4.0, rectify=r).samples for r in known)
    found = sampled(patched(net=network(dtype), rectify=rectify), x)
    assert (found - exact).norm() < share * (cfg - exact).norm()
    unchecked = patched(net=network(dtype), rectify=rectify, check=False)
    assert torch.equal(sampled(unchecked, x), found)


def test_a_calibration_equals_the_engines() -> None:
    clean = 0.5 * noise(4)
    choices = {"levels": (0.1, 0.5, 2.0), "batch_size": 3}
    wanted = calibrate_damping(denoiser("eps"), prompts()[0], x0=clean, progress=False, **choices)
    calibrator = Calibrator(peer.calc_cond_batch, **choices)
    patcher = peer.Patcher(peer.Model(network(), "eps"))
    with torch.inference_mode():
        given = [[[c.clone(), {}]] for c in prompts()]
        same = peer.Guider(patcher, *given, 1.0).sample(
            clean, clean, calibrator, torch.tensor([1.0, 0.0])
        )
    assert torch.equal(same, clean) and calibrator.damping is not None
    found = torch.tensor(calibrator.damping.factors)
    torch.testing.assert_close(found, torch.tensor(wanted.factors), rtol=2e-2, atol=2e-2)
    assert "network" in calibrator.damping.report
    with pytest.raises(InputError, match="negative"), torch.inference_mode():
        peer.Guider(patcher, given[0], None, 1.0).sample(
            clean, clean, calibrator, torch.tensor([1.0, 0.0])
        )


def test_a_damping_of_another_kind_of_model_is_noticed() -> None:
    other = Damping("rayleigh", DAMPING.levels, DAMPING.factors, report={"network": "SDXL"})
    with pytest.warns(RuntimeWarning, match="measured on SDXL"):
        sampled(patched(damping=other), noise(1))
