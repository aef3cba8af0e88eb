"""Networks of diffusers as users change them, and which estimators serve them still.

`python tests/family_variants.py` prints the table of docs/pipelines.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from family_cases import CASES, differences
from family_errors import LEVEL, SCALE, stated
from torch import Tensor, nn

from reg_engine import EstimatorError, Guide, denoiser_of

ESTIMATORS = ("vjp", "jvp", "fd")


def _cast(dtype: torch.dtype) -> Callable[[nn.Module], Any]:
    return lambda net: net.to(dtype)


def _sliced(net: Any) -> Any:
    net.set_attention_slice("max")
    return net


def _fused(net: Any) -> Any:
    net.fuse_qkv_projections()
    return net


def _stored_in_fp8(net: Any) -> Any:
    net.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)
    return net


def _torchao(net: Any) -> Any:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(net, Int8WeightOnlyConfig())
    return net


def _quanto(net: Any) -> Any:
    from optimum.quanto import freeze, qint8, quantize

    quantize(net, weights=qint8)
    freeze(net)
    return net


VARIANTS: dict[str, Callable[[Any], Any]] = {
    "float32": lambda net: net,
    "bfloat16": _cast(torch.bfloat16),
    "float16": _cast(torch.float16),
    "channels_last": lambda net: net.to(memory_format=torch.channels_last),
    "sliced attention": _sliced,
    "fused QKV": _fused,
    "stored in float8": _stored_in_fp8,
    "int8, torchao": _torchao,
    "int8, quanto": _quanto,
    "compiled": torch.compile,
}
NEEDS = {"int8, torchao": "torchao", "int8, quanto": "optimum.quanto"}
FAMILIES = ("sd", "sd3")


def families_of(variant: str) -> tuple[str, ...]:
    """ "compiled" of the U-Net takes minutes; the transformer's attention has no slices."""
    return {"sliced attention": FAMILIES[:1], "compiled": FAMILIES[1:]}.get(variant, FAMILIES)


def exact(changed: Any, plain: Any) -> Any:
    """`plain` in float64 with the weights of `changed`, as they are stored."""
    names = {name.removeprefix("_orig_mod."): v for name, v in changed.state_dict().items()}
    weights = {}
    for name, own in plain.state_dict().items():
        value = names.get(name, own)  # fused layers hold copies of what is there
        stored = type(value) not in (Tensor, nn.Parameter)
        weights[name] = (value.dequantize() if stored else value).double()
    plain.double().load_state_dict(weights)
    return plain


def errors(name: str, variant: str) -> dict[str, float | str]:
    """By estimator: the rectified direction against the method in float64 on the network's own
    weights; or why it is refused."""
    case = CASES[name]
    pipes = case.build(), case.build()
    role = "unet" if "unet" in pipes[0].components else "transformer"
    net = VARIANTS[variant](getattr(pipes[0], role))
    cond, null = case.told(pipes[1])
    said = {"scheduler": pipes[1].scheduler, "null_cond": null}
    whole = denoiser_of(exact(net, getattr(pipes[1], role)), **said)
    model = denoiser_of(net, **said)
    t = float(model.schedule.time_of(LEVEL))
    noise = torch.randn(2, *model.sample_shape, generator=torch.Generator().manual_seed(5))
    x = model.schedule(t)[1] * noise
    method = stated(whole, cond, null, x, t)
    bare = Guide(model, cond, scale=1.0)(x, t).double()
    found: dict[str, float | str] = {}
    for rectify in ESTIMATORS:
        try:
            rectified = Guide(model, cond, scale=SCALE, rectify=rectify)(x, t).double()
        except EstimatorError as error:
            found[rectify] = str(error)
            continue
        target = method["jvp" if rectify.startswith("fd") else rectify]
        found[rectify] = differences(rectified - bare, target - method["cond"])
    return found


def main() -> None:
    print("| network | " + " | ".join(ESTIMATORS) + " |")
    print("|---" * (1 + len(ESTIMATORS)) + "|")
    for variant in VARIANTS:
        rows = [errors(name, variant) for name in families_of(variant)]
        cells = (
            ", ".join(map(_shown, found)) for found in zip(*(r.values() for r in rows), strict=True)
        )
        print(f"| {variant} | " + " | ".join(cells) + " |")


def _shown(found: float | str) -> str:
    return f"{found:.0e}" if isinstance(found, float) else "refused"


if __name__ == "__main__":
    main()
