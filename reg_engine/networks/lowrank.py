"""A network's weights changed at low rank, by as much as the guidance scale asks for.

    W(s) = W + B diag(P phi(s)) A,   b(s) = b + C phi(s),   phi_k(s) = (ln s / ln s_max)^k, k = 1..K

LoRA (Hu et al. 2022) whose ranks are modulated by an embedding phi of the scale s. phi(1) = 0: at
scale 1 nothing is changed. W(s) depends on the scale alone and is made once a call, so that the
changed network costs what the network costs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import InputError
from .modules import modules_of

__all__ = ["POWERS", "LowRank", "Shape", "Worn", "layers_of", "wearing"]

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
POWERS = 3  # K: of ln s in phi


class Shape(NamedTuple):
    """Of a layer: its weight as a matrix, and whether it has a bias."""

    rows: int
    columns: int
    bias: bool

    def rank(self, most: int) -> int:
        """The rank of its change, where others have `most`."""
        return min(most, self.rows, self.columns)

    def numbers(self, most: int) -> int:
        """How many its change takes."""
        rank = self.rank(most)
        return rank * (self.rows + self.columns + POWERS) + POWERS * self.rows * self.bias


def layers_of(modules: Iterable[nn.Module]) -> dict[str, Any]:
    """The layers that are changed, linear ones and convolutions, by their names in the modules.

    Before the name stands the module's number, where there are several. Subclasses are left alone:
    they may use their weight otherwise. A layer with two names counts once.

    Raises:
        InputError: there is none.
    """
    roots, found = tuple(modules), {}
    for number, root in enumerate(roots):
        ahead = f"{number}." if len(roots) > 1 else ""
        for name, module in root.named_modules():
            if type(module) in KINDS and module.weight.is_floating_point():
                found[ahead + name] = module
    if not found:
        raise InputError(
            "model",
            "has no linear layer and no convolution that an adapter could change",
            "Give a Denoiser of a torch network made of nn.Linear or nn.Conv layers",
        )
    return found


class LowRank(nn.Module):
    """The changes of all layers: for each A (r, columns), B (rows, r), P (r, K) and, beside a bias,
    C (rows, K). New ones change nothing: B and C are zero.

    Args:
        shapes: of the layers, by name.
        rank: of every change, >= 1; less where the layer has less.
        most: the scale s_max > 1.
    """

    def __init__(self, shapes: Mapping[str, Shape], rank: int, most: float) -> None:
        super().__init__()
        self.shapes, self.rank, self.most = dict(shapes), rank, most
        self.parts = nn.ParameterDict()
        for name, shape in shapes.items():
            for part, tensor in _start(shape, rank).items():
                self.parts[_key(name, part)] = nn.Parameter(tensor)

    @classmethod
    def of(cls, modules: Iterable[nn.Module], share: float, most: float) -> LowRank:
        """The changes of the largest rank that take at most `share` of the modules' numbers.

        Raises:
            InputError: rank 1 takes more; there is no layer to change.
        """
        roots = tuple(modules)
        shapes = {
            name: Shape(layer.weight.shape[0], layer.weight[0].numel(), layer.bias is not None)
            for name, layer in layers_of(roots).items()
        }
        whole = sum(p.numel() for root in roots for p in root.parameters())
        most_rank = max(min(shape.rows, shape.columns) for shape in shapes.values())
        ranks = range(1, most_rank + 1)
        taken = {r: sum(shape.numbers(r) for shape in shapes.values()) / whole for r in ranks}
        fitting = [rank for rank, part in taken.items() if part <= share]
        if not fitting:
            raise InputError("share", f"is {share:g}", f"Give at least {taken[1]:.3g}: rank 1")
        return cls(shapes, fitting[-1], most)

    def phi(self, scale: float) -> Tensor:
        """(K,) powers of ln s / ln s_max, float64."""
        u = math.log(scale) / math.log(self.most)
        return torch.tensor([u**k for k in range(1, POWERS + 1)], dtype=torch.float64)

    def change(self, name: str, scale: float) -> tuple[Tensor, Tensor | None]:
        """What a layer's weight, (rows, columns), and its bias, (rows,) or None, are given."""
        a, b, p = (self.parts[_key(name, part)] for part in "ABP")
        phi = self.phi(scale).to(a)
        bias = self.parts[_key(name, "C")] @ phi if self.shapes[name].bias else None
        return (b * (p @ phi)) @ a, bias


