"""The law that carries what was measured from one noise level to the next."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from reg_engine.oracles import GaussianMixture
from reg_engine.rectifiers.law import LEAST, Known, carried, quotient_of


def known(**values: Tensor) -> Known:
    """Three samples of shape (2,), with plain numbers where none are given."""
    plain = {
        field.name: torch.ones(3, 2) if field.name in ("p", "product", "raw") else torch.ones(3)
        for field in fields(Known)
    }
    return Known(**{**plain, **values})


@pytest.mark.parametrize("then, now", [(3.0, 0.4), (0.4, 3.0), (1.0, 1.0)])
def test_a_gaussians_quotient_is_carried_exactly(then: float, now: float) -> None:
    """K of a Gaussian of deviation s is s^2 / (s^2 + level^2)."""
    spread = torch.tensor([0.2, 1.0, 5.0], dtype=torch.float64)
    at = [spread**2 / (spread**2 + level**2) for level in (then, now)]
    torch.testing.assert_close(carried(at[0], torch.full_like(spread, then), now), at[1])


def test_a_quotient_that_no_gaussian_has_stays() -> None:
    got = carried(torch.tensor([1.0, 1.7, 0.5, -0.2, 0.0]), torch.full((5,), 2.0), 1.0)
    torch.testing.assert_close(got, torch.tensor([1.0, 1.7, 0.8, -0.2, 0.0]))


def test_the_difference_of_two_gaussians_is_carried_exactly() -> None:
    """Of one deviation: cond - ref = (1 - r) (mean - mean'), against the oracle's own."""
    means, spread = torch.tensor([[1.0, 2.0], [-1.0, 0.5]], dtype=torch.float64), 0.7
    single = [GaussianMixture(mean[None], spread) for mean in means]
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    raw, level = (
        [
            single[0].denoised(x, 1.0, level) - single[1].denoised(x, 1.0, level)
            for level in (2.0, 0.6)
        ],
        torch.full((3,), 2.0, dtype=torch.float64),
    )
    quotient = spread**2 / (spread**2 + level**2)
    before = known(quotient=quotient, probed=level, asked=level)
    torch.testing.assert_close(before.shrunk(0.6)[:, None] * raw[0], raw[1])
    gain = spread**2 / (spread**2 + 0.36) / quotient
    torch.testing.assert_close(before.gained(0.6), gain)


def test_each_quotient_has_its_own_variance() -> None:
    level = torch.ones(3)
    before = known(quotient=level * 0.5, other=level * 0.8, probed=level)
    r, other = before.at(2.0)
    torch.testing.assert_close(r, level * 0.2)  # variance 1
    torch.testing.assert_close(other, level * 0.5)  # variance 4


def test_a_factor_that_is_none_counts_as_one() -> None:
    """Where r was 1 when the reference was asked, 1 - r says nothing."""
    one = torch.ones(3)
    assert known(quotient=1.2 * one, probed=one, asked=one).shrunk(0.5).tolist() == [1, 1, 1]


def test_the_quotient_of_a_product() -> None:
    p = torch.tensor([[1.0, 2.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    small = 0.9 * LEAST
    product = torch.tensor([[1.0, 1.0], [-1.0, 3.0], [1.0, 1.0], [small, 0.0], [-small, 0.0]])
    got = quotient_of(p, product, None)
    torch.testing.assert_close(got, torch.tensor([3 / 5, -1.0, LEAST, LEAST, LEAST]))


def test_memory_gives_back_what_was_kept_and_rows_are_put_alone() -> None:
    memory: dict[str, Tensor] = {}
    assert Known.recall(memory) is None
    first = known(rate=torch.tensor([1.0, 2.0, 3.0]))
    first.put(torch.tensor([2, 0]), p=torch.tensor([[5.0, 6.0], [7.0, 8.0]]), asked=0.25)
    first.keep(memory)
    again = Known.recall(memory)
    assert again is not None
    assert again.p.tolist() == [[7, 8], [1, 1], [5, 6]]
    assert again.asked.tolist() == [0.25, 1, 0.25] and again.rate.tolist() == [1, 2, 3]
