"""Checkpoints of about 12 bits a weight, for runs that travel from machine to machine in pieces.

An exact checkpoint holds four float32 numbers a weight: itself, its average and AdamW's two
moments. Here a weight takes 8 bits, its distance from the average 4, both with a scale for every
GROUP. Of the squared gradients the means of rows and columns are kept, as Adafactor keeps them. The
first moment starts at zero, which costs the ten steps that it had still to make. Vectors (biases,
norms) are few and stay exact.

At AdamW's rate of 2e-4 the error of a weight is about as large as one step of training moves it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["compacted", "expanded"]

GROUP = 128  # neighbouring weights with one scale
LEVELS, GAP_LEVELS = 127, 7  # largest codes of 8 and of 4 bits

State = dict[str, Any]


def compacted(state: State) -> State:
    """A trainer's state in which large tensors are coded; the rest as it was.

    Args:
        state: "net" and "average", tensors by name; "optimizer", AdamW's state_dict.
    """
    net, average = dict(state["net"]), dict(state["average"])
    packed: State = {}
    for name in [name for name, value in net.items() if _large(value)]:
        weight = net.pop(name)
        codes, scales = _coded(weight, LEVELS)
        gap = average.pop(name) - _decoded(codes, scales, weight.shape)
        gaps, gap_scales = _coded(gap, GAP_LEVELS)
        packed[name] = {
            "shape": list(weight.shape),
            "codes": codes,
            "scales": scales,
            "gaps": _nibbles(gaps),
            "gap_scales": gap_scales,
        }
    moments = {key: _moments(kept) for key, kept in state["optimizer"]["state"].items()}
    optimizer = {**state["optimizer"], "state": moments}
    return {**state, "net": net, "average": average, "packed": packed, "optimizer": optimizer}


def expanded(state: State) -> State:
    """What `compacted` coded, as float32; a state that it did not make is returned as it is.

    Raises:
        ValueError: codes and shapes that do not fit together.
    """
    if "packed" not in state:
        return state
    net, average = dict(state["net"]), dict(state["average"])
    for name, part in state["packed"].items():
        net[name] = _decoded(part["codes"], part["scales"], part["shape"])
        gaps = _halves(part["gaps"], part["codes"].numel())
        average[name] = net[name] + _decoded(gaps, part["gap_scales"], part["shape"])
    moments = {key: _both_moments(kept) for key, kept in state["optimizer"]["state"].items()}
    optimizer = {**state["optimizer"], "state": moments}
    rest = {name: value for name, value in state.items() if name != "packed"}
    return {**rest, "net": net, "average": average, "optimizer": optimizer}


def _large(value: Tensor) -> bool:
    return value.is_floating_point() and value.dim() > 1 and value.numel() > GROUP


def _coded(values: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Codes (n,) int8 in [-levels, levels], and a bfloat16 scale for each GROUP of them."""
    groups = _grouped(values)
    # Of bfloat16, whose exponents reach as far as float32's; codes are made with the rounded scale.
    scales = (groups.abs().amax(1) / levels).bfloat16()
    steps = scales.float()[:, None]
    codes = torch.where(steps > 0, groups / steps, 0.0).round().clamp(-levels, levels)
    return codes.to(torch.int8).flatten()[: values.numel()], scales


def _decoded(codes: Tensor, scales: Tensor, shape: Any) -> Tensor:
    steps = _spread(scales, codes.numel())
    return _shaped(codes.float() * steps, shape)


def _moments(kept: State) -> State:
    """AdamW's state of one parameter: of a large one the means of its squares' rows and columns."""
    square = kept["exp_avg_sq"]
    if not _large(square):
        return kept
    matrix = square.flatten(1).float()
    means = {"rows": matrix.mean(1), "columns": matrix.mean(0), "shape": list(square.shape)}
    return {"step": kept["step"], **means}


def _both_moments(kept: State) -> State:
    if "rows" not in kept:
        return kept
    rows, columns = kept["rows"], kept["columns"]
    # Of that matrix both means are the kept ones (Shazeer & Stern 2018, arXiv 1804.04235, Sec. 3).
    square = _shaped(torch.outer(rows, columns / columns.mean().clamp(min=1e-38)), kept["shape"])
    return {"step": kept["step"], "exp_avg": torch.zeros_like(square), "exp_avg_sq": square}


def _grouped(values: Tensor) -> Tensor:
    """(groups, GROUP) float32, the last one filled up with zeros."""
    flat = values.detach().float().contiguous().flatten()
    return F.pad(flat, (0, -len(flat) % GROUP)).reshape(-1, GROUP)


def _spread(scales: Tensor, count: int) -> Tensor:
    """A number for each of `count` values from one for each group."""
    if len(scales) != -(-count // GROUP):
        raise ValueError(f"{len(scales)} groups of {count} values")
    return scales.float().repeat_interleave(GROUP)[:count]


def _shaped(values: Tensor, shape: Any) -> Tensor:
    made = values.reshape(shape)  # refuses another number of values
    # As the trainer holds kernels: an optimizer is slow with moments of another order.
    return made.contiguous(memory_format=torch.channels_last) if made.dim() == 4 else made


def _nibbles(codes: Tensor) -> Tensor:
    """Two codes of 4 bits in a byte: (n,) int8 in [-7, 7] -> (ceil(n / 2),) uint8."""
    raised = F.pad((codes + 8).to(torch.uint8), (0, len(codes) % 2))
    return raised[::2] * 16 + raised[1::2]


def _halves(bytes_: Tensor, count: int) -> Tensor:
    """What `_nibbles` made of `count` codes."""
    both = torch.stack([bytes_ // 16, bytes_ % 16], 1).flatten()[:count]
    return both.to(torch.int8) - 8
