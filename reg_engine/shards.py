"""Finished batches on disk, so that a long run that was stopped goes on where it was.

`OUT.parts/` holds one .npz a batch and the settings that made them. A run with the same settings
takes what is there; a run with others refuses to mix. The folder goes when the whole result is
written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import InputError

__all__ = ["Shards", "check_writable", "write_whole"]


def check_writable(path: Path, argument: str = "out") -> Path:
    """Return `path` if a file can be written there (its folder is made), before any work is done.

    Raises:
        InputError: the path is a folder, or its folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f".{path.name}.probe")
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise InputError(
            argument, f"{path} cannot be written ({error.strerror})", "Give another path"
        ) from error
    if path.is_dir():
        raise InputError(argument, f"{path} is a folder", "Give a file name")
    return path


class Shards:
    """The finished batches of one run.

    Args:
        folder: where they are kept.
        settings: everything the samples depend on, as JSON-able values.

    Raises:
        InputError: the folder holds batches made with other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        text = json.dumps(settings, sort_keys=True, default=str)
        self._key = hashlib.sha256(text.encode()).hexdigest()
        self._note = folder / "settings.json"
        self._settings = json.loads(text)
        if self._note.exists() and _read_key(self._note) != self._key:
            raise InputError(
                "out",
                f"{folder} holds unfinished work made with other settings",
                "Finish it with the same command, delete that folder, or give another --out",
            )

    def load(self, name: str) -> tuple[Tensor, dict[str, Any]] | None:
        """(samples, note) stored under `name`, or None; a damaged file counts as missing."""
        path = self.folder / f"{name}.npz"
        try:
            with np.load(path, allow_pickle=False) as data:
                return torch.from_numpy(data["samples"]), json.loads(bytes(data["note"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError):
            path.unlink(missing_ok=True)
            return None

    def store(self, name: str, samples: Tensor, note: Mapping[str, Any]) -> None:
        """Write one batch and a JSON-able note, whole or not at all."""
        if not self._note.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            content = {"key": self._key, "settings": self._settings}
            write_whole(self._note, json.dumps(content, indent=1).encode())
        part = self.folder / f"{name}.npz.part"
        text = np.frombuffer(json.dumps(note).encode(), dtype=np.uint8)
        with part.open("wb") as file:
            np.savez(file, samples=samples.detach().cpu().numpy(), note=text)
        os.replace(part, self.folder / f"{name}.npz")

    def remove(self) -> None:
        """Delete the folder: the run is finished."""
        if self.folder.exists():
            shutil.rmtree(self.folder)


def _read_key(note: Path) -> str | None:
    try:
        return str(json.loads(note.read_text(encoding="utf-8"))["key"])
    except (ValueError, KeyError, TypeError):
        return None


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, or leave the old one as it was: never a half."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)
