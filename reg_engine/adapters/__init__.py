"""Networks, pipelines and folders of diffusers as denoisers: `denoiser_of`, and the families."""

from __future__ import annotations

from .door import denoiser_of
from .families import FAMILIES
from .family import Family
from .packed import Packed

__all__ = ["FAMILIES", "Family", "Packed", "denoiser_of"]
