"""Configs of diffusers schedulers: what is read, and what is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from reg_engine.errors import InputError
from reg_engine.schedules import (
    EDM,
    VP,
    Betas,
    Cosine,
    Flow,
    ScaledLinear,
    from_diffusers,
    solver_from_diffusers,
)
from reg_engine.schedules.readers import READERS

diffusers = pytest.importorskip("diffusers")

PLAIN = {"clip_sample": False}


def test_cosine_betas_equal_diffusers() -> None:
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", **PLAIN)
    schedule = from_diffusers(scheduler)
    assert isinstance(schedule, Cosine)
    assert schedule.betas() == pytest.approx(scheduler.betas.numpy(), rel=1e-6)  # float32 table
    assert schedule.betas()[-1] == 0.999


def test_pipeline_config_is_read() -> None:
    """Stable Diffusion's scheduler_config.json: private keys and those of others are skipped."""
    config = json.loads(
        '{"_class_name": "PNDMScheduler", "_diffusers_version": "0.7.0", "beta_end": 0.012,'
        ' "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,'
        ' "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1,'
        ' "trained_betas": null, "clip_sample": false}'
    )
    assert solver_from_diffusers(config) == ("pndm", {"skip_prk": True})
    grid = from_diffusers(config).grid(50)
    scheduler = diffusers.PNDMScheduler.from_config(config)
    scheduler.set_timesteps(50)
    assert grid[:3].tolist() == [981.0, 961.0, 941.0] and grid[-2:].tolist() == [1.0, 0.0]
    assert sorted(set(scheduler.timesteps.tolist())) == sorted(grid[:-1].tolist())
    other = diffusers.EulerDiscreteScheduler.from_config(config)  # carries PNDM's settings along
    assert solver_from_diffusers(other) == ("euler", {})
    assert from_diffusers(other).grid(50)[0] == 999.0  # Euler's own default spacing


def test_flow_and_edm_settings_are_read() -> None:
    flow = from_diffusers({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})
    assert isinstance(flow, Flow) and flow.shift == 3.0
    edm = from_diffusers({"_class_name": "EDMEulerScheduler", "sigma_max": 40.0, "rho": 5.0})
    assert edm == EDM(0.002, 40.0, 5.0, prior="unit")


@pytest.mark.parametrize(
    ("kind", "setting", "value"),
    [
        ("DDIMScheduler", "thresholding", True),
        ("DDPMScheduler", "variance_type", "learned"),
        ("DDPMScheduler", "beta_schedule", "sigmoid"),
        ("DDPMScheduler", "timestep_spacing", "karras"),
        ("PNDMScheduler", "trained_betas", [0.1, 0.2]),
        ("EulerDiscreteScheduler", "interpolation_type", "log_linear"),
        ("EulerDiscreteScheduler", "sigma_max", 20.0),
        ("EulerDiscreteScheduler", "timestep_spacing", "beta"),
        ("EulerDiscreteScheduler", "final_sigmas_type", "half"),
        ("DPMSolverMultistepScheduler", "solver_order", 3),
        ("DPMSolverMultistepScheduler", "algorithm_type", "dpmsolver"),
        ("DPMSolverMultistepScheduler", "solver_type", "heun"),
        ("DPMSolverMultistepScheduler", "variance_type", "learned_range"),
        ("UniPCMultistepScheduler", "predict_x0", False),
        ("UniPCMultistepScheduler", "disable_corrector", [0]),
        ("UniPCMultistepScheduler", "thresholding", True),
        ("DPMSolverMultistepScheduler", "use_lu_lambdas", True),
        ("FlowMatchEulerDiscreteScheduler", "invert_sigmas", True),
        ("FlowMatchEulerDiscreteScheduler", "stochastic_sampling", True),
        ("EDMDPMSolverMultistepScheduler", "solver_order", 1),
        ("DDIMScheduler", "a_setting_of_tomorrow", 1),
    ],
)
@pytest.mark.filterwarnings("error")
def test_unsupported_settings_are_named(kind: str, setting: str, value: Any) -> None:
    config = {"_class_name": kind, setting: value}
    with pytest.raises(InputError) as caught:
        from_diffusers(config)
        solver_from_diffusers(config)
    assert caught.value.argument == setting
    assert "in the config" not in caught.value.remedy  # another value may be another schedule


