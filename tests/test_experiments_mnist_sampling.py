"""The networks and the resumable sampling of the mnist experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reg_engine import load_model
from reg_engine.engine import Engine
from reg_engine.errors import InputError
from reg_engine.experiments import Report
from reg_engine.experiments.classifier_guidance import unlabelled
from reg_engine.experiments.draws import SEEDS_A_RUN, Point, Sampling, guidance_of
from reg_engine.experiments.mnist.models import (
    HIDDEN,
    Guide,
    Models,
    load_models,
)
from reg_engine.experiments.mnist.sampling import CHEAP, sample_points
from reg_engine.models import load_classifier


def test_the_linear_classifier_is_linear_in_the_scaled_image() -> None:
    net = Guide(4, 3, sigma_data=0.5)
    x, sigma = torch.randn(2, 1, 2, 2), torch.tensor([0.0, 1.2])
    columns = torch.stack([torch.tensor(0.002).log() / 4, torch.tensor(1.2).log() / 4])
    scaled = x.flatten(1) / torch.tensor([[0.5], [1.3]])  # sqrt(1.2^2 + 0.5^2) = 1.3
    wanted = torch.cat([scaled, columns[:, None]], 1) @ net.layers[0].weight.T + net.layers[0].bias
    torch.testing.assert_close(net(x, sigma), wanted)


def test_jvp_takes_the_network_in_channels_last(tmp_path: Path) -> None:
    """As the experiment holds it, for the speed of a CPU's convolutions."""
    models = load_models(Report("mnist", "MNIST", tmp_path), None, {})
    choices: dict[str, Any] = {
        "rectify": "jvp",
        "solver": "dpmpp_2m",
        "steps": 2,
        "solver_options": {"times": [2.0, 0.5, 0.0]},
        "progress": False,
    }
    found = Engine(models.denoiser, scale=3, **choices).sample([3, 8])
    wanted = Engine(load_model("mnist"), scale=3, **choices).sample([3, 8])
    torch.testing.assert_close(found.samples, wanted.samples, rtol=1e-3, atol=1e-4)
    (net,) = models.denoiser.modules
    assert any(
        p.is_contiguous(memory_format=torch.channels_last) and not p.is_contiguous()
        for p in net.parameters()
        if p.ndim == 4
    )


def test_a_guide_hears_the_noise_level_and_sees_unit_variance() -> None:
    net = Guide(4, 3, 0.5, HIDDEN)
    seen: list[Tensor] = []
    net.layers.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    noise = torch.randn(20_000, 1, 2, 2)
    data = 0.5 * torch.randn(20_000, 1, 2, 2)
    for sigma in (0.0, 1.0, 80.0):
        net(data + sigma * noise, torch.full((20_000,), sigma))
        assert float(seen[-1][:, :4].std()) == pytest.approx(1, abs=0.02)
    assert not torch.equal(seen[0][0, 4:], seen[1][0, 4:])
    assert float(seen[1][0, 4:10].min()) == 1  # cosines of ln(1)/4 = 0


def test_classifier_guidance_starts_from_the_unconditional_model() -> None:
    """Eq. 9: one Euler step to 0 gives uncond + w sigma^2 grad log p(c | x)."""
    model, guide = load_model("mnist"), load_classifier("mnist")
    guidance = guidance_of(Point("cg", 2.0), guide=guide)
    labels, noise = torch.tensor([3, 8]), torch.randn(2, 1, 28, 28)
    found = Engine(
        unlabelled(model),
        guidance=guidance,
        solver="euler",
        steps=1,
        solver_options={"times": [2.0, 0.0]},
        progress=False,
    ).sample(labels, noise=noise)
    x = (2.0 * noise).requires_grad_()
    logs = guide(x, torch.full((2,), 2.0)).log_softmax(1).gather(1, labels[:, None]).sum()
    (gradient,) = torch.autograd.grad(logs, x)
    with torch.no_grad():
        uncond = model(x, 2.0, torch.tensor([10, 10]))
    torch.testing.assert_close(found.samples, uncond + 2 * 4 * gradient, rtol=1e-3, atol=1e-4)


def test_sampling_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = Models(load_model("mnist"), load_classifier("mnist"), None, {}, {}, {})
    sampling, times = Sampling(20, batch_size=10), (80.0, 2.0, 0.5, 0.0)
    points = [Point("vanilla", 4), Point("vanilla", 4, CHEAP, "calibrated")]
    whole = sample_points(points, models, sampling, times, tmp_path / "whole", lambda _: None)

    calls = 0
    real = Engine.sample

    def sample(self: Engine, *given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return real(self, *given, **named)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Engine, "sample", sample)
        sample_points(points, models, sampling, times, tmp_path / "cut", lambda _: None)
    said: list[str] = []
    after = sample_points(points, models, sampling, times, tmp_path / "cut", said.append)
    for one, other in zip(whole, after, strict=True):
        assert torch.equal(one.samples, other.samples)
        assert one.cost["nfe"] == other.cost["nfe"]
    assert len(said) == 2
    # All is there now: nothing is sampled or calibrated again.
    monkeypatch.setattr(Engine, "sample", lambda *_, **__: pytest.fail("sampled again"))
    again = sample_points(points, models, sampling, times, tmp_path / "cut", lambda _: None)
    assert torch.equal(again[1].samples, whole[1].samples)
    with pytest.raises(InputError, match="other settings"):
        other_seed = Sampling(20, batch_size=10, seed=1)
        sample_points(points, models, other_seed, times, tmp_path / "cut", lambda _: None)


def test_the_pool_and_calibration_have_seeds_of_their_own() -> None:
    sampling = Sampling(10_000, seed=3)
    own = set(sampling.seeds(Point("vanilla", 2)))
    pool = set(sampling.seeds(Point("vanilla", 2, pool=True)))
    assert len(own) == len(pool) == 10_000 and not own & pool
    assert own == set(sampling.seeds(Point("cg", 8, CHEAP)))  # paired
    last = set(range(2 * SEEDS_A_RUN - 16, 2 * SEEDS_A_RUN))
    assert not last & (own | pool)
    assert torch.bincount(sampling.labels).tolist() == [1000] * 10
