"""Networks, pipelines and folders of diffusers as denoisers: `denoiser_of`, and the families."""

from __future__ import annotations

from .door import denoiser_of
from .families import FAMILIES
from .family import Family
from .packed import Packed
from .vae import Decoder, decoder_of

__all__ = ["FAMILIES", "Decoder", "Family", "Packed", "decoder_of", "denoiser_of"]
