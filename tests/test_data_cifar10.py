"""Loading CIFAR-10: every source gives the same arrays, and every file that must be refused."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_runs import Bomb

from reg_engine.data.cifar10 import CLASSES, find_cifar10, load_cifar10
from reg_engine.errors import InputError

LABELS = {"train": [9, 0, 3, 0], "test": [5, 1]}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REG_ENGINE_DATA", raising=False)


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


@pytest.mark.parametrize("source", ["tar", "folder", "nested tar", "shuffled tar"])
def test_pictures_come_back_by_class_and_name(source: str, tmp_path: Path) -> None:
    members = pictures()
    if source == "shuffled tar":
        members = dict(sorted(members.items(), reverse=True))
    if source == "nested tar":
        members = {f"CIFAR-10-images/{name}": content for name, content in members.items()}
    make = folder if source == "folder" else tar
    found = load_cifar10(make(tmp_path / "some.tar.gz", members))
    wanted = wanted_pictures()
    np.testing.assert_array_equal(found.train_images, wanted["x_train"])
    np.testing.assert_array_equal(found.test_images, wanted["x_test"])
    assert found.train_labels.tolist() == [0, 0, 3, 9] and found.test_labels.tolist() == [1, 5]
    assert found.train_labels.dtype == np.int64 and not found.lossy


def test_jpeg_files_are_lossy_and_said_to_be(tmp_path: Path) -> None:
    found = load_cifar10(tar(tmp_path / "a.tar.gz", pictures("jpg", quality=95, subsampling=0)))
    assert found.lossy
    wanted = wanted_pictures()["x_train"].astype(int)
    error = np.abs(found.train_images.astype(int) - wanted).mean()
    assert 0 < error < 5  # the same pictures, not the same bytes


@pytest.mark.parametrize("source", ["binary tar", "binary folder", "npz"])
def test_lossless_sources_keep_their_order(source: str, tmp_path: Path) -> None:
    wanted = arrays()
    if source == "npz":
        path = tmp_path / "cifar10.npz"
        np.savez(path, **wanted)
    elif source == "binary tar":
        path = tar(tmp_path / "cifar-10-binary.tar.gz", batches())
    else:
        path = folder(tmp_path / "data", batches()) / "cifar-10-batches-bin"
    for place in (path, path.parent):  # itself, or the folder that holds it
        found = load_cifar10(place)
        np.testing.assert_array_equal(found.train_images, wanted["x_train"])
        np.testing.assert_array_equal(found.test_images, wanted["x_test"])
        assert found.train_labels.tolist() == LABELS["train"] and not found.lossy


def test_the_cache_stands_for_its_source_alone(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar.gz", pictures("jpg"))
    cache = tmp_path / "work" / "cache.npz"
    first = load_cifar10(path, cache)
    again = load_cifar10(path, cache)
    assert again.lossy and np.array_equal(first.train_images, again.train_images)
    with np.load(cache) as kept:  # it is the cache that was read: change what it holds
        changed = {name: kept[name] for name in kept.files}
    changed["x_train"] = 255 - changed["x_train"]
    np.savez(cache, **changed)
    assert np.array_equal(load_cifar10(path, cache).train_images, 255 - first.train_images)
    tar(path, pictures("png"))
    os.utime(path, ns=(1, 1))
    assert not load_cifar10(path, cache).lossy  # another file: read anew
    cache.write_bytes(b"damaged")
    assert not load_cifar10(path, cache).lossy


def test_nothing_is_extracted_and_links_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture(arrays()["x_train"][0]))
    path = tmp_path / "sub" / "a.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as archive:
        for name, content in {**pictures(), "../escaped/train/cat/1.txt": b"out"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("train/cat/9999.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(link)
    assert len(load_cifar10(path).train_images) == len(LABELS["train"])
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.tar.gz", "secret.png", "sub"]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("train/cat/0.png", b"no picture", "no readable picture"),
        ("train/cat/0.jpg", picture(np.zeros((32, 31, 3), np.uint8)), "is 31x32"),
        ("train/cat/0.png", picture(arrays()["x_train"][0])[:200], "no readable picture"),
        ("train/unicorn/0.png", picture(arrays()["x_train"][0]), "a class 'unicorn'"),
        ("train/cat/0.png", b"\0" * (2 << 20), "larger than any 32x32 picture"),
        ("a/data_batch_7.bin", b"\0" * 3000, "3073-byte records"),
        ("a/data_batch_7.bin", b"\x0b" + b"\0" * 3072, "labels 0 to 11"),
    ],
)
def test_bad_members_are_refused(name: str, content: bytes, problem: str, tmp_path: Path) -> None:
    members = {**pictures(), name: content}
    with pytest.raises(InputError, match=problem):
        load_cifar10(tar(tmp_path / "a.tar.gz", members))


@pytest.mark.parametrize("kind", ["tar", "folder"])
def test_pickled_batches_are_refused_and_not_run(kind: str, tmp_path: Path) -> None:
    import torch

    bomb, mark = tmp_path / "bomb", tmp_path / "exploded"
    torch.save(Bomb(mark), bomb)
    members = {"cifar-10-batches-py/data_batch_1": bomb.read_bytes()}
    make = tar if kind == "tar" else folder
    path = make(tmp_path / "cifar-10-python.tar.gz", members)
    with pytest.raises(InputError, match="pickle can run code.*cifar-10-binary.tar.gz"):
        load_cifar10(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("x_train", None, "lacks x_train"),
        ("x_test", np.zeros((2, 32, 32, 3), np.float32), "x_test .* float32"),
        ("x_test", np.zeros((2, 3, 32, 32), np.uint8), r"x_test .* \(2, 3, 32, 32\)"),
        ("x_test", np.zeros((0, 32, 32, 3), np.uint8), r"x_test .* \(0, "),
        ("x_test", np.zeros((), np.uint8), r"x_test .* uint8 \(\)"),
        ("y_test", np.zeros(3, np.int64), r"y_test .* \(3,\) for 2 images"),
        ("y_test", np.zeros(2), "y_test .* float64"),
        ("y_test", np.array([0, 10]), "labels 0 to 10"),
        ("y_train", np.array([None] * 4), "no readable .npz"),  # objects would need unpickling
    ],
)
def test_wrong_arrays_are_refused(key: str, value: Any, problem: str, tmp_path: Path) -> None:
    changed = {**arrays(), key: value}
    path = tmp_path / "cifar10.npz"
    np.savez(path, **{k: v for k, v in changed.items() if v is not None})
    with pytest.raises(InputError, match=problem):
        load_cifar10(path)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.REGTYPE])
def test_an_archive_that_unpacks_to_far_more_is_refused(kind: bytes, tmp_path: Path) -> None:
    """300 MB of zeros in 300 kB, as a file and as a header, which tarfile reads whole."""
    path, zeros = tmp_path / "a.tar.gz", bytes(1 << 20)
    entry = tarfile.TarInfo("train/airplane/a.png")
    entry.type, entry.size = kind, 300 << 20
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(entry.tobuf())
        for _ in range(300):
            file.write(zeros)
    tracemalloc.start()
    with pytest.raises(InputError, match="far more than pictures do|larger than any"):
        load_cifar10(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300e6


def test_missing_and_broken_archives(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no CIFAR-10 was given.*REG_ENGINE_DATA"):
        load_cifar10()
    with pytest.raises(InputError, match="there is no"):
        load_cifar10(tmp_path / "none.tar.gz")
    with pytest.raises(InputError, match="no CIFAR-10 is in"):
        load_cifar10(tmp_path)
    whole = tar(tmp_path / "whole.tar.gz", pictures())
    damaged = bytearray(whole.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    for content in (b"", b"not an archive", whole.read_bytes()[:-800], bytes(damaged)):
        (tmp_path / "a.tar.gz").write_bytes(content)
        with pytest.raises(
            InputError, match="cannot be read|has no (train|test) images|no readable picture"
        ):
            load_cifar10(tmp_path / "a.tar.gz")
    half = {name: content for name, content in pictures().items() if name.startswith("train")}
    with pytest.raises(InputError, match="has no test images"):
        load_cifar10(tar(tmp_path / "half.tar.gz", half))


def test_where_it_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_cifar10() is None and find_cifar10(tmp_path) is None
    path = tar(tmp_path / "cifar10_jpeg.tar.gz", pictures("jpg"))
    assert find_cifar10(tmp_path) == path
    monkeypatch.setenv("REG_ENGINE_DATA", str(tmp_path))
    assert find_cifar10() == path and load_cifar10().lossy
    monkeypatch.setenv("REG_ENGINE_DATA", str(tmp_path / "mnist.npz"))
    assert find_cifar10() is None  # other data
