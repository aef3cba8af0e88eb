"""Every method under every rectifier, a whole run against the formulas of the papers written out.

The exact denoiser of a mixture stands in for the network, K is its dense Jacobian, the steps are
DDIM's. Nothing of the engine is used but its times and the samples' own draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import reg_engine
from reg_engine import CFGPlusPlus, Cosine, Guidance, Interval, Linear, oracles, schedules
from reg_engine.guidance.adjustments import Rescale, ZeroInit
from reg_engine.guidance.directions import APG, TCFG, CFGZeroStar
from reg_engine.noise import SampleNoise
from reg_engine.rectifiers import RECTIFIERS
from reg_engine.rectifiers.law import LEAST
from reg_engine.rectifiers.lazy import Lazy

MIXTURE, SCHEDULE, STEPS = oracles.two_class_2d(), schedules.VPLinear(), 6
LABELS, SEEDS, NULL = torch.tensor([0, 1, 0, 1]), [3, 4, 5, 6], 2
METHODS = {
    "cfg": {},
    "apg": {"direction": APG(momentum=-0.5, radius=0.4, parallel=0.2)},
    "zero_star": {"direction": CFGZeroStar(), "adjust": (ZeroInit(1),)},
    "tcfg": {"direction": TCFG()},
    "cfg++": {"weight": CFGPlusPlus(0.6)},
    "linear": {"weight": Linear(1.0, 4.0)},
    "cosine": {"weight": Cosine(4.0)},
    "interval": {"weight": Interval(4.0, 0.1, 5.0)},
    "rescale": {"adjust": Rescale(0.7)},
}


def dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1, keepdim=True)


def weight_of(method: str, times: list[float], k: int) -> float:
    (a, s), (a_s, s_s) = SCHEDULE(times[k]), SCHEDULE(times[k + 1])
    p = (times[k] - times[0]) / (times[-2] - times[0])
    return {
        "cfg++": 0.6 * a_s / (a_s - a * s_s / s) - 1,
        "linear": 3 * p,
        "cosine": 3 * (1 - math.cos(math.pi * p)) / 2,
        "interval": 3.0 * (0.1 <= s / a <= 5),
    }.get(method, 2.0)


def direction_of(method: str, x: Tensor, a: float, s: float, c: Tensor, r: Tensor,
                 kept: dict[str, Tensor]) -> Tensor:  # fmt: skip
    eps_c, eps_r = (x - a * c) / s, (x - a * r) / s
    if method == "apg":
        d = kept["mean"] = c - r - 0.5 * kept.get("mean", torch.zeros_like(c))
        d = d * (0.4 / d.norm(dim=1, keepdim=True)).clamp_max(1)
        along = dot(d, c) / dot(c, c) * c
        return d - along + 0.2 * along
    if method == "zero_star":
        return -s / a * (eps_c - dot(eps_c, eps_r) / dot(eps_r, eps_r) * eps_r)
    if method == "tcfg":
        second = torch.linalg.svd(torch.stack([eps_c, eps_r], 1)).Vh[:, 1]
        return -s / a * (eps_c - (eps_r - dot(eps_r, second) * second))
    return c - r


def rectified(rectify: str | None, k: Tensor, delta: Tensor, lag: Tensor | None,
              signs: Callable[[], Tensor]) -> Tensor:  # fmt: skip
    def forward(v: Tensor) -> Tensor:
        return (k @ v[:, :, None])[:, :, 0]

    def backward(v: Tensor) -> Tensor:
        return (k.mT @ v[:, :, None])[:, :, 0]

    if rectify is None:
        return delta
    if rectify == "paper":
        return k.sum(1) * delta
    if rectify == "vjp":
        return backward(delta)
    if rectify in ("diagonal", "diagonal_batched", "diagonal_jvp"):
        z = signs()
        return z * (backward(z) if rectify == "diagonal" else forward(z)) * delta
    if rectify == "fd" or lag is None:
        return forward(delta)
    share = dot(delta, lag) / dot(lag, lag)
    gain = dot(forward(lag), lag) / dot(lag, lag)
    return share * forward(lag) + gain * (delta - share * lag)


def adjusted(method: str, k: int, x: Tensor, a: float, s: float, guided: Tensor,
             c: Tensor) -> Tensor:  # fmt: skip
    if method == "zero_star" and k == 0:
        return x / a  # eps = 0
    if method == "rescale":
        eps, eps_c = (x - a * guided) / s, (x - a * c) / s
        ratio = eps_c.std(1, keepdim=True) / eps.std(1, keepdim=True)
        return (x - s * (0.7 * ratio + 0.3) * eps) / a
    return guided


def blended(a: float, s: float, x: Tensor, k: Tensor, delta: Tensor, lag: Tensor | None,
            w: float, least: float) -> Tensor:  # fmt: skip
    """r_c / (1 + w (r_u - r_c)+) delta along the previous delta."""
    k_ref = a * jacobian_of(a, s, x, NULL)
    p = delta if lag is None else lag
    quotients = (dot((m @ p[:, :, None])[:, :, 0], p) / dot(p, p) for m in (k, k_ref))
    r_c, r_u = (r.clamp_min(least) for r in quotients)
    return r_c / (1 + max(w, 0) * (r_u - r_c).clamp_min(0)) * delta


def characteristic(method: str, a: float, s: float, x: Tensor, w: float,
                   kept: dict[str, Tensor]) -> Tensor:  # fmt: skip
    """The guided estimate after two iterations of step 1/2 for p with cond(x + w a p) = ref(x +
    (1 + w) a p)."""
    p = torch.zeros_like(x)
    for _ in range(2):
        one, two = x + w * a * p, x + (1 + w) * a * p
        c, r = MIXTURE.denoised(one, a, s, LABELS), MIXTURE.denoised(two, a, s, NULL)
        p = p + direction_of(method, two, a, s, c, r, kept) / 2
    return MIXTURE.denoised(x + w * a * p, a, s, LABELS)


def jacobian_of(a: float, s: float, x: Tensor, labels: Tensor | int) -> Tensor:
    """(sample, i, j): samples are apart, so the Jacobian of their sum holds each one's."""
    jacobian = torch.autograd.functional.jacobian(
        lambda v: MIXTURE.denoised(v, a, s, labels).sum(0), x
    )
    return jacobian.transpose(0, 1)


