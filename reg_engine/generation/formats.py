"""How images become files: bytes that depend on images, seeds and labels alone."""

from __future__ import annotations

import io
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, features

from ..errors import InputError
from .labels import Label

__all__ = ["FORMATS", "Files", "Format", "Npz", "Tar"]

Images = NDArray[np.uint8]  # (n, H, W, 1 or 3)


class Format(ABC):
    """Makes files of images.

    Args:
        quality: of jpeg and webp.

    Attributes:
        name: what it is called.
        by_shard: whether a shard is one file; else an image is.
    """

    name: ClassVar[str]
    by_shard: ClassVar[bool]

    def __init__(self, quality: int | None = None) -> None:
        self.quality = quality

    @abstractmethod
    def files(
        self, shard: str, images: Images, seeds: Sequence[int], labels: Sequence[Label]
    ) -> Iterator[tuple[str, bytes]]:
        """(path below the output folder, bytes) of each file."""

    def settings(self) -> dict[str, Any]:
        """All that the bytes depend on beside the images."""
        return {"format": self.name}

    def items(self, data: bytes) -> list[bytes]:
        """What a file holds of each of its images, in order: its bytes where it is an image."""
        return [data]


class Files(Format):
    """An image a file, in folders of a thousand seeds: 000000/000123.png, as EDM2's scripts do."""

    by_shard = False
    kind: ClassVar[str]
    library: ClassVar[str]  # Pillow's name of what compresses

    def files(
        self, shard: str, images: Images, seeds: Sequence[int], labels: Sequence[Label]
    ) -> Iterator[tuple[str, bytes]]:
        """See Format."""
        for image, seed in zip(images, seeds, strict=True):
            yield f"{seed // 1000 * 1000:06d}/{seed:06d}.{self.name}", self.encoded(image)

    def encoded(self, image: Images) -> bytes:
        """One image, (H, W, 1 or 3), as a file."""
        buffer = io.BytesIO()
        squeezed = image[..., 0] if image.shape[-1] == 1 else image
        Image.fromarray(squeezed).save(buffer, format=self.kind, **self.options())
        return buffer.getvalue()

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """What Pillow is told."""

    def settings(self) -> dict[str, Any]:
        """See Format; the libraries too: another version may compress to other bytes."""
        versions = f"Pillow {PIL.__version__}, {self.library} {features.version(self.library)}"
        return {"format": self.name, "format_options": self.options(), "encoder": versions}


class Png(Files):
    """Lossless; grey images stay grey."""

    name, kind, library = "png", "PNG", "zlib"

    def options(self) -> dict[str, Any]:
        """See Files."""
        return {"compress_level": 6}


class Webp(Files):
    """Lossless where no quality is given."""

    name, kind, library = "webp", "WEBP", "webp"

    def options(self) -> dict[str, Any]:
        """See Files."""
        lossless = self.quality is None
        return {"lossless": lossless, "quality": 75 if lossless else self.quality, "method": 4}


class Jpeg(Files):
    """Full colour resolution."""

    name, kind, library = "jpeg", "JPEG", "jpg"

    def options(self) -> dict[str, Any]:
        """See Files."""
        return {"quality": self.quality or 95, "subsampling": 0}


class Npz(Format):
    """A part a shard, of which one archive is made at the end: `arr_0` (N, H, W, 3) uint8 and,
    where labels are numbers, `arr_1` (N,) int64, as ADM's scripts read them. Grey becomes RGB."""

    name, by_shard = "npz", True

    def files(
        self, shard: str, images: Images, seeds: Sequence[int], labels: Sequence[Label]
    ) -> Iterator[tuple[str, bytes]]:
        """See Format."""
        colour = np.broadcast_to(images, (*images.shape[:3], 3))
        arrays: dict[str, NDArray[Any]] = {"arr_0": colour}
        if all(isinstance(label, int) for label in labels):
            arrays["arr_1"] = np.array(labels, dtype=np.int64)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        yield f"parts/{shard}.npz", buffer.getvalue()

    def items(self, data: bytes) -> list[bytes]:
        """See Format; pixels and label."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            images = arrays["arr_0"]
            labels = arrays["arr_1"].tolist() if "arr_1" in arrays else [""] * len(images)
        return [a.tobytes() + f" {b}".encode() for a, b in zip(images, labels, strict=True)]


class Tar(Png):
    """A WebDataset shard: SEED.png beside SEED.cls, or SEED.txt for a prompt; by `webdataset`."""

    name, by_shard = "tar", True

    def __init__(self, quality: int | None = None) -> None:
        super().__init__(quality)
        try:
            from webdataset.writer import TarWriter
        except ImportError as error:
            problem = f"'tar' needs webdataset ({error})"
            raise InputError("format", problem, "Run `pip install webdataset`") from error
        self._writer: Callable[..., Any] = TarWriter

    def files(
        self, shard: str, images: Images, seeds: Sequence[int], labels: Sequence[Label]
    ) -> Iterator[tuple[str, bytes]]:
        """See Format."""
        buffer = io.BytesIO()
        fixed = {"user": "reg_engine", "group": "reg_engine", "mode": 0o644, "mtime": 0.0}
        with self._writer(buffer, encoder=False, compress=False, **fixed) as writer:
            for image, seed, label in zip(images, seeds, labels, strict=True):
                ending = "cls" if isinstance(label, int) else "txt"
                content = {"png": self.encoded(image), ending: str(label).encode()}
                writer.write({"__key__": f"{seed:09d}", **content})
        yield f"{shard}.tar", buffer.getvalue()

    def items(self, data: bytes) -> list[bytes]:
        """See Format; names and contents of an image's two members."""
        found = []
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for entry in archive:
                file = archive.extractfile(entry)
                found.append(entry.name.encode() + b" " + (file.read() if file else b""))
        return [b"".join(pair) for pair in zip(found[::2], found[1::2], strict=True)]


FORMATS: dict[str, type[Format]] = {each.name: each for each in (Png, Webp, Jpeg, Npz, Tar)}
