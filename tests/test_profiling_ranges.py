"""Ranges: heard by whom, nested, in threads, under torch.compile, and silent otherwise."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from reg_engine.profiling import ranges
from reg_engine.profiling.report import spans_of


@pytest.fixture(autouse=True)
def silent_afterwards() -> Iterator[None]:
    yield
    ranges.record(False)


def names(profiler: profile) -> list[str]:
    found = [e.name for e in profiler.events() if e.name.startswith(ranges.PREFIX)]
    return [name.removeprefix(ranges.PREFIX) for name in found]


def cpu_profile() -> profile:
    return profile(activities=[ProfilerActivity.CPU])


class FakeDomain:
    """Writes down what a tool would be told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def get_event_attributes(self, message: str, color: int) -> tuple[str, int]:
        return message, color

    def push_range(self, attributes: tuple[str, int]) -> None:
        self.told.append(f"+{attributes[0]}")

    def pop_range(self) -> None:
        self.told.append("-")


def test_nobody_is_told_unless_asked() -> None:
    with cpu_profile() as profiler:
        with ranges.evaluate():
            torch.ones(2).sum()
        ranges.record(True)
        ranges.record(False)
        with ranges.cond():
            torch.ones(2).sum()
    assert names(profiler) == []
    assert len(profiler.events()) > 0


def test_every_range_has_its_own_name_and_color() -> None:
    found = [getattr(ranges, name) for name in ranges.__all__]
    found = [r for r in found if isinstance(r, ranges.Range)]
    assert len(found) == 12
    assert all(getattr(ranges, r.name) is r for r in found)
    assert len({r.color for r in found}) == 12


def test_recorded_ranges_nest_also_in_themselves() -> None:
    ranges.record(True)
    with cpu_profile() as profiler, ranges.profile():
        for _ in range(3):
            with ranges.evaluate(), ranges.rectifier(), ranges.cond():
                torch.ones(2).sum()
                with ranges.cond():
                    torch.ones(2).sum()
            with ranges.guided_step():
                torch.ones(2).sum()
    paths = ["/".join(span.path) for span in spans_of(profiler.events())]
    once = ["evaluate", "evaluate/rectifier", "evaluate/rectifier/cond"]
    once += ["evaluate/rectifier/cond/cond", "guided_step"]
    assert paths == ["profile", *(f"profile/{path}" for path in once * 3)]


def test_a_range_lets_an_exception_through_and_closes() -> None:
    ranges.record(True)
    with cpu_profile() as profiler:
        with pytest.raises(KeyError), ranges.evaluate(), ranges.cond():
            raise KeyError("x")
        with ranges.guided_step():
            pass
    assert names(profiler) == ["evaluate", "cond", "guided_step"]
    outer, inner, after = (e for e in profiler.events() if e.name.startswith(ranges.PREFIX))
    assert inner.cpu_parent is outer and after.cpu_parent is None


def test_recording_may_begin_and_end_inside_ranges() -> None:
    with cpu_profile() as profiler:
        with ranges.evaluate():
            ranges.record(True)
            with ranges.cond():
                pass
        with ranges.rectifier():
            with ranges.ref():
                ranges.record(False)
            with ranges.decode():
                pass
        ranges.record(True)
        with ranges.guided_step():
            pass
    assert names(profiler) == ["cond", "rectifier", "ref", "guided_step"]
    after = next(e for e in profiler.events() if e.name.endswith("guided_step"))
    assert after.cpu_parent is None


def test_threads_do_not_close_each_others_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[int, list[str]] = {}

    class Told:
        """In place of torch.profiler's own, which sees one thread."""

        def __init__(self, name: str) -> None:
            self.name = name.removeprefix(ranges.PREFIX)

        def __enter__(self) -> None:
            told.setdefault(threading.get_ident(), []).append(f"+{self.name}")

        def __exit__(self, *exc: object) -> None:
            told[threading.get_ident()].append(f"-{self.name}")

    monkeypatch.setattr(ranges, "record_function", Told)
    ranges.record(True)
    barrier = threading.Barrier(2)

    def work(first: ranges.Range, second: ranges.Range) -> None:
        for _ in range(20):
            with first():
                barrier.wait(20)
                with second():
                    barrier.wait(20)

    pairs = [(ranges.evaluate, ranges.cond), (ranges.plan, ranges.ref)]
    threads = [threading.Thread(target=work, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert sorted(told.values()) == [
        ["+evaluate", "+cond", "-cond", "-evaluate"] * 20,
        ["+plan", "+ref", "-ref", "-plan"] * 20,
    ]


@pytest.mark.parametrize("recording", [False, True])
def test_compiled_code_holds_no_range_and_does_not_break(recording: bool) -> None:
    def twice(x: torch.Tensor) -> torch.Tensor:
        with ranges.evaluate():
            return x + x

    torch._dynamo.reset()
    compiled = torch.compile(twice, fullgraph=True, backend="eager")
    ranges.record(recording)
    with cpu_profile() as profiler:
        assert compiled(torch.ones(3)).tolist() == [2.0, 2.0, 2.0]
    assert "evaluate" not in names(profiler)


def test_a_tool_is_told_of_every_push_and_pop(monkeypatch: pytest.MonkeyPatch) -> None:
    domain, asked = FakeDomain(), []
    fake = SimpleNamespace(get_domain=lambda name: asked.append(name) or domain)
    monkeypatch.setitem(sys.modules, "nvtx", fake)
    monkeypatch.setattr(ranges, "_domain", ranges._attach())
    ranges.record(False)  # looks again who listens
    assert ranges.attached() and asked == ["reg_engine"]
    outer, inner = ranges.Range("outer", 1), ranges.Range("inner", 2)
    with pytest.raises(ValueError), outer():
        with inner():
            pass
        raise ValueError
    assert domain.told == ["+outer", "+inner", "-", "-"]
    ranges.record(True)
    with cpu_profile() as profiler, outer():
        pass
    assert domain.told[4:] == ["+outer", "-"] and names(profiler) == ["outer"]
    monkeypatch.undo()


def test_without_the_package_or_a_tool_nothing_is_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    class DummyDomain:
        """What the package gives where no tool listens."""

    monkeypatch.setitem(sys.modules, "nvtx", SimpleNamespace(get_domain=lambda _: DummyDomain()))
    assert ranges._attach() is None
    monkeypatch.setitem(sys.modules, "nvtx", None)  # as if it were not installed
    assert ranges._attach() is None
