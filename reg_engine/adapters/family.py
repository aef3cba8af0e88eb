"""What must be known of a network of diffusers to ask it, as a value; and such a network, asked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..networks.conditioning import Cond, each
from ..values import as_tuple

__all__ = ["Asked", "Family"]


@dataclass(frozen=True)
class Family:
    """How one network is called: `net(x, timestep=t, **keywords, return_dict=False)[0]`.

    Args:
        channels: of a sample; of what the network returns, the first so many count.
        size: of a sample behind the channels, where the caller gives none; None: the network does
            not say.
        patch: the sizes that `size` is a multiple of, one an axis; () = any.
        needs, takes: keywords of the network that cond must have, or may have besides.
        added: those of them that travel in `added_cond_kwargs`.
        num_classes, null_cond: of a network that is told labels, and the label of none.
        flow: whether it predicts eps - x_0 on a Flow schedule.
        unit: what diffusers' timesteps (0 to 1000) are divided by before the network is told.
        learned_variance: whether it returns as many more, see Denoiser.
        from_one: its pipelines give their scheduler times of their own, from 1 to 1 / steps.
    """

    channels: int
    size: tuple[int, ...] | None = None
    patch: tuple[int, ...] = ()
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    num_classes: int | None = None
    null_cond: int | None = None
    flow: bool = False
    unit: float = 1.0
    from_one: bool = False
    learned_variance: bool = False

    def call(self, net: Any, x: Tensor, t: Tensor, words: dict[str, Any]) -> Tensor:
        """The network's answer for x (B, channels, *size), t (B,) and its keywords, in x's form,
        the learned variance behind it."""
        output: Tensor = net(x, timestep=t, return_dict=False, **words)[0]
        return output[:, : self.channels * (1 + self.learned_variance)]

    def shape(self, name: str, sample_shape: Any) -> tuple[int, ...]:
        """The shape of a sample, (channels, *size).

        Raises:
            InputError: it is not known, or does not fit the network `name`.
        """
        if sample_shape is None:
            if self.size is None:
                problem = f"the {name} does not say how large its samples are"
                raise InputError("sample_shape", problem, f"Give ({self.channels}, height, width)")
            return (self.channels, *self.size)
        axes = len(self.size or self.patch or (0, 0))
        remedy = f"Give ({self.channels}, *size) with {axes} sizes"
        if self.patch:
            remedy += f", multiples of {self.patch}"
        shape = as_tuple("sample_shape", sample_shape, remedy)
        fits = len(shape) == 1 + axes and shape[0] == self.channels
        patch = self.patch or (1,) * axes
        if not fits or any(n % p for n, p in zip(shape[1:], patch, strict=True)):
            raise InputError("sample_shape", f"is {shape} for the {name}", remedy)
        return shape

    def tokens(self, shape: tuple[int, ...]) -> int:
        """How many patches a sample has: what dynamic shifting of times depends on."""
        return math.prod(shape[1:]) // math.prod(self.patch)

    def words(self, name: str, cond: Cond, dtype: torch.dtype) -> dict[str, Any]:
        """A sample's conditioning as keywords of the network, in the dtype it computes in.

        Raises:
            InputError: keywords are missing or unknown, or a tensor where several are needed.
        """
        told = self._by_name(name, cond)
        if missing := [key for key in self.needs if told.get(key) is None]:
            raise InputError("cond", f"lacks {_list(missing)} for the {name}", self._remedy())
        if unknown := [key for key in told if key not in (*self.needs, *self.takes)]:
            raise InputError("cond", f"has {_list(unknown)} for the {name}", self._remedy())
        told = each(lambda v: v.to(dtype) if v.is_floating_point() else v, told)
        added = {key: told.pop(key) for key in self.added if key in told}
        return {**told, "added_cond_kwargs": added} if added else told

    def _by_name(self, name: str, cond: Cond) -> dict[str, Any]:
        if cond is None:
            return {}
        if isinstance(cond, Mapping):
            return dict(cond)
        if len(self.needs) != 1:
            raise InputError("cond", f"is a tensor for the {name}", self._remedy())
        return {self.needs[0]: cond}

    def _remedy(self) -> str:
        if not self.needs:
            return "Give None: the network is told nothing"
        if self.num_classes is not None:
            return "Give labels, one a sample"
        takes = f"; it takes {_list(self.takes)} besides" if self.takes else ""
        return f"Give a dict of tensors with a row a sample: {_list(self.needs)}{takes}"


def _list(names: Any) -> str:
    return ", ".join(map(repr, names))


@dataclass(frozen=True, eq=False)
class Asked:
    """A network of a family as `net(x, t, cond)`, t in a schedule's own time.

    Args:
        unit: what the network is told at t = 1.
    """

    net: Any
    name: str
    family: Family
    unit: float

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        words = self.family.words(self.name, cond, x.dtype)
        return self.family.call(self.net, x, self.unit * t, words)
