"""Marginal and joint scaling in one dimension against closed forms and the oracle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from theory_cases import CENTRE, DEVIATION, gaussians
from torch import Tensor

import reg_engine
from reg_engine.experiments.theory.chains import (
    Chain,
    Level,
    paper_levels,
    two_class_1d,
    vp_levels,
)
from reg_engine.oracles import one_d, two_class_2d


def slope(log_reward: Tensor, chain: Chain) -> Tensor:
    """Derivative on the grid, inside +-1.5."""
    inside = (chain.x[1:-1]).abs() < 1.5
    return ((log_reward[2:] - log_reward[:-2]) / (2 * chain.cell))[inside]


def test_implied_reward_of_gaussians_is_the_closed_form() -> None:
    """With one deviation R_t is exp(g x) and everything stays Gaussian: A.1 by hand."""
    w, t = 1.5, 9
    chain = Chain(gaussians(), w, vp_levels(16), -8.0, 8.0)
    (noisy, clean), v0 = (chain.levels[t], chain.levels[t - 1]), DEVIATION**2
    v, v_clean = (level.alpha**2 * v0 + level.sigma**2 for level in (noisy, clean))
    g, g_clean = (
        -w * level.alpha * CENTRE / size for level, size in ((noisy, v), (clean, v_clean))
    )
    field = chain.guidance(t, "cfg")
    torch.testing.assert_close(field, torch.full_like(field, g), rtol=1e-9, atol=1e-9)
    a = noisy.alpha / clean.alpha
    b = noisy.sigma**2 - (a * clean.sigma) ** 2
    # x_t ~ N(g v, v) under p R; x_s = (1 - b/v)/a x_t + b/a g + sqrt(b) noise.
    mean, variance = ((1 - b / v) * g * v + b * g) / a, (1 - b / v) ** 2 * v / a**2 + b
    implied = slope(chain.implied(t, chain.log_marginal_reward(t), field), chain)
    torch.testing.assert_close(
        implied, torch.full_like(implied, mean / variance), rtol=1e-7, atol=1e-7
    )
    demanded = slope(chain.log_marginal_reward(t - 1), chain)
    torch.testing.assert_close(demanded, torch.full_like(demanded, g_clean), rtol=1e-7, atol=1e-7)


def test_no_guidance_implies_no_reward() -> None:
    """R_T = 1 forces every R_t = 1 (REG, Appendix B)."""
    chain = Chain(two_class_1d(), 2.0, vp_levels(8), -7.0, 7.0)
    zero = torch.zeros_like(chain.x)
    for t in range(1, 9):
        assert chain.implied(t, zero, zero).abs().max() < 1e-12


@pytest.mark.parametrize("w", [1.0, 4.0])
@pytest.mark.parametrize("setting", ["paper", "two classes"])
def test_joint_rewards_are_the_oracle_s_and_their_kernels_close(setting: str, w: float) -> None:
    if setting == "paper":
        chain = Chain(one_d(), w, paper_levels(), -3.0, 5.0)
    else:
        chain = Chain(two_class_1d(), w, vp_levels(16), -7.0, 7.0)
    near = chain.x.abs() < 1.5
    x = chain.x[near][::20, None]
    for t in (1, 8, 16):
        level = chain.levels[t]
        tilted = chain.mixture.tilted_posterior(x, level.alpha, level.sigma, w)
        plain = chain.mixture.denoised(x, level.alpha, level.sigma, 0)
        golden = level.alpha / level.sigma**2 * (tilted.mean - plain)[:, 0]
        close = {"rtol": 1e-7, "atol": 1e-7}
        torch.testing.assert_close(chain.log_joint_reward(t)[near][::20], tilted.log_e, **close)
        torch.testing.assert_close(chain.guidance(t, "golden")[near][::20], golden, **close)
    kernel, end = chain.joint_run()
    assert kernel < 1e-7 and end < 1e-9


def test_more_steps_mend_golden_guidance_but_not_cfg() -> None:
    found = {}
    for steps in (10, 40):
        chain = Chain(two_class_1d(), 1.0, vp_levels(steps), -7.0, 7.0)
        for kind in ("cfg", "golden"):
            gaps = [chain.gap(t, kind) for t in range(1, steps + 1)]
            found[kind, steps] = sum(gap.mean for gap in gaps)
            assert all(gap.mean <= gap.worst for gap in gaps)
    ends = {kind: chain.distance(chain.run(kind)) for kind in ("cfg", "reg", "golden")}
    assert ends["cfg"] > 3 * max(ends["reg"], ends["golden"])
    assert found["cfg", 40] > 0.9 * found["cfg", 10]
    assert found["golden", 40] < 0.5 * found["golden", 10]


def test_reg_field_of_gaussians_is_cfg_shrunk_by_k() -> None:
    """There CFG is golden, and K = s^2/(s^2 + noise^2) shrinks it for nothing: REG's own flaw."""
    chain = Chain(gaussians(), 2.0, vp_levels(8), -8.0, 8.0)
    t, near = 5, slice(300, -300)
    noise = chain.levels[t].noise
    cfg, reg, golden = (chain.guidance(t, kind)[near] for kind in ("cfg", "reg", "golden"))
    torch.testing.assert_close(cfg, golden, rtol=1e-7, atol=1e-7)
    k = DEVIATION**2 / (DEVIATION**2 + noise**2)
    torch.testing.assert_close(reg, k * cfg, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("mixture", lambda: Chain(two_class_2d(), 1.0, vp_levels(4), -6.0, 6.0)),
        ("levels", lambda: Chain(one_d(), 1.0, vp_levels(4)[1:], -6.0, 6.0)),
        ("levels", lambda: Chain(one_d(), 1.0, [Level(1.0, 0.0)], -6.0, 6.0)),
        ("steps", lambda: vp_levels(1)),
        ("kind", lambda: Chain(one_d(), 1.0, vp_levels(4), -6.0, 6.0).guidance(1, "silver")),
    ],
)
def test_bad_input(argument: str, call: Any) -> None:
    with pytest.raises(reg_engine.InputError, match=argument):
        call()
