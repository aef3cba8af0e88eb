"""Network output -> denoised, for every prediction type: c_skip x_t + c_out net(c_in x_t).

With x_t = alpha x_0 + sigma eps every prediction is affine in x_0 at fixed x_t, so three scalars
a step are all there is to convert (K in terms of the network's Jacobian follows: K = alpha
(c_skip I + c_out J)).

| prediction     | network returns | c_in | c_skip                  | c_out                    |
|----------------|-----------------|------|-------------------------|--------------------------|
| `epsilon`      | eps             | 1    | 1/alpha                 | -sigma/alpha             |
| `score`        | -eps/sigma      | 1    | 1/alpha                 | sigma^2/alpha            |
| `sample`       | x_0             | 1    | 0                       | 1                        |
| `v_prediction` | v, below        | 1    | alpha/(alpha^2+sigma^2) | -sigma/(alpha^2+sigma^2) |
| `flow`         | eps - x_0       | 1    | 1/(alpha+sigma)         | -sigma/(alpha+sigma)     |

v = alpha eps - sigma x_0 (Salimans & Ho 2022).
`edm` (Karras et al. 2022, Tab. 1) is stated for x_t / alpha with data deviation s: with n =
sigma/alpha, c_in = 1/sqrt(n^2+s^2)/alpha, c_skip = s^2/(n^2+s^2)/alpha and c_out = n
s/sqrt(n^2+s^2). `input_scaling="variance"` replaces c_in by 1/sqrt(alpha^2+sigma^2): networks
trained on variance-preserving inputs but sampled in sigma space (Euler latents in diffusers).
"""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

from ..errors import choice

__all__ = ["INPUT_SCALINGS", "PREDICTIONS", "SPELLINGS", "preconditioning"]

PREDICTIONS = ("epsilon", "score", "sample", "v_prediction", "flow", "edm")
_VELOCITY = "'flow' (eps - x_0) or 'v_prediction' (alpha eps - sigma x_0)"
SPELLINGS = {  # what others call them
    **dict.fromkeys(("eps", "noise", "e"), "'epsilon'"),
    **dict.fromkeys(("x0", "x_0", "x_start", "xstart", "denoised", "clean", "data"), "'sample'"),
    **dict.fromkeys(("v", "velocity", "v_pred"), _VELOCITY),
    **dict.fromkeys(("flow_prediction", "flow_matching", "rectified_flow", "u"), "'flow'"),
}
INPUT_SCALINGS = ("none", "variance", "edm")

Number = TypeVar("Number", float, Tensor)  # plain arithmetic serves both


def preconditioning(
    prediction: str,
    alpha: Number,
    sigma: Number,
    sigma_data: float = 0.5,
    input_scaling: str | None = None,
) -> tuple[Number, Number, Number]:
    """Return (c_in, c_skip, c_out) at (alpha, sigma).

    Args:
        prediction: one of PREDICTIONS.
        alpha, sigma: floats, or tensors of one shape, >= 0 and not both 0; `epsilon`, `score` and
            `edm` need alpha > 0 (at alpha = 0 they say nothing about x_0), `edm` also sigma > 0.
        sigma_data: standard deviation of the data, used by `edm` alone.
        input_scaling: one of INPUT_SCALINGS; None is "edm" for `edm` and "none" for the others.
    """
    choice("prediction", prediction, PREDICTIONS, SPELLINGS)
    scaling = input_scaling or ("edm" if prediction == "edm" else "none")
    choice("input_scaling", scaling, INPUT_SCALINGS)
    a, s, one = alpha, sigma, (alpha + sigma) / (alpha + sigma)
    if scaling == "none":
        c_in = one
    else:
        deviation = 1.0 if scaling == "variance" else sigma_data
        c_in = (a * a * deviation**2 + s * s) ** -0.5
    if prediction == "epsilon":
        return c_in, one / a, -s / a
    if prediction == "score":
        return c_in, one / a, s * s / a
    if prediction == "sample":
        return c_in, one - one, one
    if prediction == "v_prediction":
        norm = a * a + s * s
        return c_in, a / norm, -s / norm
    if prediction == "flow":
        return c_in, one / (a + s), -s / (a + s)
    noise = s / a
    norm = noise * noise + sigma_data**2
    return c_in, sigma_data**2 / norm / a, noise * sigma_data * norm**-0.5
