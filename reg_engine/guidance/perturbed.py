"""References that are the guided network itself with some of its layers made worse: PAG, SEG, SLG.

They take a network's layers by name, as `named_modules()` has them ("mid_block.attentions.0"; the
end of a name that only one layer has will do), or by number: the i-th block of its longest
nn.ModuleList. The network runs once more with the same conditioning; cond stays what it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import EstimatorError, InputError
from ..networks.conditioning import Cond
from ..networks.denoisers import Denoiser
from ..networks.point import Point
from ..networks.sharing import as_it_was, forward_of, rerouted
from ..networks.swapped_attention import Swapped
from ..ops.formulas import widest
from ..values import as_float, as_int, as_tuple, shown, store
from .references import GuidedNetwork

__all__ = ["PAG", "SEG", "SLG", "layers_of"]

Layer = str | int
Swap = Callable[..., Tensor]


@dataclass(frozen=True)
class _Perturbed(GuidedNetwork):
    """The guided network with other forwards in some layers."""

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        remedy = "Name layers of the network, or give numbers of its blocks, at least one"
        single = isinstance(self.layers, str | int)
        layers = (self.layers,) if single else as_tuple("layers", self.layers, remedy)
        if not layers:
            raise InputError("layers", "are none", remedy)
        kept = (one if isinstance(one, str) else as_int("layers", one, 0, remedy) for one in layers)
        store(self, layers=tuple(kept))

    def conditioning(
        self, denoiser: Denoiser, cond: Cond, count: int, device: torch.device
    ) -> Cond:
        layers_of(denoiser, self.layers)
        return cond

    def null(self, point: Point) -> Cond | None:
        return None

    def denoised(self, point: Point, cond: Tensor) -> Tensor:
        met: set[str] = set()
        # compiled or checkpointed blocks run as they are: they would not see what is rerouted
        with as_it_was():
            layers = layers_of(point.denoiser, self.layers)
            forwards: dict[nn.Module, Callable[..., Any]] = {
                layer: partial(self._forward, forward_of(layer), name, met)
                for name, layer in layers.items()
            }
            with rerouted(forwards):
                found = point.evaluate(point.denoiser, point.x, point.reference_cond())
        if lacks := sorted(layers.keys() - met):
            raise EstimatorError(
                f"{type(self).__name__} found nothing to change in {shown(lacks)}: the layer was "
                f"not called, or {self._looked_for}"
            )
        return found

    _looked_for = "is compiled as a whole"

    def _forward(
        self, forward: Callable[..., Any], name: str, met: set[str], *args: Any, **kwargs: Any
    ) -> Any:
        raise NotImplementedError


class _Attended(_Perturbed):
    """Layers whose self-attention is another, where it can be seen (networks/swapped_attention)."""

    _looked_for = "it computes attention by itself, not by a call of torch.nn.functional"

    def _forward(
        self, forward: Callable[..., Any], name: str, met: set[str], *args: Any, **kwargs: Any
    ) -> Any:
        def swap(
            func: Swap, query: Tensor, key: Tensor, value: Tensor, *more: Any, **options: Any
        ) -> Tensor:
            def attend(query: Tensor) -> Tensor:
                return func(query, key, value, *more, **options)

            if query.shape[-2] != key.shape[-2]:  # to other tokens: it stays
                return attend(query)
            met.add(name)
            return self._attention(query, value, attend)

        with Swapped(swap):
            return forward(*args, **kwargs)

    def _attention(self, query: Tensor, value: Tensor, attend: Swap) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class PAG(_Attended):
    """Perturbed-attention guidance (Ahn et al., arXiv 2403.17377): each token attends to itself
    alone in the layers' self-attention.

    The paper's scale s is 1 + s here: guided = cond + s (cond - perturbed).

    Args:
        layers: whose self-attention is changed; the paper takes the middle block of U-Nets. A layer
            that holds cross-attention of as many tokens changes that, too: name the self-attention.

    Raises:
        InputError: no layer of that name or number.
        EstimatorError: a layer's attention is out of sight.
    """

    layers: tuple[Layer, ...]

    def _attention(self, query: Tensor, value: Tensor, attend: Swap) -> Tensor:
        heads = query.shape[-3] // value.shape[-3]
        return value if heads == 1 else value.repeat_interleave(heads, -3)  # grouped queries


@dataclass(frozen=True)
class SEG(_Attended):
    """Smoothed energy guidance (Hong, arXiv 2408.00760): the queries of the layers' self-attention
    are blurred over the image.

    As for PAG, the paper's scale s is 1 + s here.

    Args:
        layers: whose self-attention is changed.
        sigma: of the Gaussian, in tokens, > 0; inf, as published, takes the mean of all.
        grid: rows and columns of the image's tokens, which come first; None = the largest square.

    Raises:
        InputError: no layer of that name or number; a grid of more tokens than there are.
        EstimatorError: a layer's attention is out of sight.
    """

    layers: tuple[Layer, ...]
    sigma: float = math.inf
    grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        remedy = "Give a positive number of tokens, inf = the mean of all"
        store(self, sigma=as_float("sigma", self.sigma, remedy, lambda v: v > 0))
        if self.grid is not None:
            remedy = "Give rows and columns, such as (32, 48)"
            sizes = as_tuple("grid", self.grid, remedy)
            if len(sizes) != 2:
                raise InputError("grid", f"is {shown(self.grid)}", remedy)
            store(self, grid=tuple(as_int("grid", size, 1, remedy) for size in sizes))

    def _attention(self, query: Tensor, value: Tensor, attend: Swap) -> Tensor:
        return attend(self.blurred(query))

    def blurred(self, query: Tensor) -> Tensor:
        """(..., tokens, width), the image's tokens blurred, in the dtype of `query`."""
        tokens = query.shape[-2]
        rows, columns = self.grid or (math.isqrt(tokens),) * 2
        count = rows * columns
        if count > tokens:
            problem = f"is {self.grid} where a layer has {tokens} tokens"
            raise InputError("grid", problem, "Give that of the layers, or None")
        image, rest = query[..., :count, :], query[..., count:, :]
        if self.sigma == math.inf:
            image = image.mean(-2, keepdim=True).expand_as(image)
        else:
            image = image.unflatten(-2, (rows, columns))
            down, across = (_blur(size, self.sigma, query) for size in (rows, columns))
            image = torch.einsum("ij,...jkd->...ikd", down, image)
            image = torch.einsum("ij,...kjd->...kid", across, image).flatten(-3, -2)
        return torch.cat([image, rest], -2)


