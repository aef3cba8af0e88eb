"""Arrays on disk and in memory as sources: the same pixels, in bounded memory, or one error."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from scoring_cases import pixels

from reg_engine import InputError
from reg_engine.pictures.images import to_uint8
from reg_engine.scoring import Tensors, open_images


@pytest.mark.parametrize("kind", ["stored", "deflated", "npy"])
def test_an_array_file_gives_its_pixels(tmp_path: Path, kind: str) -> None:
    images = pixels(50)
    path = tmp_path / ("a.npy" if kind == "npy" else "a.npz")
    if kind == "npy":
        np.save(path, images)
    else:
        save = np.savez if kind == "stored" else np.savez_compressed
        save(path, arr_0=images, arr_1=np.arange(50))
    source = open_images(path)
    assert len(source) == 50 and source.in_order == (kind == "deflated")
    for part in (range(0, 7), range(30, 50), range(7, 30)):  # backwards too
        found = source.read(part)
        assert found.images.dtype == torch.uint8 and found.numbers == list(part)
        expected = torch.from_numpy(images[part.start : part.stop]).permute(0, 3, 1, 2)
        assert torch.equal(found.images, expected)
    source.close()


def test_grey_arrays_have_one_channel(tmp_path: Path) -> None:
    images = pixels(4)[..., 0]
    np.save(tmp_path / "a.npy", images)
    found = open_images(tmp_path / "a.npy").read(range(1, 3)).images
    assert torch.equal(found, torch.from_numpy(images[1:3])[:, None])


def test_samples_become_the_pictures_that_the_engine_writes(tmp_path: Path) -> None:
    samples = 1.3 * torch.randn(6, 1, 8, 8)
    np.savez_compressed(tmp_path / "s.npz", samples=samples.numpy(), labels=np.arange(6))
    expected = to_uint8(samples).permute(0, 3, 1, 2)
    assert torch.equal(open_images(tmp_path / "s.npz").read(range(6)).images, expected)
    assert torch.equal(Tensors(samples).read(range(2, 5)).images, expected[2:5])
    values = to_uint8(samples)[..., 0].numpy()
    assert torch.equal(Tensors(values).read(range(6)).images, expected)


def test_the_fingerprint_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, pixels(5))
    one = open_images(path).fingerprint()
    assert open_images(path).fingerprint() == one
    np.savez(path, pixels(6))
    assert open_images(path).fingerprint() != one
    assert Tensors(pixels(3)).fingerprint() != Tensors(pixels(3, seed=1)).fingerprint()


def test_a_large_array_takes_no_memory(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", np.zeros((20_000, 32, 32, 3), np.uint8))  # 61 MB
    source = open_images(tmp_path / "a.npz")
    tracemalloc.start()
    for start in range(0, 20_000, 1000):
        source.read(range(start, start + 1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6_500_000  # one part of 3.1 MB, the next one's, and little more
    source.close()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 3, 8, 8), np.uint8),  # channels first
        np.zeros((4, 8, 8, 4), np.uint8),
        np.zeros((4, 8, 8, 3), np.int64),
        np.zeros((4, 8, 8, 3), np.float32),
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((4, 8), np.uint8),
        np.array(3, np.uint8),
        np.asfortranarray(np.zeros((4, 8, 8, 3), np.uint8)),
        np.array([{}], dtype=object),
    ],
)
def test_another_kind_of_array_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    for path, save in ((tmp_path / "a.npy", np.save), (tmp_path / "a.npz", np.savez)):
        save(path, array, allow_pickle=True)
        with pytest.raises(InputError, match="images: .*a.np"):
            open_images(path)


def test_a_damaged_array_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, pixels(40))
    whole = path.read_bytes()
    path.write_bytes(whole[:-4000])
    with pytest.raises(InputError, match="a.npz"):
        open_images(path)
    flipped = bytearray(whole)
    flipped[4000] ^= 1
    path.write_bytes(bytes(flipped))
    source = open_images(path)
    with pytest.raises(InputError, match="damaged .*CRC"):
        source.read(range(0, 40))
    np.savez(path, other=pixels(2))
    with pytest.raises(InputError, match="lacks arr_0"):
        open_images(path)
    np.save(tmp_path / "b.npy", pixels(40))
    (tmp_path / "b.npy").write_bytes((tmp_path / "b.npy").read_bytes()[:-1])
    with pytest.raises(InputError, match="claims"):
        open_images(tmp_path / "b.npy")
    for name in ("missing", "missing.npz"):
        with pytest.raises(InputError, match="missing"):
            open_images(tmp_path / name)


def test_what_is_no_image_in_memory_is_refused() -> None:
    for bad in (torch.zeros(2, 2, 8, 8), torch.full((1, 3, 4, 4), torch.nan), torch.zeros(3, 8, 8)):
        with pytest.raises(InputError):
            Tensors(bad)
    with pytest.raises(InputError, match="int64"):
        Tensors(torch.zeros(1, 3, 4, 4, dtype=torch.int64))
    with pytest.raises(InputError, match="float64"):
        Tensors(np.zeros((1, 4, 4, 3)))
