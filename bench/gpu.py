"""The measuring parts of bench/gpu_check.sh: `python -m bench.gpu PART --out OUT [--dry]`.

environment: versions, the device, and its ceilings. table CASE...: rows of the paper's table.
kernels, compile: the four kernels at large sizes. duals: the ops with tangents.
`--dry` runs the same on the CPU at tiny sizes.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from bench import kernels, records, report, timing
from bench.cases import KERNEL_CASES, MODEL_CASES, ModelCase
from bench.contenders import CONTENDERS
from bench.duals import CASES as CASES_OF_DUALS
from bench.duals import DUALS, PROVIDERS
from bench.session import Session, Unmeasured
from bench.smoke import KERNELS
from reg_engine import ops
from reg_engine.ops import extension

__all__ = ["CASES", "TABLE", "left", "main"]

# The seven rows of the paper's table, the most telling first.
CASES = (
    "dit-xl-2-256",
    "edm2-s-512",
    "sd-1.4-512",
    "edm2-s-64",
    "sd-2.1-768",
    "sd-xl-1024",
    "edm2-xxl-512",
)
TABLE = (
    "plain-cfg",
    "cfg-captured",
    "authors",
    "vjp-captured",
    "fd_batched-captured",
    "fd_batched-fixed",
    "jvp-captured",
    "cfg-damped",
)
EAGER = ("plain-cfg", "cfg-eager", "authors", "vjp-eager", "jvp-eager", "fd_batched-eager")
DRY = (*EAGER, "fd_batched-fixed", "cfg-damped")
PARTS = ("environment", "table", "kernels", "duals", "compile")
LARGE = ("latent-1024", "pixel-256", "pixel-1024")
PACKAGES = ("triton", "numpy", "safetensors", "pytest", "setuptools", "diffusers", "nvtx", "faiss")


def there(name: str) -> bool:
    """Whether a package can be imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def environment(device: torch.device, dry: bool) -> None:
    """What there is, and how fast it copies and multiplies at best."""
    print("python", platform.python_version(), "torch", torch.__version__, torch.version.cuda)
    for name in PACKAGES:
        print(name, "there" if there(name) else "MISSING")
    print("commit", records.commit() or "unknown: set REG_ENGINE_COMMIT")
    print("csrc", extension.load(), "backends", ops.available(device))
    print("device", records.environment(device)["device"])
    moved, durations = timing.copy_bandwidth(device, rounds=3 if dry else 20)
    print(f"copy {moved / timing.percentiles(durations)[1] / 1e9:.0f} GB/s")
    n, dtype = (256, torch.float32) if dry else (8192, torch.bfloat16)
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    seconds = timing.interleaved({"matmul": [lambda: a @ b] * 2}, device, 3)["matmul"]
    rate = 2 * n**3 / timing.percentiles(seconds)[1] / 1e12
    print(f"matmul {n} {str(dtype).removeprefix('torch.')} {rate:.3g} TFLOP/s")


def left(case: ModelCase, names: Sequence[str], out: Path) -> list[str]:
    """The contenders that have no row of this commit in OUT yet."""
    commit = records.commit()
    rows = [row for path in out.glob("*.csv") for row in records.read(path)] if commit else []
    done = {row.provider for row in rows if (row.commit, row.case) == (commit, case.name)}
    return [name for name in names if name not in done]


def table(session: Session, cases: list[str], names: tuple[str, ...]) -> None:
    """Every contender of every case, in turn within a case."""
    chosen = {contender.name: contender for contender in CONTENDERS}
    for case in (case for case in MODEL_CASES if case.name in cases):
        group = [c for n in names if not (c := chosen[n]).unable(session.device)]
        if not left(case, [contender.name for contender in group], session.out):
            print(f"{case.name}: rows of this commit are there", flush=True)
            continue
        for contender in group:
            try:
                session.sampling(case, contender, group)
            except Unmeasured as reason:
                print(f"{case.name} {contender.name}: {reason}", flush=True)


def bandwidth(session: Session, providers: tuple[str, ...]) -> None:
    """The four kernels, the providers in turn."""
    able = [name for name in providers if not kernels.unable(name, session.device)]
    cases = KERNEL_CASES[session.size]
    if session.size == "real":
        cases = tuple(c for c in cases if c.name.startswith(LARGE))
    for kernel in KERNELS:
        for case in cases:
            for provider in able:
                try:
                    session.kernel(kernel, case, provider, able)
                except Unmeasured as reason:
                    print(f"{kernel.name} {case.name} {provider}: {reason}", flush=True)


def tangents(session: Session) -> None:
    """The dual ops, the providers in turn."""
    for kernel in DUALS:
        able = [p for p in PROVIDERS[kernel.name] if not kernels.unable(p, session.device)]
        for case in CASES_OF_DUALS[kernel.name][session.size]:
            for provider in able:
                known = Exception if provider in kernels.PACKAGES else Unmeasured
                try:
                    session.kernel(kernel, case, provider, able)
                except known as reason:
                    print(f"{kernel.name} {case.name} {provider}: {reason}", flush=True)


def main() -> int:
    """Exit status 1 where there is no CUDA device to measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--eager", action="store_true", help="nothing is captured")
    parser.add_argument("--dry", action="store_true", help="on the CPU, at tiny sizes")
    asked = parser.parse_args()
    unknown = sorted(set(asked.cases) - set(CASES))
    if unknown:
        parser.error(f"unknown cases {unknown}; known: {', '.join(CASES)}")
    if not asked.dry and not torch.cuda.is_available():
        print("torch.cuda.is_available() is False: nothing to measure")
        return 1
    device, size = torch.device("cpu" if asked.dry else "cuda"), "tiny" if asked.dry else "real"
    steps, rounds = (1, 1) if asked.dry else (asked.steps, asked.rounds)
    session = Session(device, size, asked.out, steps, rounds, measure=True)
    if asked.part == "environment":
        environment(device, asked.dry)
    elif asked.part == "table":
        names = DRY if asked.dry else EAGER if asked.eager else TABLE
        table(session, asked.cases or list(CASES), names)
    elif asked.part == "duals":
        tangents(session)
    else:
        compiled = ("eager", "compile")
        bandwidth(session, compiled if asked.part == "compile" else ("eager", "csrc", "triton"))
    for line in report.lines(session.rows):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
