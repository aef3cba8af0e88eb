"""Every door through which a file comes in, with a small valid file for each."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from tiny_runs import tiny
from torch import Tensor

from reg_engine import Damping, Plan
from reg_engine.data.cifar10 import load_cifar10
from reg_engine.data.mnist import load_mnist
from reg_engine.errors import InputError
from reg_engine.models import classifier_for, load_classifier, load_model
from reg_engine.models.checkpoint import ARCHITECTURES
from reg_engine.postprocess import load_postprocess
from reg_engine.scoring import load_statistics, open_images
from reg_engine.storage.shards import Shards
from reg_engine.storage.weights import save_weights
from reg_engine.training.log import COLUMNS, LossLog
from reg_engine.training.state import load_state

NET = {"channels": [16, 16], "heads": 1, "embedding": 8, "num_labels": 3}
EDM2_NET = {
    "image_channels": 1,
    "size": 8,
    "channels": 4,
    "multipliers": [1, 2],
    "blocks": 1,
    "attention": [4],
    "head_width": 4,
    "num_labels": 3,
}
JUDGE = {"channels": [16, 16], "features": 8, "embedding": 8, "num_classes": 2}
DESCRIPTIONS: dict[str, dict[str, Any]] = {
    "model": {
        "architecture": "unet",
        "arguments": NET,
        "prediction": "edm",
        "sigma_data": 0.5,
        "schedule": {"name": "edm", "sigma_min": 0.002, "sigma_max": 80.0},
        "sample_shape": [1, 8, 8],
        "num_classes": 2,
        "null_cond": 2,
    },
    "flow": {
        "architecture": "unet",
        "arguments": NET,
        "use": "postprocess",
        "sample_shape": [1, 8, 8],
        "num_classes": 2,
        "flow": {
            "solver": "flow_heun",
            "steps": 4,
            "scale": 1.0,
            "rtol": 1e-5,
            "atol": 1e-5,
            "batch_size": None,
        },
    },
    "classifier": {"architecture": "classifier", "arguments": JUDGE, "data": "letters"},
}
DESCRIPTIONS["edm2"] = {**DESCRIPTIONS["model"], "architecture": "edm2", "arguments": EDM2_NET}


class Door(NamedTuple):
    """A file's name, how it is read, and the bytes of a valid one."""

    file: str
    read: Callable[[Path], Any]
    valid: bytes


def weights_of(kind: str) -> dict[str, Tensor]:
    """A state dict that fits DESCRIPTIONS[kind]."""
    torch.manual_seed(0)
    description = DESCRIPTIONS[kind]
    net = ARCHITECTURES[description["architecture"]](**description["arguments"])
    return net.state_dict()


def saved(kind: str, folder: Path, **changed: Any) -> bytes:
    """A weights file of that kind, some of its description changed."""
    path = folder / "made.safetensors"
    save_weights(path, weights_of(kind), {**DESCRIPTIONS[kind], **changed})
    return path.read_bytes()


def archive(**arrays: Any) -> bytes:
    """An .npz."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def array(values: Any) -> bytes:
    """An .npy."""
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def picture() -> bytes:
    """A PNG."""
    file = io.BytesIO()
    Image.new("RGB", (5, 5)).save(file, "PNG")
    return file.getvalue()


def shard(members: Mapping[str, bytes]) -> bytes:
    """A .tar."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def images(*shape: int) -> bytes:
    """An .npz of four pictures and their labels, twice."""
    pixels, labels = np.zeros((4, *shape), np.uint8), np.arange(4)
    return archive(x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)


def _batch(path: Path) -> Any:
    """A kept batch: one that cannot be used is made again."""
    kept = Shards(path.parent, {}).load("batch", (2, 3))
    assert kept is None or (kept[0].shape == (2, 3) and isinstance(kept[1], dict))
    return kept


def _settings(path: Path) -> Any:
    return Shards(path.parent, {})


def _scored(path: Path) -> Any:
    """Every image of a source; one that cannot be read is left out."""
    source = open_images(path)
    try:
        found = source.read(range(min(len(source), 4)))
        assert len(found.images) == len(found.numbers)
        return found
    finally:
        source.close()


def _log(path: Path) -> Any:
    """Of a log only the rows are lost that cannot be read."""
    rows = LossLog(path, 100, 10)._rows
    assert all(len(row) == len(COLUMNS) and 0 < row[0] <= 100 for row in rows)
    return rows


def _resumed(path: Path) -> Any:
    load_state(path)
    return tiny(path.parent)


def doors(folder: Path) -> dict[str, Door]:
    """Every door; valid files are made in `folder`."""
    plan = Plan((0.5, 2.0), ("cfg", "reg", "cond"), {"cost": 3})
    plan.save(folder / "plan.json")
    damping = Damping("tilt", (0.1, 2.0), ((0.9, 0.2),), (3.0,), (0.1,), "", {"samples": 64})
    damping.save(folder / "damping.json")
    shards = Shards(folder / "parts", {})
    shards.store("batch", torch.zeros(2, 3), {"nfe": 3.0})
    tiny(folder / "run", steps=60).run(2)
    weights = {kind: saved(kind, folder) for kind in DESCRIPTIONS}
    log = ",".join(COLUMNS) + "\n10,0.1,0.5,0.001,99.0,1.0\n"
    return {
        "plan": Door("plan.json", Plan.load, (folder / "plan.json").read_bytes()),
        "damping": Door("d.json", Damping.load, (folder / "damping.json").read_bytes()),
        "model": Door("a.safetensors", load_model, weights["model"]),
        "edm2": Door("a.safetensors", load_model, weights["edm2"]),
        "judge": Door("a.safetensors", classifier_for, weights["model"]),
        "classifier": Door("a.safetensors", load_classifier, weights["classifier"]),
        "flow": Door("a.safetensors", load_postprocess, weights["flow"]),
        "mnist": Door("mnist.npz", load_mnist, images(28, 28)),
        "cifar10": Door("cifar10.npz", load_cifar10, images(32, 32, 3)),
        "batch": Door("batch.npz", _batch, (folder / "parts" / "batch.npz").read_bytes()),
        "settings": Door(
            "settings.json", _settings, (folder / "parts" / "settings.json").read_bytes()
        ),
        "checkpoint": Door("checkpoint.pt", _resumed, (folder / "run/checkpoint.pt").read_bytes()),
        "log": Door("loss.csv", _log, log.encode()),
        "stats": Door("s.npz", load_statistics, archive(mu=np.zeros(3), sigma=np.eye(3))),
        "images": Door("a.npz", _scored, archive(arr_0=np.zeros((4, 5, 5, 3), np.uint8))),
        "array": Door("a.npy", _scored, array(np.zeros((4, 5, 5, 3), np.uint8))),
        "shard": Door("a.tar", _scored, shard({"a.png": picture(), "b.png": picture()})),
    }


def outcome(door: Door, content: bytes, folder: Path) -> str:
    """ "object" or "refused": what the door makes of a file; anything else is an error."""
    path = folder / door.file
    path.write_bytes(content)
    try:
        door.read(path)
    except InputError as error:
        text = str(error)
        assert len(text) < 1500 and "\n" not in text, text
        return "refused"
    return "object"


def with_description(content: bytes, description: str) -> bytes:
    """A safetensors file with another description, its tensors as they are."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"]["reg_engine"] = description
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]
