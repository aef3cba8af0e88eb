"""Finished batches on disk, so that a long run that was stopped goes on where it was.

`OUT.parts/` holds one .npz a batch and the settings that made them. A run with the same settings
takes what is there; a run with others refuses to mix. What the run kept goes when the whole result
is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .digest import digest
from .files import check_writable, clear, replacing, write_whole
from .readers import open_regular, read_npz, refusing

__all__ = ["Shards"]


class Shards:
    """The finished batches of one run.

    Args:
        folder: where they are kept.
        settings: everything the samples depend on; their digest counts, a JSON of them is kept for
            people.

    Raises:
        InputError: the folder holds batches made with other settings, is a link, or cannot be
            written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self._key = digest(dict(settings))
        self._note = folder / "settings.json"
        # For people: the key above has every value exactly, this may shorten a tensor.
        self._settings = json.loads(json.dumps(settings, sort_keys=True, default=str))
        self._names = {self._note.name}
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise InputError(
                "out",
                f"{folder}, where finished batches are kept, is a link or no folder",
                "Remove it, or give another --out",
            )
        if folder.is_dir():
            check_writable(self._note)
        if self._note.exists() and _read_key(self._note) != self._key:
            raise self.mixed()

    def mixed(self) -> InputError:
        """The error that says that what is kept was made in another way."""
        return InputError(
            "out",
            f"{self.folder} holds unfinished work made with other settings",
            "Finish it with the same command, delete that folder, or give another --out",
        )

    @property
    def started(self) -> bool:
        """Whether something is kept."""
        return self._note.exists()

    def load(
        self, name: str, shape: tuple[int, ...] | None = None
    ) -> tuple[Tensor, dict[str, Any]] | None:
        """(samples, note) stored under `name`, or None.

        A file that is damaged, holds NaN, or has another than the expected shape counts as missing.
        """
        path = self._path(name)
        try:
            kept = read_npz(path, ("samples", "note"), "It is made again")
            with refusing("out", f"{path} is damaged", "It is made again"):
                note = json.loads(kept["note"].tobytes())
                samples = torch.from_numpy(kept["samples"])
        except InputError:
            return None
        fits = samples.is_floating_point() and shape in (None, tuple(samples.shape))
        if not (fits and bool(samples.isfinite().all()) and isinstance(note, dict)):
            return None
        return samples, note

    def store(self, name: str, samples: Tensor, note: Mapping[str, Any]) -> None:
        """Write one batch and a JSON-able note, whole or not at all.

        Raises:
            InputError: the folder cannot be written.
        """
        if not self._note.exists():
            check_writable(self._note)  # makes the folder
            content = {"key": self._key, "settings": self._settings}
            write_whole(self._note, json.dumps(content, indent=1).encode())
        text = np.frombuffer(json.dumps(note).encode(), dtype=np.uint8)
        with replacing(self._path(name)) as file:
            np.savez(file, samples=samples.detach().cpu().numpy(), note=text)

    def remove(self) -> None:
        """Delete what this run kept, and the folder unless something else lies in it."""
        clear(self.folder, self._names)

    def _path(self, name: str) -> Path:
        self._names.add(f"{name}.npz")
        return self.folder / f"{name}.npz"


def _read_key(note: Path) -> str | None:
    """The key, which stands first: what follows it may be long."""
    try:
        with open_regular(note) as file:
            start = file.read(200).decode("utf-8", errors="replace")
    except OSError:
        return None
    match = re.match(r'\{\s*"key": "([0-9a-f]{64})"', start)
    return match[1] if match else None
