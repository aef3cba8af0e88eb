"""Compile every kernel for an NVIDIA GPU that need not be there, and print what came out as JSON.

The interpreter runs a kernel's Python; whether the compiler takes it, and what it makes of it, only
the compiler says. Run by test_compiled.py in a process of its own, without TRITON_INTERPRET.
"""

from __future__ import annotations

import json
import sys

import torch
import triton
from reg_engine.kernels import activation_dual, attention_dual, norm_dual, strides
from reg_engine.kernels.combine import combine
from reg_engine.kernels.guided_step import guided_step
from reg_engine.kernels.probe import probe
from reg_engine.kernels.reduce import reduce
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from reg_engine.ops.coefficients import FIRST_B

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
SHAPE = (2, 4, 64, 64)


class NoDevice:
    """What JITFunction.run asks a driver before it launches."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", int(sys.argv[1]), 32)


compiled: list[dict] = []
_run = JITFunction.run


def _compile(self: JITFunction, *args: object, warmup: bool, **options: object) -> object:
    kernel = _run(self, *args, warmup=True, **options)
    facts = {
        "kernel": self.__name__,
        "types": sorted({t for t in kernel.src.signature.values() if isinstance(t, str)}),
        "ptx": kernel.asm["ptx"],
        "cubin": len(kernel.asm["cubin"]),
        "shared": kernel.metadata.shared,
    }
    compiled.append(facts)
    return kernel


def tensor(dtype: torch.dtype, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


def steps(state: torch.dtype, net: torch.dtype, shape: tuple[int, ...] = SHAPE) -> None:
    """With everything, flat and strided, and with as little as possible."""
    x, cond, step = tensor(state, shape), tensor(net, shape), torch.tensor([1])
    gain, history = tensor(state, shape[:1]), tensor(state, (3, *shape))
    table = tensor(state, (4, FIRST_B + 3))
    marks = tensor(state, (4, shape[0]))
    guided_step(x, cond, table, step, cond, None, None, None, None, history, None, -1, x)
    guided_step(x, cond, table, step, cond, None, None, None, None, history, marks, -1, x)
    guided_step(x, cond, table, step, cond, cond, gain, gain, x, history, marks, -1, x)
    last = cond.to(memory_format=torch.channels_last)
    guided_step(x, last, table, step, last, None, None, None, x, history, marks, 3, x)
    table = tensor(state, (4, FIRST_B + 1))
    guided_step(x, cond, table, step, None, cond, *[None] * 5, -1, x)
    out = tensor(net, (3 * shape[0], *shape[1:]))
    probe(x, cond, gain, table, step, 2, out)


def combinations(dtype: torch.dtype, shape: tuple[int, ...] = SHAPE) -> None:
    cond = tensor(dtype, shape)
    for ref, term in ((cond, None), (cond, cond), (None, cond)):
        combine(cond, ref, term, 2.0, 3, cond)
    combine(cond, cond.to(memory_format=torch.channels_last), None, 2.0, 3, cond)


def sums(dtype: torch.dtype, shape: tuple[int, ...] = SHAPE) -> None:
    last = tensor(F32, shape).to(memory_format=torch.channels_last)
    vectors = [tensor(dtype, shape), tensor(F32, shape), last]
    for k in (2, 3, 4):
        given = [*vectors[: k - 1], None, None][:3]
        reduce(*given, tensor(F64, (shape[0], k, k)))


def attention(size: int, dtype: torch.dtype, along: str = "qkv", mask: str = "") -> None:
    """As a projection leaves it: heads next to each other."""
    attention_dual._precision = lambda q: "tf32x3"
    one = tensor(dtype, (1, 256, 16, size)).transpose(1, 2)
    given = [one if name in along else None for name in "qkv"]
    seen = tensor(torch.bool if mask == "bool" else dtype, (256, 256))
    options = (seen if mask else None, mask == "", None, False)
    attention_dual.launch(one, one, one, *given, *options, one, one)


def duals(dtype: torch.dtype) -> None:
    """Norms of short and of long rows, activations with and without gate."""
    vector, rows = tensor(F32, (4,)), tensor(F32, (2, 4))
    for x in (tensor(dtype), tensor(dtype).to(memory_format=torch.channels_last)):
        options = (vector, vector, 1e-5, 1, rows, rows, "silu")
        norm_dual.launch(x, x, "group", *options, x, x)
    x = tensor(dtype, (2, 64, 4))
    norm_dual.launch(x, x, "layer", vector, None, 1e-5, 1, None, None, None, x, x)
    norm_dual.launch(x, x, "rms", None, None, 1e-5, 1, None, None, None, x, x)
    x, half = tensor(dtype, (2, 64, 256)), tensor(dtype, (2, 64, 128))
    activation_dual.launch(x, x, "gelu", x, x)
    activation_dual.launch(x, x, "geglu_tanh", half, half)
    activation_dual.launch(x, x, "swiglu", half, half)


def main() -> None:
    """Everything; with `few` after the capability, each call once, in the dtypes of most use."""
    few = sys.argv[2:] == ["few"]
    triton.runtime.driver.set_active(NoDevice())
    JITFunction.run = _compile
    pairs = (F32, F16), (F32, BF16), (F32, F32), (F64, BF16), (F64, F64)
    for state, net in pairs[: 1 if few else None]:
        steps(state, net)
    for dtype in (BF16,) if few else (BF16, F64):
        combinations(dtype)
        sums(dtype)
        duals(dtype)
    # Sizes and strides of 1 are constants to the compiler, and 64-bit indices are another kernel.
    for shape, limit in (((1, 1, 1, 1), strides.INT32_LIMIT), (SHAPE, 1)):
        strides.INT32_LIMIT = limit
        strides.arrange.cache_clear()
        combinations(F16, shape)
        if not few:
            steps(F32, F16, shape)
            sums(F16, shape)
    attention(64, BF16, "qkv", "none")
    attention(72, BF16, "q", "")
    if not few:
        attention(16, F32, "kv", "bool")
    print(json.dumps(compiled))


if __name__ == "__main__":
    main()
