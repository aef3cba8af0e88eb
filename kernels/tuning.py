"""Launch parameters: tuned/<device>.json where somebody measured, else tuned/default.json.

A file maps the name of an op to the parameters of its launch. Nothing is tuned at run time. The
device is named as `device_name` writes it: "NVIDIA H200" reads tuned/nvidia_h200.json.
"""

from __future__ import annotations

import json
import logging
import re
from functools import lru_cache
from pathlib import Path

import torch

__all__ = ["device_name", "launch_parameters"]

FOLDER = Path(__file__).parent / "tuned"
DEFAULT = "default"

# No fused multiply-add, as in csrc: results are those of plain torch, bit by bit; time goes into
# memory anyway.
OPTIONS = {"enable_fp_fusion": False}

_log = logging.getLogger(__name__)


def device_name(device: torch.device) -> str:
    """Name of the device's file: lower case, anything but letters and digits as one underscore."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


@lru_cache(maxsize=256)
def launch_parameters(op: str, device: torch.device) -> dict[str, int]:
    """BLOCK, num_warps, ... of an op on a device. What the device's file leaves out is default."""
    return {**OPTIONS, **_file(DEFAULT)[op], **_file(device_name(device)).get(op, {})}


@lru_cache(maxsize=64)
def _file(name: str) -> dict[str, dict[str, int]]:
    path = FOLDER / f"{name}.json"
    if not path.exists():
        _log.info("no %s: default launch parameters", path.name)
        return {}
    parameters: dict[str, dict[str, int]] = json.loads(path.read_text(encoding="utf-8"))
    return parameters
