"""End to end: a batch of samples by every contender, for every model at its resolutions."""

from __future__ import annotations


def test_sampling(sampling_bench, model_case, contender):
    sampling_bench(model_case, contender)
