"""`reg-engine doctor`: what is installed, what runs on this machine, and why the rest does not."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from typing import Any

import click
import torch

from .. import ops
from ..engine import Engine
from ..errors import RegEngineError
from ..models import load_model
from ..networks import attention
from ..profiling import report as profiling
from ..rectifiers import RECTIFIERS
from ..version import __version__
from .options import emit, json_option

__all__ = ["doctor"]

# What is known of each kind of device beside the CPU. Unmeasured: it may work, nobody has looked.
KNOWN = {
    "cuda": "NVIDIA: kernels and graphs; docs/performance.md says what was measured",
    "rocm": "unmeasured; torch calls it cuda, so what is said of cuda is tried there",
    "xpu": "unmeasured; plain torch without graphs",
    "mps": "unmeasured; plain torch without graphs; it has no float64, sums are in float32",
}

_PACKAGES = {
    "torch": "needed",
    "numpy": "needed",
    "safetensors": "needed",
    "rich": "needed",
    "click": "needed",
    "pillow": "needed",
    "torchmetrics": "evaluate (pip install reg-engine[eval])",
    "matplotlib": "evaluate (pip install reg-engine[eval])",
    "scikit-learn": "train without --data (pip install reg-engine[eval])",
    "diffusers": "train cifar10, and models that it trained (pip install reg-engine[diffusers])",
    "triton": "kernels of the guidance step on a GPU",
    "xformers": "attention='xformers' on a GPU, when asked for",
    "flash-attn": "attention='flash_attn' on a GPU, when asked for",
    "nvtx": "ranges in Nsight (docs/profiling.md)",
}


@click.command(epilog="Example: reg-engine doctor --json")
@json_option
def doctor(as_json: bool) -> None:
    """Report versions, devices, backends, and which estimators work here (each is run once)."""
    # Here, so that the other commands start without the trainer.
    from ..training.precision import speed

    report: dict[str, Any] = {
        "reg_engine": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "devices": _devices(),
        "precision": str(speed()),
        "known": KNOWN,
        "backends": {device: ops.available(device) for device in _kinds()},
        "attention": {device: attention.available(device) for device in _kinds()},
        "profiler": profiling.tool() or "no tool attached",
        "estimators": {
            device: {name: _try(name, device) for name in (*RECTIFIERS, "auto")}
            for device in _kinds()
        },
    }
    emit(report, as_json, _text(report))


def _kinds() -> list[str]:
    here = {
        "cuda": torch.cuda.is_available(),
        "xpu": torch.xpu.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    return ["cpu", *(name for name, there in here.items() if there)]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> dict[str, str]:
    processor = platform.processor() or platform.machine()
    devices = {"cpu": f"{processor}, {torch.get_num_threads()} torch thread(s)"}
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            devices[f"cuda:{index}"] = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"
    elif torch.version.cuda is None and torch.version.hip is None:
        devices["cuda"] = "no: this torch is built without CUDA"
    else:
        devices["cuda"] = "no: torch sees no driver or device"
    if torch.cuda.is_available() and torch.version.hip is not None:
        devices["rocm"] = f"yes, as cuda: ROCm {torch.version.hip}"
    else:
        devices["rocm"] = "no: this torch is not built for it, or sees no device"
    for name in ("xpu", "mps"):
        devices[name] = "yes" if name in _kinds() else "no"
    return devices


def _try(name: str, device: str) -> str:
    """Two guided steps of the packaged model with one estimator."""
    try:
        out = Engine(
            load_model("mnist"), scale=2.0, rectify=name, steps=2, device=device, progress=False
        ).sample([3, 7])
    except (RegEngineError, RuntimeError) as error:
        return f"fails: {str(error).splitlines()[0]}"
    return f"works ({out.stats.reason})" if name == "auto" else "works"


def _text(report: dict[str, Any]) -> str:
    lines = [
        f"reg_engine {report['reg_engine']}, Python {report['python']}, {report['platform']}",
        "",
        "packages",
    ]
    for name, version in report["packages"].items():
        lines.append(f"  {name:18}{version or '-':16}{'' if version else _PACKAGES[name]}".rstrip())
    lines += ["", "devices"] + [f"  {name:18}{what}" for name, what in report["devices"].items()]
    lines += [f"  {'precision':18}{report['precision']}", "", "known of devices"]
    lines += [f"  {name:18}{what}" for name, what in report["known"].items()]
    for device, found in report["backends"].items():
        lines += ["", f"backends on {device}"]
        lines += [f"  {name:18}{what}" for name, what in found.items()]
    for device, found in report["attention"].items():
        lines += ["", f"attention on {device}"]
        lines += [f"  {name:18}{what}" for name, what in found.items()]
    for device, found in report["estimators"].items():
        lines += ["", f"estimators on {device}"]
        lines += [f"  {name:18}{what}" for name, what in found.items()]
    lines += ["", f"profiling: {report['profiler']} (reg-engine profile says how)"]
    return "\n".join(lines)
