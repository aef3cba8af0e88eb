"""A pipeline's call of its network, taken apart: the state, the time, and what belongs to rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from inspect import Signature, signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten_with_path, tree_unflatten

from ...errors import InputError

__all__ = ["Call", "signature_of"]

# Arguments that have no rows, however long they are.
SHARED = (
    *("img_ids", "txt_ids", "image_rotary_emb", "freqs_cis", "rope_interpolation_scale"),
    "skip_layers",  # of SD3
)
# Networks of videos (N, C, F, H, W) that take prompts and residuals frame by frame: N F rows.
FRAME_BY_FRAME = ("UNetMotionModel",)
# Networks whose videos are (N, F, C, H, W), not (N, C, F, H, W).
FRAMES_FIRST = (
    "CogVideoXTransformer3DModel",
    "ConsisIDTransformer3DModel",
    "UNetSpatioTemporalConditionModel",
)


def signature_of(module: nn.Module) -> Signature:
    """Of the network's forward as its class wrote it, whatever wraps it now."""
    kind: Any = type(getattr(module, "_orig_mod", module))
    return signature(kind.forward)


@dataclass(frozen=True)
class Each:
    """A value of every row, where all are equal: a picture's size, say."""

    value: Any


@dataclass(frozen=True)
class Call:
    """What a network was called with.

    Args:
        x: the whole input (N, C, ...), or (N, L, C) in packed form.
        timestep: what the network is told.
        leaves, spec: the other arguments, as a tree by name.
        own: for each leaf, how many rows it has for each of x.
        channels: of the state, the first of x's.
        axis: of the channels.
    """

    x: Tensor
    timestep: Any
    leaves: tuple[Any, ...]
    spec: TreeSpec
    own: tuple[int, ...]
    channels: int
    axis: int

    @classmethod
    def of(
        cls, form: Signature, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Call:
        """The call `module(*args, **kwargs)`.

        Raises:
            InputError: the network takes no time, states that are no tensor, or a picture's tokens
                beside the state's.
        """
        given = dict(form.bind(module, *args, **kwargs).arguments)
        given.pop("self")
        for name, kind in form.parameters.items():
            if kind.kind is kind.VAR_KEYWORD:
                given |= given.pop(name, {})
        x = given.pop(next(iter(given)))
        if not isinstance(x, Tensor):
            raise InputError("pipe", "hands its network states in a list", "Wrap it as a Denoiser")
        if "timestep" not in given:
            raise InputError("pipe", "its network is told no timestep", "Wrap it as a Denoiser")
        if _pictured(given.get("img_ids"), given.get("img_shapes")):
            problem = "puts the tokens of a picture beside those of the state"
            raise InputError("pipe", problem, "Leave the picture out, or guide without REG")
        timestep = given.pop("timestep")
        told = {name: _each(name, value, len(x)) for name, value in given.items()}
        found, spec = tree_flatten_with_path(told)
        counts = {len(x): 1}
        if _kind(module) in FRAME_BY_FRAME:
            counts[len(x) * x.shape[2]] = x.shape[2]
        own = tuple(
            counts.get(len(leaf), 0)
            if isinstance(leaf, Tensor)
            and leaf.dim() > 0
            and getattr(path[0], "key", "") not in SHARED
            else 0
            for path, leaf in found
        )
        leaves, axis = tuple(leaf for _, leaf in found), _axis(module, x)
        return cls(x, timestep, leaves, spec, own, _channels(module, x.shape[axis], x.dim()), axis)

    @property
    def told(self) -> float:
        """The time as a number.

        Raises:
            InputError: it differs among the rows.
        """
        times = torch.as_tensor(self.timestep).flatten()
        if bool((times != times[0]).any()):
            raise InputError("pipe", "tells its network several times at once", "Wrap the network")
        return float(times[0])

    @property
    def rounding(self) -> float:
        """Of that time, as a part of it: halves tell it coarsely, and round it twice."""
        kind = torch.as_tensor(self.timestep).dtype
        return torch.finfo(kind).eps if kind.is_floating_point else 0.0

    @property
    def state(self) -> Tensor:
        """The part of x that is denoised."""
        return self._split(self.x)[0]

    def repeats(self, count: int) -> bool:
        """Whether the rows are the same states `count` times."""
        size, left = divmod(len(self.state), count)
        if left or not size:
            return False
        first, *others = self.state.split(size)
        return all(torch.equal(first, other) for other in others)

    def part(self, rows: slice) -> Call:
        """The call with some of its rows."""
        some = [_rows(leaf, rows, each) for leaf, each in zip(self.leaves, self.own, strict=True)]
        return replace(self, x=self.x[rows], leaves=tuple(some))

    def like(self, other: Call) -> bool:
        """Whether both say the same but for state and time."""
        if (self.spec, self.own, self.x.shape) != (other.spec, other.own, other.x.shape):
            return False
        return all(_same(a, b) for a, b in zip(self.leaves, other.leaves, strict=True))

    def beside(self, other: Call) -> Call | None:
        """Both in one call, the other's rows below; None: what has no rows differs, or lengths."""
        if (self.spec, self.own) != (other.spec, other.own):
            return None
        leaves = []
        for a, b, mine in zip(self.leaves, other.leaves, self.own, strict=True):
            if a.shape[1:] != b.shape[1:] if mine else not _same(a, b):
                return None
            leaves.append(torch.cat([a, b]) if mine else a)
        return replace(self, x=torch.cat([self.x, other.x]), leaves=tuple(leaves))

    def other(self, cond: Call, ref: Call) -> Call:
        """What goes with this call as ref went with cond: what those said alike, and the time, are
        of this one."""
        leaves = ref.leaves
        if self.spec == cond.spec == ref.spec:
            both = zip(self.leaves, cond.leaves, leaves, strict=True)
            leaves = tuple(mine if _same(a, b) else b for mine, a, b in both)
        return replace(ref, x=self.x, timestep=self.timestep, leaves=leaves)

    def told_about(self, states: Tensor, rows: Tensor) -> dict[str, Any]:
        """Keyword arguments (the states under "") for these states as if of its rows (N,)."""
        rest, count = self._split(self.x)[1], len(states)
        x = states.to(self.x.dtype)
        x = x if rest is None else torch.cat([x, rest[rows]], self.axis)
        leaves = [
            [leaf.value] * count if isinstance(leaf, Each) else _rows(leaf, rows, each)
            for leaf, each in zip(self.leaves, self.own, strict=True)
        ]
        time = self.timestep
        if isinstance(time, Tensor) and time.dim() and len(time) != 1:
            time = time[:1].expand(count, *time.shape[1:])
        return {"": x, "timestep": time, **tree_unflatten(leaves, self.spec)}

    def at(self, told: Tensor) -> Tensor:
        """Other times (N,) in the form of its own."""
        own = self.timestep
        dtype = own.dtype if isinstance(own, Tensor) and own.is_floating_point() else told.dtype
        return told.to(dtype) if isinstance(own, Tensor) and own.dim() else told[0].to(dtype)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        size, whole = self.channels, x.shape[self.axis]
        if size == whole:
            return x, None
        return x.narrow(self.axis, 0, size), x.narrow(self.axis, size, whole - size)


def _pictured(ids: Tensor | None, shapes: Any) -> bool:
    """Whether tokens have places in several pictures: Flux Kontext's, or QwenImage Edit's."""
    several = ids is not None and bool((ids[..., 0] != ids[..., :1, 0]).any())
    return several or bool(shapes and len(shapes[0]) > 1)


def _rows(leaf: Any, rows: slice | Tensor, each: int) -> Any:
    return leaf.unflatten(0, (-1, each))[rows].flatten(0, 1) if each else leaf


def _kind(module: nn.Module) -> str:
    return type(getattr(module, "_orig_mod", module)).__name__


def _axis(module: nn.Module, x: Tensor) -> int:
    if x.dim() <= 3:
        return -1  # packed
    return 2 if _kind(module) in FRAMES_FIRST else 1


def _channels(module: nn.Module, whole: int, dims: int) -> int:
    """Channels of the state: fewer than the input's where conditioning is stacked upon it."""
    config = getattr(module, "config", {})
    out = config.get("out_channels")
    if not isinstance(out, int):
        return whole
    patch = config.get("patch_size", 1) if dims <= 3 else 1  # packed: a token is a patch
    return min(whole, out * patch**2)


def _each(name: str, value: Any, rows: int) -> Any:
    if not isinstance(value, list) or len(value) != rows or name in SHARED or _tensors(value):
        return value
    if any(one != value[0] for one in value):
        problem = f"tells its network a {name} of its own for each sample"
        raise InputError("pipe", problem, "Give it samples that are alike in this, one call a kind")
    return Each(value[0])


def _tensors(value: Any) -> bool:
    return any(isinstance(leaf, Tensor) for _, leaf in tree_flatten_with_path(value)[0])


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a is b or (a.shape == b.shape and torch.equal(a, b))
    return a is b or bool(a == b)