@pytest.mark.parametrize("config", [{}, {"_class_name": "DDIMInverseScheduler"}, 3, None])
def test_unknown_schedulers_are_refused(config: Any) -> None:
    with pytest.raises(InputError):
        from_diffusers(config)


@pytest.mark.parametrize("kind", ["LCMScheduler", "TCDScheduler", "FlowMatchLCMScheduler"])
def test_distilled_networks_are_refused_with_the_reason(kind: str) -> None:
    for read in (from_diffusers, solver_from_diffusers):
        with pytest.raises(InputError, match=f"{kind}' is for networks distilled.*guidance inside"):
            read({"_class_name": kind})


def test_clipping_is_an_option_of_the_solver() -> None:
    """diffusers clips by default, so a config that says nothing about it asks for clipping."""
    ddim = {"_class_name": "DDIMScheduler"}
    assert solver_from_diffusers(ddim) == ("ddim", {"clip": 1.0, "keep_epsilon": True})
    assert solver_from_diffusers(ddim | PLAIN) == ("ddim", {})
    ddpm = {"_class_name": "DDPMScheduler", "clip_sample_range": 2.0}
    assert solver_from_diffusers(ddpm) == ("ddpm", {"variance": "small", "clip": 2.0})
    assert solver_from_diffusers({"_class_name": "HeunDiscreteScheduler"}) == ("heun", {})


FLUX = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "num_train_timesteps": 1000,
    "shift": 3.0,
    "use_dynamic_shifting": True,
}
QWEN = FLUX | {"max_image_seq_len": 8192, "max_shift": 0.9, "shift": 1.0, "shift_terminal": 0.02}
WAN = {
    "_class_name": "UniPCMultistepScheduler",
    "flow_shift": 3.0,
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
}


def test_published_flow_configs() -> None:
    """FLUX.1-dev, Qwen-Image and Wan 2.1, at 1024 x 1024 (4,096 latent tokens)."""
    flux = from_diffusers(FLUX, image_seq_len=4096)
    assert flux == from_diffusers(FLUX, mu=1.15) and isinstance(flux, Flow)
    assert flux.shift == pytest.approx(math.exp(1.15)) and flux.grid_end == 1 / 1000
    qwen = from_diffusers(QWEN, image_seq_len=4096)
    assert isinstance(qwen, Flow) and qwen.grid(8)[-2:].tolist() == pytest.approx([0.02, 0.0])
    mu = 0.5 + (4096 - 256) / (8192 - 256) * 0.4
    assert qwen.shift == pytest.approx(math.exp(mu), rel=1e-12)
    assert solver_from_diffusers(FLUX) == ("flow_euler", {})
    assert isinstance(from_diffusers(WAN), Flow)
    options = {"order": 2, "variant": "bh2", "lower_order_final": True}
    assert solver_from_diffusers(WAN) == ("unipc", options)


def test_flow_times_of_unipc_start_below_one() -> None:
    """As diffusers does: log(alpha) of its first time would be that of 0."""
    scheduler = diffusers.UniPCMultistepScheduler.from_config(WAN)
    scheduler.set_timesteps(5)
    first = from_diffusers(WAN).grid(5)[0]
    assert first == float(scheduler.sigmas[0]) == pytest.approx(1 - 1e-6, abs=1e-7) and first < 1


@pytest.mark.parametrize(
    ("kind", "settings", "steps"),
    [
        ("EulerDiscreteScheduler", {"timestep_spacing": "linspace"}, 7),  # not rounded
        ("HeunDiscreteScheduler", {"timestep_spacing": "linspace"}, 7),
        ("DPMSolverMultistepScheduler", {"timestep_spacing": "linspace"}, 7),  # rounded
        ("UniPCMultistepScheduler", {"timestep_spacing": "leading"}, 7),
    ],
)
def test_times_are_those_of_diffusers(kind: str, settings: dict[str, Any], steps: int) -> None:
    scheduler = getattr(diffusers, kind)(**settings)
    scheduler.set_timesteps(steps)
    told = sorted(set(scheduler.timesteps.tolist()), reverse=True)
    grid = from_diffusers({"_class_name": kind, **settings}).grid(steps)
    assert grid[:-1].tolist() == pytest.approx(told, rel=1e-6)


