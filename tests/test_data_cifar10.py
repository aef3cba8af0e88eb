"""Loading CIFAR-10: every source gives the same arrays, and arrays that must be refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cifar_files import LABELS, arrays, batches, folder, pictures, tar, wanted_pictures

from reg_engine.data.cifar10 import find_cifar10, load_cifar10
from reg_engine.errors import InputError


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REG_ENGINE_DATA", raising=False)


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


def test_where_it_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_cifar10() is None and find_cifar10(tmp_path) is None
    path = tar(tmp_path / "cifar10_jpeg.tar.gz", pictures("jpg"))
    assert find_cifar10(tmp_path) == path
    monkeypatch.setenv("REG_ENGINE_DATA", str(tmp_path))
    assert find_cifar10() == path and load_cifar10().lossy
    monkeypatch.setenv("REG_ENGINE_DATA", str(tmp_path / "mnist.npz"))
    assert find_cifar10() is None  # other data
