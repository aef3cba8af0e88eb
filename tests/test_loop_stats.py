"""Figures add up over batches and over runs that were read back."""

from __future__ import annotations

import json
from collections import Counter as Tally

import pytest
import torch
from nets import tiny

import reg_engine
from reg_engine.loop.stats import Stats
from reg_engine.networks.counter import Counter


def test_batches_give_the_same_figures_per_sample() -> None:
    runs = [
        reg_engine.sample(
            tiny(), [0, 1, 2, 0, 1], scale=2.0, rectify="fd", steps=4, batch_size=b, progress=False
        ).stats
        for b in (None, 2)
    ]
    for name in ("nfe", "backward", "samples", "modes", "estimator"):
        assert getattr(runs[0], name) == getattr(runs[1], name), name


def test_merge_weighs_by_samples() -> None:
    total = Stats()
    for samples, nfe, seconds in ((10, 4.0, 1.0), (30, 8.0, 2.0)):
        total.merge(Stats(samples=samples, nfe=nfe, seconds=seconds, estimator="vjp").as_dict())
    assert (total.samples, total.nfe, total.seconds) == (40, pytest.approx(7.0), 3.0)
    assert total.estimator == "vjp" and total.peak_memory is None
    json.dumps(total.as_dict())


def test_postprocessing_is_counted_apart() -> None:
    total = Stats()
    for samples, nfe in ((2, 30.0), (1, 60.0)):
        total.finish_batch(samples, 1.0, torch.device("cpu"))
        total.add_postprocess(samples, nfe, 0.5, torch.device("cpu"))
    assert (total.postprocess_nfe, total.postprocess_seconds) == (pytest.approx(40.0), 1.0)
    assert (total.nfe, total.seconds) == (0.0, 2.0)
    kept = total.as_dict()
    total.merge({**kept, "samples": 1, "postprocess_nfe": 80.0})
    assert (total.postprocess_nfe, total.postprocess_seconds) == (pytest.approx(50.0), 2.0)
    older = {name: value for name, value in kept.items() if not name.startswith("post")}
    total.merge(older)  # written before there was postprocessing
    assert total.postprocess_nfe == pytest.approx(200 / 7)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_peak_memory_and_samples_on_a_device() -> None:
    cpu = reg_engine.sample(tiny(), [0, 1], scale=2.0, rectify="vjp", steps=4, progress=False)
    gpu = reg_engine.sample(
        tiny(), [0, 1], scale=2.0, rectify="vjp", steps=4, device="cuda", progress=False
    )
    assert gpu.stats.peak_memory > 0
    assert torch.allclose(gpu.samples.cpu(), cpu.samples, rtol=1e-3, atol=1e-3)


def test_work_beside_the_batches_counts_by_the_sample() -> None:
    stats = Stats()
    stats.add(Counter(forward=8), Tally(), "none", "")
    stats.finish_batch(4, 0.0, torch.device("cpu"))
    stats.beside(4)
    assert stats.nfe == 3.0