class Worn:
    """A copy of a network that shares its tensors, whose layers wear the weights of a scale.

    Args:
        net: what a Denoiser calls. modules: those that it runs.

    Raises:
        InputError: the modules cannot be copied (a function hides them); no layer to change.
    """

    def __init__(self, net: Any, modules: Iterable[nn.Module]) -> None:
        roots = tuple(modules)
        tensors = (t for root in roots for t in (*root.parameters(), *root.buffers()))
        shared: dict[int, Any] = {id(tensor): tensor for tensor in tensors}
        self.net = copy.deepcopy(net, shared)
        self.modules = copy.deepcopy(roots, shared)
        self.layers = layers_of(self.modules)
        held = {id(module) for root in modules_of(self.net) for module in root.modules()}
        theirs = {id(layer) for layer in layers_of(roots).values()}
        if any(id(one) in theirs or id(one) not in held for one in self.layers.values()):
            raise InputError(
                "model",
                "runs its network from within a function, which cannot be copied",
                "Give Denoiser the torch module itself, or an object that holds it",
            )
        self._plain = {
            name: (layer.weight.detach(), None if layer.bias is None else layer.bias.detach())
            for name, layer in self.layers.items()
        }

    def wear(self, change: LowRank, scale: float) -> None:
        """Put the weights of a scale on; they carry the derivative by the change's numbers."""
        for name, layer in self.layers.items():
            for part, value in _changed(self._plain[name], change.change(name, scale)):
                _set(layer, part, value)


@contextmanager
def wearing(modules: Iterable[nn.Module], change: LowRank, scale: float) -> Iterator[None]:
    """While it is open, the modules' own layers hold the weights of a scale, without derivatives;
    then their own parameters again, the same objects. What else hangs on the modules (hooks,
    compiled calls, offloading) goes on as before.

    Args:
        change: of these modules' layers, on their device.
    """
    before: list[tuple[nn.Module, str, nn.Parameter | None]] = []
    try:
        for name, layer in layers_of(modules).items():
            own = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
            with torch.no_grad():
                found = _changed(own, change.change(name, scale))
            for part, value in found:
                before.append((layer, part, layer._parameters[part]))
                layer._parameters[part] = nn.Parameter(value, requires_grad=False)
        yield
    finally:
        for layer, part, own_one in before:
            layer._parameters[part] = own_one


def _changed(
    own: tuple[Tensor, Tensor | None], more: tuple[Tensor, Tensor | None]
) -> list[tuple[str, Tensor]]:
    """A layer's weight and bias with what they are given, summed in the finer precision."""
    (weight, bias), (change, shift) = own, more
    found = [("weight", _sum(weight, change.reshape(weight.shape)))]
    if bias is not None and shift is not None:
        found.append(("bias", _sum(bias, shift)))
    return found


def _sum(own: Tensor, more: Tensor) -> Tensor:
    return (own + more.to(own.device)).to(own.dtype)


def _set(layer: nn.Module, name: str, value: Tensor) -> None:
    """The weight as a tensor with a history, or as a parameter that calls move and freeze."""
    layer._parameters.pop(name, None)
    layer.__dict__.pop(name, None)
    if value.requires_grad:
        setattr(layer, name, value)
    else:
        layer.register_parameter(name, nn.Parameter(value, requires_grad=False))


def _key(name: str, part: str) -> str:
    return f"{name}/{part}".replace(".", "/")  # a ParameterDict takes no dots


def _start(shape: Shape, rank: int) -> dict[str, Tensor]:
    rank = shape.rank(rank)
    found = {
        "A": torch.randn(rank, shape.columns) / math.sqrt(shape.columns),
        "B": torch.zeros(shape.rows, rank),
        "P": torch.eye(1, POWERS).repeat(rank, 1),
    }
    return found | ({"C": torch.zeros(shape.rows, POWERS)} if shape.bias else {})
