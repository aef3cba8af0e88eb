"""bfloat16 is trained in where it is faster, whatever the processor; and what is done is said."""

from __future__ import annotations

import csv
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import tiny

from reg_engine.errors import InputError
from reg_engine.training import log, precision, trainer
from reg_engine.training.precision import Speed, faster

SLOW, FAST = Speed(float32=1.0, bfloat16=9.8), Speed(float32=2.0, bfloat16=1.0)
CPU = torch.device("cpu")


def measured(monkeypatch: pytest.MonkeyPatch, speed: Speed) -> None:
    monkeypatch.setattr(precision, "speed", lambda: speed)


def test_the_faster_one_is_taken_on_a_cpu_and_the_asked_one_elsewhere(monkeypatch) -> None:
    measured(monkeypatch, SLOW)
    why = "bfloat16 is 9.8 times slower than float32 on this processor"
    assert faster("bfloat16", CPU) == ("float32", why)
    assert faster("float32", CPU) == ("float32", "")
    assert faster("bfloat16", torch.device("cuda")) == ("bfloat16", "")
    measured(monkeypatch, FAST)
    assert faster("bfloat16", CPU) == ("bfloat16", "")
    assert str(FAST) == "bfloat16 is 2.0 times faster than float32 on this processor"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the limit is one of x86 instructions")
def test_a_processor_without_16_bit_instructions_is_told_by_its_speed() -> None:
    # oneDNN takes this processor for one with AVX2 alone.
    code = (
        "import torch; from reg_engine.training.precision import faster, speed; "
        "print(speed().bfloat16 / speed().float32, faster('bfloat16', torch.device('cpu'))[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
        check=False,
    )
    ratio, chosen = done.stdout.split()
    assert float(ratio) > 1.2 and chosen == "float32", done.stderr


def test_the_probe_leaves_the_threads_as_they_were() -> None:
    before = torch.get_num_threads()
    precision.speed.cache_clear()
    speed = precision.speed()
    assert torch.get_num_threads() == before
    assert 0 < speed.float32 < 10 and 0 < speed.bfloat16 < 10


def test_a_run_keeps_the_dtype_it_began_with(tmp_path: Path, monkeypatch) -> None:
    measured(monkeypatch, SLOW)
    begun = tiny(tmp_path / "a", dtype="bfloat16")
    begun.run(2)
    assert begun.config.dtype == "float32"
    measured(monkeypatch, FAST)  # another measurement, the same command
    resumed = tiny(tmp_path / "a", dtype="bfloat16")
    assert (resumed.step, resumed.config.dtype) == (2, "float32")
    tiny(tmp_path / "b", dtype="bfloat16").run(2)
    measured(monkeypatch, SLOW)
    assert tiny(tmp_path / "b", dtype="bfloat16").config.dtype == "bfloat16"
    with pytest.raises(InputError, match=r"dtype 'bfloat16' \(now 'float32'\)"):
        tiny(tmp_path / "b", dtype="float32")


def test_one_line_at_the_start_says_what_runs_and_how_long(tmp_path, monkeypatch, capsys) -> None:
    measured(monkeypatch, SLOW)
    run = tiny(tmp_path, dtype="bfloat16", steps=4)
    run.announce = True
    run.run()
    said = capsys.readouterr().err
    parameters = sum(p.numel() for p in run.net.parameters())
    assert re.fullmatch(
        rf"training mnist: 1797 examples, {parameters} parameters, float32 \(bfloat16 is 9.8 times "
        rf"slower than float32 on this processor\) on cpu, {torch.get_num_threads()} threads, "
        r"steps 1 to 4 of 32; first step \S+ s: about \S+ minutes, until \d{4}-\d\d-\d\d \d\d:\d\d"
        r"\n",
        said,
    )
    run.run()  # nothing is left to do
    tiny(tmp_path / "quiet", steps=1).run()
    assert capsys.readouterr().err == ""


def test_slow_steps_write_rows_all_the_same(tmp_path: Path, monkeypatch) -> None:
    clock = iter(range(0, 10_000, 8))
    monkeypatch.setattr(trainer.time, "monotonic", lambda: float(next(clock)))
    run = tiny(tmp_path, steps=12)
    run.log.most = run.log.every = 50
    run.run()
    with open(tmp_path / "loss.csv", newline="", encoding="utf-8") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    # Each step takes 8 s or more by this clock: a row for every third, not for every 50th.
    assert steps == [3, 6, 9, 12]


def test_the_pace_of_rows() -> None:
    kept = log.LossLog(Path("missing.csv"), 0, 50)
    for seconds, every in ((0.0, 50), (0.5, 50), (6.4, 4), (29.0, 1), (1e6, 1)):
        kept.pace(seconds)
        assert kept.every == every
