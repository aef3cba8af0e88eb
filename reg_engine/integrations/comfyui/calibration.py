"""A damping of a ComfyUI model, measured where one of its samplers would run.

The calibrator is given to a guider as its sampler: the guider loads the model, prepares the
conditionings, and hands both over.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from ...calibration import Damping, calibrate_damping
from ...errors import InputError
from ...networks.frozen import frozen
from .asked import Asked, Calc, Call, named, view_of

__all__ = ["Calibrator"]


class Calibrator:
    """A sampler of ComfyUI that samples nothing: it measures, and returns the latents as they are.

    Args:
        calc: comfy.samplers.calc_cond_batch.
        choices: of `calibrate_damping` by rayleigh (levels, batch_size).

    Attributes:
        damping: what was measured.
    """

    def __init__(self, calc: Calc, **choices: Any) -> None:
        self.calc, self.choices = calc, {"progress": False, **choices}
        self.damping: Damping | None = None

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """Called by the guider, `model_wrap`; the latents (N, ...) are clean samples of its
        positive conditioning, as the network knows them.

        Raises:
            InputError: fewer than two latents, or no negative conditioning; as calibrate_damping.
        """
        model, conds = model_wrap.inner_model, model_wrap.conds
        positive, negative = conds.get("positive"), conds.get("negative")
        if not positive or not negative:
            raise InputError("negative", "is missing", "Give a positive and a negative prompt")
        if latent_image is None or len(latent_image) < 2:
            count = 0 if latent_image is None else len(latent_image)
            raise InputError("latents", f"are {count}", "Give a batch of a dozen latents or more")
        asked = Asked(self.calc)
        view, rows = view_of(model, latent_image, asked)
        call = Call(model, (positive, negative), extra_args["model_options"], len(latent_image))
        with asked.about(call), frozen(asked.modules):
            made = calibrate_damping(view, {"row": rows}, x0=latent_image, **self.choices)
        self.damping = replace(made, model="", report={**made.report, "network": named(model)})
        return latent_image
