"""The pickle machine: every opcode it knows against the standard library, all others refused."""

from __future__ import annotations

import pickle
import pickletools
import struct
from typing import Any

import pytest
from fuzz_settings import given
from hypothesis import strategies as st
from pickle_cases import blob, name, stream, text

from reg_engine.convert import machine
from reg_engine.convert.machine import Machine
from reg_engine.convert.records import MOST_OPCODES, Budget, Name, Record


def named(module: str, called: str) -> Name:
    if module == "bad":
        raise ValueError(f"it names {module}")
    return Name(module, called)


def persistent(value: Any) -> Any:
    return ("persistent", value)


def run(data: bytes, start: int = 0, budget: Budget | None = None) -> tuple[Any, int]:
    return Machine(
        memoryview(data),
        start,
        budget or Budget(),
        call=Record,
        named=named,
        persistent=persistent,
    ).run()


def refused(data: bytes, budget: Budget | None = None) -> str:
    with pytest.raises(ValueError) as caught:
        run(data, budget=budget)
    return str(caught.value)


def plain(value: Any) -> Any:
    """Views as bytes, so that values compare."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, list | tuple):
        return type(value)(plain(part) for part in value)
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return value


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**200), 2**200),
    st.floats(allow_nan=False),
    st.text(max_size=300),
    st.binary(max_size=300),
)
KEYS = st.one_of(st.text(max_size=5), st.integers(-(2**63), 2**64 - 1), st.booleans(), st.none())
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=5)
    ),
    max_leaves=20,
)


@given(value=VALUES, protocol=st.integers(3, 5))
def test_values_are_those_of_the_standard_library(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    found, end = run(data)
    assert plain(found) == value and end == len(data)
    assert repr(plain(found)) == repr(value)  # True is not 1


def test_sizes_that_are_long_and_shared_values() -> None:
    many = {str(n): n for n in range(3000)}
    value = {"a": many, "b": [many, many], "t": "x" * 70_000, "c": b"y" * 70_000, "s": {"k"}}
    for protocol in (4, 5):
        found, _ = run(pickle.dumps(value, protocol))
        assert found.pop("s") == ["k"]
        assert plain(found) == {key: part for key, part in value.items() if key != "s"}
        assert found["b"][0] is found["b"][1] is found["a"]
    assert plain(run(stream(b"X" + struct.pack("<I", 3) + "aß".encode()))[0]) == "aß"
    assert run(stream(b"\x8d" + struct.pack("<Q", 1) + b"a"))[0] == "a"
    assert plain(run(stream(b"B" + struct.pack("<I", 2) + b"ab"))[0]) == b"ab"


def test_objects_are_written_down() -> None:
    body = name("a", "B") + b"K\1\x85R}" + text("x") + b"K\2sb" + text("k") + b"K\3s"
    found, _ = run(stream(body))
    assert (str(found.kind), found.args, found.state, found.items) == (
        "a.B",
        (1,),
        {"x": 2},
        {"k": 3},
    )
    found, _ = run(stream(text("a") + text("B") + b"\x93)\x81"))
    assert (found.kind, found.args) == (Name("a", "B"), ())
    assert run(stream(b"K\1Q"))[0] == ("persistent", 1)
    assert run(stream(b"K\1K\2" + b"0"))[0] == 1
    assert run(stream(b"}N" + b"b"))[0] == {}
    assert run(stream(b"Nq\5" + b"0h\5"))[0] is None
    assert run(stream(b"Kar\xff\xff\xff\xff" + b"0j\xff\xff\xff\xff"))[0] == 97


def test_long_bytes_are_views_of_the_file() -> None:
    data = stream(blob(b"0123456789"))
    source = bytearray(data)
    found, _ = run(source)
    source[source.index(b"3")] = ord("x")
    assert bytes(found) == b"012x456789"


def test_a_stream_is_read_where_it_starts() -> None:
    data = b"rest" + stream(b"K\7") + b"more"
    assert run(data, start=4) == (7, 4 + len(stream(b"K\7")))


KNOWN = set(machine._STEPS) | {ord(".")}
OTHERS = [each for each in pickletools.opcodes if ord(each.code) not in KNOWN]


@pytest.mark.parametrize("opcode", OTHERS, ids=lambda each: each.name)
def test_other_opcodes_are_refused(opcode: Any) -> None:
    code = opcode.code.encode("latin-1")
    for before in (b"", b"N", b"NN", b"(NN", b"(" + name("os", "system") + text("true")):
        said = refused(stream(before + code + b"os\nsystem\n" + bytes(8)))
        assert "is not read here" in said and f"0x{code[0]:02x}" in said


def test_the_other_opcodes_are_the_dangerous_and_the_old() -> None:
    names = {each.name for each in OTHERS}
    assert {"INST", "OBJ", "EXT1", "EXT2", "EXT4", "PERSID", "NEWOBJ_EX", "DUP"} <= names
    assert {"NEXT_BUFFER", "READONLY_BUFFER", "FROZENSET", "LONG4"} <= names
    assert len(names) == 24


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "left over, or with none"),
        (b"NN", "left over"),
        (b"(N", "left over"),
        (b"0", "missing on the stack"),
        (b"t", "a mark is missing"),
        (b"q\0", "missing on the stack"),
        (b"\x94", "missing on the stack"),
        (b"h\5", "value 5 is recalled"),
        (b"a", "missing on the stack"),
        (b"Na", "no list"),
        (b"NNa", "no list"),
        (b")Na", "no list"),
        (b"(NNe", "missing on the stack|mark|no list"),
        (b"N(Ne", "no list"),
        (b"NNs", "no dict"),
        (b"NNNs", "no dict"),
        (b"}(Nu", "no dict"),
        (b"]NNs", "no dict"),
        (b"})Ns", "a tuple as the key"),
        (b"}]Ns", "a list as the key"),
        (b"}G" + bytes(8) + b"Ns", "a float as the key"),
        (b"}" + name("a", "B") + b"Ns", "a Name as the key"),
        (b"}\x8a\x09" + bytes(8) + b"\1Ns", "a int as the key"),
        (b"}\x8a\x0a" + bytes(9) + b"\x80Ns", "a int as the key"),
        (b"NNR", "no name"),
        (text("os.system") + b")R", "no name"),
        (name("a", "B") + b"NR", "without arguments"),
        (name("a", "B") + b"]R", "without arguments"),
        (name("a", "B") + b")R)R", "no name"),
        (name("a", "B") + b"N\x81", "without arguments"),
        (b"N)\x81", "no name"),
        (b"NNb", "a NoneType"),
        (name("a", "B") + b"}b", "a Name"),
        (text("a") + b"}b", "a str"),
        (b"Nb", "a NoneType"),
        (b"NK\1\x93", "no text"),
        (text("a") + b"N\x93", "no text"),
        (name("bad", "x"), "it names bad"),
        (text("bad") + text("x") + b"\x93", "it names bad"),
        (b"c" + b"a" * 300 + b"\nx\n", "a name without end"),
        (b"cos", "a name without end"),
        (b"X\xff\xff\xff\x7fabc", "more than 1048576 bytes"),
        (b"X\x09\0\0\0abc", "truncated"),
        (b"\x8e" + b"\xff" * 8, "truncated"),
        (b"\x8e" + struct.pack("<Q", 10 << 30) + b"abc", "truncated: 10737418240 bytes"),
        (b"B\xff\xff\xff\xffabc", "truncated"),
        (b"\x8a\xff", "truncated"),
        (b"X\2\0\0\0\xff\xff", "codec can't decode"),
        (b"X\3\0\0\0\xed\xa0\x80", "codec can't decode"),  # half of a pair cannot be written
        (b"\x80\1", "protocol 1"),
        (b"\x80\6", "protocol 6"),
        (b"\x95" + struct.pack("<Q", 1000) + b"N", "does not fit"),
        (b"\x95" + b"\xff" * 8 + b"N", "does not fit"),
        (b"\x95" + struct.pack("<Q", 11) + b"\x95" + struct.pack("<Q", 1) + b"NN", "does not fit"),
        (b"\x95" + struct.pack("<Q", 1) + b"K\1", "crosses the end of its frame"),
    ],
)
def test_damaged_streams(body: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        run(stream(body))


def test_every_truncation_is_an_error() -> None:
    value = {"a": [1, 2.5, None, True], "b": ("x", b"yz" * 200), "c": {"d": "e" * 300}}
    for protocol in (3, 4, 5):
        data = pickle.dumps(value, protocol)
        for end in range(len(data)):
            refused(data[:end])


def test_a_frame_ends_where_it_says() -> None:
    inside = b"K\1" + b"0"
    good = b"\x95" + struct.pack("<Q", len(inside)) + inside + b"K\2"
    assert run(stream(good))[0] == 2


def test_opcodes_are_counted() -> None:
    assert run(stream(b"N0" * 10 + b"N"), budget=Budget(opcodes=23))[0] is None
    assert "opcodes" in refused(stream(b"N0" * 10 + b"N"), Budget(opcodes=22))
    budget = Budget(opcodes=40)
    run(stream(b"N" + b"0N" * 5), budget=budget)
    assert budget.opcodes == 27
    assert f"more than {MOST_OPCODES} opcodes" in refused(stream(b"N0" * (1 << 18)))


def test_names_count_for_more() -> None:
    body = name("a", "B") + b"0" + b"N"
    run(stream(body), budget=Budget(opcodes=37))
    assert "opcodes" in refused(stream(body), Budget(opcodes=36))


def test_text_is_counted_and_bytes_are_not() -> None:
    budget = Budget(text=100)
    run(stream(text("a" * 60) + b"0" + blob(bytes(10_000))), budget=budget)
    assert budget.text == 40
    assert "a text of more" in refused(
        stream(text("a" * 60) + b"0" + text("b" * 41)), Budget(text=100)
    )
    most = text("a" * (1 << 20))
    run(stream(most))
    assert "a text of more" in refused(stream(text("a" * ((1 << 20) + 1))))
    assert "a text of more" in refused(stream((most + b"0") * 17))


def test_deep_nesting_costs_no_recursion() -> None:
    deep = 100_000
    for body in (b"N" + b"\x85" * deep, b"]" * deep + b"a" * (deep - 1)):
        found, _ = run(stream(body))
        del found
    assert "more than 1000 values within" in refused(stream(b"(" * 1001))
    refused(stream(b"(" * 1000 + b"N" + b"t" * 1000)[:-1])
    run(stream(b"(" * 1000 + b"N" + b"t" * 1000))


def test_hashes_that_collide_are_no_keys() -> None:
    """Integers that are equal modulo 2^61 - 1 have one hash: a dict of them is quadratic."""
    pairs = [b"\x8a\x09" + ((n << 61) - n).to_bytes(9, "little") + b"N" for n in range(1, 1000)]
    assert "a int as the key" in refused(stream(b"}(" + b"".join(pairs) + b"u"))
