"""Conditionings: a label tensor, or a tree (dicts and tuples) of the network's own values.

Every tensor has one row a sample. None, numbers, bools and texts in a tree are the same for all
samples and reach the network as they are; tensors without rows go into `Denoiser(extra=...)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..values import shown

__all__ = [
    "Cond",
    "as_cond",
    "concat",
    "each",
    "expand",
    "integral",
    "plain",
    "signature",
    "size",
    "take",
    "write",
]

Cond: TypeAlias = "Tensor | Mapping[str, Cond] | tuple[Cond, ...] | str | float | None"
Tree = TypeVar("Tree")  # a Cond, or a tuple of such


def as_cond(
    cond: object,
    count: int | None,
    num_classes: int | None,
    null_cond: object,
    device: torch.device,
    argument: str = "cond",
) -> Cond:
    """Check a user's conditioning and return it with `count` rows on `device`.

    Args:
        cond: int, sequence of ints, integer Tensor (N,) or (N, 1), float Tensor (N, ...), None
            (an unconditional network), or a dict of Tensors (N, ...), further dicts, sequences of
            tensors, and values that are the same for all samples: None, numbers, bools, texts. A
            single label or row is repeated for every sample.
        count: number of samples N; None leaves the rows as they are.
        num_classes: labels are checked to lie in [0, num_classes) (or to be `null_cond`); None
            skips.
        null_cond: the label of the reference call, allowed beside the classes.
        argument: its name, for errors.

    Raises:
        InputError: wrong type, wrong number of rows, or a label out of range.
    """
    if isinstance(cond, Mapping):
        if not cond:
            raise InputError(argument, "the dict is empty", "Give the network's own keywords")
        return _branch(argument, cond, count, device)
    if cond is None:
        if num_classes is not None:
            raise InputError(argument, "is None", "This model takes labels: give one a sample")
        return None
    value = _rows(argument, _tensor(argument, cond), count)
    if num_classes is not None:
        value = value.squeeze(1) if value.shape[1:] == (1,) else value
        value = _labels(argument, value, num_classes, null_cond)
    return value.to(device)


def _branch(name: str, value: object, count: int | None, device: torch.device) -> Cond:
    """A dict's value: a tree, a tensor, or something that is the same for all samples."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InputError(name, f"has the key {shown(key)}", "Give texts as keys")
        return {k: _branch(f"{name}[{k!r}]", v, count, device) for k, v in value.items()}
    if isinstance(value, (list, tuple)) and any(
        isinstance(v, Mapping) or getattr(v, "ndim", 0) > 0 for v in value
    ):
        return tuple(_branch(f"{name}[{i}]", v, count, device) for i, v in enumerate(value))
    return _rows(name, _tensor(name, value), count).to(device)


def _tensor(name: str, value: object) -> Tensor:
    if isinstance(value, (str, bytes)) or (
        isinstance(value, (list, tuple)) and any(isinstance(c, (str, bytes)) for c in value)
    ):
        raise InputError(
            name,
            "prompts need a text encoder, and this model has none",
            "Give class labels or the network's own tensors; of a diffusers pipeline take "
            "reg_engine.integrations.diffusers.sample(pipe, prompts)",
        )
    if isinstance(value, np.integer):  # torch reads no np.uint64, alone or in a list
        value = int(value)
    elif isinstance(value, (list, tuple)):
        value = [int(v) if isinstance(v, np.integer) else v for v in value]
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        problem = f"cannot be read as labels ({' '.join(str(error).split())})"
        raise InputError(
            name, problem, "Give an integer tensor (N,), or tensors (N, ...)"
        ) from error


def _rows(name: str, value: Tensor, count: int | None) -> Tensor:
    value = value if value.dim() else value[None]
    if value.is_meta:
        raise InputError(name, "holds no values (meta)", "Give a tensor on a device")
    if count is None:
        return value
    if value.shape[0] == 1 and count != 1:
        value = value.expand(count, *value.shape[1:])
    if value.shape[0] != count:
        raise InputError(
            name,
            f"has {value.shape[0]} rows for {count} seeds",
            "Give one row a seed, or a single one for all (tensors without rows: Denoiser(extra=))",
        )
    return value


def _labels(name: str, labels: Tensor, num_classes: int, null_cond: object) -> Tensor:
    if not integral(labels):
        raise InputError(name, f"labels have dtype {labels.dtype}", "Give integers (torch.long)")
    labels = labels.long()
    allowed = (labels >= 0) & (labels < num_classes)
    if isinstance(null_cond, int):
        allowed |= labels == null_cond
    if not bool(allowed.all()):
        bad = sorted({int(v) for v in labels[~allowed].flatten()[:5]})
        raise InputError(
            name, f"labels {bad} are out of range", f"Use labels from 0 to {num_classes - 1}"
        )
    return labels


