"""Networks built from files of weights (storage/weights.py) that say what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..errors import InputError
from ..storage.weights import REMEDY, opened
from .classifier import NoisyClassifier
from .dit import DiT, SiT
from .edm2 import EDM2
from .unet import UNet
from .unet2d import UNet2D

__all__ = ["build", "check_use", "sketched"]

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "unet": UNet,
    "unet2d": UNet2D,
    "edm2": EDM2,
    "classifier": NoisyClassifier,
    "dit": DiT,
    "sit": SiT,
}
# What a description may ask for before it is compared with the tensors beside it.
MOST_NUMBER, MOST_LIST, MOST_BLOCKS, MOST_SIDE = 1 << 20, 16, 64, 4096
Shapes = dict[str, tuple[int, ...]]


def build(path: Path, *architectures: str) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a file, float32 and in eval mode, and the file's description.

    The network is first built without memory and compared with the tensors' names and shapes, so
    that a file takes no more than what it holds.

    Args:
        path: see read.
        architectures: those that are wanted, of ARCHITECTURES.

    Raises:
        InputError: as read; another architecture; weights that do not fit it; diffusers is missing
            where the network is made of its blocks.
    """
    with opened(path) as (file, description):
        name = description.get("architecture")
        if name not in architectures:
            known = " or ".join(repr(each) for each in architectures)
            raise InputError(
                "name_or_path", f"{str(path)!r} holds a {name!r}, not a {known}", REMEDY
            )
        names = file.keys()
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in names}
        try:
            arguments = description["arguments"]
            sketch = sketched(name, arguments, len(shapes))
        except Exception as error:  # a constructor given anything
            raise InputError(
                "name_or_path",
                f"the description in {str(path)!r} fits no {name}: {str(error)[:200]}",
                REMEDY,
            ) from error
        _compare(sketch, shapes, str(path))
        with _Sketch(memory=True):  # all of it is read
            net = ARCHITECTURES[name](**arguments)
        for key, value in net.state_dict().items():
            stored = file.get_tensor(key)
            if not stored.isfinite().all():
                raise InputError("name_or_path", f"{key} in {str(path)!r} has NaN or Inf", REMEDY)
            value.copy_(stored)  # 16-bit values become exact float32 ones
    return net.eval(), description


def sketched(architecture: str, arguments: dict[str, Any], tensors: int) -> Shapes:
    """Names and shapes of a network's state dict; it is built without memory.

    Args:
        architecture, arguments: a key of ARCHITECTURES, and what its constructor is given.
        tensors: how many there are to fill it; a constructor that asks for more blocks is refused.

    Raises:
        ValueError, TypeError, InputError: arguments that it does not take, or too large ones.
    """
    with _Sketch():
        net = ARCHITECTURES[architecture](**_bounded(arguments, tensors))
    return {key: tuple(value.shape) for key, value in net.state_dict().items()}


def check_use(net: nn.Module, shape: Any, num_classes: Any, null_cond: Any) -> None:
    """Raise ValueError unless a network takes samples and labels as its description says.

    Args:
        net: what load_model takes. shape: [C, H, W].
        num_classes, null_cond: integers within the label table, or None.
    """
    arguments: Any = net.arguments
    sides = [type(size) is int and 0 < size <= MOST_SIDE and size % 4 == 0 for size in shape[1:]]
    square = [arguments["size"]] * 2 if "size" in arguments else shape[1:]
    if shape != [arguments["image_channels"], *square] or sides != [True, True]:
        raise ValueError(f"the network takes no samples {shape}")
    labels = arguments["num_labels"]
    for name, value, most in (
        ("num_classes", num_classes, labels),
        ("null_cond", null_cond, labels - 1),
    ):
        if value is not None and not (type(value) is int and 0 <= value <= most):
            raise ValueError(f"{name} is {value!r}, the network has {labels} labels")


def _bounded(arguments: dict[str, Any], tensors: int) -> dict[str, Any]:
    """A constructor's arguments, if they are numbers and ask for no more layers than tensors."""
    for name, value in arguments.items():
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) > MOST_LIST or not all(
            type(n) in (int, float) and abs(n) <= MOST_NUMBER
            for n in numbers  # NaN is no less
        ):
            raise ValueError(f"{name} is {str(value)[:80]}")
    blocks = arguments.get("blocks", 1)
    count = sum(blocks) if isinstance(blocks, list) else blocks
    count *= len(arguments.get("multipliers", [1]))
    if count > min(MOST_BLOCKS, tensors):
        raise ValueError(f"blocks are {blocks} for {tensors} tensors")
    return arguments


class _Sketch(TorchFunctionMode):
    """Layers get weights without memory, unless asked for; and none is drawn, which takes time and,
    without memory, would import a compiler."""

    def __init__(self, memory: bool = False) -> None:
        super().__init__()
        self.memory = memory

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return kwargs["tensor"]
        makes = func in (torch.empty, torch.arange)  # the latter: tables of places, of any size
        device = {"device": "meta"} if makes and not self.memory else {}
        return func(*args, **{**kwargs, **device})


def _compare(ours: Shapes, theirs: Shapes, where: str) -> None:
    """InputError for names or shapes that differ."""
    missing, foreign = sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())
    if missing or foreign:
        text = "; ".join(
            f"{what} {', '.join(name[:80] for name in names[:3])}{' ...' * (len(names) > 3)}"
            for what, names in (("missing", missing), ("unknown", foreign))
            if names
        )
        raise InputError(
            "name_or_path", f"the weights in {where!r} do not fit the network: {text}", REMEDY
        )
    for name, shape in theirs.items():
        if shape != ours[name]:
            raise InputError(
                "name_or_path",
                f"{name} in {where!r} is {shape}, the network has {ours[name]}",
                REMEDY,
            )
