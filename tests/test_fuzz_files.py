"""Any bytes at any door give the object or one InputError, within a second and 100 MB."""

from __future__ import annotations

import json
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from file_cases import Door, archive, doors, outcome, with_description
from fuzz_settings import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

NAMES = (
    "plan",
    "damping",
    "model",
    "edm2",
    "judge",
    "classifier",
    "flow",
    "mnist",
    "cifar10",
    "batch",
    "settings",
    "checkpoint",
    "log",
    "stats",
    "images",
    "array",
    "shard",
)
NUMBERS = st.one_of(
    st.integers(-3, 20),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 10**400, True, False]),
    st.floats(),
)
VALUES = st.recursive(
    st.one_of(st.none(), NUMBERS, st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Door]:
    made = doors(tmp_path_factory.mktemp("doors"))
    assert set(made) == set(NAMES)
    return made


def tried(door: Door, content: bytes) -> str:
    """What the door makes of the file, in a fresh folder and within its bounds."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        result = outcome(door, content, Path(folder))
        assert time.process_time() - begun < 2  # 1 s, on a machine that does something else too
    return result


@pytest.mark.parametrize("name", NAMES)
def test_a_valid_file_is_taken(name: str, places: dict[str, Door]) -> None:
    assert tried(places[name], places[name].valid) == "object"


@pytest.mark.parametrize("name", NAMES)
def test_no_door_takes_more_memory_than_it_may(name: str, places: dict[str, Door]) -> None:
    door = places[name]
    tracemalloc.start()
    for content in (b"", b"\xff" * 100, b"[" * 200_000, b"PK\3\4" + bytes(100), door.valid[:-3]):
        tried(door, content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_random_bytes(name: str, places: dict[str, Door], data: st.DataObject) -> None:
    start = data.draw(st.sampled_from([b"", b"PK\3\4", b"{", b"\x80\2", places[name].valid[:64]]))
    tried(places[name], start + data.draw(st.binary(max_size=200)))


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_a_valid_file_with_changed_bytes(
    name: str, places: dict[str, Door], data: st.DataObject
) -> None:
    """Changed, cut out and put in; mostly at both ends, where headers and tables stand."""
    content = bytearray(places[name].valid)
    for _ in range(data.draw(st.integers(1, 4))):
        size = len(content)
        near = st.one_of(
            st.integers(0, min(400, size)),
            st.integers(max(0, size - 400), size),
            st.integers(0, size),
        )
        place = data.draw(near)
        kind = data.draw(st.sampled_from(["change", "cut", "insert", "truncate"]))
        some = data.draw(st.binary(min_size=1, max_size=8))
        if kind == "change":
            content[place : place + len(some)] = some
        elif kind == "cut":
            del content[place : place + data.draw(st.integers(1, 40))]
        elif kind == "insert":
            content[place:place] = some
        else:
            del content[place:]
    tried(places[name], bytes(content))


def _paths(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inside = value.items() if isinstance(value, dict) else ()
    inside = enumerate(value) if isinstance(value, list) else inside
    return [before, *(p for key, part in inside for p in _paths(part, (*before, key)))]


def _changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with another value at a place; None of the key where `new` is ...."""
    if not path:
        return None if new is ... else new
    copy = dict(value) if isinstance(value, dict) else list(value)
    if new is ... and len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = _changed(copy[path[0]], path[1:], new)
    return copy


def _mutant(data: st.DataObject, valid: Any) -> Any:
    value = valid
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(_paths(value)))
        value = _changed(value, path, data.draw(st.one_of(st.just(...), NUMBERS, VALUES)))
    return value


@given(data=st.data())
def test_plans_of_any_values(places: dict[str, Door], data: st.DataObject) -> None:
    value = _mutant(data, json.loads(places["plan"].valid))
    tried(places["plan"], json.dumps(value).encode())


@pytest.mark.parametrize("name", ["model", "edm2", "judge", "classifier", "flow"])
@given(data=st.data())
def test_descriptions_of_any_values(
    name: str, places: dict[str, Door], data: st.DataObject
) -> None:
    content = places[name].valid
    length = int.from_bytes(content[:8], "little")
    valid = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["reg_engine"])
    tried(places[name], with_description(content, json.dumps(_mutant(data, valid))))


SHAPES = [(4, 28, 28), (4, 32, 32, 3), (4,), (2, 3), (0, 28, 28)]
ANY_ARRAY = st.builds(
    lambda kind, shape: np.zeros(shape, kind),
    st.one_of(arrays.scalar_dtypes(), arrays.unicode_string_dtypes(max_len=3)),
    st.one_of(arrays.array_shapes(min_dims=0, max_side=4), st.sampled_from(SHAPES)),
)


KEYS = {
    "batch": ["samples", "note"],
    "stats": ["mu", "sigma", "reg_engine"],
    "images": ["arr_0", "samples"],
}


@pytest.mark.parametrize("name", ["mnist", "cifar10", "batch", "stats", "images"])
@given(data=st.data())
def test_archives_of_any_arrays(name: str, places: dict[str, Door], data: st.DataObject) -> None:
    keys = KEYS.get(name, ["x_train", "y_train", "x_test", "y_test"])
    chosen = data.draw(st.dictionaries(st.sampled_from(keys), ANY_ARRAY))
    tried(places[name], archive(**chosen))
