"""What the flow learns: straight paths from generated samples to real ones near them."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..noise import seed_dropout
from ..schedules.base import positive_int

__all__ = ["FlowTask", "interpolate", "pool"]

Net = nn.Module | Callable[[], nn.Module]


def interpolate(samples: Tensor, real: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """A point on the path from sample to real, and the velocity (arXiv 2503.10638, Eqs. 11, 12).

    The paper's time runs from 0 (sample) to 1 (real): x_t = t NN(x) + (1-t) x, velocity NN(x) - x.
    Ours is that of `schedules.Flow`, 1 minus it: the sample stands where noise is elsewhere, and
    the velocity is the "flow" prediction, eps - x_0 = sample - real.

    Args:
        samples, real: (B, ...). t: (B,) in [0, 1], 1 = the sample, 0 = the real one.

    Returns:
        (x_t, sample - real), both (B, ...).
    """
    time = t.reshape(-1, *[1] * (samples.dim() - 1))
    return time * samples + (1 - time) * real, samples - real


class FlowTask:
    """Rectified flow from samples to a random one of their nearest real samples (a training.Task).

    Each step draws, for each of its samples, one of the k neighbours and a time, and the loss is
    |net(x_t, t, label) - (sample - neighbour)|^2, averaged over values.

    Args:
        samples: (N, *sample_shape), generated. real: (M, *sample_shape).
        neighbours: (N, k) places in `real` (Neighbours.search).
        net: a network, copied with its weights, or a function that makes one with weights from
            torch's global generator. Called as net(x, t, cond) with t in [0, 1] and cond (B,)
            integers: labels, or zeros where there are none.
        labels: (N,) in [0, num_classes), or None: an unconditional flow.
        num_classes: also the null label.
        label_dropout: share of samples whose label is replaced by the null label.
        device: where the network is.

    Raises:
        InputError: shapes, labels or neighbours that do not fit together.
    """

    def __init__(
        self,
        samples: Tensor,
        real: Tensor,
        neighbours: Tensor,
        net: Net,
        *,
        labels: Tensor | None = None,
        num_classes: int | None = None,
        label_dropout: float = 0.1,
        device: str | torch.device = "cpu",
    ) -> None:
        self.samples, self.real = (part.detach().float().cpu() for part in (samples, real))
        self.neighbours, self.size = neighbours.cpu(), len(samples)
        self.device, self.net, self.label_dropout = torch.device(device), net, label_dropout
        if self.samples.shape[1:] != self.real.shape[1:] or len(neighbours) != self.size:
            raise InputError(
                "samples",
                f"are {tuple(samples.shape)} beside real {tuple(real.shape)} and "
                f"{len(neighbours)} rows of neighbours",
                "Give samples of one shape and neighbours for each",
            )
        if not 0 <= label_dropout < 1:
            raise InputError("label_dropout", f"is {label_dropout}", "Give a share in [0, 1)")
        self.labels, self.num_classes = _labels(labels, self.size, num_classes)
        self.name = f"postprocess-{self._digest()}"

    def build(self) -> nn.Module:
        """A new network."""
        return copy.deepcopy(self.net) if isinstance(self.net, nn.Module) else self.net()

    def loss(self, net: nn.Module, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Mean square error of the velocity; neighbours, times and dropped labels are random.

        So is dropout, which draws from torch's global generators: they are seeded from `generator`.
        """
        count = len(indices)
        pick = torch.randint(self.neighbours.shape[1], (count,), generator=generator)
        # One draw in each of `count` equal slices of [0, 1]: less variance, the same mean.
        t = (torch.arange(count) + torch.rand(count, generator=generator)) / count
        near = self.real[self.neighbours[indices, pick]]
        x, velocity = interpolate(self.samples[indices], near, t)
        cond = torch.zeros(count, dtype=torch.long)
        if self.labels is not None and self.num_classes is not None:
            cond = self.labels[indices].clone()
            dropped = torch.rand(count, generator=generator) < self.label_dropout
            cond[dropped] = self.num_classes
        seed_dropout(int(torch.randint(2**31, (), generator=generator)), self.device)
        output = net(*(part.to(self.device) for part in (x, t, cond)))
        return (output.float() - velocity.to(self.device)).square().mean()

    def _digest(self) -> str:
        """Of the data: a run goes on with the same samples and neighbours, or not at all."""
        digest = hashlib.sha256(repr((self.num_classes, self.label_dropout)).encode())
        for part in (self.samples, self.real, self.neighbours, self.labels):
            if part is not None:
                digest.update(repr(tuple(part.shape)).encode())
                digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]


def pool(
    sets: Sequence[Tensor],
    total: int,
    generator: torch.Generator,
    labels: Sequence[Tensor] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Equal random shares of several sets of samples: training data of one flow for all scales.

    With `total` samples in all, as many as a dedicated flow would get from one scale alone
    (arXiv 2503.10638, App. A).

    Args:
        sets: one (n_i, *sample_shape) tensor a scale.
        total: samples in all; what does not divide goes to the first sets, one each.
        generator: chooses them, without replacement.
        labels: one (n_i,) tensor a set, or None.

    Returns:
        (samples (total, *sample_shape), their labels (total,) or None).

    Raises:
        InputError: no sets, or a set that is smaller than its share.
    """
    if not sets:
        raise InputError("sets", "is empty", "Give one tensor of samples a scale")
    share, rest = divmod(positive_int("total", total), len(sets))
    chosen = []
    for number, part in enumerate(sets):
        wanted = share + (number < rest)
        if len(part) < wanted:
            raise InputError(
                "sets", f"number {number} has {len(part)} samples of {wanted}", "Sample more of it"
            )
        chosen.append(torch.randperm(len(part), generator=generator)[:wanted])
    samples = torch.cat([part[rows] for part, rows in zip(sets, chosen, strict=True)])
    if labels is None:
        return samples, None
    return samples, torch.cat([part[rows] for part, rows in zip(labels, chosen, strict=True)])


def _labels(
    labels: Tensor | None, count: int, num_classes: int | None
) -> tuple[Tensor | None, int | None]:
    if labels is None:
        if num_classes is not None:
            raise InputError("labels", "are missing", f"Give labels in [0, {num_classes})")
        return None, None
    own = labels.detach().cpu()
    if own.shape != (count,) or own.is_floating_point():
        raise InputError(
            "labels",
            f"are {own.dtype} {tuple(own.shape)} for {count} samples",
            "Give one integer for each",
        )
    classes = int(own.max()) + 1 if num_classes is None else positive_int("classes", num_classes)
    if int(own.min()) < 0 or int(own.max()) >= classes:
        raise InputError("labels", f"are not all in [0, {classes})", "Give num_classes above them")
    return own.long(), classes