def by_hand(
    method: str, rectify: str | None, x: Tensor, times: list[float], least: float = -math.inf
) -> Tensor:
    kept: dict[str, Tensor] = {}
    probes = SampleNoise(SEEDS, "probes")
    for k, (t, t_s) in enumerate(pairwise(times)):
        (a, s), (a_s, s_s) = SCHEDULE(t), SCHEDULE(t_s)
        c, w = MIXTURE.denoised(x, a, s, LABELS), weight_of(method, times, k)
        guided = c
        if w and rectify == "characteristic":
            guided = adjusted(method, k, x, a, s, characteristic(method, a, s, x, w, kept), c)
        elif w:
            r = MIXTURE.denoised(x, a, s, NULL)
            delta = direction_of(method, x, a, s, c, r, kept)
            jacobian, lag = a * jacobian_of(a, s, x, LABELS), kept.get("delta")
            if rectify == "blend":
                term = blended(a, s, x, jacobian, delta, lag, w, least)
            else:
                signs = lambda x=x: probes.signs(x)  # noqa: E731
                term = rectified(rectify, jacobian, delta, lag, signs)
            kept["delta"] = delta
            guided = adjusted(method, k, x, a, s, c + w * term, c)
        x = a_s * guided + s_s / s * (x - a * guided)
    return x


# What evaluates where it is due evaluates at every row, so that it has a formula: that of another.
EVERY = {
    name: (RECTIFIERS[name](tolerance=0.0, reference=0.0), formula)
    for name, formula in (("lazy", "fd_batched"), ("lazy_blend", "blend"))
}


@pytest.mark.parametrize("rectify", [None, *(name for name in RECTIFIERS if name != "alternate")])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_and_rectifier_is_its_formula(method: str, rectify: str | None) -> None:
    kind, rectify = EVERY.get(str(rectify), (rectify, rectify))
    guidance = Guidance(**{"weight": 3.0, **METHODS[method]}, rectify=kind)
    engine = reg_engine.Engine(
        MIXTURE.denoiser(prediction="epsilon", schedule=SCHEDULE), guidance=guidance,
        solver="ddim", steps=STEPS, dtype=torch.float64, progress=False,
    )  # fmt: skip
    rows = engine.table.rows
    times = [row.t for row in rows] + [rows[-1].s]
    start = engine.table.init_scale * SampleNoise(SEEDS).normal(torch.empty(4, 2).double())
    least = LEAST if isinstance(kind, Lazy) else -math.inf
    wanted = by_hand(method, rectify, start, times, least)
    got = engine.sample(LABELS, SEEDS).samples
    # A one-sided difference of step 1e-6 (rectifiers/difference.py), carried through the steps.
    tolerance = 1e-4 if rectify in ("fd", "fd_batched", "diagonal_batched", "blend") else 1e-9
    assert (got - wanted).abs().max() <= tolerance * wanted.abs().max()
    plain = by_hand(method, None, start, times)
    assert rectify is None or (wanted - plain).abs().max() > 1e-2, "the rectifier must matter"
