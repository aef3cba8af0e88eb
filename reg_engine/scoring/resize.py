"""Images brought to a feature network's size, by a filter that has a name: results differ by it.

FID moves by several units with the filter alone (Parmar et al. 2022, arXiv 2104.11222).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import InputError, choice
from ..values import as_int, store

__all__ = ["FILTERS", "Resize", "resize_of"]

_PIL = {
    "pil-bilinear": Image.Resampling.BILINEAR,
    "pil-bicubic": Image.Resampling.BICUBIC,
    "pil-lanczos": Image.Resampling.LANCZOS,
}
_TORCH = {"torch-bilinear": "bilinear", "torch-bicubic": "bicubic"}
FILTERS = (*_PIL, *_TORCH, "tf-bilinear")
LARGEST = 1 << 13


@dataclass(frozen=True)
class Resize:
    """A square size and a filter.

    Args:
        size: pixels a side, up to 8192.
        filter: `pil-bilinear`, `pil-bicubic`, `pil-lanczos`: Pillow's, antialiased, rounded to 8
            bits; `torch-bilinear`, `torch-bicubic`: torch's, antialiased, not rounded;
            `tf-bilinear`: TensorFlow 1's, not antialiased, corners not centred, not rounded, as the
            Inception network of FID resizes by itself.

    Raises:
        InputError: a size out of range, an unknown filter.
    """

    size: int
    filter: str = "pil-bicubic"

    def __post_init__(self) -> None:
        remedy = f"Give pixels, from 1 to {LARGEST}"
        store(self, size=as_int("resize", self.size, remedy=remedy))
        if self.size > LARGEST:
            raise InputError("resize", f"is {self.size}", remedy)
        choice("resize", self.filter, FILTERS)

    @property
    def by_pillow(self) -> bool:
        """Whether it works on the CPU, image by image."""
        return self.filter in _PIL

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W) uint8 at the size: uint8 of Pillow's filters, else float32 in [0, 255] up
        to the overshoot of a bicubic, which is clipped. Images that have the size stay as they are.
        """
        if images.shape[-2:] == (self.size, self.size):
            return images
        if self.by_pillow:
            return _by_pillow(images, self.size, _PIL[self.filter])
        values, size = images.float(), (self.size, self.size)
        if self.filter == "tf-bilinear":
            return _like_tensorflow(_like_tensorflow(values, self.size, 2), self.size, 3)
        mode = _TORCH[self.filter]
        return interpolate(values, size, mode=mode, antialias=True).clamp(0, 255)


def resize_of(text: str) -> Resize:
    """'SIZE' or 'SIZE:FILTER'.

    Raises:
        InputError: neither.
    """
    size, colon, name = text.partition(":")
    if not size.isdecimal() or (colon and not name):
        raise InputError("resize", f"is {text!r}", "Write 299, or 299:tf-bilinear")
    return Resize(int(size[:9]), name) if colon else Resize(int(size[:9]))


def _by_pillow(images: Tensor, size: int, kind: Image.Resampling) -> Tensor:
    done = []
    for image in images.permute(0, 2, 3, 1).cpu().numpy():
        picture = Image.fromarray(
            np.ascontiguousarray(image.squeeze(-1) if len(images[0]) == 1 else image)
        )
        done.append(np.asarray(picture.resize((size, size), kind)))
    out = torch.from_numpy(np.stack(done)).to(images.device)
    return out.unsqueeze(1) if out.ndim == 3 else out.permute(0, 3, 1, 2)


def _like_tensorflow(values: Tensor, size: int, axis: int) -> Tensor:
    """Along one axis: output pixel i lies at input position i * scale; the last pixel goes on."""
    length = values.shape[axis]
    place = torch.arange(size, dtype=torch.float32, device=values.device) * (length / size)
    low = place.long()
    share = (place - low).unsqueeze(-1) if axis == 2 else place - low
    high = (low + 1).clamp(max=length - 1)
    start = values.index_select(axis, low)
    return start + (values.index_select(axis, high) - start) * share
