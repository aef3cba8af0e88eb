"""Moments against numpy, and files of statistics: written, read, refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scoring_cases import network

from reg_engine import InputError
from reg_engine.scoring import Resize, load_statistics
from reg_engine.scoring.statistics import Moments, Statistics, described


def vectors(count: int = 900, width: int = 6) -> torch.Tensor:
    mixed = torch.randn(count, width, dtype=torch.float64) @ torch.randn(width, width).double()
    return mixed + 3


def test_moments_are_numpys_whatever_the_blocks() -> None:
    given = vectors()
    for sizes in ([900], [1, 899], [400, 200, 300], [1] * 900):
        parts = [Moments.of(part) for part in given.split(sizes)]
        found = parts[0]
        for part in parts[1:]:
            found = found + part
        assert found.count == 900
        assert np.allclose(found.mean, given.numpy().mean(0), rtol=1e-13, atol=0)
        expected = np.cov(given.numpy(), rowvar=False)
        assert np.allclose(found.covariance(), expected, rtol=0, atol=1e-13 * expected.max())


def test_a_large_mean_does_not_cancel() -> None:
    """Plain sums of squares would leave errors of 1e8^2 * 1e-16 = 1 in variances of 1."""
    given = vectors() + 1e8
    found = Moments.of(given[:300]) + Moments.of(given[300:])
    expected = np.cov((given - given.mean(0)).numpy(), rowvar=False)
    assert np.allclose(found.covariance(), expected, rtol=0, atol=1e-6 * expected.max())


def test_adding_leaves_its_parts_alone() -> None:
    one, other = Moments.of(vectors()[:5]), Moments.of(vectors()[5:])
    before = one.products.clone(), one.mean.clone()
    one + other
    assert torch.equal(one.products, before[0]) and torch.equal(one.mean, before[1])


def test_one_vector_has_no_covariance() -> None:
    with pytest.raises(InputError, match="are 1, too few"):
        Moments.of(vectors()[:1]).covariance()


def statistics(note: dict[str, Any] | None = None) -> Statistics:
    found = Moments.of(vectors())
    note = {"features": described(network())} if note is None else note
    return Statistics(found.mean, found.covariance(), note, "s")


def test_a_file_comes_back_and_numpy_reads_it(tmp_path: Path) -> None:
    given = statistics()
    given.save(tmp_path / "s.npz")
    found = load_statistics(tmp_path / "s.npz")
    assert torch.equal(found.mean, given.mean) and torch.equal(found.covariance, given.covariance)
    assert found.note == given.note and found.name.endswith("s.npz")
    with np.load(tmp_path / "s.npz", allow_pickle=False) as file:
        assert np.array_equal(file["mu"], given.mean) and file["sigma"].shape == (6, 6)


def test_a_file_of_others_needs_no_note(tmp_path: Path) -> None:
    given = statistics()
    np.savez(tmp_path / "e.npz", mu=given.mean.float(), sigma=given.covariance.numpy(), arr_0=[1])
    found = load_statistics(tmp_path / "e.npz")
    assert found.note == {} and found.mean.dtype == torch.float64
    found.check(network())  # nobody knows
    found.check_width(6)
    with pytest.raises(InputError, match="has 6 features, the network makes 12"):
        found.check_width(12)


def test_another_network_is_refused() -> None:
    given = statistics()
    given.check(network())
    with pytest.raises(InputError, match="linear .*whose weights are others"):
        given.check(replace(network(), fingerprint="other"))
    with pytest.raises(InputError, match="is of linear .* read by dinov2"):
        given.check(replace(network(), fingerprint="other", name="dinov2"))
    with pytest.raises(InputError, match="resize none.*resize 224:pil-bicubic"):
        given.check(replace(network(), resize=Resize(224)))


@pytest.mark.parametrize(
    "changed",
    [
        {"mu": np.zeros(5)},
        {"mu": np.zeros((6, 1))},
        {"mu": np.full(6, np.nan)},
        {"mu": np.zeros(6, np.int64)},
        {"sigma": np.zeros((6, 5))},
        {"sigma": np.arange(36.0).reshape(6, 6)},
        {"sigma": -np.eye(6)},
        {"reg_engine": np.zeros(3, np.uint8)},
        {"reg_engine": np.frombuffer(b"[1]", np.uint8)},
        {"reg_engine": np.zeros(3)},
        {"mu": np.zeros(0), "sigma": np.zeros((0, 0))},
    ],
)
def test_what_is_no_statistics_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    note = np.frombuffer(json.dumps({}).encode(), np.uint8)
    np.savez(
        tmp_path / "s.npz", **{"mu": np.zeros(6), "sigma": np.eye(6), "reg_engine": note, **changed}
    )
    with pytest.raises(InputError, match="^stats: "):
        load_statistics(tmp_path / "s.npz")


def test_a_feature_that_never_changes_is_fine(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", mu=np.zeros(2), sigma=np.diag([0.0, 1.0]))
    assert load_statistics(tmp_path / "s.npz").covariance.diagonal().tolist() == [0, 1]


def test_a_file_that_lacks_something_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", mu=np.zeros(6))
    with pytest.raises(InputError, match="lacks sigma"):
        load_statistics(tmp_path / "s.npz")
    with pytest.raises(InputError, match="no readable"):
        load_statistics(tmp_path / "missing.npz")
