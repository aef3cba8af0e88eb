"""A network of another library's running program, asked where its states are."""

from __future__ import annotations

import torch

from ..networks.denoisers import Denoiser

__all__ = ["Running"]


class Running(Denoiser):
    """A network that offloading moves to the states when it is asked, wherever it is kept.

    Attributes:
        place: of the states.
    """

    place: torch.device

    @property
    def device(self) -> torch.device:
        return self.place
