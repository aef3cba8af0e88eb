"""Loading MNIST: every source, and every file that must be refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reg_engine.data.mnist import load_mnist
from reg_engine.errors import InputError


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (6, 28, 28), dtype=np.uint8),
        "y_train": np.arange(6, dtype=np.uint8),
        "x_test": rng.integers(0, 256, (4, 28, 28), dtype=np.uint8),
        "y_test": np.arange(6, 10),
    }


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REG_ENGINE_DATA", raising=False)


@pytest.mark.parametrize("source", ["file", "folder", "environment"])
def test_the_arrays_come_back(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = arrays()
    np.savez(tmp_path / "mnist.npz", **wanted)
    if source == "environment":
        monkeypatch.setenv("REG_ENGINE_DATA", str(tmp_path))
    found = load_mnist({"file": tmp_path / "mnist.npz", "folder": tmp_path}.get(source))
    np.testing.assert_array_equal(found.train_images, wanted["x_train"])
    np.testing.assert_array_equal(found.test_images, wanted["x_test"])
    assert found.train_labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert found.test_labels.tolist() == [6, 7, 8, 9]
    assert found.train_labels.dtype == found.test_labels.dtype == np.int64


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("x_train", None, "lacks x_train"),
        ("x_test", np.zeros((4, 28, 28), np.float32), "x_test .* float32"),
        ("x_test", np.zeros((4, 784), np.uint8), r"x_test .* \(4, 784\)"),
        ("x_test", np.zeros((0, 28, 28), np.uint8), "x_test .* empty"),
        ("y_test", np.zeros(3, np.int64), r"y_test .* \(3,\) for 4 images"),
        ("y_test", np.zeros(4), "y_test .* float64"),
        ("y_test", np.array([0, 1, 2, 10]), "labels 0 to 10"),
        ("y_train", np.array([0, 1, 2, 3, 4, -1]), "labels -1 to 4"),
        ("y_train", np.array([None] * 6), "no readable .npz"),  # objects would need unpickling
    ],
)
def test_wrong_contents_are_refused(key: str, value: Any, problem: str, tmp_path: Path) -> None:
    changed = {**arrays(), key: value}
    np.savez(tmp_path / "mnist.npz", **{k: v for k, v in changed.items() if v is not None})
    with pytest.raises(InputError, match=problem):
        load_mnist(tmp_path)


def test_files_that_are_no_archive(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        load_mnist(tmp_path / "mnist.npz")
    whole = tmp_path / "whole.npz"
    np.savez(whole, **arrays())
    contents = {
        "text": b"not an archive",
        "empty": b"",
        "truncated": whole.read_bytes()[:3000],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    np.save(tmp_path / "single.npy", np.zeros(3))
    for name in (*contents, "single.npy"):
        with pytest.raises(InputError, match="no readable .npz"):
            load_mnist(tmp_path / name)


def test_without_a_path_it_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.zeros((70000, 784), np.uint8)
    images[60000] = np.arange(784) % 256
    labels = np.array(["3"] * 60000 + ["7"] * 10000, dtype=object)
    monkeypatch.setattr("sklearn.datasets.fetch_openml", lambda *a, **k: (images, labels))
    found = load_mnist()
    assert found.train_images.shape == (60000, 28, 28)
    assert set(found.train_labels) == {3} and set(found.test_labels) == {7}
    assert found.test_images[0, 1, 0] == 28  # rows first, as the pixels are listed


def test_a_failing_download_and_a_missing_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fail)
    with pytest.raises(InputError, match="no route to host.*REG_ENGINE_DATA"):
        load_mnist()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match="pip install scikit-learn"):
        load_mnist()
