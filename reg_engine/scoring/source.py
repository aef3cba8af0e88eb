"""What a source of images is: 8-bit images, each by its number."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

__all__ = ["Part", "Source"]


class Part(NamedTuple):
    """Images that were read together."""

    images: Tensor  # (n, 1 or 3, H, W) uint8
    numbers: list[int]  # (n,) which images of the source they are
    unreadable: tuple[str, ...] = ()  # those that are left out: name and reason


class Source(Protocol):
    """Images by number.

    Attributes:
        name: what people call it.
        in_order: whether reading is only fast from the first to the last.
    """

    name: str
    in_order: bool

    def __len__(self) -> int:
        """How many there are, unreadable ones included."""

    def read(self, numbers: range) -> Part:
        """Those with consecutive numbers; may be called from several threads.

        Raises:
            InputError: images of several sizes; a damaged archive.
        """

    def fingerprint(self) -> str:
        """A digest that changes with the images; cheap: of files by name, size and time."""

    def close(self) -> None:
        """Let go of open files."""
