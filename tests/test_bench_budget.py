"""The benchmarks end in time: what is quick comes first, and what found no time is named."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
import torch
from test_bench import pytest_bench

from bench import cases, contenders, gate, timing
from bench.budget import Budget, rank

CPU = torch.device("cpu")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_group_begins_while_there_is_time_and_gets_a_share_of_it() -> None:
    clock = Clock()
    budget = Budget(10.0, clock)
    assert budget.limited and budget.gate() == pytest.approx(240)
    assert budget.until("a", 30) == 1000 + 60  # three shares of 600 / 30
    clock.now += 100
    assert budget.until("a", 29) == 1060  # the same, however often it is asked
    assert budget.until("b", 1000) == 1110  # ten seconds at least
    clock.now = 1595
    assert budget.until("c", 2) == 1600  # never past the end
    clock.now = 1600
    assert budget.until("d", 1) is None
    assert budget.until("c", 1) == 1600
    for name in ("x", "y", "x"):
        budget.leave(name)
    assert budget.after() == ["   2 of x", "   1 of y"]
    assert "about 10 minutes" in budget.before() and "--bench-minutes 0" in budget.before()


def test_no_minutes_are_no_limit() -> None:
    budget = Budget(0.0, Clock())
    assert not budget.limited and budget.gate() == budget.until("a", 1) == math.inf
    assert budget.after() == [] and budget.before().startswith("all benchmarks")


def test_what_is_quick_comes_first() -> None:
    kernel = cases.KERNEL_CASES["shrunk"]
    single = min((c for c in kernel if c.dtype == "float32"), key=lambda c: c.numel)
    half = min((c for c in kernel if c.dtype == "bfloat16"), key=lambda c: c.numel)
    models = {c.family: c for c in cases.MODEL_CASES}
    who = {c.name: c for c in contenders.CONTENDERS}
    eager, compiled = who["vjp-eager"], who["vjp-compiled"]
    ordered = [
        {"kernel_case": single, "provider": "eager"},
        {"model_case": models["dit"], "contender": eager},
        {"kernel_case": half, "provider": "eager"},
        {"kernel_case": single, "provider": "compile"},
        {"model_case": models["mnist"], "contender": who["vjp-planned"]},
        {"model_case": models["dit"], "contender": compiled},
    ]
    ranks = [rank(params, True) for params in ordered]
    assert sorted(ranks[:4]) == ranks[:4] and max(ranks[:3]) < min(ranks[3:])
    assert rank({"model_case": models["mnist"], "contender": eager}, True) < ranks[1]
    # With instructions for 16 bits their rows stand where their size puts them.
    assert rank(ordered[2], False)[:3] == rank(ordered[0], False)[:3]


@pytest.mark.parametrize("until", [0.0, math.inf])
def test_rounds_end_with_the_time(until: float) -> None:
    rounds = timing.FEWEST if until == 0 else 9
    long = timing.in_turn({"a": lambda: None}, CPU, 9, until)
    short = timing.interleaved({"a": [lambda: None]}, CPU, 9, until)
    assert len(long["a"]) == len(short["a"]) == rounds


def test_tests_that_take_too_long_are_stopped_and_not_called_red(tmp_path: Path) -> None:
    (tmp_path / "test_slow.py").write_text("def test_slow():\n    while True: pass\n")
    with pytest.raises(gate.Unfinished, match="stopped after 3 s, none was red"):
        gate.verdict(tmp_path, ["test_slow.py"], limit=3.0)


def test_the_command_ends_in_time_and_names_what_it_left_out(tmp_path: Path) -> None:
    began = time.monotonic()
    code, said = pytest_bench(tmp_path, "", "bench/", "--bench-minutes=0.02")
    assert code == 0, said
    assert "benchmarks: about 0.02 minutes: the tests first" in said
    assert "left out for want of time (--bench-minutes 0 measures all)" in said
    assert "test_sampling[mnist-28, compiled or planned]" in said
    assert time.monotonic() - began < 150
