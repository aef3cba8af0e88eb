"""The families: a class of diffusers' networks each, and what its configuration says of a call.

`FAMILIES["MyTransformer2DModel"] = family` adds one, where `family(net)` gives a Family. The name
is that of the class, or of one that it inherits from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..errors import InputError
from .family import Family
from .packed import Packed

__all__ = ["FAMILIES", "family_of"]

TEXT = ("encoder_hidden_states",)
POOLED = (*TEXT, "pooled_projections")
WRAP = "Wrap it: Denoiser(function, prediction, schedule, sample_shape), function(x, t, cond)"


def unet(net: Any) -> Family:
    """UNet2DModel, with labels, embeddings of classes, or nothing."""
    config = net.config
    channels, size = _channels(net), _size(net)
    if config.num_class_embeds is None and config.class_embed_type is None:
        return Family(channels, size, learned_variance=_doubled(net))
    labels = config.num_class_embeds if config.class_embed_type is None else None
    return Family(
        channels,
        size,
        needs=("class_labels",),
        num_classes=labels,
        learned_variance=_doubled(net),
    )


def unet_condition(net: Any) -> Family:
    """UNet2DConditionModel: Stable Diffusion 1.x and 2.x, and SDXL with its added conditions."""
    config = net.config
    for key, known in {
        "addition_embed_type": (None, "text_time"),
        "encoder_hid_dim_type": (None,),
        "class_embed_type": (None,),
        "num_class_embeds": (None,),
        "time_cond_proj_dim": (None,),
    }.items():
        if getattr(config, key) not in known:
            problem = f"is a UNet2DConditionModel with {key}={getattr(config, key)!r}"
            if key == "time_cond_proj_dim":
                problem += ": it is told its guidance, which was distilled into it"
            raise InputError("model", problem, WRAP)
    family = Family(
        _channels(net),
        _size(net),
        needs=TEXT,
        takes=("encoder_attention_mask",),
        learned_variance=_doubled(net),
    )
    if config.addition_embed_type is None:
        return family
    added = ("text_embeds", "time_ids")
    return replace(family, needs=(*TEXT, *added), added=added)


def dit(net: Any) -> Family:
    """DiTTransformer2DModel: labels, the one after the last class for none."""
    classes = net.config.num_embeds_ada_norm
    return Family(
        _channels(net),
        _size(net),
        _patches(net),
        needs=("class_labels",),
        num_classes=classes,
        null_cond=classes,
        learned_variance=_doubled(net),
    )


def pixart(net: Any) -> Family:
    """PixArtTransformer2DModel, alpha and Sigma; alpha at 1024 is told resolution and aspect."""
    added = ("resolution", "aspect_ratio") if net.use_additional_conditions else ()
    return Family(
        _channels(net),
        _size(net),
        _patches(net),
        needs=(*TEXT, *added),
        takes=("encoder_attention_mask",),
        added=added,
        learned_variance=_doubled(net),
    )


def sd3(net: Any) -> Family:
    """SD3Transformer2DModel, told 1000 t."""
    return Family(_channels(net), _size(net), _patches(net), needs=POOLED, flow=True)


def auraflow(net: Any) -> Family:
    """AuraFlowTransformer2DModel, told t."""
    return Family(_channels(net), _size(net), _patches(net), needs=TEXT, flow=True, unit=1000.0)


def flux(net: Any) -> Family:
    """FluxTransformer2DModel, told t; its pipelines begin with 128 x 128 latents."""
    return Packed(
        net.config.in_channels // 4,
        (128, 128),
        (2, 2),
        needs=POOLED,
        flow=True,
        unit=1000.0,
        from_one=True,
    )


def wan(net: Any) -> Family:
    """WanTransformer3DModel for text, told 1000 t: 81 frames of 480 x 832 are 21 of 60 x 104."""
    config = net.config
    if config.image_dim is not None:
        raise InputError("model", "is a WanTransformer3DModel that continues pictures", WRAP)
    return Family(_channels(net), (21, 60, 104), tuple(config.patch_size), needs=TEXT, flow=True)


FAMILIES: dict[str, Callable[[Any], Family]] = {
    "UNet2DModel": unet,
    "UNet2DConditionModel": unet_condition,
    "DiTTransformer2DModel": dit,
    "PixArtTransformer2DModel": pixart,
    "SD3Transformer2DModel": sd3,
    "FluxTransformer2DModel": flux,
    "AuraFlowTransformer2DModel": auraflow,
    "WanTransformer3DModel": wan,
}


def family_of(net: Any) -> tuple[str, Family] | None:
    """The name of a network's class among FAMILIES and how it is called; None: it is of none.

    Raises:
        InputError: its configuration asks for what its family does not do.
    """
    whole = getattr(net, "_orig_mod", net)  # of torch.compile
    names = (kind.__name__ for kind in type(whole).__mro__)
    name = next((name for name in names if name in FAMILIES), None)
    return None if name is None else (name, FAMILIES[name](whole))


def _channels(net: Any) -> int:
    """Of a sample: the input's, which the output has too, or twice with a learned variance."""
    taken, given = int(net.config.in_channels), net.config.out_channels
    if given not in (None, taken, 2 * taken):
        problem = f"is a network that takes {taken} channels and returns {given}"
        raise InputError("model", f"{problem}: it is told a picture beside the sample", WRAP)
    return taken


def _doubled(net: Any) -> bool:
    """Whether it returns a learned variance too."""
    return bool(net.config.out_channels == 2 * net.config.in_channels)


def _size(net: Any) -> tuple[int, ...] | None:
    size = net.config.sample_size
    if size is None or isinstance(size, int):
        return None if size is None else (size, size)
    return tuple(size)


def _patches(net: Any) -> tuple[int, int]:
    return (int(net.config.patch_size),) * 2
