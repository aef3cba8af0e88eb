"""`auto`: what it compares with the memory that is free."""

from __future__ import annotations

import pytest
from nets import flow_point

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
