"""`denoiser_of`: whatever stands for a model, as a Denoiser."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..errors import InputError
from ..networks.denoisers import Denoiser
from ..values import as_float
from .families import FAMILIES, family_of
from .family import Asked, Family
from .loading import loaded
from .packed import Packed
from .roles import SCHEDULER, only_network
from .scheduler import parametrisation

__all__ = ["denoiser_of"]


def denoiser_of(
    model: Any,
    *,
    scheduler: Any = None,
    sample_shape: Iterable[int] | None = None,
    null_cond: object = None,
    embedded_guidance: float | None = None,
    **options: Any,
) -> Denoiser:
    """The Denoiser of a model: of a network of diffusers, a pipeline, a folder, or a hub id.

    The conditioning is told in the network's own keywords: labels for UNet2DModel and DiT, for the
    others a dict such as {"encoder_hidden_states": (B, L, D), "pooled_projections": (B, P)}; a
    tensor alone where the network needs one keyword. Added conditions (text_embeds, time_ids) stand
    beside the others. `docs/pipelines.md` has them all.

    Args:
        model: a Denoiser, or an object whose `denoiser()` gives one (then without any of the
            options); a network of `adapters.FAMILIES`; a pipeline; a local folder that
            `save_pretrained` wrote, or a hub id "owner/name".
        scheduler: the network's scheduler, or the dict of its scheduler_config.json; None = the
            one beside the network.
        sample_shape: (channels, *size) of latents, unpacked; None = the network's usual one.
        null_cond: conditioning of the reference call, in the form of `cond`; None = the label for
            none where the network has one.
        embedded_guidance: of a network with distilled guidance (FLUX.1-dev): the number >= 0 that
            it is told at every call.
        options: for a folder or hub id, keywords of `from_pretrained`: torch_dtype, variant,
            revision, local_files_only, cache_dir, token.

    Raises:
        InputError: an unknown family, no or an unknown scheduler, a folder or hub id that cannot be
            loaded, options that do not fit the model.
    """
    given = {
        "scheduler": scheduler,
        "sample_shape": sample_shape,
        "null_cond": null_cond,
        "embedded_guidance": embedded_guidance,
        **options,
    }
    if isinstance(model, Denoiser) or callable(getattr(model, "denoiser", None)):
        if set_ := [key for key, value in given.items() if value is not None]:
            problem = f"is given beside a {type(model).__name__}, which says all of a model"
            raise InputError(set_[0], problem, "Leave it out")
        return model if isinstance(model, Denoiser) else denoiser_of(model.denoiser())
    if isinstance(model, (str, os.PathLike)):
        model, scheduler = loaded(model, scheduler, options)
    elif options:
        problem = f"is given beside a {type(model).__name__}"
        raise InputError(next(iter(options)), problem, "Leave it out: it is for folders and ids")
    elif isinstance(getattr(model, "components", None), Mapping):
        parts = model.components
        scheduler = parts.get(SCHEDULER) if scheduler is None else scheduler
        model = parts[only_network(parts, model.config)]
    return _of_network(model, scheduler, sample_shape, null_cond, embedded_guidance)


def _of_network(
    net: Any, scheduler: Any, sample_shape: Any, null_cond: object, guidance: float | None
) -> Denoiser:
    found = family_of(net)
    if found is None:
        raise InputError(
            "model",
            f"a {type(net).__name__} does not say what it predicts, nor its schedule and shape",
            "Wrap it: reg_engine.Denoiser(net, prediction=..., schedule=..., sample_shape=..., "
            f"null_cond=...). Of diffusers these need no wrapping: {', '.join(sorted(FAMILIES))}",
        )
    name, family = found
    family = _told(name, family, net, guidance)
    shape = family.shape(name, sample_shape)
    says = parametrisation(scheduler, name, family, shape)
    return Denoiser(
        Asked(net, name, family, says.unit / family.unit),
        says.prediction,
        says.schedule,
        shape,
        family.null_cond if null_cond is None else null_cond,
        sigma_data=says.sigma_data,
        num_classes=family.num_classes,
        learned_variance=family.learned_variance,
        modules=[net],
    )


def _told(name: str, family: Family, net: Any, guidance: float | None) -> Family:
    """The family with the number that stands for its distilled guidance.

    Raises:
        InputError: there is one and the network takes none, or the other way round.
    """
    config = getattr(net, "_orig_mod", net).config
    takes = isinstance(family, Packed) and bool(config.get("guidance_embeds", False))
    if guidance is None and not takes:
        return family
    if not takes:
        problem = f"is given to a {name} without distilled guidance"
        raise InputError("embedded_guidance", problem, "Leave it out, and give scale")
    remedy = "Give denoiser_of(model, embedded_guidance=3.5), the pipeline's guidance_scale"
    if guidance is None:
        problem = f"is needed: guidance was distilled into this {name}, which is told a number"
        raise InputError("embedded_guidance", problem, remedy)
    number = as_float("embedded_guidance", guidance, remedy, lambda v: 0 <= v < math.inf)
    return replace(family, guidance=number)  # type: ignore[call-arg]
