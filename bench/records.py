"""Results as committed rows: bench/results/<device>.csv, append-only, self-describing."""

from __future__ import annotations

import csv
import io
import os
import platform
import re
import subprocess
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from functools import cache
from pathlib import Path

import torch

from reg_engine.storage.files import write_whole

__all__ = ["COLUMNS", "RESULTS", "Row", "append", "device_slug", "environment", "read"]

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"


@dataclass(frozen=True)
class Row:
    """One measurement. Empty where a column does not apply, or nobody measured.

    Attributes:
        run: one id for everything that one command measured; ratios are taken within a run.
        date: UTC. commit, dirty: of the sources; dirty = with uncommitted changes.
        device, driver, torch, triton, python, threads: where it ran.
        suite: "kernel", "sampling" or "copy". case: the kernel, or model-resolution.
        size: "tiny", "shrunk" or "real". model, resolution, batch: of a sampling case.
        dtype: of the predictions. shape: of the state, batch first.
        provider: what ran. steps: of the solver. nfe: evaluations a sample.
        bytes: that must be moved at least. peak_bytes: apart from weights and inputs; on CUDA of
            the second run, since what libraries keep falls on whoever runs first.
        held_bytes: that CUDA graphs keep reserved between the runs.
        p20, p50, p80: percentiles of the seconds of one call (sampling: of one batch).
        note: why there are no figures.
    """

    run: str
    date: str
    commit: str
    dirty: str
    device: str
    driver: str
    torch: str
    triton: str
    python: str
    threads: str
    suite: str
    case: str
    provider: str
    size: str = ""
    model: str = ""
    resolution: str = ""
    batch: str = ""
    dtype: str = ""
    shape: str = ""
    solver: str = ""
    steps: str = ""
    nfe: str = ""
    bytes: str = ""
    peak_bytes: str = ""
    held_bytes: str = ""
    p20: str = ""
    p50: str = ""
    p80: str = ""
    note: str = ""

    @property
    def memory(self) -> float | None:
        """Bytes beside weights and inputs, with what graphs keep; None: not measured."""
        return float(self.peak_bytes) + float(self.held_bytes or 0) if self.peak_bytes else None


COLUMNS = tuple(field.name for field in fields(Row))


def append(path: Path, rows: Iterable[Row]) -> None:
    """Add rows to a CSV file, with a header if it is new.

    Raises:
        ValueError: the file has other columns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists() or path.stat().st_size == 0
    if not new:
        _check_header(path)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if new:
        writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    write_whole(path, (b"" if new else path.read_bytes()) + text.getvalue().encode())


def read(path: Path) -> list[Row]:
    """All rows of a file, in the order in which they were measured.

    Raises:
        ValueError: the file has other columns.
    """
    _check_header(path)
    with path.open(newline="", encoding="utf-8") as file:
        return [Row(**record) for record in csv.DictReader(file)]


def _check_header(path: Path) -> None:
    with path.open(newline="", encoding="utf-8") as file:
        header = tuple(next(csv.reader(file), ()))
    if header != COLUMNS:
        raise ValueError(f"{path} has columns {header}, expected {COLUMNS}: move it away")


@cache
def environment(device: torch.device) -> Mapping[str, str]:
    """The columns that are the same for everything this process measures."""
    cuda = device.type == "cuda"
    return {
        "run": uuid.uuid4().hex[:12],
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": commit(),
        "dirty": "dirty" if _changes() else "",
        "device": torch.cuda.get_device_name(device) if cuda else cpu_name(),
        "driver": _driver() if cuda else "",
        "torch": torch.__version__,
        "triton": _triton(),
        "python": platform.python_version(),
        "threads": str(torch.get_num_threads()),
    }


def commit() -> str:
    """The sources' commit, 12 digits: REG_ENGINE_COMMIT where there is no repository to ask."""
    return os.environ.get("REG_ENGINE_COMMIT", "")[:12] or _output(
        "git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"
    )


def device_slug(name: str) -> str:
    """File name of a device: "NVIDIA H200" -> nvidia_h200."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def cpu_name() -> str:
    """The processor's own name, or its architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return "CPU " + re.sub(r"\(R\)|\(TM\)|@.*", "", line.partition(":")[2]).strip()
    except OSError:
        pass
    return f"CPU {platform.processor() or platform.machine()}"


def _changes() -> str:
    """Uncommitted changes, other than to the results themselves."""
    return _output(
        "git", "-C", str(ROOT), "status", "--porcelain", "--", ".", ":!bench/results", ":!docs"
    )


def _driver() -> str:
    found = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return found.splitlines()[0] if found else ""


def _triton() -> str:
    try:
        import triton
    except ImportError:
        return ""
    return str(triton.__version__)


def _output(*command: str) -> str:
    """What a program prints, "" where it is missing or fails."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
