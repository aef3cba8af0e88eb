"""`pytest bench/ --benchmark` measures; without the option the same files are a smoke test.

Works with pytest-benchmark (its JSON, its comparison of runs) and without it (CSV alone).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last: an installed reg_engine stays the one that is measured

from bench import cases, contenders, gate, kernels, ratios, records, report  # noqa: E402
from bench.budget import Budget, rank  # noqa: E402
from bench.session import LeftOut, Measured, Session, Unmeasured  # noqa: E402
from reg_engine.training.precision import speed  # noqa: E402


class Clock:
    """The timer of pytest-benchmark: shows what was measured, as it was measured."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


CLOCK = Clock()
SESSION = pytest.StashKey[Session]()
BUDGET = pytest.StashKey[Budget]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("reg_engine benchmarks")
    group.addoption("--benchmark", action="store_true", help="measure; else only a smoke test")
    group.addoption("--bench-device", default="auto", choices=("auto", "cpu", "cuda"))
    group.addoption("--bench-steps", type=int, help="solver steps end to end (8; 4 on a CPU)")
    group.addoption("--bench-rounds", type=int, help="timed rounds (kernels 30, samples 5)")
    group.addoption(
        "--bench-minutes", type=float, help="for everything; 0 = all of it (10; 0 on CUDA)"
    )
    group.addoption(
        "--bench-out", type=Path, default=records.RESULTS, help="folder of the CSV files"
    )


