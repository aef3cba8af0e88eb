"""CIFAR-10 in miniature, in every form in which it comes."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reg_engine.data.cifar10 import CLASSES

LABELS = {"train": [9, 0, 3, 0], "test": [5, 1]}


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for part, labels in LABELS.items():
        made[f"x_{part}"] = rng.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
        made[f"y_{part}"] = np.array(labels)
    return made


def picture(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format=kind, **options)
    return buffer.getvalue()


def pictures(kind: str = "png", **options: Any) -> dict[str, bytes]:
    """name -> content, numbered in the order of the arrays within each class."""
    made = arrays()
    names = {}
    for part, labels in LABELS.items():
        for number, label in enumerate(labels):
            content = picture(
                made[f"x_{part}"][number], "PNG" if kind == "png" else "JPEG", **options
            )
            names[f"{part}/{CLASSES[label]}/{number:04d}.{kind}"] = content
    return names


def batches() -> dict[str, bytes]:
    """The official binary version: a label byte, then red, green and blue planes."""
    made, names = arrays(), {}
    for part, name in (("train", "data_batch_1.bin"), ("test", "test_batch.bin")):
        planes = made[f"x_{part}"].transpose(0, 3, 1, 2).reshape(-1, 3072)
        labels = made[f"y_{part}"].astype(np.uint8)[:, None]
        names[f"cifar-10-batches-bin/{name}"] = np.hstack([labels, planes]).tobytes()
    return names


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def folder(path: Path, members: dict[str, bytes]) -> Path:
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def wanted_pictures() -> dict[str, Any]:
    """Pictures come back class by class, whatever the order in the archive."""
    made = arrays()
    for part in LABELS:
        order = np.argsort(made[f"y_{part}"], kind="stable")
        made[f"x_{part}"], made[f"y_{part}"] = made[f"x_{part}"][order], made[f"y_{part}"][order]
    return made