def integral(tensor: Tensor) -> bool:
    """Whether it holds integers, as labels do."""
    kind = tensor.dtype
    return not (kind.is_floating_point or kind.is_complex or kind == torch.bool)


def each(function: Callable[..., Any], *trees: Any) -> Any:
    """A tree of `function` of the tensors of like trees; what is no tensor stays the first's."""
    first = trees[0]
    if isinstance(first, Tensor):
        return function(*trees)
    if isinstance(first, Mapping):
        return {key: each(function, *(tree[key] for tree in trees)) for key in first}
    if isinstance(first, (list, tuple)):
        members = (each(function, *members) for members in zip(*trees, strict=True))
        return list(members) if isinstance(first, list) else tuple(members)
    return first


def size(cond: Cond) -> int:
    """Number of rows: the most that a tensor has; 1 where there is none."""
    rows: list[int] = []
    each(lambda tensor: rows.append(tensor.shape[0]), cond)
    return max(rows, default=1)


def take(cond: Tree, rows: slice | Tensor) -> Tree:
    """The given rows."""
    return each(lambda tensor: tensor[rows], cond)


def plain(cond: Tree) -> Tree:
    """The same rows as ordinary tensors: those made in inference mode cannot be recorded."""
    with torch.inference_mode(False):
        return each(torch.clone, cond)


def signature(cond: Cond) -> tuple[object, ...]:
    """Names, shapes, dtypes, constants: what two must share to take each other's place."""
    if isinstance(cond, Tensor):
        return tuple(cond.shape), cond.dtype
    if isinstance(cond, Mapping):
        return "dict", *((key, signature(cond[key])) for key in sorted(cond))
    if isinstance(cond, tuple):
        return "tuple", *map(signature, cond)
    return type(cond).__name__, cond


def write(place: Cond, cond: Cond) -> None:
    """Copy `cond` into the tensors of `place`, which has the same signature."""
    each(Tensor.copy_, place, cond)


def concat(parts: list[Cond]) -> Cond:
    """Stack conditionings along the rows; they share what is no tensor."""
    return each(lambda *tensors: torch.cat(tensors), *parts)


def expand(null_cond: object, like: Cond) -> Cond:
    """The reference call's conditioning with the rows of `like`: one for all, or one a sample.

    Raises:
        InputError: the model has no null conditioning, or it does not fit that of `cond`.
    """
    if like is None:
        raise InputError(
            "cond",
            "is None, so there is nothing that guidance could point to",
            "Give scale=1, or guide with Classifier(net, labels=...)",
        )
    if null_cond is None:
        raise InputError(
            "null_cond",
            "the model has none, so it has no unconditional reference",
            "Give Denoiser or denoiser_of a null_cond, or guide with BadModel or Classifier",
        )
    return _expand("null_cond", null_cond, like)


def _expand(name: str, null: Any, like: Cond) -> Cond:
    if isinstance(like, Tensor):
        return _expand_one(name, null, like)
    if isinstance(like, Mapping):
        known = set(null) if isinstance(null, Mapping) else set()
        if known != set(like):
            raise InputError(
                name,
                f"has keys {sorted(map(str, known))}, cond has {sorted(like)}",
                "Give null_cond as a dict with the same keys",
            )
        return {k: _expand(f"{name}[{k!r}]", null[k], v) for k, v in like.items()}
    if isinstance(like, tuple):
        members = null if isinstance(null, (list, tuple)) else ()
        if len(members) != len(like):
            raise InputError(name, f"is {shown(null)}", f"Give {len(like)} tensors, as in cond")
        pairs = enumerate(zip(members, like, strict=True))
        return tuple(_expand(f"{name}[{i}]", n, v) for i, (n, v) in pairs)
    if type(null) is not type(like) or null != like:
        problem = f"is {shown(null)}, cond has {shown(like)}"
        raise InputError(name, problem, "Give the same: one batch serves both")
    return like


def _expand_one(name: str, null: Any, like: Tensor) -> Tensor:
    if isinstance(null, Mapping):
        raise InputError(
            "cond", "is a tensor where null_cond is a dict", f"Give a dict of {sorted(null)}"
        )
    whole = not like.is_floating_point()
    try:
        if isinstance(null, (int, float)):
            if isinstance(null, bool) or (whole and not float(null).is_integer()):
                raise TypeError
            return like.new_full((), null).expand_as(like)  # no copy from the host: it would wait
        value = torch.as_tensor(null)
        if value.is_floating_point() and whole:
            raise TypeError
        value = value.to(like.device, like.dtype)
        return (value[None] if value.dim() < like.dim() else value).expand_as(like)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        got = f"shape {tuple(null.shape)}" if isinstance(null, Tensor) else shown(null)
        raise InputError(
            name,
            f"{got} does not expand to cond's {tuple(like.shape)} of {like.dtype}",
            "Give a scalar, one row of cond's own shape, or one a sample",
        ) from error
