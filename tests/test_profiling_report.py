"""Profiling: the tree of ranges, what is measured when, the command lines, and the picture."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from reg_engine import InputError
from reg_engine.pictures import plots
from reg_engine.profiling import ranges
from reg_engine.profiling import report as profiling

CPU = torch.device("cpu")


def work(ms: float = 0.0) -> None:
    """An op, and so much of the interpreter's time outside it."""
    torch.ones(64, 64) @ torch.ones(64, 64)
    end = time.perf_counter() + ms / 1e3
    while time.perf_counter() < end:
        pass


def section() -> str:
    for _ in range(3):
        with ranges.evaluate():
            with ranges.cond():
                work(4)
            work(2)
        with ranges.guided_step():
            work()
    return "done"


def event(name: str, start: float, end: float, thread: int = 1, **more: Any) -> SimpleNamespace:
    """As torch.profiler gives it, times in us."""
    return SimpleNamespace(
        name=name,
        time_range=SimpleNamespace(start=start, end=end),
        thread=thread,
        device_type=SimpleNamespace(name=more.pop("device", "CPU")),
        self_cpu_time_total=more.pop("own", 0.0),
        kernels=[SimpleNamespace(duration=d) for d in more.pop("kernels", ())],
    )


def test_tree_of_a_section(tmp_path: Path) -> None:
    calls = []
    found = profiling.run(lambda: calls.append(1) or section(), CPU, tmp_path, warmup=2)
    assert len(calls) == 3 and found.result == "done" and found.tool is None
    rows = {"/".join(row.path): row for row in found.rows}
    assert list(rows) == [
        "profile",
        "profile/evaluate",
        "profile/evaluate/cond",
        "profile/guided_step",
    ]
    assert [row.calls for row in rows.values()] == [1, 3, 3, 3]
    root, evaluate, cond, step = rows.values()
    assert root.share == 1 and all(row.device is None for row in rows.values())
    # what a range does not give to those in it is its own
    assert root.own == pytest.approx(root.total - evaluate.total - step.total)
    assert evaluate.own == pytest.approx(evaluate.total - cond.total)
    assert cond.own == cond.total >= 3 * 4 and evaluate.own >= 3 * 2
    # the loops of work() are the interpreter's, and the products are not
    assert 3 * 4 <= cond.python < cond.total and 3 * 2 <= evaluate.python < evaluate.own
    assert found.undisturbed is not None and found.undisturbed >= 3 * 6e-3


def test_trace_is_whole_and_the_ranges_are_silent_afterwards(tmp_path: Path) -> None:
    found = profiling.run(section, CPU, tmp_path, warmup=0)
    assert found.undisturbed is None and [p.name for p in tmp_path.iterdir()] == ["trace.json"]
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = [e.get("name") for e in events]
    assert names.count("reg_engine.evaluate") == 3 and "aten::mm" in names
    assert ranges.evaluate() is ranges.cond()  # nothing
    assert json.loads(json.dumps(found.as_dict()))["ranges"][1]["path"] == ["profile", "evaluate"]


def test_a_failing_section_leaves_the_ranges_silent(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        profiling.run(lambda: 1 / 0, CPU, tmp_path, warmup=0)
    assert ranges.evaluate() is ranges.cond() and list(tmp_path.iterdir()) == []


def test_kernels_belong_to_the_ranges_open_at_their_launch_in_any_thread() -> None:
    events = [
        event("reg_engine.profile", 1000, 9000, own=500),
        event("reg_engine.evaluate", 2000, 5000),
        event("reg_engine.cond", 2000, 3000),
        event("reg_engine.guided_step", 6000, 7000),
        event("reg_engine.cond", 2500, 2600, thread=2),  # not the root's thread
        event("aten::mm", 2500, 2600, kernels=[40, 2]),
        event("aten::mm", 4000, 4100, thread=7, kernels=[100]),  # autograd's own thread
        event("aten::add", 5500, 5510, kernels=[1000]),
        event("aten::add", 500, 510, kernels=[9999]),  # before the root
        event("reg_engine.cond", 2000, 3000, device="CUDA"),  # the mark on the device's track
    ]
    spans = profiling.spans_of(events)
    assert [(s.path[-1], s.start, s.end, s.parent) for s in spans] == [
        ("profile", 0, 8, None),
        ("evaluate", 1, 4, 0),
        ("cond", 1, 2, 1),
        ("guided_step", 5, 6, 0),
    ]
    rows = profiling.rows_of(spans, cuda=True)
    assert [row.device for row in rows] == pytest.approx([1.142, 0.142, 0.042, 0])
    assert [row.share for row in rows] == [1, 3 / 8, 1 / 8, 1 / 8]
    assert rows[0].python == 0.5 and rows[0].own == 8 - 3 - 1
    assert profiling.rows_of(spans, cuda=False)[0].device is None
    assert profiling.spans_of(events[4:]) == []


def test_rows_follow_their_parents_also_when_they_appear_late() -> None:
    names = {"evaluate": 0, "guided_step": 20, "evaluate ": 30}
    events = [event("reg_engine.profile", 0, 100)]
    events += [event(f"reg_engine.{n.strip()}", t, t + 10) for n, t in names.items()]
    events.append(event("reg_engine.cond", 31, 35))
    rows = profiling.rows_of(profiling.spans_of(events), cuda=False)
    assert [row.path[-1] for row in rows] == ["profile", "evaluate", "cond", "guided_step"]


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        ("NSYS_PROFILING_SESSION_ID", "Nsight Systems"),
        ("NV_NSIGHT_INJECTION_TRANSPORT_TYPE", "Nsight Compute"),
        ("NVTX_INJECTION64_PATH", "a tool that listens to NVTX or CUDA"),
    ],
)
def test_under_a_tool_nothing_else_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, says: str
) -> None:
    assert profiling.tool() is None
    monkeypatch.setenv(variable, "1")
    assert profiling.tool() == says
    watching = []
    found = profiling.run(
        lambda: watching.append(torch.autograd._profiler_enabled()), CPU, tmp_path, warmup=1
    )
    assert found.tool == says and watching == [False, False]
    assert found.trace is None and found.rows == [] and list(tmp_path.iterdir()) == []


