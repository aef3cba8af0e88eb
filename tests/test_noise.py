"""Noise belongs to the sample: batch, dtype and the other stream do not change it."""

from __future__ import annotations

import torch

from reg_engine.noise import SampleNoise


def test_rows_do_not_depend_on_the_batch_and_dtype_only_casts() -> None:
    like = torch.empty(4, 3, 5)
    together = SampleNoise([9, 1, 2, 3])
    first, second = together.normal(like), together.normal(like)
    alone = SampleNoise([2])
    assert torch.equal(alone.normal(like[:1])[0], first[2])
    assert torch.equal(alone.normal(like[:1].double())[0], second[2].double())


def test_every_bit_of_a_seed_counts() -> None:
    like = torch.empty(4, 3)
    rows = SampleNoise([5, 5 + 2**32, 5 + 2**62, 6]).normal(like)
    assert len({tuple(row.tolist()) for row in rows}) == 4


def test_draws_are_standard_normal_and_seeds_differ() -> None:
    values = SampleNoise(range(64)).normal(torch.empty(64, 4096))
    assert abs(float(values.mean())) < 5 / 512 and abs(float(values.std()) - 1) < 5 / 512
    correlation = torch.corrcoef(values)
    correlation.fill_diagonal_(0)
    assert float(correlation.abs().max()) < 6 / 64
    probes = SampleNoise(range(64), "probes").normal(torch.empty(64, 4096))
    assert abs(float((probes * values).mean())) < 5 / 512
