"""What the benchmarks run: networks of the right size, baselines that are their formulas."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from nets import CLASSES, tiny

sys.path.append(str(Path(__file__).resolve().parent.parent))  # last, as in test_bench.py

import reg_engine  # noqa: E402
from bench import agreement, baselines  # noqa: E402
from bench.cases import MODEL_CASES, SIZES  # noqa: E402
from bench.contenders import CONTENDERS, schedule  # noqa: E402
from bench.models import build  # noqa: E402
from reg_engine.solvers import table  # noqa: E402

META = torch.device("meta")


def test_disagreement_is_refused() -> None:
    exact = torch.linspace(-1, 1, 101, dtype=torch.float64)
    plain = exact.float()
    agreement.check_kernel("same", plain.clone(), plain, exact)
    for wrong in (plain + 1e-5, plain * math.nan):
        with pytest.raises(AssertionError):
            agreement.check_kernel("wrong", wrong, plain, exact)
    agreement.check_rectified("near", exact + 0.01, exact, exact + 1)
    for found, unrectified in ((exact + 0.5, exact + 1), (exact, exact)):
        with pytest.raises(AssertionError):
            agreement.check_rectified("wrong", found, exact, unrectified)


def test_the_plain_loop_is_the_engine_without_its_machinery() -> None:
    denoiser, labels = tiny(), torch.arange(4) % CLASSES
    for solver, options in (("heun", {}), ("dpmpp_2m", {}), ("euler_ancestral", {})):
        common = {"scale": 3.0, "solver": solver, "solver_options": options, "steps": 5}
        plain = baselines.sample(denoiser, labels, range(4), guide=baselines.cfg, **common)
        out = reg_engine.sample(
            denoiser, labels, seeds=range(4), rectify=None, progress=False, **common
        )
        torch.testing.assert_close(plain, out.samples, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "edm"])
def test_the_guides_are_their_formulas(prediction: str) -> None:
    schedule = reg_engine.schedules.VPLinear() if prediction == "epsilon" else None
    denoiser, w = tiny(prediction, schedule), 2.0
    row = table("euler", denoiser.schedule, 6).rows[3]
    x, cond, null = torch.randn(1, 1, 4, 4), torch.tensor([1]), torch.tensor([CLASSES])
    with torch.no_grad():
        c, u = denoiser(x, row.t, cond), denoiser(x, row.t, null)
    jacobian = torch.autograd.functional.jacobian(lambda x: denoiser(x, row.t, cond), x)
    k, delta = row.alpha * jacobian.reshape(16, 16), (c - u).reshape(16)
    signs = reg_engine.noise.SampleNoise([7], "probes").signs(x).reshape(16)
    wanted = {
        baselines.cfg: delta,
        baselines.authors: k.sum(0) * delta,
        baselines.transposed: k.T @ delta,
        baselines.forward: k @ delta,
        baselines.exact_for("diagonal", [7]): signs * (k.T @ signs) * delta,
        baselines.exact_for("diagonal_batched", [7]): signs * (k @ signs) * delta,
        baselines.exact_for("diagonal_jvp", [7]): signs * (k @ signs) * delta,
    }
    for guide, product in wanted.items():
        with torch.no_grad():
            found = guide(denoiser, x, row, cond, null, w)
        torch.testing.assert_close(found, c + w * product.reshape_as(c), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        found = baselines.difference(denoiser, x, row, cond, null, w) - c
    exact = w * (k @ delta).reshape_as(c)
    assert float((found - exact).norm() / exact.norm()) < 0.02  # truncation at a step of 1e-2


# Millions of parameters, as the papers state them.
PARAMETERS = {
    "edm2-s": 280,
    "edm2-xxl": 1523,
    "dit-xl-2": 675,
    "sd-1.4": 860,
    "sd-2.1": 866,
    "sd-xl": 2567,
}


def test_models_have_their_real_size() -> None:
    published = [case for case in MODEL_CASES if case.published]
    assert {case.key for case in published} == set(PARAMETERS)
    for case in published:
        loaded = build(case, "real", META, torch.float32)
        assert loaded.parameters / 1e6 == pytest.approx(PARAMETERS[case.key], abs=1.0), case.name


def test_every_resolution_model_and_contender_is_there() -> None:
    assert {64, 128, 256, 512, 768, 1024} <= {case.resolution for case in MODEL_CASES}
    assert len({case.name for case in MODEL_CASES}) == len(MODEL_CASES)
    every = {size: schedule(size) for size in SIZES}
    assert len(every["real"]) == len(MODEL_CASES) * len(CONTENDERS)
    assert set(every["tiny"]) < set(every["real"]) > set(every["shrunk"])
    assert {case.key for case, _ in every["tiny"]} == {"mnist", *PARAMETERS} - {"edm2-xxl"}
    estimators = {contender.estimator for _, contender in every["tiny"]}
    assert estimators == {"none", *reg_engine.rectifiers.PRODUCTS}
