"""Files of DiT and SiT as models, and what guides them: autograd and the released sampler written
out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_models_dit import batch, small

from reg_engine import Guidance, GuidedChannels, InputError, load_model, sample
from reg_engine.models.dit import DiT, SiT
from reg_engine.schedules import EDM, Flow, VPLinear
from reg_engine.storage.weights import save_weights

DESCRIPTION: dict[str, Any] = {
    "architecture": "dit",
    "sample_shape": [4, 8, 8],
    "num_classes": 5,
    "null_cond": 5,
    "prediction": "epsilon",
    "schedule": {"name": "vp_linear", "spacing": "linspace"},
    "sigma_data": 0.5,
    "learned_variance": True,
}


def saved(path: Path, net: DiT, **changes: Any) -> Path:
    description = {**DESCRIPTION, "arguments": net.arguments, **changes}
    save_weights(path, net.state_dict(), description)
    return path


def test_a_file_comes_back_as_a_model(tmp_path: Path) -> None:
    net = small()
    model = load_model(saved(tmp_path / "dit.safetensors", net))
    assert model.schedule == VPLinear(spacing="linspace")
    assert (model.sample_shape, model.null_cond, model.num_classes) == ((4, 8, 8), 5, 5)
    x, _, cond = batch(3, torch.float32)
    half = small().half().float()
    with torch.no_grad():
        eps = half(x, torch.full((3,), 400.0), cond)[:, :4]
        found = model.to_prediction(model(x, 400.0, cond), x, 400.0)
    torch.testing.assert_close(found, eps, rtol=1e-4, atol=1e-4)


def test_a_sit_file_is_a_flow(tmp_path: Path) -> None:
    flow = {"prediction": "flow", "schedule": {"name": "flow"}, "learned_variance": False}
    net = small(SiT)
    model = load_model(saved(tmp_path / "sit.safetensors", net, architecture="sit", **flow))
    assert model.schedule == Flow() and model.prediction == "flow"
    out = sample(model, torch.arange(2), steps=2, scale=2.0)
    assert out.samples.shape == (2, 4, 8, 8)


def test_guidance_on_a_transformer_is_autograd_written_out(tmp_path: Path) -> None:
    """paper and vjp at one row, from the network itself."""
    model = load_model(saved(tmp_path / "dit.safetensors", small()))
    (net,) = model.modules
    x, _, cond = batch(2, torch.float32)
    for rectify in ("paper", "vjp"):
        guidance = Guidance(3.0, rectify=rectify)
        out = sample(
            model, cond, guidance=guidance, solver="ddim", noise=x,
            solver_options={"times": [500.0, 480.0]},
        )  # fmt: skip
        alpha, sigma = model.schedule(500.0)
        leaf = x.clone().requires_grad_()
        t, null = torch.full((2,), 500.0), torch.full((2,), 5)
        eps, ref = net(leaf, t, cond)[:, :4], net(x, t, null)[:, :4]
        d = (eps - ref).detach()
        cotangent = torch.ones_like(d) if rectify == "paper" else d
        (pulled,) = torch.autograd.grad(eps, leaf, cotangent)
        rectified = d * (1 - sigma * pulled) if rectify == "paper" else d - sigma * pulled
        guided = eps.detach() + 2.0 * rectified
        a, s = model.schedule(480.0)
        wanted = a * (x - sigma * guided) / alpha + s * guided
        torch.testing.assert_close(out.samples, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rectify", [None, "paper"])
def test_three_channels_are_guided_as_in_the_released_sampler(
    rectify: str | None, tmp_path: Path
) -> None:
    """Channels 0 to 2 are u + s F (c - u), the last is cond's own; F sums the columns of all."""
    model = load_model(saved(tmp_path / "dit.safetensors", small()))
    (net,), (x, _, cond) = model.modules, batch(2, torch.float32)
    guidance = Guidance(3.0, rectify=rectify, adjust=GuidedChannels(3))
    out = sample(
        model,
        cond,
        guidance=guidance,
        solver="ddim",
        noise=x,
        solver_options={"times": [500.0, 480.0]},
        progress=False,
    )
    (alpha, sigma), (a, s) = model.schedule(500.0), model.schedule(480.0)
    leaf, t = x.clone().requires_grad_(), torch.full((2,), 500.0)
    eps, ref = net(leaf, t, cond)[:, :4], net(x, t, torch.full((2,), 5))[:, :4]
    (columns,) = torch.autograd.grad(eps.sum(), leaf)
    factor = torch.ones_like(x) if rectify is None else 1 - sigma * columns
    guided = eps.detach().clone()
    guided[:, :3] += 2.0 * (factor * (eps - ref).detach())[:, :3]
    wanted = a * (x - sigma * guided) / alpha + s * guided
    torch.testing.assert_close(out.samples, wanted, rtol=1e-4, atol=1e-4)


def test_no_more_channels_are_guided_than_there_are(tmp_path: Path) -> None:
    model = load_model(saved(tmp_path / "dit.safetensors", small()))
    for count in (4, 5):
        guidance = Guidance(3.0, rectify=None, adjust=GuidedChannels(count))
        given = {"guidance": guidance, "solver": "ddim", "steps": 2, "progress": False}
        if count == 4:
            plain = sample(model, 1, **{**given, "guidance": Guidance(3.0, rectify=None)})
            found, wanted = sample(model, 1, **given).samples, plain.samples
            assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-5
        else:
            with pytest.raises(InputError, match="count: is 5 of 4 channels"):
                sample(model, 1, **given)


def test_a_learned_variance_is_of_the_models_own_alphas(tmp_path: Path) -> None:
    model = load_model(saved(tmp_path / "dit.safetensors", small()))
    given = {"solver": "ddpm", "steps": 3, "solver_options": {"variance": "learned"}}
    given |= {"guidance": Guidance(2.0, rectify=None), "progress": False}
    sample(model, 1, schedule=VPLinear(spacing="trailing"), **given)
    with pytest.raises(InputError, match="not that of the model's schedule"):
        sample(model, 1, schedule=EDM(), **given)
    given["solver_options"] = {"variance": "large"}
    sample(model, 1, schedule=EDM(), **given)
