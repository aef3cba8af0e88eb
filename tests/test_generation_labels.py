"""Labels as functions of the seed: known hashes, exact counts, files, and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from reg_engine import InputError
from reg_engine.generation.labels import Blocks, Cycle, Uniform, lines_of, rule_of, splitmix64


def test_splitmix64_is_the_published_one() -> None:
    # The first outputs of the reference implementation for these states.
    assert splitmix64(1234567) == 6457827717110365317
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    # Its second output: the state has moved by the golden ratio.
    assert splitmix64(1234567 + 0x9E3779B97F4A7C15) == 3203168211198807973


def test_uniform_is_the_scaled_hash_and_uniform() -> None:
    rule = Uniform(1000)
    assert [rule.of(s) for s in range(5)] == [int(splitmix64(s) / 2**64 * 1000) for s in range(5)]
    counts = Counter(rule.of(seed) for seed in range(50_000))
    assert set(counts) == set(range(1000))
    chi2 = sum((n - 50) ** 2 / 50 for n in counts.values())
    assert 850 < chi2 < 1150  # 999 degrees of freedom: within 3.3 standard deviations
    assert rule.of(2**63 - 1) < 1000


@pytest.mark.parametrize("start", [0, 50_000, 137])
def test_any_window_of_blocks_has_as_many_of_each(start: int) -> None:
    rule = Blocks(50, 1000)
    counts = Counter(rule.of(seed) for seed in range(start, start + 50_000))
    assert len(counts) == 1000 and set(counts.values()) == {50}
    assert [rule.of(seed) for seed in (0, 49, 50, 49_999, 50_000)] == [0, 0, 1, 999, 0]


def test_a_cycle_goes_round() -> None:
    rule = Cycle((3, 5, 7))
    assert [rule.of(seed) for seed in range(5)] == [3, 5, 7, 3, 5]
    assert Cycle(("a cat", "two dogs")).of(3) == "two dogs"


def test_texts_are_rules(tmp_path: Path) -> None:
    assert rule_of("uniform", 7) == Uniform(7)
    assert rule_of("each:50", 7) == Blocks(50, 7)
    assert rule_of("0-2", 7, [0, 1, 2]) == Cycle((0, 1, 2))
    path = tmp_path / "labels.txt"
    path.write_bytes(b"4\r\n2\n0\n")
    found = rule_of(f"file:{path}", 7)
    assert found == Cycle((4, 2, 0)) and str(found) == "file:labels.txt"
    assert [str(each) for each in (Uniform(7), Blocks(5, 7), Cycle((1, 2)))] == [
        "uniform",
        "each:5",
        "1,2",
    ]


def test_lines_are_kept_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\n\n two dogs, é\n", encoding="utf-8")
    assert lines_of(path) == ["a cat", "", " two dogs, é"]


@pytest.mark.parametrize(
    ("text", "classes", "values", "says"),
    [
        ("uniform", None, None, "number of classes"),
        ("each:x", 7, None, "each:50"),
        ("each", 7, None, "each:50"),
        ("each:0", 7, None, "each"),
        ("uniform:3", 7, None, "uniform"),
        ("0-9", 7, [6, 7, 9], r"\[7, 9\] are out of range"),
        ("-1", None, [-1], "out of range"),
        ("file:missing", 7, None, "cannot be read"),
    ],
)
def test_what_is_no_rule(text: str, classes: int | None, values: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        rule_of(text, classes, values)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\n", b"3\nx\n"])
def test_files_that_hold_no_labels(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="labels"):
        rule_of(f"file:{path}", 7)


def test_empty_cycles_and_no_classes() -> None:
    with pytest.raises(InputError, match="none"):
        Cycle(())
    for bad in (0, True, 2.5):
        with pytest.raises(InputError):
            Uniform(bad)  # type: ignore[arg-type]
        with pytest.raises(InputError):
            Blocks(5, bad)  # type: ignore[arg-type]
