"""What a guided step takes at real size beside CFG's, counted without values.

`python tests/family_memory.py` prints the table of docs/forward.md, with `--paper` that of
docs/models.md: the models of the paper's own table of costs. Attention is one fused
operation, as on a GPU; PyTorch's own for tensors without data would write its scores out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from family_flops import _point, _without_autocast, sd15, sdxl
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function
from torch.utils.flop_counter import FlopCounterMode

from reg_engine import Denoiser
from reg_engine.forward.tensor import RULES
from reg_engine.guidance.directions import Delta
from reg_engine.networks.point import Point
from reg_engine.rectifiers import JVP, VJP, FDBatched, Paper

ROOT = Path(__file__).resolve().parent.parent


# The rows of the paper's table of time and memory.
PAPER_ROWS = (
    "edm2-s-64",
    "dit-xl-2-256",
    "edm2-s-512",
    "edm2-xxl-512",
    "sd-1.4-512",
    "sd-2.1-768",
    "sd-xl-1024",
)


def of_bench(name: str) -> Denoiser:
    """A model of the bench at real size."""
    sys.path.insert(0, str(ROOT))
    from bench.cases import MODEL_CASES
    from bench.models import build

    case = next(case for case in MODEL_CASES if case.name == name)
    return build(case, "real", torch.device("meta"), torch.bfloat16).denoiser


MODELS: dict[str, Callable[[], Denoiser]] = {
    "DiT-XL/2, 256 x 256": lambda: of_bench("dit-xl-2-256"),
    "Stable Diffusion 1.5, 512 x 512": sd15,
    "SDXL, 1024 x 1024": sdxl,
}
STEPS: dict[str, Callable[[Point], object]] = {
    "CFG": lambda point: point.stack(point.x),
    "jvp": lambda point: JVP()(point, Delta()),
    "jvp, apart": lambda point: JVP(apart=True)(point, Delta()),
}
EVERY = {
    "CFG": STEPS["CFG"],
    "paper": lambda point: Paper()(point, Delta()),
    "vjp": lambda point: VJP()(point, Delta()),
    "fd_batched": lambda point: FDBatched()(_lagged(point), Delta()),
    **{name: step for name, step in STEPS.items() if name != "CFG"},
}


def _lagged(point: Point) -> Point:
    """A row that is not the first."""
    point.memory["delta"] = torch.ones_like(point.x)
    return point


def fused(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Attention as one operation without scratch memory; its own flops are not counted."""
    if has_torch_function((query, key, value)):
        given = (query, key, value)
        return handle_torch_function(fused, given, *given, *args, **kwargs)
    batch, heads, tokens, _ = query.shape
    return query.new_empty(batch, tokens, heads, value.shape[3]).transpose(1, 2)


@contextmanager
def _fused_attention() -> Iterator[None]:
    known = F.scaled_dot_product_attention
    with (
        mock.patch.dict(RULES, {fused: RULES[known]}),
        mock.patch.object(F, "scaled_dot_product_attention", fused),
    ):
        yield


def _standing(model: Denoiser) -> Point:
    labels = torch.zeros(1, dtype=torch.int64)
    point = _point(model)
    return replace(point, cond=labels) if isinstance(model.null_cond, int) else point


def measured(
    build: Callable[[], Denoiser], steps: dict[str, Callable[[Point], object]] = STEPS
) -> dict[str, tuple[float, int]]:
    """FLOPs and the most bytes of activations of each way through one step of one sample."""
    sys.path.insert(0, str(ROOT))
    from bench.memory import LiveBytes

    found = {}
    with torch.device("meta"), _without_autocast(), torch.no_grad():
        model = build()
        for module in model.modules:
            module.to("meta").to(torch.bfloat16).requires_grad_(False)
        for name, step in steps.items():
            with FlopCounterMode(display=False) as flops:
                step(_standing(model))
            with _fused_attention(), LiveBytes() as bytes_:
                step(_standing(model))
            found[name] = float(flops.get_total_flops()), bytes_.peak
    return found


def papers() -> None:
    """The table of the paper's models."""
    names = [name for name in EVERY if name != "CFG"]
    print(f"| model | parameters | CFG, TFLOP | CFG, MB | {' | '.join(names)} |")
    print("|---" * (4 + len(names)) + "|")
    for row in PAPER_ROWS:
        model = of_bench(row)
        parameters = sum(p.numel() for module in model.modules for p in module.parameters())
        found = measured(lambda model=model: model, EVERY)  # type: ignore[misc]
        flops, peak = found["CFG"]
        ratios = (f"{found[n][0] / flops:.2f} / {found[n][1] / peak:.1f}" for n in names)
        size = f"{parameters / 1e6:.0f} M | {flops / 1e12:.2f} | {peak / 1e6:.0f}"
        print(f"| {row} | {size} | {' | '.join(ratios)} |", flush=True)


def main() -> None:
    if sys.argv[1:] == ["--paper"]:
        papers()
        return
    print("| model | CFG, TFLOP | jvp | CFG, MB | jvp | jvp, apart |")
    print("|---" * 6 + "|")
    for name, build in MODELS.items():
        found = measured(build)
        (flops, peak), (flops_j, peak_j), (_, peak_a) = found.values()
        ratios = f"{flops_j / flops:.2f} | {peak / 1e6:.0f} | {peak_j / peak:.2f}"
        print(f"| {name} | {flops / 1e12:.2f} | {ratios} | {peak_a / peak:.2f} |")


if __name__ == "__main__":
    main()