@dataclass(frozen=True)
class SLG(_Perturbed):
    """Skip-layer guidance (Stable Diffusion 3.5; the same as Hyung et al., arXiv 2411.18664): the
    layers hand on what they were given.

    What a skipped layer returns is replaced by those of its inputs that have the same shape. Scale
    s of diffusers is 1 + s here.

    Args:
        layers: to skip; 7, 8, 9 in Stable Diffusion 3.5 medium.

    Raises:
        InputError: no layer of that name or number, or one whose input and output differ in shape.
    """

    layers: tuple[Layer, ...]

    def _forward(
        self, forward: Callable[..., Any], name: str, met: set[str], *args: Any, **kwargs: Any
    ) -> Any:
        met.add(name)
        given = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)]

        def passed(made: Any) -> Any:
            if not isinstance(made, Tensor):
                return made
            same = [v for v in given if v.shape == made.shape]
            if not same or (several and len(same) > 1):
                problem = f"{name!r} cannot be skipped: it makes {tuple(made.shape)} of "
                shapes = f"{[tuple(v.shape) for v in given]}"
                raise InputError("layers", problem + shapes, "Skip layers that keep the shape")
            return same[0]

        made = forward(*args, **kwargs)  # run for the shapes and the order of what it returns
        several = isinstance(made, tuple) and sum(isinstance(v, Tensor) for v in made) > 1
        return tuple(map(passed, made)) if isinstance(made, tuple) else passed(made)


def layers_of(denoiser: Denoiser, layers: tuple[Layer, ...]) -> dict[str, nn.Module]:
    """The network's layers of these names and numbers, by the name that was given.

    Raises:
        InputError: there is none, or more than one.
    """
    named = {name: m for root in denoiser.modules for name, m in root.named_modules() if name}
    lists = [m for m in named.values() if isinstance(m, nn.ModuleList)]
    blocks = max(lists, key=len, default=nn.ModuleList())
    found = {}
    for layer in layers:
        if isinstance(layer, int):
            if layer >= len(blocks):
                problem = f"hold {layer}, and the network has {len(blocks)} blocks"
                raise InputError("layers", problem, "Give the names of layers")
            found[str(layer)] = blocks[layer]
            continue
        ends = [name for name in named if name.endswith(f".{layer}")]
        fit = [layer] if layer in named else ends
        if len(fit) != 1:
            problem = (
                f"hold {layer!r}, which {len(fit) or 'none'} of the network's layers is called"
            )
            some = ", ".join(fit[:4] or list(named)[:8])
            raise InputError("layers", problem, f"Give one of its names, such as {some}")
        found[layer] = named[fit[0]]
    return found


def _blur(size: int, sigma: float, like: Tensor) -> Tensor:
    """(size, size): a Gaussian over positions, reflected at the ends."""
    reach = min(math.ceil(6 * sigma) // 2, size // 2)
    offsets = torch.arange(-reach, reach + 1, device=like.device)
    places = torch.arange(size, device=like.device)[:, None] + offsets
    last = size - 1
    places = last - (last - places.abs()).abs()
    weights = torch.softmax(-0.5 * (offsets.to(widest(like.device)) / sigma).square(), 0)
    hit = F.one_hot(places, size).to(weights.dtype)
    return torch.einsum("ios,o->is", hit, weights).to(like.dtype)
