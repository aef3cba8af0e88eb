"""Which small wrong edits of the core would the tests not notice? `make mutants` says.

A random sample of the mutants (operators.py) of every module below is tried in a copy of the
tree: the module's own tests first, then those of the engine's core, up to the first failure. The
tests run in a fork of this process, which imports torch once for all. What no test notices
is named; what cannot be noticed stands, with its reason, in equivalent.txt.

    python tests/mutants [--count 200] [--seed 0] [--only reg_engine/plan.py] [--out FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from operators import Mutant, mutants

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COPIED = ("reg_engine", "kernels", "csrc", "tests", "bench", "pyproject.toml")
SUBJECTS = (
    "guidance/*", "plan", "calibration/*", "rectifiers/*", "solvers/*", "schedules/*", "noise",
    "loop/rows", "loop/run", "loop/stats", "networks/conditioning", "networks/point", "engine",
    "ops/coefficients", "storage/shards", "cli/sample", "convert/*",
)  # fmt: skip
# After a module's own tests: those that run the whole engine, for what is part of its loop.
CORE = (
    "loop_run",
    "loop_graphs",
    "guidance_estimate",
    "guidance_references",
    "guidance_methods",
    "engine",
    "guidance*",
)
APART = {
    "convert": (),
    "schedules": (),
    "scoring": (),
    "solvers": (),
    "storage": ("cli_sample", "cli"),
    "cli": ("storage_shards",),
}
# Half a minute in processes of its own; tests/test_cli_sample.py asks the same in this one.
LEFT_OUT = ("--deselect", "tests/test_cli.py::test_killed_sample_goes_on_where_it_was")
SHARED = ("click", "diffusers", "matplotlib", "numpy", "PIL", "scipy", "sklearn", "torch")
SLACK = 20.0  # seconds that a run of the tests may take beyond three times the unchanged tree's


def subjects(only: str | None) -> list[str]:
    """Paths of the modules that are mutated, relative to the root."""
    if only:
        return [only]
    package = ROOT / "reg_engine"
    paths = sorted(p for name in SUBJECTS for p in package.glob(f"{name}.py"))
    return [str(p.relative_to(ROOT)) for p in paths]


def tests_for(path: str) -> tuple[str, ...]:
    """The test files that judge a module, its own first."""
    parts = Path(path).with_suffix("").parts[1:]
    own = ["_".join(parts), *("_".join(parts[: i + 1]) + "*" for i in reversed(range(len(parts))))]
    names = [*own, "defaults", *APART.get(parts[0], CORE)]
    files = (p for name in names for p in sorted((ROOT / "tests").glob(f"test_{name}.py")))
    return tuple(dict.fromkeys(str(p.relative_to(ROOT)) for p in files))


def tried(tree: Path, tests: Iterable[str], seconds: float, cache: bool = False) -> str:
    """ "survived", "killed" or "timeout": what the tests say of the tree as it stands.

    `cache` keeps the compiled files, which is for the unchanged tree alone: a .pyc could hide an
    edit that keeps a file's size within one second.
    """
    child = os.fork()
    if not child:
        os.setsid()
        sys.dont_write_bytecode = not cache
        _run(tree, list(tests))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "killed" if os.waitstatus_to_exitcode(status) else "survived"
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def _run(tree: Path, tests: list[str]) -> None:
    """In the fork: pytest on the copy, a list of what it imported, and the end of the process."""
    code = 99
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        os.chdir(tree)
        sys.path[0] = str(tree)
        os.environ["PYTHONPATH"] = str(tree)
        options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow and not gpu", *LEFT_OUT]
        code = int(pytest.main([*options, *tests]))
        names = [name for name in sys.modules if name.partition(".")[0] in SHARED]
        (tree / "imported.json").write_text(json.dumps(names), encoding="utf-8")
    finally:
        os._exit(code)


def share_imports(tree: Path) -> None:
    """Import here what the last tests needed of other packages: the next forks have it."""
    for name in json.loads((tree / "imported.json").read_text(encoding="utf-8")):
        with contextlib.suppress(Exception):  # a module that will not be imported alone
            importlib.import_module(name)


def copied(folder: Path) -> Path:
    """A copy of what the tests need."""
    tree = folder / "tree"
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, tree / name)
    return tree


def equivalents() -> dict[str, str]:
    """key of a mutant that no test can notice -> why."""
    lines = (HERE / "equivalent.txt").read_text(encoding="utf-8").splitlines()
    kept = (line for line in lines if line and not line.startswith("#"))
    return {key: why for key, why in (line.rsplit("  # ", 1) for line in kept)}  # code has some


def judged(sample: list[Mutant], tree: Path) -> Iterable[tuple[Mutant, str]]:
    """Each mutant with its verdict. The tests must pass on the unchanged tree."""
    limits: dict[tuple[str, ...], float] = {}
    for mutant in sample:
        tests, file = tests_for(mutant.path), tree / mutant.path
        if tests not in limits:
            begun = time.monotonic()
            if tried(tree, tests, 600.0, cache=True) != "survived":
                sys.exit(f"the unchanged tree fails {' '.join(tests)}")
            share_imports(tree)
            limits[tests] = 3 * (time.monotonic() - begun) + SLACK
        original = file.read_text(encoding="utf-8")
        Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
        file.write_text(mutant.source, encoding="utf-8")
        try:
            yield mutant, tried(tree, tests, limits[tests])
        finally:
            file.write_text(original, encoding="utf-8")


def kept(file: Path | None) -> dict[str, str]:
    """Verdicts of an earlier run that was stopped."""
    if file is None or not file.exists():
        return {}
    return dict(json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="mutants tried; 0 = all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--only", help="one module, as reg_engine/guidance/weights.py")
    parser.add_argument("--out", type=Path, help="keep verdicts there, and go on from them")
    choices = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # the copy is removed
    # Processes that the tests start write no bytecode, and this one computes on one thread.
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    known = equivalents()
    every = [m for p in subjects(choices.only) for m in mutants(p, (ROOT / p).read_text("utf-8"))]
    every = [m for m in every if m.key not in known]
    count = min(choices.count or len(every), len(every))
    sample = random.Random(choices.seed).sample(every, count)
    verdicts = kept(choices.out)
    sample.sort(key=lambda m: (m.path, m.line, m.after))
    left = [m for m in sample if m.place not in verdicts]
    with tempfile.TemporaryDirectory() as folder:
        for mutant, verdict in judged(left, copied(Path(folder))):
            verdicts[mutant.place] = verdict
            if verdict == "survived":
                print(mutant.place, flush=True)
            if choices.out:
                with choices.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([mutant.place, verdict]) + "\n")
    tally = Counter(verdicts[m.place] for m in sample)
    share = 1 - tally["survived"] / count
    print(f"{share:.1%} of {count} noticed ({dict(tally)}), seed {choices.seed}")
    print(f"{len(every)} possible, {len(known)} equivalent left out")


if __name__ == "__main__":
    main()
