"""The benchmark harness itself: what it counts, compares, refuses and writes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import figures, gate, ratios, records, report, timing
from bench.contenders import BASELINE, CAPTURED_CFG
from bench.memory import LiveBytes, peak_bytes
from bench.records import Row

ROOT = Path(__file__).resolve().parent.parent

CPU = torch.device("cpu")
EMPTY = {name: "" for name in records.COLUMNS}
SAMPLED = Row(
    **{**EMPTY, "run": "a", "date": "2026-01-01", "device": "CPU x", "suite": "sampling"}
    | {"case": "mnist-28", "provider": BASELINE, "size": "real", "model": "MNIST U-Net"}
    | {"batch": "4", "dtype": "float32", "shape": "4x1x28x28", "steps": "4", "p50": "2.0"}
    | {"peak_bytes": "1000", "nfe": "14", "solver": "heun"}
)
KERNEL = replace(
    SAMPLED, suite="kernel", case="combine", provider="eager", size="shrunk", bytes="4e9"
)
COPY = replace(KERNEL, suite="copy", case="copy", provider="torch", p50="1.0", bytes="8e9")


def test_ratios_of_samples_are_taken_within_the_run() -> None:
    captured = replace(SAMPLED, provider=CAPTURED_CFG, p50="1.0")
    own = replace(SAMPLED, provider="vjp-eager", p50="3.0", peak_bytes="2500")
    other = replace(SAMPLED, run="b", p50="30.0", peak_bytes="1")
    wide = replace(SAMPLED, shape="8x1x28x28", p50="50.0")
    assert ratios.ratios(own, [SAMPLED, captured, own, other, wide]) == {
        "seconds_per_image": 0.75,
        "time_to_cfg": 1.5,
        "time_to_captured_cfg": 3.0,
        "memory_to_cfg": 2.5,
    }
    assert ratios.ratios(own, [own, other]) == {"seconds_per_image": 0.75}
    assert ratios.ratios(replace(own, p50="", note="out of memory"), [SAMPLED, own]) == {}


def test_ratios_of_kernels() -> None:
    fused = replace(KERNEL, provider="triton", p50="0.5")
    found = ratios.ratios(fused, [KERNEL, fused, COPY])
    assert found == {"speedup": 4.0, "gb_s": 8.0, "share_of_copy": 1.0}
    assert ratios.ratios(fused, [fused]) == {"gb_s": 8.0}


def test_rows_are_appended_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "results" / "cpu_x.csv"
    odd = replace(SAMPLED, note='a comma, a "quote"\nand a line')
    records.append(path, [SAMPLED])
    before = path.read_bytes()
    records.append(path, [odd])
    assert path.read_bytes().startswith(before)
    assert records.read(path) == [SAMPLED, odd]
    path.write_text("run,date\n1,2\n", encoding="utf-8")
    for act in (lambda: records.append(path, [SAMPLED]), lambda: records.read(path)):
        with pytest.raises(ValueError, match="has columns"):
            act()


def test_a_row_says_where_it_comes_from() -> None:
    found = records.environment(CPU)
    assert found["torch"] == torch.__version__ and found["device"].startswith("CPU ")
    assert found["commit"] == "" or re.fullmatch("[0-9a-f]{12}", found["commit"])
    assert records.environment(CPU)["run"] == found["run"]
    assert records.device_slug("NVIDIA H200 (80GB)") == "nvidia_h200_80gb"


def test_the_latest_run_with_a_baseline_is_shown() -> None:
    newer = replace(SAMPLED, run="b", p50="5.0")
    partial = replace(SAMPLED, run="c", provider="vjp-eager")
    failed = replace(SAMPLED, run="d", p50="", note="out of memory")
    rows = [SAMPLED, newer, partial, failed, COPY]
    assert ratios.latest(rows) == [newer]
    assert ratios.latest([partial]) == [partial]
    assert ratios.latest([KERNEL, COPY]) == [KERNEL, COPY]


def test_the_page_is_that_of_the_committed_rows() -> None:
    """`python -m bench.report` would change nothing."""
    rows = [row for path in sorted(records.RESULTS.glob("*.csv")) for row in records.read(path)]
    text = (report.DOCS / "performance.md").read_text(encoding="utf-8")
    drawn = re.findall(r"\(images/(\S+)\)", text)
    assert drawn and all((report.DOCS / "images" / name).is_file() for name in drawn)
    assert text == report.page(rows, drawn)


def test_the_page_says_what_was_shrunk_failed_and_left_out(tmp_path: Path) -> None:
    results, docs = tmp_path / "results", tmp_path / "docs"
    docs.mkdir()
    failed = replace(SAMPLED, provider="authors", p50="", peak_bytes="", note="out of memory")
    own = replace(SAMPLED, provider="vjp-eager", p50="3.0", peak_bytes="2500")
    triton = replace(KERNEL, provider="triton", p50="0.25")
    records.append(results / "cpu_x.csv", [SAMPLED, failed, own, KERNEL, triton, COPY])
    text = report.write(results, docs).read_text(encoding="utf-8")
    assert "| `vjp-eager` | 14 | 750 | 1.50 |  | 0.0 | 2.50 |" in text
    assert "| `authors` | | – out of memory |" in text
    assert "| 4x1x28x28 | float32 | `triton` | 2.5e+05 | 8.00 | 16 | 200% |" in text
    assert "**Sizes are shrunk**" in text and "-k mnist-28" in text
    assert re.search(r"Not measured: .*`jvp-eager`", text, re.S)
    assert re.search(r"nobody has measured: .*sd-xl-1024", text, re.S)
    pictures = re.findall(r"\(images/(.*?)\)", text)
    assert pictures == ["performance_cpu_x_ratios.png", "performance_cpu_x_bandwidth.png"]
    prose = [line for line in text.splitlines() if not line.startswith("|")]
    assert max(map(len, prose)) <= 100
    assert all((docs / "images" / name).stat().st_size > 1000 for name in pictures)


def test_figures_of_what_has_no_baseline_and_of_nothing(tmp_path: Path) -> None:
    alone = replace(SAMPLED, provider="vjp-eager")
    (name,) = figures.draw([alone], tmp_path)
    assert (tmp_path / name).stat().st_size > 1000
    assert figures.draw([], tmp_path) == []


def test_the_page_without_results(tmp_path: Path) -> None:
    assert "Nothing has been measured yet" in report.page([])


def test_percentiles() -> None:
    assert timing.percentiles([5.0, 1.0, 2.0, 3.0, 4.0, 0.0]) == pytest.approx((1.0, 2.5, 4.0))
    with pytest.raises(ValueError, match="no values"):
        timing.percentiles([])


def test_contenders_take_turns() -> None:
    order: list[str] = []

    def slow() -> None:
        order.append("slow")
        time.sleep(0.004)

    def quick() -> None:
        order.append("quick")
        time.sleep(0.001)

    found = timing.interleaved({"slow": [slow, slow], "quick": [quick, quick]}, CPU, 5)
    assert [len(v) for v in found.values()] == [5, 5]
    assert min(found["slow"]) >= 0.004 and min(found["quick"]) >= 0.001
    assert timing.percentiles(found["slow"])[1] > timing.percentiles(found["quick"])[1]
    turns = [name for name, last in zip(order, ["", *order], strict=False) if name != last]
    assert turns[-6:] == ["slow", "quick"] * 3


def test_long_calls_take_turns() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "ab"}
    found = timing.in_turn(calls, CPU, 3)
    assert order == ["a", "b"] * 3
    assert {name: len(values) for name, values in found.items()} == {"a": 3, "b": 3}


def test_inputs_overflow_the_cache() -> None:
    assert timing.sets_needed(1, CPU) == timing.MAX_SETS
    assert timing.sets_needed(10**12, CPU) == 2
    size = 8 * 2**20
    assert timing.sets_needed(size, CPU) * size >= timing.ROTATED_PAST * timing.CPU_CACHE


def test_live_bytes_are_exact() -> None:
    x = torch.zeros(1000)
    with LiveBytes() as counted:
        y = x + 1  # 4000
        y.mul_(2).reshape(10, 100)  # nothing new
        z = (y + 1).double()  # 4000, 8000
        assert (counted.live, counted.peak) == (12000, 16000)
        del y, z
    assert counted.live == 0
    assert peak_bytes(lambda: (x + 1) + (x + 2), CPU) == 12000


def test_live_bytes_see_what_autograd_keeps() -> None:
    weight = torch.zeros(1000, requires_grad=True)
    kept = peak_bytes(lambda: weight.exp().exp().exp().sum(), CPU)
    assert kept >= 3 * 4000 > peak_bytes(torch.no_grad()(lambda: weight.exp().exp().sum()), CPU)


def test_red_tests_are_reported(tmp_path: Path) -> None:
    test = tmp_path / "test_sum.py"
    test.write_text("def test_sum():\n    assert 1 + 1 == 2\n", encoding="utf-8")
    assert gate.verdict(tmp_path, ["test_sum.py"]) == ""
    test.write_text("def test_sum():\n    assert 1 + 1 == 3\n", encoding="utf-8")
    assert "1 failed" in gate.verdict(tmp_path, ["test_sum.py"])
    assert "none of" in gate.verdict(tmp_path)
    assert {"tests/test_ops_formulas.py", "tests/test_engine.py", "tests/kernels"} <= set(
        gate.selected(ROOT)
    )


def pytest_bench(tmp_path: Path, verdict: str, *arguments: str) -> tuple[int, str]:
    """`pytest bench/ --benchmark` with the gate's verdict given, results into tmp_path."""
    (tmp_path / "verdict.py").write_text(
        f"import sys\nsys.path.append({str(ROOT)!r})\nfrom bench import gate\n"
        f"gate.verdict = lambda root, limit: {verdict!r}\n",
        encoding="utf-8",
    )
    options = ["--benchmark", "--bench-device=cpu", f"--bench-out={tmp_path}"]
    code = (
        f"import sys; sys.path.append({str(tmp_path)!r}); import pytest; "
        f"sys.exit(pytest.main({['-p', 'verdict', *options, *arguments]!r}))"
    )
    # A process of its own, not a worker of the tests': workers measure nothing.
    own = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=own,
        capture_output=True,
        text=True,
        timeout=200,
    )
    return done.returncode, done.stdout + done.stderr


