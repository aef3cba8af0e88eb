"""Any bytes, any opcodes and any change of a file give its tensors or one error; nothing runs."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from edm2_cases import published
from fuzz_settings import given
from hypothesis import strategies as st
from malicious_cases import CANARY, PAYLOADS, SMALL, WRAPPERS, modules
from pickle_cases import legacy, nested, number, state, storage, stream, tensor, text, watched
from test_convert_layouts import state as state_with
from test_models_dit import released

from reg_engine import InputError
from reg_engine.convert.layouts import recognise
from reg_engine.convert.states import state_of

SEEDS = [
    WRAPPERS["zip"](SMALL),
    WRAPPERS["legacy"](SMALL),
    stream(state(a=tensor(nested(legacy(storage("0", 4), {"0": bytes(16)})), 0, (4,), (1,)))),
    stream(modules(3, 2, leaf=b"}")),
    *(
        WRAPPERS[wrapper](PAYLOADS[payload])
        for wrapper in ("zip", "legacy", "nested")
        for payload in ("os", "memo", "source")
    ),
]


def outcome(path: Path, data: bytes) -> None:
    """A state or one InputError, and nothing runs."""
    path.write_bytes(data)
    with watched() as seen:
        try:
            for each in state_of(path).tensors.values():
                each.read()
        except InputError as error:
            assert len(str(error)) < 800 and str(error).isprintable()
    assert seen == [] and not (path.parent / CANARY).exists()


@given(data=st.data())
def test_any_bytes(data: st.DataObject, tmp_path_factory: Any) -> None:
    start = data.draw(st.sampled_from([b"", b"PK\3\4", b"\x80\2", b"\x80\4", SEEDS[1][:40]]))
    outcome(tmp_path_factory.getbasetemp() / "any.pt", start + data.draw(st.binary(max_size=300)))


OPCODES = b"N\x88\x89])}(.0abehjqrstuQRcKMJGX\x80\x81\x85\x86\x87\x8a\x8c\x8e\x93\x94\x95oi\x92P2V"


@given(
    parts=st.lists(
        st.one_of(
            st.sampled_from([bytes([c]) for c in OPCODES]),
            st.sampled_from(list(PAYLOADS.values())),
            st.sampled_from([SMALL, storage("0", 4), text("ema"), number(3), nested(b"x")]),
        ),
        max_size=30,
    ),
    wrapper=st.sampled_from(sorted(WRAPPERS)),
)
def test_any_opcodes(parts: list[bytes], wrapper: str, tmp_path_factory: Any) -> None:
    body = WRAPPERS[wrapper](b"".join(parts))
    outcome(tmp_path_factory.getbasetemp() / "opcodes.pt", body)


@given(data=st.data())
def test_changed_bytes(data: st.DataObject, tmp_path_factory: Any) -> None:
    content = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        some = data.draw(st.binary(min_size=1, max_size=8))
        kind = data.draw(st.sampled_from(["change", "cut", "insert"]))
        end = {"change": place + len(some), "cut": place + 9, "insert": place}[kind]
        content[place:end] = b"" if kind == "cut" else some
    outcome(tmp_path_factory.getbasetemp() / "changed.pt", bytes(content))


def test_every_byte_of_a_seed_changed(tmp_path: Path) -> None:
    chance = random.Random(0)
    for seed in SEEDS[:3]:
        for place in range(len(seed)):
            changed = seed[:place] + bytes([chance.randrange(256)]) + seed[place + 1 :]
            outcome(tmp_path / "a.pt", changed)


SIDES = st.one_of(st.integers(0, 9), st.sampled_from([16, 24, 192, 384, 1 << 20, 1 << 40]))
SHAPES = {
    "dit.pt": released(2, 384, 16),
    "x.pkl": {f"unet.{name}": shape for name, shape in published(8, 3, 5).items()},
}


@given(data=st.data())
def test_any_names_and_shapes(data: st.DataObject) -> None:
    """A model or one error, however the names and shapes of a published one are changed."""
    where = data.draw(st.sampled_from(sorted(SHAPES)))
    shapes = dict(SHAPES[where])
    for _ in range(data.draw(st.integers(1, 4))):
        name = data.draw(st.sampled_from(sorted(shapes)))
        kind = data.draw(st.sampled_from(["shape", "side", "drop", "rename"]))
        shape = shapes.pop(name)
        if kind == "shape":
            shapes[name] = tuple(data.draw(st.lists(SIDES, max_size=4)))
        elif kind == "side" and shape:
            place = data.draw(st.integers(0, len(shape) - 1))
            shapes[name] = (*shape[:place], data.draw(SIDES), *shape[place + 1 :])
        elif kind == "rename":
            digits = data.draw(st.sampled_from(["0", "7", "64", "999999"]))
            shapes[name.replace(data.draw(st.sampled_from("0123468")), digits)] = shape
    heads = data.draw(st.sampled_from([None, 1, 3, 1 << 40]))
    begun = time.process_time()
    try:
        recognise(state_with(shapes), where, heads=heads)
    except ValueError as error:
        assert len(str(error)) < 800 and str(error).isprintable()
    assert time.process_time() - begun < 1
