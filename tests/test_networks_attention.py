"""Attention: every backend against the formula, its derivatives, and who is refused what."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch.autograd.forward_ad as fwAD
from attention_cases import PACKAGES, by_formula, formula, pretend, qkv
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from reg_engine import EstimatorError, InputError
from reg_engine.models.unet import Attention
from reg_engine.networks import attention
from reg_engine.networks.attention import BACKENDS, available, check, refuse_tangents

CPU = torch.device("cpu")
HERE = ["auto", "sdpa", "math", "flash"]


def test_these_work_on_a_cpu_and_the_others_say_why() -> None:
    before = set(sys.modules)
    says = available("cpu")
    assert list(says) == list(BACKENDS)
    assert [name for name, text in says.items() if text == "works"] == HERE
    assert says["xformers"] == "not here: xformers has no cpu kernels"
    assert all(says[name].startswith("not here: ") for name in BACKENDS if name not in HERE)
    assert not {"xformers", "flash_attn"} & (set(sys.modules) - before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", HERE)
def test_backend_equals_the_formula(name: str, dtype: torch.dtype) -> None:
    inputs = qkv(dtype)
    out = attention.attention(*inputs, backend=name)
    assert out.dtype == dtype and out.shape == (2, 3, 9, 16)
    # The probabilities and the sum are rounded to the dtype: a few units of its last place.
    largest = inputs[2].abs().max().double()
    assert (out - formula(*inputs)).abs().max() <= 4 * torch.finfo(dtype).eps * largest


@pytest.mark.parametrize("name", HERE)
def test_gradient_equals_that_of_math(name: str) -> None:
    inputs = [x.requires_grad_() for x in qkv(torch.float64)]
    cotangent = torch.randn(2, 3, 9, 16, dtype=torch.float64)
    found = torch.autograd.grad(attention.attention(*inputs, backend=name), inputs, cotangent)
    wanted = torch.autograd.grad(formula(*inputs), inputs, cotangent)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_auto_and_sdpa_are_the_plain_call_bit_for_bit() -> None:
    inputs = qkv(torch.float32)
    wanted = torch.nn.functional.scaled_dot_product_attention(*inputs)
    for name in ("auto", "sdpa"):
        assert torch.equal(attention.attention(*inputs, backend=name), wanted)


def test_auto_and_sdpa_follow_the_kernel_that_is_set_around_them() -> None:
    q, k, v = qkv(torch.float64)
    for name in ("auto", "sdpa"):
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION), pytest.raises(RuntimeError):
            attention.attention(q, k, v, name)
        with sdpa_kernel(SDPBackend.MATH), fwAD.dual_level():
            dual = attention.attention(fwAD.make_dual(q, k[:, :, :9]), k, v, name)
            assert fwAD.unpack_dual(dual).tangent is not None


def tangent_by_differences(q: Tensor, k: Tensor, v: Tensor, along: Tensor) -> Tensor:
    step = 1e-6
    return (formula(q + step * along, k, v) - formula(q - step * along, k, v)) / (2 * step)


def test_math_has_a_forward_derivative_and_a_second_one() -> None:
    q, k, v = qkv(torch.float64)
    along = torch.randn_like(q)
    _, tangent = torch.func.jvp(lambda x: attention.attention(x, k, v, "math"), (q,), (along,))
    assert (tangent - tangent_by_differences(q, k, v, along)).abs().max() < 1e-8
    assert torch.autograd.gradgradcheck(
        lambda x: attention.attention(x, k[:, :1], v[:, :1], "math"),
        q[:, :1, :3].clone().requires_grad_(),
    )


def test_flash_refuses_a_second_derivative_instead_of_dropping_it() -> None:
    q, k, v = qkv(torch.float64)
    x = q.requires_grad_()
    (first,) = torch.autograd.grad(
        attention.attention(x, k, v, "flash").sin().sum(), x, create_graph=True
    )
    with pytest.raises(RuntimeError, match="not implemented"):
        torch.autograd.grad(first.sum(), x)


@pytest.mark.parametrize("way", ["forward_ad", "func"])
@pytest.mark.parametrize("name", ["flash", "efficient", "cudnn", "xformers", "flash_attn"])
def test_forward_derivative_is_refused(name: str, way: str) -> None:
    q, k, v = qkv(torch.float64)
    with pytest.raises(EstimatorError, match=f"{name}.*no forward derivative.*'math'"):
        if way == "func":
            torch.func.jvp(lambda x: attention.attention(q, x, v, name), (k,), (k,))
        else:
            with fwAD.dual_level():
                attention.attention(q, fwAD.make_dual(k, k.clone()), v, name)


@pytest.mark.parametrize("package", PACKAGES)
def test_package_gets_its_layout_and_is_refused_only_with_a_tangent(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, package)
    q, k, v = qkv(torch.float64)
    assert torch.equal(attention.attention(q, k, v, package), formula(q, k, v))
    with fwAD.dual_level():
        assert torch.equal(attention.attention(q, k, v, package), formula(q, k, v))
        with pytest.raises(EstimatorError):
            attention.attention(fwAD.make_dual(q, q.clone()), k, v, package)
    assert available("cpu")[package] == "works"


def test_a_kernel_with_a_wrong_result_or_gradient_does_not_count_as_working(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention, "_PACKAGE_DEVICES", ("cpu",))
    fakes: dict[str, Callable[..., Tensor]] = {
        "is off by": lambda q, k, v: by_formula(q.flip(1), k, v),
        "does not require grad": lambda q, k, v: by_formula(q, k, v).detach(),
        "no kernel for this head": lambda q, k, v: explode(),
    }

    def explode() -> Tensor:
        raise NotImplementedError("no kernel for this head. Long story\nmore")

    for says, fake in fakes.items():
        module = SimpleNamespace(memory_efficient_attention=fake)
        monkeypatch.setitem(sys.modules, "xformers", SimpleNamespace())
        monkeypatch.setitem(sys.modules, "xformers.ops", module)
        assert says in available("cpu")["xformers"]


def test_missing_package_says_so_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = qkv(torch.float32)
    monkeypatch.setattr(attention, "_PACKAGE_DEVICES", ("cpu",))
    monkeypatch.setitem(sys.modules, "xformers", None)
    with pytest.raises(InputError, match="xformers is not installed.*use 'auto'"):
        attention.attention(*inputs, backend="xformers")
    monkeypatch.setitem(sys.modules, "xformers", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "xformers.ops", SimpleNamespace())
    with pytest.raises(InputError, match="has no memory_efficient_attention"):
        attention.attention(*inputs, backend="xformers")


def test_check_names_what_works_and_unknown_names_the_closest() -> None:
    check("flash", CPU, torch.float32)
    with pytest.raises(InputError, match="'cudnn' cannot serve float32.*cpu.*Use auto, sdpa, math"):
        check("cudnn", CPU, torch.float32)
    with pytest.raises(InputError, match="Did you mean 'flash'"):
        check("flahs", CPU, torch.float32)
    with pytest.raises(InputError, match="Did you mean 'math'"):
        attention.attention(*qkv(torch.float32), backend="maths")
    with pytest.raises(InputError, match="Did you mean 'sdpa'"):
        Attention(16, 2, attention="spda")


def test_reason_is_what_pytorch_warned_about_this_kernel() -> None:
    said = [
        "Memory efficient kernel not used because: (Triggered internally at sdp.cpp:1.)",
        "Memory efficient was switched off",
        "Flash attention kernel not used because: (Triggered internally at sdp.cpp:2.)",
        "Expected query to be Half. But got: float (Triggered internally at sdp.cpp:3.)",
    ]
    error = RuntimeError("No available kernel. Aborting execution.")
    assert attention._reason("flash", error, said) == "Expected query to be Half"
    assert attention._reason("cudnn", error, said) == "No available kernel"
    assert attention._reason("math", MemoryError(), []) == "MemoryError"


def test_refusal_looks_at_tensors_only_and_only_while_forward_ad_is_on() -> None:
    q = torch.ones(2)
    refuse_tangents("xformers", q, None, "text")
    with fwAD.dual_level():
        dual = fwAD.make_dual(q, q.clone())
        refuse_tangents("xformers", q, None, "text")
        with pytest.raises(EstimatorError):
            refuse_tangents("xformers", None, dual)


@pytest.mark.gpu
def test_backends_of_a_gpu_that_say_they_work_equal_the_formula() -> None:
    says = available("cuda")
    for name, text in says.items():
        if not text.startswith("works"):
            continue
        dtype = torch.bfloat16 if text.startswith("works in bfloat16") else torch.float32
        inputs = [x[:, :, :9].to("cuda", dtype).contiguous() for x in qkv(torch.float64)]
        out = attention.attention(*inputs, backend=name)
        limit = 2**-7 if dtype == torch.bfloat16 else 2**-10  # fused kernels may use TF32
        error = (out - formula(*inputs)).abs().max()
        assert error <= limit * inputs[2].abs().max().double(), (name, error)
    assert says["auto"] == says["math"] == "works" and says["flash"].startswith("works in bfloat16")
