"""Loading MNIST and Fashion-MNIST: every source, and every file that must be refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reg_engine.data.mnist import DATA_SETS, load_data_set, load_fashion, load_mnist
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


LOADERS = {"mnist": load_mnist, "fashion": load_fashion}
KINDS = pytest.mark.parametrize("kind", LOADERS)


@KINDS
@pytest.mark.parametrize("source", ["file", "folder", "environment"])
def test_the_arrays_come_back(
    kind: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, file = arrays(), tmp_path / DATA_SETS[kind].file
    np.savez(file, **wanted)
    if source == "environment":
        monkeypatch.setenv("REG_ENGINE_DATA", str(tmp_path))
    found = LOADERS[kind]({"file": file, "folder": tmp_path}.get(source))
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


def test_a_folder_that_holds_both_gives_each_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, value in (("mnist", 3), ("fashion", 200)):
        filled = {**arrays(), "x_test": np.full((4, 28, 28), value, np.uint8)}
        np.savez(tmp_path / DATA_SETS[kind].file, **filled)
    monkeypatch.setenv("REG_ENGINE_DATA", str(tmp_path))
    assert (load_mnist().test_images == 3).all() and (load_fashion().test_images == 200).all()
    assert (load_data_set("mnist").test_images == 3).all()
    assert (load_data_set("fashion", tmp_path).test_images == 200).all()


@KINDS
def test_a_file_that_is_called_as_the_other_data_set_is_refused(kind: str, tmp_path: Path) -> None:
    (other,) = (DATA_SETS[name] for name in LOADERS if name != kind)
    np.savez(tmp_path / other.file, **arrays())
    own = DATA_SETS[kind]
    with pytest.raises(InputError, match=f"is {other.title}, not {own.title}.*{own.file}"):
        LOADERS[kind](tmp_path / other.file)
    with pytest.raises(InputError, match=f"no file .*{own.file}"):  # the folder lacks its own
        LOADERS[kind](tmp_path)
    (tmp_path / other.file).rename(tmp_path / "renamed.npz")  # a name of one's own is no claim
    assert len(LOADERS[kind](tmp_path / "renamed.npz").test_images) == 4


def test_an_unknown_data_set_is_named() -> None:
    with pytest.raises(InputError, match="data_set: unknown name 'fashoin'. Did you mean 'fashion"):
        load_data_set("fashoin")


def test_every_label_has_a_name() -> None:
    assert all(len(set(data_set.classes)) == 10 for data_set in DATA_SETS.values())
    assert DATA_SETS["fashion"].classes[6] == "shirt"  # of the list in the data set's own README


@pytest.mark.parametrize(("kind", "openml"), [("mnist", "mnist_784"), ("fashion", "Fashion-MNIST")])
def test_without_a_path_it_is_downloaded(
    kind: str, openml: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.zeros((70000, 784), np.uint8)
    images[60000] = np.arange(784) % 256
    labels = np.array(["3"] * 60000 + ["7"] * 10000, dtype=object)

    def fetch(name: str, *, version: int, **_: Any) -> tuple[Any, Any]:
        assert (name, version) == (openml, 1)
        return images, labels

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)
    found = LOADERS[kind]()
    assert found.train_images.shape == (60000, 28, 28)
    assert set(found.train_labels) == {3} and set(found.test_labels) == {7}
    assert found.test_images[0, 1, 0] == 28  # rows first, as the pixels are listed


def test_a_failing_download_and_a_missing_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fail)
    with pytest.raises(InputError, match="no route to host.*REG_ENGINE_DATA"):
        load_mnist()
    with pytest.raises(InputError, match="downloading Fashion-MNIST .*your own fashion_mnist.npz"):
        load_fashion()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match="pip install scikit-learn"):
        load_mnist()