def test_only_the_last_run_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    domain = SimpleNamespace(
        push_range=lambda attributes: told.append("push"), pop_range=lambda: told.append("pop")
    )
    monkeypatch.setenv("NSYS_PROFILING_SESSION_ID", "1")
    monkeypatch.setattr(ranges, "_domain", domain)
    monkeypatch.setattr(ranges, "_heard", True)
    for name in ("start", "stop"):
        monkeypatch.setattr(torch.cuda.profiler, name, lambda name=name: told.append(name))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: told.append("wait"))
    profiling.run(lambda: told.append("run"), torch.device("cuda"), tmp_path, warmup=2)
    warm = ["run", "wait"] * 2
    assert told == [*warm, "start", "push", "run", "wait", "pop", "stop"]


def test_command_lines_survive_a_shell_and_say_what_to_wait_for() -> None:
    arguments = ["profile", "--model", "my model's.safetensors", "--steps", "3"]
    lines = profiling.commands(arguments, Path("a folder"), cuda=True)
    for line in lines.values():
        words = shlex.split(line)
        at = words.index("-m")
        assert words[at + 1 :] == ["reg_engine.cli", *arguments]
        assert Path(words[at - 1]).samefile(sys.executable) or words[at - 1] == "python"
    nsys, ncu = (shlex.split(lines[name]) for name in ("nsys", "ncu"))
    assert nsys[:2] == ["nsys", "profile"] and "--capture-range=cudaProfilerApi" in nsys
    assert nsys[nsys.index("-o") + 1] == "a folder/nsys"
    assert ncu[ncu.index("--nvtx-include") + 1] == "reg_engine@guided_step/"
    assert ncu[ncu.index("--profile-from-start") + 1] == "off"
    without = profiling.commands(arguments, Path("x"), cuda=False)
    assert list(without) == ["nsys"]
    assert "--nvtx-capture=profile@reg_engine" in shlex.split(without["nsys"])


def test_missing_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nsys"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert profiling.missing(["nsys", "ncu"]) == ["ncu"]


def test_negative_warmup_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--warmup: is -1"):
        profiling.run(section, CPU, tmp_path, warmup=-1)


def test_picture_shows_every_range(tmp_path: Path) -> None:
    found = profiling.run(section, CPU, tmp_path, warmup=0)
    plots.save_profile(found.spans, found.rows, tmp_path / "profile.png")
    picture = Image.open(tmp_path / "profile.png").convert("RGB")
    colors = {color for _, color in picture.getcolors(1 << 20) or []}
    for which in (ranges.profile, ranges.evaluate, ranges.cond, ranges.guided_step):
        assert tuple(which.color.to_bytes(3, "big")) in colors, which.name
    assert not (tmp_path / "profile.png.part").exists()


def test_picture_without_evaluations_shows_the_whole(tmp_path: Path) -> None:
    found = profiling.run(work, CPU, tmp_path, warmup=0)
    plots.save_profile(found.spans, found.rows, tmp_path / "profile.png")
    assert Image.open(tmp_path / "profile.png").width == 1200
