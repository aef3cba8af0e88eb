"""Noise belongs to the sample: batch, dtype and the other stream do not change it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
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
    for stream in ("probes", "calibration"):
        other = SampleNoise(range(64), stream).normal(torch.empty(64, 4096))
        assert abs(float((other * values).mean())) < 5 / 512


@pytest.mark.parametrize("shape", [(2, 7), (3, 1, 5, 5), (1, 2**17), (5, 2**16)])
@pytest.mark.parametrize("count", [0, 1, 2, 11])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_ahead_are_the_same_numbers(
    shape: tuple[int, ...], count: int, dtype: torch.dtype
) -> None:
    """One draw or several a chunk, with and without threads; the oracle is NumPy, seed by seed."""
    seeds, like = range(40, 40 + shape[0]), torch.empty(shape, dtype=dtype)
    ahead = [draw.clone() for draw in SampleNoise(seeds).ahead(like, count)]
    assert len(ahead) == count and all(draw.dtype == dtype for draw in ahead)
    for sample, seed in enumerate(seeds):
        generator = np.random.Generator(np.random.PCG64([seed, 0]))
        for draw in ahead:
            exact = generator.standard_normal(shape[1:], dtype=np.float32)
            assert np.array_equal(draw[sample].numpy(), exact.astype(draw.numpy().dtype))


def test_a_draw_stays_until_the_next_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads are a chunk ahead; they must not write where the caller reads."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    like = torch.empty(5, 2**16)
    source = SampleNoise(range(5))
    for draw in SampleNoise(range(5)).ahead(like, 9):
        once = draw.clone()
        exact = source.normal(like)  # long enough for a thread to write
        assert torch.equal(once, exact) and torch.equal(draw, exact)


def test_draws_ahead_may_be_left() -> None:
    before = threading.active_count()
    draws = SampleNoise(range(4)).ahead(torch.empty(4, 2**16), 50)
    next(draws)
    draws.close()
    assert threading.active_count() == before
