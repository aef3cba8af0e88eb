"""Folders and shards of pictures: their order, their pixels, and what is refused by name."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scoring_cases import pixels, write_pictures

from reg_engine import InputError
from reg_engine.scoring import open_images, pictures


def shard(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_a_folder_gives_its_pixels_in_the_order_of_the_names(tmp_path: Path, kind: str) -> None:
    images = pixels(25)
    write_pictures(tmp_path, images, kind)
    (tmp_path / "notes.txt").write_text("no picture")
    source = open_images(tmp_path)
    found = source.read(range(0, 25))
    assert len(source) == 25 and found.numbers == list(range(25)) and found.unreadable == ()
    assert torch.equal(found.images, torch.from_numpy(images).permute(0, 3, 1, 2))
    assert torch.equal(source.read(range(11, 13)).images, found.images[11:13])


def test_jpegs_are_decoded_by_pillow(tmp_path: Path) -> None:
    write_pictures(tmp_path, pixels(2, side=16), "jpg")
    with Image.open(tmp_path / "00000" / "img00001.jpg") as picture:
        expected = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    assert torch.equal(open_images(tmp_path).read(range(1, 2)).images[0], expected)


def test_shards_give_their_pictures_where_they_lie(tmp_path: Path) -> None:
    images = pixels(9)
    members = {f"{n:04d}.{kind}": b"a cat" for n in range(9) for kind in ("txt", "png")}
    for n, image in enumerate(images):
        members[f"{n:04d}.png"] = png(image)
    shard(tmp_path / "b.tar", dict(list(members.items())[8:]))
    shard(tmp_path / "a.tar", dict(list(members.items())[:8]))
    source = open_images(tmp_path)
    assert [entry.name for entry in source.entries][3:5] == ["a.tar/0003.png", "b.tar/0004.png"]
    found = source.read(range(0, 9)).images
    assert torch.equal(found, torch.from_numpy(images).permute(0, 3, 1, 2))
    alone = open_images(tmp_path / "b.tar")
    assert len(alone) == 5 and torch.equal(alone.read(range(0, 5)).images, found[4:])


def test_webdataset_writes_such_shards(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    images = pixels(4)
    with webdataset.TarWriter(str(tmp_path / "w.tar")) as writer:
        for n, image in enumerate(images):
            writer.write({"__key__": f"{n:03d}", "png": image, "txt": "a cat"})
    found = open_images(tmp_path / "w.tar").read(range(4)).images
    assert torch.equal(found, torch.from_numpy(images).permute(0, 3, 1, 2))


def test_palettes_alpha_and_grey_become_rgb(tmp_path: Path) -> None:
    grey = pixels(1)[0, ..., 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    alpha = np.dstack([pixels(1)[0], grey])
    Image.fromarray(alpha).save(tmp_path / "b.png")
    Image.fromarray(pixels(1)[0] // 128 * 255).quantize(8).save(tmp_path / "c.png")
    found = open_images(tmp_path).read(range(3)).images
    assert torch.equal(found[0], torch.from_numpy(grey).expand(3, 8, 8))
    assert torch.equal(found[1], torch.from_numpy(pixels(1)[0]).permute(2, 0, 1))
    expected = torch.from_numpy(pixels(1)[0] // 128 * 255).permute(2, 0, 1)
    assert torch.equal(found[2], expected)


def test_an_unreadable_picture_is_named_and_left_out(tmp_path: Path) -> None:
    write_pictures(tmp_path, pixels(5))
    broken = tmp_path / "00000" / "img00002.png"
    broken.write_bytes(broken.read_bytes()[:60])
    (tmp_path / "00000" / "img00004.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "00000" / "img00009.png")
    found = open_images(tmp_path).read(range(6))
    assert found.numbers == [0, 1, 3] and len(found.images) == 3
    names = [name.partition(" ")[0] for name in found.unreadable]
    assert names == [f"00000/img0000{n}.png" for n in (2, 4, 9)]
    assert "8 bits" in found.unreadable[2] and "identify" in found.unreadable[1]
    alone = open_images(tmp_path).read(range(4, 5))
    assert alone.images.shape == (0, 3, 8, 8) and alone.numbers == [] and len(alone.unreadable) == 1


def test_huge_pictures_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path, pixels(1))
    Image.new("L", (70_000, 1000)).save(tmp_path / "z.png")  # 70 million pixels in 100 kB
    found = open_images(tmp_path).read(range(2))
    assert found.numbers == [0] and "it is 70000x1000" in found.unreadable[0]
    monkeypatch.setattr(pictures, "LARGEST", 50)
    assert "bytes" in open_images(tmp_path).read(range(1)).unreadable[0]


def test_mixed_sizes_are_refused_with_names(tmp_path: Path) -> None:
    write_pictures(tmp_path, pixels(12))
    for n in range(3, 10):
        Image.fromarray(pixels(1, side=n + 6)[0]).save(tmp_path / "00000" / f"img0000{n}.png")
    source = open_images(tmp_path)
    source.read(range(0, 3))
    with pytest.raises(InputError) as caught:
        source.read(range(2, 12))
    said = str(caught.value)
    assert "img00000.png is 8x8" in said and "img00003.png (9x9)" in said and "2 more" in said


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    write_pictures(outside, pixels(2))
    write_pictures(folder, pixels(2))
    link = folder / "x.png"
    link.symlink_to(outside / "00000" / "img00000.png")
    with pytest.raises(InputError, match="x.png' is a link"):
        open_images(folder)
    link.unlink()
    (folder / "more").symlink_to(outside)
    with pytest.raises(InputError, match="more' is a link"):
        open_images(folder)
    (folder / "more").unlink()
    source = open_images(folder)  # swapped for a link after it was listed
    target = folder / "00000" / "img00001.png"
    target.unlink()
    target.symlink_to(outside / "00000" / "img00001.png")
    assert source.read(range(2)).numbers == [0]


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    write_pictures(tmp_path, pixels(1))
    os.mkfifo(tmp_path / "z.png")
    found = open_images(tmp_path).read(range(2))
    assert found.numbers == [0] and len(found.unreadable) == 1


def test_what_holds_no_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no picture"):
        open_images(tmp_path)
    bad = tmp_path / "a.tar"
    bad.write_bytes(b"no archive" * 100)
    with pytest.raises(InputError, match="a.tar"):
        open_images(bad)
    shard(bad, {"a.png": png(pixels(1)[0])})
    bad.write_bytes(gzip.compress(bad.read_bytes()))  # its members lie nowhere
    with pytest.raises(InputError, match="a.tar"):
        open_images(bad)
    shard(bad, {"a.txt": b"text"})
    with pytest.raises(InputError, match="no picture"):
        open_images(bad)
    shard(bad, {"a.png": png(pixels(1, side=40)[0])})
    bad.write_bytes(bad.read_bytes()[:1024])  # its header claims more than there is
    with pytest.raises(InputError, match="longer than the archive|unexpected end"):
        open_images(bad)


def test_links_and_devices_in_a_shard_are_no_pictures(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("a.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
        data = png(pixels(1)[0])
        info = tarfile.TarInfo("../b.png")  # a name is only a name: nothing is extracted
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    source = open_images(tmp_path / "a.tar")
    assert [entry.name for entry in source.entries] == ["../b.png"]
    assert len(source.read(range(1)).images) == 1


def test_the_fingerprint_follows_the_files(tmp_path: Path) -> None:
    write_pictures(tmp_path, pixels(3))
    one = open_images(tmp_path).fingerprint()
    assert open_images(tmp_path).fingerprint() == one
    path = tmp_path / "00000" / "img00001.png"
    path.write_bytes(png(pixels(1, seed=5)[0]))
    os.utime(path, ns=(1, 1))
    assert open_images(tmp_path).fingerprint() != one