def test_nothing_is_measured_on_red_tests(tmp_path: Path) -> None:
    code, said = pytest_bench(tmp_path, "2 failed", "bench/bench_combine.py")
    assert code == 1 and "nothing is measured on red tests:\n2 failed" in said
    assert not list(tmp_path.glob("*.csv"))


def test_a_measurement_is_written_and_published(tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark")
    output = tmp_path / "out.json"
    chosen = "test_reduce and eager and latent-512"
    code, said = pytest_bench(
        tmp_path, "", "bench/", f"--benchmark-json={output}", "--bench-rounds=3", "-k", chosen
    )
    assert code == 0, said
    (path,) = tmp_path.glob("cpu_*.csv")
    copy, *rows = records.read(path)
    assert (copy.suite, copy.size) == ("copy", "shrunk")
    assert [(r.case, r.provider, r.dtype) for r in rows] == [
        ("reduce", "eager", "float32"),
        ("reduce", "eager", "bfloat16"),
    ]
    assert all(0 < float(r.p20) <= float(r.p50) <= float(r.p80) for r in rows)
    entries = json.loads(output.read_text(encoding="utf-8"))["benchmarks"]
    for row, entry in zip(rows, entries, strict=True):
        assert entry["stats"]["rounds"] == 3
        assert entry["stats"]["median"] == pytest.approx(float(row.p50), rel=1e-4)
        assert entry["extra_info"]["speedup"] == 1.0
        assert entry["extra_info"]["gb_s"] == pytest.approx(float(row.bytes) / float(row.p50) / 1e9)
