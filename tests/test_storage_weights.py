"""Files of weights: what is written is read, and what could be something else is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from reg_engine import InputError
from reg_engine.storage.weights import MOST_HEADER, describe, opened, read, save_weights

WEIGHTS = {"a": torch.tensor([1.0, 2.0, 1.0 / 3]), "b": torch.ones(2, 2)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_is_written_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, WEIGHTS, {"architecture": "own", "numbers": [1, 2]}, dtype)
    weights, told = read(path)
    assert told == describe(path) == {"architecture": "own", "numbers": [1, 2]}
    assert weights.keys() == WEIGHTS.keys()
    for name, value in WEIGHTS.items():
        assert weights[name].dtype == dtype and torch.equal(weights[name], value.to(dtype))


def test_each_weight_keeps_its_own_dtype_where_none_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": WEIGHTS["a"].double(), "b": WEIGHTS["b"].half()}, {}, None)
    assert [value.dtype for value in read(path)[0].values()] == [torch.float64, torch.float16]


def test_what_is_not_finite_in_its_dtype_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(InputError, match="weights: a is not finite in float16"):
        save_weights(path, {"a": torch.tensor([1e6])}, {})
    assert not path.exists()
    save_weights(path, {"a": torch.tensor([1e6])}, {}, torch.bfloat16)


def test_an_error_names_what_the_caller_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^name_or_path: there is no file .* `reg-engine train"):
        read(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match=r"^adapter: there is no file .*\. Give another\.$"):
        read(tmp_path / "none.safetensors", "adapter", "Give another")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (None, "does not say what network"),
        ({"reg_engine": "{"}, "the description in .* is damaged"),
        ({"reg_engine": "[1]"}, "the description in .* is no table"),
    ],
)
def test_foreign_descriptions_are_refused(tmp_path: Path, metadata: dict, words: str) -> None:
    path = tmp_path / "w.safetensors"
    save_file(WEIGHTS, path, metadata)
    with pytest.raises(InputError, match=f"^own: .*{words}"), opened(path, "own", "Leave it"):
        raise AssertionError("it was opened")


def test_integers_pickles_and_long_headers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.ones(2, dtype=torch.int8)}, path, {"reg_engine": json.dumps({})})
    with pytest.raises(InputError, match=r"damaged or no safetensors file .*'a' is I8"):
        read(path)
    path.write_bytes((MOST_HEADER + 1).to_bytes(8, "little") + b" " * 64)
    with pytest.raises(InputError, match=f"a header of {MOST_HEADER + 1} bytes"):
        read(path)
    for name in ("w.pt", "w.CKPT", "w.pkl", "w.bin"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(InputError, match="is a pickle, which can run code"):
            read(tmp_path / name)