@pytest.hookimpl(tryfirst=True)  # pytest-benchmark reads its options last
def pytest_configure(config: pytest.Config) -> None:
    options = config.option
    measuring = options.benchmark and not options.collectonly
    asked = options.bench_device if options.benchmark else "cpu"
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError("--bench-device cuda: torch.cuda.is_available() is False here")
    size = "tiny" if not options.benchmark else "real" if asked == "cuda" else "shrunk"
    device = torch.device(asked)
    config.stash[SESSION] = Session(
        device, size, options.bench_out, options.bench_steps, options.bench_rounds
    )
    minutes = options.bench_minutes
    if minutes is None:
        minutes = 10.0 if asked == "cpu" else 0.0
    if not 0 <= minutes < math.inf:
        raise pytest.UsageError(f"--bench-minutes {minutes}: give minutes >= 0")
    config.stash[BUDGET] = Budget(minutes if measuring else 0.0)
    if config.pluginmanager.hasplugin("benchmark"):
        options.benchmark_disable = not measuring
        options.benchmark_quiet = True  # pytest_terminal_summary has the ratios too


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse to measure on red tests."""
    if session.config.option.benchmark and not session.config.option.collectonly:
        budget = session.config.stash[BUDGET]
        _say(session.config, f"benchmarks: {budget.before()}")
        try:
            said = gate.verdict(ROOT, limit=budget.gate())
        except gate.Unfinished as stopped:
            _say(session.config, f"benchmarks: {stopped}")
        else:
            if said:
                pytest.exit(f"nothing is measured on red tests:\n{said}", returncode=1)


def _say(config: pytest.Config, text: str) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(text)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """bench_*.py hold tests; one that is named on the command line pytest collects itself."""
    if file_path.match("bench_*.py") and not parent.session.isinitpath(file_path):
        return pytest.Module.from_parent(parent, path=file_path)
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    session = metafunc.config.stash[SESSION]
    if "kernel_case" in metafunc.fixturenames:
        own = metafunc.module
        known = getattr(own, "CASES", cases.KERNEL_CASES)[session.size]
        metafunc.parametrize("provider", getattr(own, "PROVIDERS", kernels.PROVIDERS))
        metafunc.parametrize("kernel_case", known, ids=lambda case: case.name)
    if "model_case" in metafunc.fixturenames:
        pairs = contenders.schedule(session.size)
        ids = [f"{case.name}-{contender.name}" for case, contender in pairs]
        metafunc.parametrize(("model_case", "contender"), pairs, ids=ids)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.stash[BUDGET].limited:
        measured = speed()
        slow = measured.bfloat16 > measured.float32
        items.sort(key=lambda item: rank(_params(item), slow))
    for item in items:
        if item.config.pluginmanager.hasplugin("benchmark") and "bench" in item.path.parts:
            item.add_marker(pytest.mark.benchmark(timer=CLOCK))


@pytest.fixture(autouse=True)
def same_start() -> Iterator[None]:
    """Every benchmark draws the same inputs."""
    torch.manual_seed(0)
    yield


@pytest.fixture
def publish(request: pytest.FixtureRequest) -> Callable[[Measured | None], None]:
    """Hand a measurement to pytest-benchmark, if it is there and anything was measured."""

    def to_plugin(measured: Measured | None) -> None:
        if measured is None or not request.config.pluginmanager.hasplugin("benchmark"):
            return
        benchmark = request.getfixturevalue("benchmark")
        row = measured.row
        benchmark.group = f"{row.case} {row.shape} {row.dtype}"
        benchmark.extra_info.update({k: v for k, v in vars(row).items() if v})
        left = iter(measured.durations)

        def passes() -> None:
            CLOCK.now += next(left)

        benchmark.pedantic(passes, rounds=len(measured.durations), iterations=1)

    return to_plugin


@pytest.fixture
def kernel_bench(
    request: pytest.FixtureRequest, publish: Callable[[Measured | None], None]
) -> Callable[..., None]:
    """kernel_bench(kernel, case, provider) checks and, with --benchmark, measures."""
    session = request.config.stash[SESSION]

    def run(kernel: kernels.Kernel, case: cases.KernelCase, provider: str) -> None:
        why = kernels.unable(provider, session.device)
        if why:
            pytest.skip(f"{provider}: {why}")
        others = _selected(request, "kernel_case", case, "provider")
        _timed(request, lambda: publish(session.kernel(kernel, case, provider, others)))

    return run


def _params(item: Any) -> dict[str, Any]:
    return item.callspec.params if hasattr(item, "callspec") else {}


def _group(item: Any, limited: bool) -> tuple[Any, ...]:
    """What is measured together: a file's case; where time is short, what is compiled or planned
    for itself, since getting it ready can take longer than all the rest."""
    params = _params(item)
    case = params.get("kernel_case") or params.get("model_case")
    return (item.path, case, limited and rank(params, False)[0])


def _selected(request: pytest.FixtureRequest, name: str, case: Any, wanted: str) -> list[Any]:
    """The `wanted` of every benchmark of this command in the same group."""
    limited = request.config.stash[BUDGET].limited
    group = _group(request.node, limited)
    return [
        _params(item)[wanted]
        for item in request.session.items
        if _params(item).get(name) == case and _group(item, limited) == group
    ]


def _timed(request: pytest.FixtureRequest, measure: Callable[[], None]) -> None:
    """Measure if there is time, and not for longer than a share of it."""
    budget, session = request.config.stash[BUDGET], request.config.stash[SESSION]
    items, limited = request.session.items, budget.limited
    to_come = {_group(item, limited) for item in items[items.index(request.node) :]}
    until = budget.until(_group(request.node, limited), len(to_come))
    try:
        if until is None:
            raise LeftOut("no time was left")
        session.until = until
        measure()
    except Unmeasured as error:
        if isinstance(error, LeftOut):
            budget.leave(request.node.name.partition("[")[0] + _what(request.node))
        pytest.skip(str(error))


def _what(item: Any) -> str:
    """ "[case, kind]" for the list of what was left out."""
    _, case, late = _group(item, True)
    return f"[{case.name}{', compiled or planned' if late else ''}]"


@pytest.fixture
def sampling_bench(
    request: pytest.FixtureRequest, publish: Callable[[Measured | None], None]
) -> Callable[..., None]:
    """sampling_bench(model case, contender) checks and, with --benchmark, measures."""
    session = request.config.stash[SESSION]

    def run(case: cases.ModelCase, contender: contenders.Contender) -> None:
        why = contender.unable(session.device)
        if why:
            pytest.skip(f"{contender.name}: {why}")
        others = _selected(request, "model_case", case, "contender")
        _timed(request, lambda: publish(session.sampling(case, contender, others)))

    return run


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    machine_info.update(records.environment(config.stash[SESSION].device))


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: Any, benchmarks: Any, output_json: dict[str, Any]) -> None:
    """Ratios into the JSON's extra_info, as the report computes them."""
    rows = config.stash[SESSION].rows
    for entry in output_json["benchmarks"]:
        own = entry["extra_info"]
        for row in rows:
            if all(str(own.get(k, "")) == v for k, v in vars(row).items()):
                entry["extra_info"] = {**own, **ratios.ratios(row, rows)}


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows, left_out = config.stash[SESSION].rows, config.stash[BUDGET].after()
    if rows:
        terminalreporter.section("figures of this run")
        for line in report.lines(rows):
            terminalreporter.write_line(line)
        terminalreporter.write_line(f"appended to {config.option.bench_out}")
    if left_out:
        terminalreporter.section("left out for want of time (--bench-minutes 0 measures all)")
        for line in left_out:
            terminalreporter.write_line(line)
