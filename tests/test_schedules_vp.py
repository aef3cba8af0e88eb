"""Chains of any betas, zero terminal SNR, and grids that space noise levels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import betainc

from reg_engine import schedules
from reg_engine.errors import InputError
from reg_engine.schedules import VP, Betas, Cosine, ScaledLinear, VPLinear
from reg_engine.schedules.base import spaced


def test_betas_given_are_the_chain() -> None:
    own, array = VPLinear(), Betas(VPLinear().betas())
    t = np.linspace(-1, 999, 1537)
    assert np.array_equal(array(t), own(t))
    assert array == Betas(list(own.betas())) and array != Betas(ScaledLinear().betas())
    assert array.grid(10).tolist() == own.grid(10).tolist()
    again = Betas.of_alphas_cumprod(np.cumprod(1 - own.betas()), spacing="leading")
    assert again.betas() == pytest.approx(own.betas(), rel=1e-10) and again.spacing == "leading"


@pytest.mark.parametrize("values", [(), (0.1,), [0.1, 0.0], [1.0, 0.1], [[0.1, 0.2]], [0.1, 1.5],
                                    ["a", "b"], {"a": 0.1}, [0.1, 10**400], [0.1, [0.2]],
                                    torch.empty(2, device="meta")])  # fmt: skip
def test_betas_that_are_no_chain(values: Any) -> None:
    with pytest.raises(InputError, match="values"):
        Betas(values)


def test_zero_terminal_snr_by_formula() -> None:
    """Lin et al. 2024, Alg. 1: sqrt(alpha_bar) shifted to end in 0, and scaled to start alike."""
    plain, zero = ScaledLinear(), ScaledLinear(terminal=0.0)
    root = np.sqrt(np.cumprod(1 - plain.betas()))
    expected = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alpha, sigma = zero(np.arange(1000.0))
    assert alpha == pytest.approx(expected, rel=1e-9, abs=1e-15)
    assert (alpha[-1], sigma[-1]) == (0.0, 1.0) and zero.noise_level(999.0) == math.inf
    small = ScaledLinear(terminal=2**-24)
    assert small(999.0)[0] == pytest.approx(2**-12, rel=1e-12)
    assert np.array_equal(small(np.arange(999.0)), zero(np.arange(999.0)))
    assert zero(-1.0) == (1.0, 0.0) and zero.prior_scale(999.0) == 1.0


@pytest.mark.parametrize("spacing", ["trailing", "exponential"])
def test_levels_rise_to_infinity_and_back(spacing: str) -> None:
    for kind in (Cosine, VPLinear):
        schedule = kind(terminal=0.0, spacing=spacing)
        t = np.append(np.linspace(-1, 998, 500), [998.25, 998.5, 998.999, 999])
        level = schedule.noise_level(t)
        assert np.all(np.diff(level) > 0)
        assert schedule.time_of(level) == pytest.approx(t, rel=1e-12, abs=1e-9)
        last = schedule.noise_level(998.0)
        assert schedule.noise_level(998.5) == pytest.approx(2 * last, rel=1e-12)  # 1/level linear
        alpha, sigma = schedule(t)
        assert alpha**2 + sigma**2 == pytest.approx(1.0, rel=1e-15)


def test_levels_cannot_be_spaced_from_infinity() -> None:
    with pytest.raises(InputError, match="spacing.*terminal"):
        VPLinear(terminal=0.0, spacing="karras").grid(5)
    assert ScaledLinear(terminal=2**-24, spacing="karras").grid(5)[0] == 999.0


def test_a_terminal_above_the_time_before_it_is_refused() -> None:
    """The rescaled chain has alpha^2 = 4e-9 at T - 2 here, less than 2^-24."""
    with pytest.raises(InputError, match="terminal"):
        VPLinear(terminal=2**-24)
    assert VPLinear(terminal=1e-9).noise_level(999.0) > VPLinear(terminal=1e-9).noise_level(998.0)


@pytest.mark.parametrize("terminal", [-0.1, 1.0, math.nan, "0"])
def test_bad_terminals_are_named(terminal: Any) -> None:
    with pytest.raises(InputError, match="terminal"):
        VPLinear(terminal=terminal)


def test_spacings_by_formula() -> None:
    assert spaced("exponential", 16.0, 1.0, 5) == pytest.approx([16, 8, 4, 2, 1], rel=1e-14)
    levels = spaced("beta", 10.0, 2.0, 9)
    assert levels[0] == 10.0 and levels[-1] == 2.0
    # The quantile function inverts the distribution function.
    assert betainc(0.6, 0.6, (levels - 2) / 8) == pytest.approx(np.linspace(1, 0, 9), abs=1e-12)
    for kind in ("karras", "exponential", "beta"):
        assert spaced(kind, 3.0, 0.5, 1).tolist() == [3.0]


@pytest.mark.parametrize("kind", ["exponential", "beta"])
@pytest.mark.parametrize("ends", ["linspace", "trailing"])
def test_chains_space_their_noise_levels(kind: str, ends: str) -> None:
    schedule = ScaledLinear(spacing=kind, ends=ends)
    levels = schedule.noise_level(schedule.grid(20))
    plain: VP = ScaledLinear(spacing=ends)
    first, last = plain.noise_level(plain.grid(20)[[0, -2]])
    assert levels[:-1] == pytest.approx(spaced(kind, first, last, 20), rel=1e-12)
    assert levels[-1] == 0.0


def test_beta_spacing_without_scipy_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "scipy.stats", None)
    with pytest.raises(InputError, match="pip install scipy"):
        schedules.EDM(spacing="beta").grid(5)
