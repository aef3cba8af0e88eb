"""EDM2's reference statistics: numpy's numbers, whatever the protocol, and nothing is run."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scoring_cases import network

from reg_engine import InputError
from reg_engine.convert.records import Name, Record
from reg_engine.scoring import load_statistics
from reg_engine.scoring.pickled import _array, read
from reg_engine.scoring.reference import file_reference

RNG = np.random.default_rng(0)


def statistics(width: int, kind: type = np.float64) -> dict[str, Any]:
    given = RNG.standard_normal((50, width))
    return {"mu": given.mean(0).astype(kind), "sigma": np.cov(given, rowvar=False).astype(kind)}


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_both_spaces_are_read(tmp_path: Path, protocol: int, kind: type) -> None:
    given = {"fid": statistics(5, kind), "fd_dinov2": statistics(3, kind)}
    given["fid"]["sigma"] = np.asfortranarray(given["fid"]["sigma"])
    path = tmp_path / "img64.pkl"
    path.write_bytes(pickle.dumps(given, protocol))
    for space, own in given.items():
        found = load_statistics(path, space)
        assert np.array_equal(found.mean, own["mu"]) and found.note == {}
        assert np.allclose(found.covariance, own["sigma"], rtol=1e-6)
    dino = replace(network(), name="dinov2")
    assert len(file_reference(str(path), dino).mean) == 3
    assert len(file_reference(str(path), network()).mean) == 5


def test_columns_first_is_not_rows_first(tmp_path: Path) -> None:
    """An upper triangle would pass for a lower one; the reader must refuse both as covariances,
    and take the mean of an array that is not square as it is."""
    for order in "CF":
        given = np.array(RNG.standard_normal((3, 4)), order=order)
        path = tmp_path / "a.pkl"
        for protocol in (4, 5):
            path.write_bytes(pickle.dumps(given, protocol))
            assert np.array_equal(_array(read(path)), given)


def test_lists_within_lists_are_not_written_out() -> None:
    """A file can hold a list of ten lists of ten lists ...: its text would have no end."""
    laughing: Any = []
    for _ in range(60):
        laughing = [laughing] * 10
    deep: Any = ()
    for _ in range(100_000):
        deep = (deep,)
    numbers = memoryview(np.zeros(2).tobytes())
    for kind, ends, shape in (
        (laughing, "<", (2,)),
        (deep, "<", (2,)),
        ("f8", laughing, (2,)),
        ("f8", "<", (1 << 2000,) * 2),
        ("f8", "<", (2, 1, 1)),
        ("f8", "<", deep),
    ):
        dtype = Record(Name("numpy", "dtype"), (kind, False, True), (3, ends, None))
        told = Record(Name("numpy", "_reconstruct"), (), (1, shape, dtype, False, numbers))
        with pytest.raises(ValueError):
            _array(told)
    dtype = Record(Name("numpy", "dtype"), ("f8", False, True), (3, "<", None))
    told = Record(Name("numpy", "_reconstruct"), (), (1, (2,), dtype, False, numbers))
    assert _array(told).tolist() == [0.0, 0.0]


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize(
    "given",
    [
        {"fid": Bomb()},
        {"fid": {"mu": np.zeros(3), "sigma": Bomb()}},
        Bomb(),
        {"fd_dinov2": statistics(3)},
        {"fid": {"mu": np.zeros(3)}},
        {"fid": {"mu": np.zeros(3), "sigma": np.zeros((3, 2))}},
        {"fid": {"mu": np.zeros(3), "sigma": np.full((3, 3), np.nan)}},
        {"fid": {"mu": np.zeros(3, ">f8"), "sigma": np.zeros((3, 3), ">f8")}},
        {"fid": {"mu": np.zeros(3, int), "sigma": np.zeros((3, 3), int)}},
        {"fid": {"mu": np.array([None]), "sigma": np.zeros((1, 1))}},
        {"fid": [1, 2]},
        [1],
    ],
    ids=range(12),
)
def test_anything_else_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in (3, 4, 5):
        (tmp_path / "r.pkl").write_bytes(pickle.dumps(given, protocol))
        with pytest.raises(InputError, match="^stats: "):
            load_statistics("r.pkl")
    assert not (tmp_path / "exploded").exists()
