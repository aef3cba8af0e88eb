"""Conditionings: a label tensor, or a dict of the network's own tensors, always with one row a
sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from .errors import InputError

__all__ = ["Cond", "as_cond", "concat", "expand", "plain", "signature", "size", "take", "write"]

Cond: TypeAlias = Tensor | dict[str, Tensor]


def as_cond(
    cond: object, count: int, num_classes: int | None, null_cond: object, device: torch.device
) -> Cond:
    """Check a user's conditioning and return it with `count` rows on `device`.

    Args:
        cond: int, sequence of ints, integer Tensor (N,), float Tensor (N, ...), or a dict of
            Tensors (N, ...). A single label or row is repeated for every sample.
        count: number of samples N.
        num_classes: labels are checked to lie in [0, num_classes) (or to be `null_cond`); None
            skips.
        null_cond: the label of the reference call, allowed beside the classes.

    Raises:
        InputError: wrong type, wrong number of rows, or a label out of range.
    """
    if isinstance(cond, Mapping):
        if not cond:
            raise InputError("cond", "the dict is empty", "Give the network's own keyword tensors")
        return {
            k: _rows(f"cond[{k!r}]", torch.as_tensor(v), count).to(device) for k, v in cond.items()
        }
    if isinstance(cond, (str, bytes)) or (
        isinstance(cond, (list, tuple)) and any(isinstance(c, str) for c in cond)
    ):
        raise InputError(
            "cond",
            "prompts need a text encoder, and this model has none",
            "Give class labels or the network's own tensors",
        )
    try:
        tensor = torch.as_tensor(cond)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            "cond", f"cannot be read as labels ({error})", "Give an integer tensor (N,)"
        ) from error
    tensor = _rows("cond", tensor, count)
    if num_classes is not None:
        _check_labels(tensor, num_classes, null_cond)
        tensor = tensor.long()
    return tensor.to(device)


def _rows(name: str, value: Tensor, count: int) -> Tensor:
    value = value if value.dim() else value[None]
    if value.shape[0] == 1 and count != 1:
        value = value.expand(count, *value.shape[1:])
    if value.shape[0] != count:
        raise InputError(
            name,
            f"has {value.shape[0]} rows for {count} seeds",
            "Give one row a seed, or a single one for all",
        )
    return value


def _check_labels(labels: Tensor, num_classes: int, null_cond: object) -> None:
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError("cond", f"labels have dtype {labels.dtype}", "Give integers (torch.long)")
    allowed = (labels >= 0) & (labels < num_classes)
    if isinstance(null_cond, int):
        allowed |= labels == null_cond
    if not bool(allowed.all()):
        bad = sorted({int(v) for v in labels[~allowed].flatten()[:5]})
        raise InputError(
            "cond", f"labels {bad} are out of range", f"Use labels from 0 to {num_classes - 1}"
        )


def size(cond: Cond) -> int:
    """Number of rows."""
    first = next(iter(cond.values())) if isinstance(cond, dict) else cond
    return int(first.shape[0])


def take(cond: Cond, rows: slice) -> Cond:
    """The given rows."""
    if isinstance(cond, dict):
        return {k: v[rows] for k, v in cond.items()}
    return cond[rows]


def plain(cond: Cond) -> Cond:
    """The same rows as ordinary tensors: those made in inference mode cannot be recorded."""
    with torch.inference_mode(False):
        if isinstance(cond, dict):
            return {k: v.clone() for k, v in cond.items()}
        return None if cond is None else cond.clone()  # None: an unconditional network's


def signature(cond: Cond) -> tuple[object, ...]:
    """Names, shapes and dtypes: what two conditionings must share to take each other's place."""
    parts = sorted(cond.items()) if isinstance(cond, dict) else [("", cond)]
    return tuple((name, tuple(value.shape), value.dtype) for name, value in parts)


def write(place: Cond, cond: Cond) -> None:
    """Copy `cond` into the tensors of `place`, which has the same signature."""
    if isinstance(place, dict):
        for name, value in place.items():
            value.copy_(cond[name])  # type: ignore[index]
    else:
        place.copy_(cond)  # type: ignore[arg-type]


def concat(parts: list[Cond]) -> Cond:
    """Stack conditionings along the rows."""
    if isinstance(parts[0], dict):
        return {k: torch.cat([p[k] for p in parts]) for k in parts[0]}  # type: ignore[index]
    return torch.cat(parts)  # type: ignore[arg-type]


def expand(null_cond: object, like: Cond) -> Cond:
    """The reference call's conditioning, repeated to the rows of `like`.

    Raises:
        InputError: the model has no null conditioning, or its shape does not fit that of `cond`.
    """
    if null_cond is None:
        raise InputError(
            "null_cond",
            "the model has none, so it has no unconditional reference",
            "Give Denoiser(null_cond=...), or guide with BadModel or Classifier",
        )
    if isinstance(like, dict):
        null = null_cond if isinstance(null_cond, Mapping) else {}
        if set(null) != set(like):
            raise InputError(
                "null_cond",
                f"has keys {sorted(null)}, cond has {sorted(like)}",
                "Give null_cond as a dict with the same keys",
            )
        return {k: _expand_one(null[k], v) for k, v in like.items()}
    return _expand_one(null_cond, like)


def _expand_one(null: object, like: Tensor) -> Tensor:
    if isinstance(null, (int, float)):
        return like.new_full((), null).expand_as(like)  # no copy from the host: it would wait
    value = torch.as_tensor(null, dtype=like.dtype, device=like.device)
    if value.dim() < like.dim():
        value = value[None]
    try:
        return value.expand_as(like)
    except RuntimeError as error:
        raise InputError(
            "null_cond",
            f"shape {tuple(value.shape)} does not expand to cond's {tuple(like.shape)}",
            "Give one row (or a scalar) of cond's own shape",
        ) from error
