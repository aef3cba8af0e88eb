"""What the kernel benchmarks share: a kernel as data, its providers, how they are timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from bench.agreement import check_kernel
from bench.cases import KernelCase
from bench.timing import Call, sets_needed
from reg_engine import ops
from reg_engine.ops import formulas

__all__ = ["PROVIDERS", "Kernel", "check", "coefficients", "contender", "inputs", "unable"]

PROVIDERS = ("eager", "compile", "csrc", "triton")  # eager: the twin
PACKAGES = {"jvp_flash_attention": "jvp_flash_attention"}  # providers that are packages

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Kernel:
    """An op of reg_engine.ops with arguments for every case.

    Args:
        name: of the op, and of its twin in reg_engine.ops.formulas.
        arguments: (case, device) -> fresh random arguments of the twin.
        bytes_moved: case -> bytes of one call, each input read once and each output written once.
        in_place: whether the op takes `out=`, the state, as the engine calls it.
        exact: where the op sums over a sample's elements, the sums in float64 in an order that
            rounds less than the twin's, on its arguments; None = the twin's in float64.
        plain: the twin, where it is none of reg_engine.ops.formulas.
        others: further providers, functions of the same arguments. One that gives less than the
            twin is checked in what it gives.
        sums: roundings of one element by order of summation, where the twin has none.
    """

    name: str
    arguments: Callable[[KernelCase, torch.device], Arguments]
    bytes_moved: Callable[[KernelCase], int]
    in_place: bool = False
    exact: Callable[..., Tensor] | None = None
    plain: Callable[..., Any] | None = None
    others: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    sums: int = 1

    @property
    def twin(self) -> Callable[..., Any]:
        """Plain torch."""
        return self.plain or getattr(formulas, self.name)


def unable(provider: str, device: torch.device) -> str:
    """Why a provider cannot run on `device`; "" if it can."""
    if provider in ("eager", "compile", "sdpa"):
        return ""
    if provider in PACKAGES:
        return "" if find_spec(PACKAGES[provider]) else "it is not installed"
    state = ops.available(device)[provider]
    return "" if state == "works" else state


def function(kernel: Kernel, provider: str, compiler: str) -> Callable[..., Any]:
    """The provider's function, called with the arguments of the twin."""
    if provider == "eager":
        return kernel.twin
    if provider == "compile":
        return torch.compile(kernel.twin, backend=compiler, dynamic=False)
    if provider in kernel.others:
        return kernel.others[provider]
    return partial(getattr(ops, kernel.name), backend=provider)


def inputs(kernel: Kernel, case: KernelCase, device: torch.device) -> list[Arguments]:
    """As many sets of arguments as overflow the cache."""
    count = sets_needed(kernel.bytes_moved(case), device)
    return [kernel.arguments(case, device) for _ in range(count)]


def contender(
    kernel: Kernel, sets: Sequence[Arguments], provider: str, compiler: str
) -> Sequence[Call]:
    """One call for each set. Every call keeps its result: outputs too lie in different places."""
    run = function(kernel, provider, compiler)
    kept: list[Any] = [None] * len(sets)

    def call(index: int, given: Arguments) -> None:
        kept[index] = run(**given)

    calls = []
    for index, given in enumerate(sets):
        if kernel.in_place and provider in ops.BACKENDS:
            given = {**given, "out": torch.empty_like(given["x"])}
        calls.append(partial(call, index, given))
    return calls


def check(
    kernel: Kernel, case: KernelCase, provider: str, device: torch.device, compiler: str
) -> None:
    """Raise AssertionError unless the provider agrees with float64 as well as the twin does."""
    given = kernel.arguments(case, device)
    results = []
    for run, arguments in (
        (function(kernel, provider, compiler), _copies(given)),
        (kernel.twin, _copies(given)),
        (kernel.exact or kernel.twin, _copies(given, torch.float64)),
    ):
        found = run(**arguments)
        results.append(found if isinstance(found, tuple) else (found, arguments.get("history")))
    for out, plain, exact in zip(*results, strict=True):
        if out is not None:
            terms = case.numel // case.shape[0] if kernel.exact else kernel.sums
            check_kernel(f"{kernel.name} {case.name} {provider}", out, plain, exact, terms)


def coefficients(device: torch.device, slots: int) -> tuple[Tensor, Tensor]:
    """A table of 8 rows whose coefficients are all used, and the number of one."""
    from reg_engine.ops.coefficients import FIRST_B

    table = torch.rand(8, FIRST_B + slots, device=device) + 0.1
    return table, torch.tensor([3], device=device)


def _copies(given: Arguments, dtype: torch.dtype | None = None) -> Arguments:
    """The arguments, in `dtype` where they are floating."""

    def copy(value: Any) -> Any:
        if isinstance(value, Tensor):
            return (
                value.to(dtype, copy=True) if value.is_floating_point() and dtype else value.clone()
            )
        if isinstance(value, torch.dtype) and dtype:
            return dtype
        return value

    return {name: copy(value) for name, value in given.items()}
