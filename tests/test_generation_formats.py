"""Files of images, read by other programs: the same values, the same bytes each time."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from generation_cases import Numbers, job, made, picture, tree
from PIL import Image

from reg_engine.generation import Cycle, Job, Uniform
from reg_engine.generation.formats import FORMATS
from reg_engine.scoring import open_images

RULE = Uniform(10)


def wanted(seeds: range, channels: int = 1) -> np.ndarray:
    return np.stack([picture(RULE.of(seed), seed, channels) for seed in seeds])


def test_folders_of_a_thousand_as_edm2_wants_them(tmp_path: Path) -> None:
    made(tmp_path / "o", what=job(seeds=(range(996, 1004),)))
    for seed in range(996, 1004):
        path = tmp_path / "o" / f"{seed // 1000 * 1000:06d}" / f"{seed:06d}.png"
        with Image.open(path) as image:
            assert image.mode == "L"
            assert np.array_equal(np.asarray(image), wanted(range(seed, seed + 1))[0, ..., 0])
    source = open_images(tmp_path / "o")
    images = source.read(range(len(source))).images.permute(0, 2, 3, 1).numpy()
    assert np.array_equal(images, np.repeat(wanted(range(996, 1004)), 3, axis=3))


def test_colour_stays_colour(tmp_path: Path) -> None:
    made(tmp_path / "o", Numbers(channels=3))
    with Image.open(tmp_path / "o" / "000000" / "000003.png") as image:
        assert np.array_equal(np.asarray(image), wanted(range(3, 4), 3)[0])


@pytest.mark.parametrize("channels", [1, 3])
def test_one_archive_as_adm_writes_it(tmp_path: Path, channels: int) -> None:
    made(tmp_path / "o", Numbers(channels=channels), job(format="npz"))
    expected = np.broadcast_to(wanted(range(26), channels), (26, 6, 6, 3))
    with np.load(tmp_path / "o" / "samples.npz", allow_pickle=False) as archive:
        assert sorted(archive) == ["arr_0", "arr_1"]
        assert archive["arr_0"].dtype == np.uint8 and archive["arr_1"].dtype == np.int64
        assert np.array_equal(archive["arr_0"], expected)
        assert archive["arr_1"].tolist() == [RULE.of(seed) for seed in range(26)]
    source = open_images(tmp_path / "o" / "samples.npz")
    images = source.read(range(len(source))).images.permute(0, 2, 3, 1).numpy()
    source.close()
    assert np.array_equal(images, expected)


def test_archives_without_numbers_have_no_labels(tmp_path: Path) -> None:
    class Words(Numbers):
        def __call__(self, labels, seeds):  # type: ignore[no-untyped-def]
            return super().__call__([len(label) for label in labels], seeds)

    what = Job((range(6),), Cycle(("a", "bc")), 4, 4, "npz")
    made(tmp_path / "o", Words(), what)
    with np.load(tmp_path / "o" / "samples.npz") as archive:
        assert list(archive) == ["arr_0"] and len(archive["arr_0"]) == 6


def test_shards_of_webdataset(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    made(tmp_path / "o", what=job(format="tar"))
    made(tmp_path / "again", what=job(format="tar"))
    names = [f"{number:06d}.tar" for number in range(4)]
    assert all((tmp_path / "again" / n).read_bytes() == tree(tmp_path / "o")[n] for n in names)
    urls = [str(tmp_path / "o" / name) for name in names]
    rows = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [int(row["__key__"]) for row in rows] == list(range(26))
    assert [int(row["cls"]) for row in rows] == [RULE.of(seed) for seed in range(26)]
    read = [np.asarray(Image.open(io.BytesIO(row["png"]))) for row in rows]
    assert np.array_equal(np.stack(read), wanted(range(26))[..., 0])
    source = open_images(tmp_path / "o")
    assert len(source) == 26 and source.read(range(26)).unreadable == ()
    texts = list(FORMATS["tar"]().files("s", wanted(range(1)), [5], ["a cat"]))
    assert texts[0][0] == "s.tar" and b"000000005.txt" in texts[0][1] and b"a cat" in texts[0][1]


def test_webp_and_jpeg_as_their_settings_say(tmp_path: Path) -> None:
    images = np.stack([np.outer(np.arange(32), np.ones(32)).astype(np.uint8) * 8] * 3, axis=-1)
    found = {}
    for name, quality in (("webp", None), ("webp", 50), ("jpeg", None), ("jpeg", 50)):
        ((path, data),) = FORMATS[name](quality).files("s", images[None], [1234567], [0])
        assert path == f"1234000/1234567.{name}"
        with Image.open(io.BytesIO(data)) as image:
            error = np.abs(np.asarray(image).astype(int) - images).max()
            found[name, quality] = (len(data), error, image.format)
    assert found["webp", None][1:] == (0, "WEBP")
    assert found["webp", 50][1] > 0 and found["webp", 50][0] > 0
    assert found["jpeg", None][1] <= 3 and found["jpeg", None][2] == "JPEG"
    assert found["jpeg", 50][0] < found["jpeg", None][0]
    assert FORMATS["jpeg"](None).settings()["format_options"] == {"quality": 95, "subsampling": 0}
    made(tmp_path / "o", what=job(8, format="webp", quality=60))
    settings = json.loads((tmp_path / "o" / "job.json").read_text())["settings"]
    assert settings["format_options"] == {"lossless": False, "quality": 60, "method": 4}
