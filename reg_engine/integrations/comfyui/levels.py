"""Which marginal x = alpha x_0 + sigma noise the sigma of a ComfyUI model stands for."""

from __future__ import annotations

from typing import Any

import torch

from ...errors import InputError
from ...plan import Plan
from ...schedules import EDM, Flow, Schedule

__all__ = ["OUTSIDE", "plan_of", "schedule_of"]

ASKED = (0.25, 0.75)  # sigmas at which the marginal is looked at
CLOSE = 1e-5
OUTSIDE = {"CFG": "cfg", "no guidance": "cond"}


def schedule_of(sampling: Any, device: torch.device) -> Schedule:
    """EDM where x = x_0 + sigma noise (eps, v, EDM, x_0, Cosmos), Flow where x = (1 - sigma) x_0 +
    sigma noise.

    The model's own `noise_scaling` is asked, which makes the sampler's first state: it says so
    whatever its class is called.

    Args:
        sampling: `model.model_sampling`.
        device: of the states.

    Raises:
        InputError: another marginal, or a model that turns images into images without noise.
    """
    names = [kind.__name__ for kind in type(sampling).__mro__]
    found = [_marginal(sampling, sigma, device) for sigma in ASKED]
    if not any(name.startswith("IMG_TO_IMG") for name in names):
        if _are(found, [(1.0, sigma) for sigma in ASKED]):
            return EDM()
        if _are(found, [(1 - sigma, sigma) for sigma in ASKED]):
            return Flow()
    pairs = ", ".join(f"{a:.3g} x_0 + {s:.3g} noise" for a, s in found)
    raise InputError(
        "model",
        f"is sampled by {', '.join(names[:-2])}: x is {pairs} at sigma 0.25, 0.75",
        "Take a model of eps, v, x_0 or flow prediction; REG knows x_0 + sigma noise, and "
        "(1 - sigma) x_0 + sigma noise",
    )


def _marginal(sampling: Any, sigma: float, device: torch.device) -> tuple[float, float]:
    """(alpha, sigma) of the state that is made of noise and a clean latent."""
    level = torch.tensor([sigma], device=device)
    alpha, spread = (
        sampling.noise_scaling(
            level,
            torch.full((1, 1, 1, 1), noise, device=device),
            torch.full((1, 1, 1, 1), 1.0 - noise, device=device),
        )
        for noise in (0.0, 1.0)
    )
    return float(alpha), float(spread)


def _are(found: list[tuple[float, float]], wanted: list[tuple[float, float]]) -> bool:
    return all(
        abs(a - b) < CLOSE
        for x, y in zip(found, wanted, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def plan_of(sampling: Any, start: float, end: float, outside: str, device: torch.device) -> Plan:
    """REG from `start` to `end`, shares of the run in [0, 1] as ComfyUI counts them, and at other
    noise levels what `outside` (of OUTSIDE) says.

    Raises:
        InputError: as schedule_of.
    """
    schedule = schedule_of(sampling, device)

    def level(share: float) -> float:
        sigma = float(sampling.percent_to_sigma(share))
        return schedule.noise_level(min(sigma, schedule.last_valid_time))

    edges, modes = [], ["reg"]
    if end < 1:
        edges, modes = [level(end)], [OUTSIDE[outside], "reg"]
    if start > 0:
        # The step at `start` is inside.
        edges, modes = [*edges, level(start) * (1 + CLOSE)], [*modes, OUTSIDE[outside]]
    return Plan(tuple(edges), tuple(modes))
