"""Nearest real samples against all pairs; features; every bad input."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import reg_engine
from reg_engine import InputError
from reg_engine.postprocess import Neighbours, classifier_features, dinov2_features
from reg_engine.postprocess.features import IMAGENET, pooled

ROOT = Path(__file__).resolve().parent.parent


def data(count: int, seed: int, *shape: int) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def brute(samples: Tensor, real: Tensor, k: int) -> tuple[Tensor, Tensor]:
    every = torch.cdist(samples.double(), real.double())
    found = every.topk(k, largest=False)
    return found.values, found.indices


@pytest.mark.parametrize("dim", [2, 300])
def test_the_nearest_are_those_of_all_pairs(dim: int) -> None:
    real, samples = data(500, 0, dim), data(60, 1, dim)  # above FAISS's threshold for BLAS
    distances, indices = Neighbours(real).search(samples, 7)
    wanted, places = brute(samples, real, 7)
    assert torch.equal(indices, places)
    assert torch.allclose(distances.double(), wanted, rtol=1e-6)
    again = Neighbours(real).search(samples, 7)
    assert torch.equal(again[0], distances) and torch.equal(again[1], indices)


def test_a_copy_is_at_distance_zero_exactly() -> None:
    real = 100 + data(400, 2, 1, 8, 8)  # far from 0, where a matrix product rounds coarsely
    distances, indices = Neighbours(real).search(real[:30], 2)
    assert torch.equal(indices[:, 0], torch.arange(30))
    assert torch.equal(distances[:, 0], torch.zeros(30)) and bool((distances[:, 1] > 1).all())


def test_equal_distances_are_ordered_by_index() -> None:
    real = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [3.0, 0.0]])
    distances, indices = Neighbours(real).search(torch.zeros(1, 2), 5)
    assert indices.tolist() == [[0, 1, 2, 3, 4]] and distances.tolist() == [[1, 1, 1, 1, 3]]


def test_search_within_the_class() -> None:
    real, samples = data(90, 3, 4), data(50, 4, 4)
    classes, labels = torch.arange(90) % 3, torch.arange(50) % 3
    distances, indices = Neighbours(real, classes).search(samples, 4, labels)
    assert torch.equal(classes[indices], labels[:, None].expand(-1, 4))
    for label in range(3):
        members = (classes == label).nonzero()[:, 0]
        wanted, places = brute(samples[labels == label], real[members], 4)
        assert torch.equal(indices[labels == label], members[places])
        assert torch.allclose(distances[labels == label].double(), wanted, rtol=1e-6)
    free = Neighbours(real, classes).search(samples, 4)[1]
    assert torch.equal(free, brute(samples, real, 4)[1]), "without labels, all are searched"


def test_features_are_the_space() -> None:
    real, samples = data(80, 5, 3), data(20, 6, 3)
    index = Neighbours(real, features=lambda x: x[:, :1], batch_size=7)
    distances, indices = index.search(samples, 3)
    wanted, places = brute(samples[:, :1], real[:, :1], 3)
    assert torch.equal(indices, places) and torch.allclose(distances.double(), wanted, atol=1e-6)


def test_features_of_the_packaged_classifier() -> None:
    classifier = reg_engine.load_classifier()
    images = data(6, 7, 1, 28, 28)
    vectors = classifier_features(classifier)(images)
    with torch.no_grad():
        assert torch.equal(vectors, classifier.features(images.clamp(-1, 1)))
    index = Neighbours(images, features=classifier_features(classifier))
    assert index.search(images, 1)[1][:, 0].tolist() == list(range(6))
    with pytest.raises(InputError, match="classifier: a Linear has no features"):
        classifier_features(torch.nn.Linear(2, 2))  # type: ignore[arg-type]


def test_too_few_real_samples() -> None:
    index = Neighbours(data(9, 8, 2), torch.tensor([0] * 6 + [1] * 3))
    samples = data(4, 9, 2)
    with pytest.raises(InputError, match="k: is 10, but there are 9 real samples"):
        index.search(samples, 10)
    with pytest.raises(InputError, match="k: is 5, but class 1 has 3 real samples"):
        index.search(samples, 5, torch.tensor([0, 0, 1, 1]))
    with pytest.raises(InputError, match="k: is 1, but class 7 has 0 real samples"):
        index.search(samples, 1, torch.tensor([0, 0, 1, 7]))
    with pytest.raises(InputError, match="k: is 0"):
        index.search(samples, 0)


def test_bad_input() -> None:
    real = data(9, 10, 2)
    with pytest.raises(InputError, match="real: holds no samples"):
        Neighbours(torch.empty(0, 2))
    with pytest.raises(InputError, match="real: have NaN or Inf"):
        Neighbours(real / 0)
    with pytest.raises(InputError, match=r"real_labels: are torch.int64 \(8,\) for 9 samples"):
        Neighbours(real, torch.zeros(8, dtype=torch.long))
    with pytest.raises(InputError, match="samples: have 3 values each, the real samples 2"):
        Neighbours(real).search(data(2, 11, 3), 1)
    with pytest.raises(InputError, match="labels: are given, but the real samples have none"):
        Neighbours(real).search(real, 1, torch.zeros(9, dtype=torch.long))
    with pytest.raises(InputError, match=r"features: gave \(9,\) for 9 samples"):
        Neighbours(real, features=lambda x: x[:, 0])


def test_without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=r"need faiss .*pip install 'reg-engine\[postprocess\]'"):
        Neighbours(torch.randn(3, 2))


def test_dinov2_tokens_are_pooled() -> None:
    """[CLS, two registers, three patches]."""
    tokens = torch.tensor([[[7.0], [100.0], [200.0], [1.0], [2.0], [6.0]]])
    assert pooled(tokens, 2, "cls").item() == 7.0
    assert pooled(tokens, 2, "patches").item() == 3.0


def test_dinov2_that_is_not_at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pooling: unknown name 'mean'"):
        dinov2_features(tmp_path, "mean")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match="DINOv2 needs transformers .*pip install transformers"):
        dinov2_features(tmp_path)


def test_dinov2_features_are_the_models_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where transformers is installed: a small random model, saved and read back."""
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p and Path(p) != ROOT])
    transformers = pytest.importorskip("transformers")
    with pytest.raises(InputError, match="holds no config.json"):
        dinov2_features(tmp_path)
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, image_size=56, patch_size=14
    )
    net = transformers.Dinov2WithRegistersModel(config).eval()
    net.save_pretrained(tmp_path)
    images = 2 * torch.rand(3, 1, 56, 56) - 1
    unit = (images.expand(-1, 3, -1, -1) + 1) / 2
    mean, std = (torch.tensor(part).reshape(1, 3, 1, 1) for part in IMAGENET)
    with torch.no_grad():
        wanted = net(pixel_values=(unit - mean) / std)
    found = dinov2_features(tmp_path, "cls", size=56)(images)
    assert torch.allclose(found, wanted.pooler_output, atol=1e-4)
    found = dinov2_features(tmp_path, "patches", size=56)(images)
    assert torch.allclose(found, wanted.last_hidden_state[:, -16:].mean(1), atol=1e-4)
