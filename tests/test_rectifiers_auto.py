"""`auto`: what it compares with the memory that is free."""

from __future__ import annotations

import pytest
from derivative_cases import Residual, seen
from nets import flow_point, tiny
from rerun import Rerun

import reg_engine
from reg_engine import Engine
from reg_engine.loop.graphs import Graphs
from reg_engine.loop.stats import Stats
from reg_engine.rectifiers import auto
from reg_engine.rectifiers.reverse import saved_bytes_per_sample


def test_half_of_the_free_memory_is_taken_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    p = flow_point()
    needed = saved_bytes_per_sample(p) * 4
    for free, takes in ((1.9, "jvp"), (2.1, "vjp")):
        monkeypatch.setattr(auto, "free_bytes", lambda device, free=free: int(free * needed))
        assert auto.choose(p, 4, None)[0].name == takes
        assert auto.choose(p, 4, int(needed))[0].name == "vjp", "a budget is taken as it is"


def test_free_bytes_are_those_of_the_machine() -> None:
    with open("/proc/meminfo", encoding="ascii") as file:
        sizes = {k: int(v.split()[0]) * 1024 for k, v in (line.split(":") for line in file)}
    free = auto.free_bytes(flow_point().x.device)
    assert 0 < free <= sizes["MemTotal"]
    assert free == pytest.approx(sizes["MemFree"], abs=0.2 * sizes["MemTotal"])


@pytest.mark.parametrize(("options", "takes"), [({}, "alternate"), ({"compile": True}, "vjp")])
def test_auto_is_alternate_unless_every_batch_must_be_alike(
    options: dict[str, bool], takes: str
) -> None:
    model = seen(Residual()) if options else tiny()
    engine = Engine(model, scale=2.0, steps=2, progress=False, **options)
    assert engine.choices.static is bool(options)
    stats = Stats()
    engine.prepare(engine.conditions([0, 1], 2), 2, stats)
    assert engine.chosen[0] == takes


def test_graphs_that_must_be_captured_want_batches_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    for always in (True, False):
        graphs = Graphs(Rerun(), always=always), ""
        monkeypatch.setattr(reg_engine.engine, "graphs_for", lambda *_, found=graphs: found)
        assert Engine(tiny(), scale=2.0, steps=2, progress=False).choices.static is always
