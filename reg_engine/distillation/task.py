"""The student as a task of the trainer: a low-rank change that learns the teacher's estimates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..networks.adapter import view
from ..networks.denoisers import Denoiser, Place
from ..networks.frozen import frozen
from ..networks.lowrank import LowRank, Worn
from .pairs import Pairs, Round
from .settings import Distillation

__all__ = ["DistillationTask", "loss_of"]

NOTHING = 0.01  # of sigma_data: errors where guidance does less hardly count
UNGUIDED = 1e-6  # scale - 1, at least


class DistillationTask:
    """See Task; `round` holds the pairs that its indices count.

    Args:
        denoiser: the model, frozen.
        settings: of the distillation. teacher: its key.
    """

    name = "distill"

    def __init__(self, denoiser: Denoiser, settings: Distillation, teacher: str) -> None:
        self.denoiser, self.settings, self.teacher = denoiser, settings, teacher
        self._worn = Worn(denoiser.net, denoiser.modules)
        self._view = view(denoiser, self._worn)
        self._round: Round | None = None

    @property
    def round(self) -> Round:
        """What is learned now."""
        assert self._round is not None
        return self._round

    @round.setter
    def round(self, value: Round) -> None:
        self._round = value

    @property
    def size(self) -> int:
        """How many parts there are."""
        return len(self.round.parts)

    def build(self) -> nn.Module:
        """A change that changes nothing yet."""
        modules, settings = self.denoiser.modules, self.settings
        return LowRank.of(modules, settings.share, settings.scales[1])

    def loss(self, net: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Mean over parts, pairs and elements; nothing is drawn."""
        assert isinstance(net, LowRank)
        losses = []
        for index in indices.tolist():
            part = self.round.parts[index]
            self._worn.wear(net, part.scale)
            with frozen(self._worn.modules):  # the model's own weights learn nothing
                losses.append(loss_of(self._view, part))
        return torch.stack(losses).mean()


def loss_of(denoiser: Denoiser, part: Pairs) -> Tensor:
    """Mean of |denoised - guided|^2, weighted by noise level; see Distillation.weighting."""
    device = denoiser.device or part.x.device
    x, guided = part.x.to(device), part.guided.to(device)
    levels = {t: denoiser.schedule.noise_level(t) for t in part.t.unique().tolist()}
    places = {t: denoiser.at(t) for t in levels}
    times = part.t.tolist()

    def numbers(values: list[float]) -> Tensor:
        found = torch.tensor(values, dtype=torch.float64).to(device, x.dtype)
        return found.reshape(-1, *[1] * (x.dim() - 1))

    c_in, c_skip, c_out = (numbers([float(places[t][k]) for t in times]) for k in range(3))
    time = torch.tensor([float(places[t].time) for t in times], dtype=torch.float64).to(device)
    denoised = denoiser.evaluate(x, Place(c_in, c_skip, c_out, time), part.cond)
    level, data = numbers([levels[t] for t in times]), denoiser.sigma_data
    weight = (level**2 + data**2) / (level * data) ** 2
    if part.moved is not None:
        unit = numbers(part.moved.tolist()) / max(part.scale - 1, UNGUIDED)
        weight = 1 / (unit**2 + (NOTHING * data) ** 2)
    return (weight * (denoised - guided).square()).mean()
