"""A damping of K delta: its factor against golden guidance, and what it may stand beside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from nets import tiny

import reg_engine
from reg_engine import Damped, Damping, Engine, Guidance, InputError, Term, calibrate_damping
from reg_engine.experiments.theory.scores import SCHEDULE, Sampler, Target, sobol_noise
from reg_engine.guidance.damped import rectified_by
from reg_engine.oracles import two_class_2d
from reg_engine.rectifiers import FD, Blend

MIXTURE = two_class_2d()
MODEL = MIXTURE.denoiser(schedule=SCHEDULE)
OF_K = Damped(3.0, (0.1, 1.0), (0.9, 1.4), rectified=True)


@pytest.fixture(scope="module")
def found() -> Damping:
    choices = {"dtype": torch.float64, "steps": 18, "progress": False}
    own = {"seeds": range(768), "scales": (2.0, 5.0), "repeats": 3}
    return calibrate_damping(MODEL, 0, method="tilt", rectified=True, **own, **choices)


def test_it_is_the_least_squares_scalar_on_top_of_k_delta(found: Damping) -> None:
    """F = <golden - cond, K delta> / (w <K delta, K delta>) at noised draws of the target."""
    generator = torch.Generator().manual_seed(6)
    for row, w in ((0, 1.0), (1, 4.0)):
        x0 = MIXTURE.target_sampler(w)(400, generator)
        for index in (6, 8, 9, 10):
            level = found.levels[index]
            x = x0 + level * torch.randn(x0.shape, dtype=torch.float64, generator=generator)
            cond = MIXTURE.denoised(x, 1.0, level, 0)
            delta = cond - MIXTURE.denoised(x, 1.0, level)
            k_delta = (MIXTURE.jacobian(x, 1.0, level, 0) @ delta[..., None])[..., 0]
            golden = MIXTURE.tilted_posterior(x, 1.0, level, w, 0, nodes=33).mean
            exact = float(((golden - cond) * k_delta).sum() / (w * k_delta.square().sum()))
            error = found.report["errors"][row][index]
            assert abs(found.factors[row][index] - exact) < 4 * error + 0.2 * exact, (w, level)
    assert found.report["evaluations"] == 3 * 3 * 52


def test_it_is_nearer_to_the_target_than_the_product_alone(found: Damping) -> None:
    target, sampler = Target(MIXTURE, 4.0, 1024), Sampler(MIXTURE, sobol_noise(1024))
    alone = target.score(sampler.guided(5.0, "fd_batched")[0])
    samples, nfe = sampler.guided(found(5.0), "fd_batched")
    assert target.score(samples) < 0.75 * alone and nfe < 3.3 * 35


def test_only_what_belongs_together_goes_together() -> None:
    for rectify in ("auto", "vjp", "jvp", "fd", "fd_batched", "lazy", "alternate", FD(1e-3)):
        assert rectified_by(OF_K, rectify) is rectify
        assert Guidance(OF_K, rectify=rectify).rectify == rectify
    for rectify in (None, "paper", "diagonal", "blend", "lazy_blend", "characteristic", Blend()):
        with pytest.raises(InputError, match="^rectify: .* beside a damping of K delta"):
            Term(OF_K, rectify=rectify)
    assert rectified_by(2.0, "blend") == "blend" and rectified_by(lambda *_: 1.0, None) is None
    out = reg_engine.sample(tiny(), [0, 1], scale=OF_K, steps=3, progress=False)
    assert out.stats.estimator == "alternate"
    engine = Engine(tiny(), scale=OF_K, rectify="fd_batched", steps=3)
    assert engine.weights == tuple(OF_K(row, engine.table) for row in engine.table.rows)
    assert "of K delta" in repr(OF_K)
    with pytest.raises(InputError, match="^rectified: "):
        Damped(3.0, (1.0,), (0.5,), rectified=1)  # type: ignore[arg-type]


def test_the_file_says_it(tmp_path: Path, found: Damping) -> None:
    found.save(tmp_path / "d.json")
    data = json.loads((tmp_path / "d.json").read_text("utf-8"))
    assert data["format"] == "reg_engine.damping/2"  # no reader of 1 takes it for delta's
    again = Damping.load(tmp_path / "d.json")
    assert again == found and again.rectified and again(3.0).rectified
    assert repr(again).startswith("Damping(tilt of K delta, 18 levels")
    with pytest.raises(InputError, match="^rectified: is for tilt"):
        Damping("rayleigh", (0.1, 1.0), ((0.9, 0.4),), rectified=True)
    with pytest.raises(InputError, match="^rectified: is for tilt"):
        calibrate_damping(MODEL, 0, method="rayleigh", rectified=True)
    with pytest.raises(InputError, match="^rectified: is 1"):
        calibrate_damping(MODEL, 0, method="tilt", rectified=1)  # type: ignore[arg-type]
