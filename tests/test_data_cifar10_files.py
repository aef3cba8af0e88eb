"""Members of archives and folders that are read, and those that must be refused."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from cifar_files import LABELS, arrays, folder, picture, pictures, tar, wanted_pictures
from tiny_runs import Bomb

from reg_engine.data.cifar10 import load_cifar10
from reg_engine.errors import InputError


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REG_ENGINE_DATA", raising=False)


def test_jpeg_files_are_lossy_and_said_to_be(tmp_path: Path) -> None:
    found = load_cifar10(tar(tmp_path / "a.tar.gz", pictures("jpg", quality=95, subsampling=0)))
    assert found.lossy
    wanted = wanted_pictures()["x_train"].astype(int)
    error = np.abs(found.train_images.astype(int) - wanted).mean()
    assert 0 < error < 5  # the same pictures, not the same bytes


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