def test_levels_of_multistep_solvers_span_the_chain_whatever_the_spacing() -> None:
    for kind in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler"):
        settings = {"timestep_spacing": "leading", "use_karras_sigmas": True}
        scheduler = getattr(diffusers, kind)(**settings)
        scheduler.set_timesteps(7)
        schedule = from_diffusers({"_class_name": kind, **settings})
        assert schedule.grid(7)[0] == 999.0
        ours = schedule.noise_level(schedule.grid(7))[:-1]
        rounding = 2**-24 / 1e-4  # of 1 - alpha^2 at the first time, in diffusers' float32
        assert ours == pytest.approx(scheduler.sigmas.numpy()[:-1], rel=rounding)


def test_a_terminal_of_unipc_is_read() -> None:
    config = WAN | {"shift_terminal": 0.02}
    scheduler = diffusers.UniPCMultistepScheduler.from_config(config)
    scheduler.set_timesteps(5)
    grid = from_diffusers(config).grid(5)
    assert grid[-2] == pytest.approx(0.02, rel=1e-6)
    assert grid[:-1] == pytest.approx(scheduler.sigmas.numpy()[:-1], rel=1e-5)


def test_dynamic_shifting_needs_the_size_of_the_image() -> None:
    with pytest.raises(InputError, match=r"^mu: is needed.*image_seq_len="):
        from_diffusers(FLUX)
    with pytest.raises(InputError, match="^mu: is given beside"):
        from_diffusers(FLUX, mu=1.0, image_seq_len=256)
    with pytest.raises(InputError, match="^mu: is given without use_dynamic_shifting"):
        from_diffusers(FLUX | {"use_dynamic_shifting": False}, mu=1.0)
    with pytest.raises(InputError, match="^image_seq_len: means nothing"):
        from_diffusers(WAN | {"use_dynamic_shifting": True}, image_seq_len=256)


def test_two_spacings_at_once_are_refused() -> None:
    both = {"use_karras_sigmas": True, "use_beta_sigmas": True}
    with pytest.raises(InputError, match="use_beta_sigmas: is set beside use_karras_sigmas"):
        from_diffusers({"_class_name": "EulerDiscreteScheduler", **both})
    with pytest.raises(InputError, match="use_karras_sigmas: is set beside use_flow_sigmas"):
        from_diffusers(WAN | {"use_karras_sigmas": True})
    with pytest.raises(InputError, match="final_sigmas_type"):
        from_diffusers(WAN | {"final_sigmas_type": "sigma_min"})
    with pytest.raises(InputError, match="timestep_type.*EDM"):
        from_diffusers(
            {
                "_class_name": "EulerDiscreteScheduler",
                "timestep_type": "continuous",
                "prediction_type": "v_prediction",
            }
        )


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_the_length_of_a_chain_is_read(kind: str) -> None:
    config = {"beta_schedule": kind, "num_train_timesteps": 50, "beta_end": 0.3, **PLAIN}
    schedule = from_diffusers({"_class_name": "DDPMScheduler", **config})
    betas = diffusers.DDPMScheduler(**config).betas.numpy()
    assert isinstance(schedule, VP) and schedule.prior_time == 49.0
    assert schedule.betas() == pytest.approx(betas, rel=1e-5)  # float32 table


def test_betas_of_a_config() -> None:
    values = np.linspace(1e-4, 0.02, 1000)
    read = from_diffusers({"_class_name": "PNDMScheduler", "trained_betas": values.tolist()})
    assert isinstance(read, Betas) and np.array_equal(read.betas(), values)
    zero = {"rescale_betas_zero_snr": True, "beta_schedule": "scaled_linear"}
    for kind, terminal in (("DDIMScheduler", 0.0), ("EulerDiscreteScheduler", 2.0**-24)):
        config = {"_class_name": kind, "beta_start": 0.00085, "beta_end": 0.012, **zero}
        schedule = from_diffusers(config)
        assert isinstance(schedule, ScaledLinear) and schedule.terminal == terminal
    with pytest.raises(InputError, match="trained_betas: has 1000 values"):
        from_diffusers(
            {"_class_name": "PNDMScheduler", "trained_betas": values, "num_train_timesteps": 10}
        )


@pytest.mark.parametrize("kind", READERS)
def test_every_setting_of_diffusers_is_known(kind: str) -> None:
    """No default setting of the installed diffusers is unknown, and the defaults agree."""
    plain = PLAIN if kind.startswith("DD") else {}
    scheduler, bare = getattr(diffusers, kind)(**plain), {"_class_name": kind} | plain
    assert from_diffusers(scheduler) == from_diffusers(bare)
    assert solver_from_diffusers(scheduler) == solver_from_diffusers(bare)
