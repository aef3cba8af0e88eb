"""Scores of whole sets: torchmetrics' numbers, closed forms, invariance, caches, refusals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scoring_cases import network, pixels, project, write_pictures
from torch import Tensor, nn

from reg_engine import InputError
from reg_engine.fidelity import precision_recall
from reg_engine.metrics import Frechet
from reg_engine.scoring import (
    Conventions,
    Extraction,
    Network,
    Resize,
    Scored,
    Tensors,
    load_statistics,
    open_images,
    score,
)
from reg_engine.scoring import extract as blocks
from reg_engine.scoring.reference import cache_folder, file_reference, image_reference

IMAGES, REAL = pixels(300), pixels(280, seed=1, high=230)


class Linear(nn.Module):
    """network() as torchmetrics calls it."""

    num_features = 12

    def forward(self, images: Tensor) -> Tensor:
        return project((images * 255).round() if images.is_floating_point() else images)[0]


def first(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def scores(metrics: Sequence[str] = ("fid",), **more: Any) -> Scored:
    how = Conventions(subsets=3, subset_size=100, splits=4)
    return score(Tensors(IMAGES), network(), metrics, how, reference=Tensors(REAL), **more)


def test_fid_is_torchmetrics() -> None:
    module = pytest.importorskip("torchmetrics.image.fid")
    theirs = module.FrechetInceptionDistance(feature=Linear(), normalize=True)
    theirs.update(first(REAL).float() / 255, real=True)
    theirs.update(first(IMAGES).float() / 255, real=False)
    found = scores().result["metrics"]["fid"]["value"]
    assert found == pytest.approx(float(theirs.compute()), rel=1e-6)


def test_every_score_is_that_of_the_vectors() -> None:
    found = scores(["fid", "is", "kid", "pr"]).result
    own, real = project(first(IMAGES)), project(first(REAL))[0]
    assert found["metrics"]["fid"]["value"] == pytest.approx(Frechet(real)(own[0]), rel=1e-9)
    pair = found["metrics"]["pr"]
    assert (pair["precision"], pair["recall"]) == precision_recall(own[0], real)
    how = Conventions(subsets=3, subset_size=100, splits=4)
    from reg_engine.scoring.scores import inception_score, kid

    assert found["metrics"]["is"]["mean"] == pytest.approx(inception_score(own[1], how)["mean"])
    assert found["metrics"]["kid"] == pytest.approx(kid(own[0], real, how))


def test_the_result_says_how_it_came_about() -> None:
    net = replace(network(), resize=Resize(8, "pil-lanczos"))
    found = score(Tensors(IMAGES, "mine"), net, ["is"], Conventions(splits=3, seed=4)).result
    assert found["images"] == {
        "source": "mine",
        "count": 300,
        "unreadable": 0,
        "unreadable_names": [],
    }
    assert found["features"] == {
        "name": "linear",
        "fingerprint": "linear-0",
        "resize": {"size": 8, "filter": "pil-lanczos"},
        "width": 12,
        "dtype": "float64",
    }
    assert found["metrics"]["is"]["splits"] == found["conventions"]["splits"] == 3
    assert found["metrics"]["is"]["shuffled"] == "RandomState(4)"
    assert found["statistics_dtype"] == "float64" and found["reference"] is None
    assert set(found["version"]) == {"reg_engine", "torch"}


def test_closed_form_of_two_gaussians() -> None:
    """Images that are drawn so that features are Gaussian would only come near; here the sums of
    two sets are what the closed form is asked for, in a basis that both share."""
    signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]).double()
    made = {0: signs * torch.tensor([2.0, 0.5]), 1: signs * torch.tensor([1.0, 3.0]) + 1.5}
    net = Network("table", lambda images: made[int(images[0, 0, 0, 0])], "t")
    sets = [Tensors(np.full((4, 2, 2, 3), n, np.uint8)) for n in (0, 1)]
    found = score(sets[0], net, reference=sets[1]).result["metrics"]["fid"]["value"]
    deviation = (4 / 3) ** 0.5  # unbiased
    expected = 2 * 1.5**2 + (deviation * (2 - 1)) ** 2 + (deviation * (3 - 0.5)) ** 2
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("change", ["batch", "workers", "order", "blocks"])
def test_nothing_but_the_images_changes_fid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    write_pictures(tmp_path / "p", IMAGES)
    source, how = open_images(tmp_path / "p"), Extraction(64, 2)
    monkeypatch.setattr(blocks, "BLOCK", 100)
    one = score(source, network(), reference=Tensors(REAL), extraction=how).result
    if change == "batch":
        how = Extraction(7, 2)
    elif change == "workers":
        how = Extraction(64, 0)
    elif change == "order":
        order = np.random.default_rng(0).permutation(300)
        source = Tensors(IMAGES[order])  # type: ignore[assignment]
    else:
        monkeypatch.setattr(blocks, "BLOCK", 33)
    other = score(source, network(), reference=Tensors(REAL), extraction=how).result
    found = other["metrics"]["fid"]["value"]
    assert found == pytest.approx(one["metrics"]["fid"]["value"], rel=1e-10)


def test_statistics_are_a_reference_for_others(tmp_path: Path) -> None:
    own = score(Tensors(REAL), network(), [])
    own.statistics.save(tmp_path / "s.npz")
    kept = file_reference(str(tmp_path / "s.npz"), network())
    found = score(Tensors(IMAGES), network(), statistics=kept).result
    expected = scores().result["metrics"]["fid"]["value"]
    assert found["metrics"]["fid"]["value"] == pytest.approx(expected, rel=1e-12)
    assert found["reference"]["images"]["count"] == 280
    other = replace(network(), fingerprint="other")
    for refused in (
        lambda: file_reference(str(tmp_path / "s.npz"), other),
        lambda: score(Tensors(IMAGES), other, statistics=kept),
    ):
        with pytest.raises(InputError, match="whose weights are others"):
            refused()
    narrow = Network("narrow", lambda images: project(images)[0][:, :3], "n")
    np.savez(tmp_path / "e.npz", mu=kept.mean, sigma=kept.covariance)
    with pytest.raises(InputError, match="has 12 features, the network makes 3"):
        score(Tensors(IMAGES), narrow, statistics=load_statistics(tmp_path / "e.npz"))


def test_images_are_not_read_for_a_score_that_needs_none() -> None:
    class Never(Tensors):
        def read(self, numbers: range) -> Any:
            raise AssertionError

    kept = score(Tensors(REAL), network(), []).statistics
    score(Tensors(IMAGES), network(), statistics=kept, reference=Never(REAL))
    with pytest.raises(AssertionError):
        score(Tensors(IMAGES), network(), ["pr"], statistics=kept, reference=Never(REAL))


def test_reference_statistics_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "real", REAL)
    asked = []

    def call(images: Tensor) -> Any:
        asked.append(len(images))
        return project(images)

    net, source, how = Network("n", call, "1"), open_images(tmp_path / "real"), Extraction()
    monkeypatch.setenv("REG_ENGINE_CACHE", str(tmp_path / "cache"))
    cache = cache_folder()
    found = [image_reference(source, net, how, vectors=False, cache=cache) for _ in range(2)]
    assert sum(asked) == 280 and found[0].vectors is found[1].vectors is None
    assert found[0].statistics and found[1].statistics
    assert torch.equal(found[0].statistics.covariance, found[1].statistics.covariance)
    assert found[1].statistics.name == source.name
    for other in (replace(net, fingerprint="2"), replace(net, resize=Resize(8))):
        asked.clear()
        image_reference(source, other, how, vectors=False, cache=cache)
        assert sum(asked) == 280
    asked.clear()
    wanted = image_reference(source, net, how, vectors=True, cache=cache)
    assert sum(asked) == 280 and wanted.vectors and wanted.vectors.features is not None
    for file in cache.glob("*.npz"):
        file.write_bytes(b"damaged")
    asked.clear()
    again = image_reference(source, net, how, vectors=False, cache=cache)
    assert sum(asked) == 280 and again.statistics is not None
    asked.clear()
    (tmp_path / "real" / "00000" / "img00000.png").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read"):
        image_reference(open_images(tmp_path / "real"), net, how, vectors=False, cache=cache)
    monkeypatch.delenv("REG_ENGINE_CACHE")
    assert cache_folder().name == "reg_engine"


def test_batches_of_a_live_model_are_scored() -> None:
    batches = iter(first(IMAGES).split(64))
    found = score(batches, network(), reference=Tensors(REAL)).result
    expected = scores().result["metrics"]["fid"]["value"]
    assert found["metrics"]["fid"]["value"] == pytest.approx(expected, rel=1e-10)
    assert found["images"]["source"] == "batches"
    again = score(first(IMAGES), network(), reference=Tensors(REAL)).result
    assert again["metrics"]["fid"]["value"] == pytest.approx(expected, rel=1e-12)


def test_bars_are_asked_for() -> None:
    plain = scores().result["metrics"]["fid"]
    assert set(plain) == {"value"}
    how = Conventions(bootstrap=20)
    found = score(Tensors(IMAGES), network(), ["fid"], how, reference=Tensors(REAL)).result
    assert found["metrics"]["fid"]["value"] == pytest.approx(plain["value"], rel=1e-12)
    assert found["metrics"]["fid"]["error"] > 0


def test_few_images_are_refused_or_warned_of() -> None:
    with pytest.raises(InputError, match="has 1 that can be read, too few for a covariance"):
        score(Tensors(IMAGES[:1]), network(), reference=Tensors(REAL))
    found = score(Tensors(IMAGES[:12]), network(), reference=Tensors(REAL)).result
    assert found["warning"].startswith("12 images for 12 features")
    assert "warning" not in score(Tensors(IMAGES[:13]), network(), reference=Tensors(REAL)).result
    assert "warning" not in score(Tensors(IMAGES[:12]), network(), ["is"]).result


def test_a_score_without_what_it_needs_is_refused_before_any_work() -> None:
    def never(images: Tensor) -> Tensor:
        raise AssertionError

    net = Network("n", never, "n")
    for metrics, said in ((["fid"], "stats"), (["kid"], "reference"), (["fad"], "metrics")):
        with pytest.raises(InputError, match=said):
            score(Tensors(IMAGES), net, metrics)
    silent = Network("n", lambda images: project(images)[0], "n")
    with pytest.raises(InputError, match="logits"):
        score(Tensors(IMAGES), silent, ["is"])


def test_what_scores_cannot_use_is_refused_after_one_batch() -> None:
    asked: list[int] = []

    def seen(images: Tensor) -> Tensor:
        asked.append(len(images))
        return project(images)[0]

    net, how = Network("n", seen, "n"), Extraction(4)
    narrow = replace(score(Tensors(IMAGES), network(), ()).statistics, mean=torch.zeros(2), note={})
    for metrics, said in ((["is"], "no logits"), (["fid"], "has 2 features")):
        with pytest.raises(InputError, match=said):
            score(Tensors(IMAGES), net, metrics, statistics=narrow, extraction=how)
    assert asked == [4, 4] and len(IMAGES) > 4
