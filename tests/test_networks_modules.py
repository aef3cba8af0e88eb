"""Modules found inside callables of every kind, without running them, and the dtype they say."""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reg_engine import Denoiser, sample, schedules
from reg_engine.networks.modules import dtype_of, modules_of


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.Dropout())


GLOBAL = net()
REGISTRY: dict[str, Any] = {"a": {"b": [net()]}}


class Pipeline:
    """Like those of diffusers: several networks, one of which is used."""

    def __init__(self) -> None:
        self.vae, self.unet, self.cycle = net(), net(), self

    def run(self, x: Tensor) -> Tensor:
        return self.unet(x)  # type: ignore[no-any-return]

    def step(self, x: Tensor) -> Tensor:
        return self.run(x)

    @property
    def other(self) -> nn.Module:
        raise AssertionError("looking must not run it")


PIPELINE = Pipeline()


def helper(x: Tensor) -> Tensor:
    return GLOBAL(x)  # type: ignore[no-any-return]


class Slots:
    __slots__ = ("net",)

    def __init__(self, held: nn.Module) -> None:
        self.net = held

    def __call__(self, x: Tensor, *rest: Any) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


class ByGlobal:
    def __call__(self, x: Tensor) -> Tensor:
        return GLOBAL(x)  # type: ignore[no-any-return]


class Unregistered(nn.Module):
    def __init__(self, held: nn.Module) -> None:
        super().__init__()
        self.own, self.held = nn.Linear(1, 1), [held]


class InCode(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return GLOBAL(x)  # type: ignore[no-any-return]


def hooked(held: nn.Module) -> nn.Module:
    module = nn.Linear(2, 2)
    module.register_forward_hook(lambda m, args, out: held(out))
    return module


def closure(held: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: held(x)


def deeper(held: nn.Module) -> Callable[[list[Tensor]], list[Tensor]]:
    def outer(xs: list[Tensor]) -> list[Tensor]:
        def inner(x: Tensor) -> Tensor:
            return held(x)  # type: ignore[no-any-return]

        return [inner(x) for x in xs]

    return outer


def named(held: nn.Module) -> Callable[[Tensor], Tensor]:
    def function(x: Tensor) -> Tensor:
        return x

    function.modules = [held]  # type: ignore[attr-defined]
    return function


def decorated(held: nn.Module) -> Callable[[Tensor], Tensor]:
    function = closure(held)

    @functools.wraps(function)
    def wrapper(*args: Any) -> Tensor:
        return function(*args)

    return wrapper


HELD = net()
HIDING, HOOKED, IN_CODE = Unregistered(HELD), hooked(HELD), InCode()
KINDS: dict[str, tuple[object, tuple[nn.Module, ...]]] = {
    "module": (HELD, (HELD,)),
    "closure": (closure(HELD), (HELD,)),
    "nested functions": (deeper(HELD), (HELD,)),
    "global": (lambda x: GLOBAL(x), (GLOBAL,)),
    "global helper": (lambda x: helper(x), (GLOBAL,)),
    "registry": (lambda x: REGISTRY["a"]["b"][0](x), (REGISTRY["a"]["b"][0],)),
    "default": (lambda x, held=HELD: held(x), (HELD,)),
    "attribute": (named(HELD), (HELD,)),
    "bound method": (HELD.forward, (HELD,)),
    "bound call": (HELD.__call__, (HELD,)),
    "method wrapper": (closure(HELD).__call__, (HELD,)),
    "partial": (functools.partial(closure(HELD), t=1), (HELD,)),
    "partial's keyword": (functools.partial(lambda x, held: held(x), held=HELD), (HELD,)),
    "decorated": (decorated(HELD), (HELD,)),
    "no_grad": (torch.no_grad()(closure(HELD)), (HELD,)),
    "cached": (functools.lru_cache(closure(HELD)), (HELD,)),
    "compiled": (torch.compile(closure(HELD)), (HELD,)),
    "object": (SimpleNamespace(a=[{"b": HELD}]), (HELD,)),
    "slots": (Slots(HELD), (HELD,)),
    "object by global": (ByGlobal(), (GLOBAL,)),
    "one of a pipeline": (lambda x: PIPELINE.unet(x), (PIPELINE.unet,)),
    "bound method of a pipeline": (PIPELINE.step, (PIPELINE.unet, PIPELINE.vae)),
    "past the registered": (HIDING, (HIDING, HELD)),
    "in a hook": (HOOKED, (HOOKED, HELD)),
    "in forward's code": (IN_CODE, (IN_CODE, GLOBAL)),
    "part and whole": ([HELD[0], HELD], (HELD,)),  # type: ignore[index]
    "weight alone": (lambda x: x @ GLOBAL[0].weight, (GLOBAL,)),  # type: ignore[index]
    "formula": (lambda x: torch.tanh(2 * x), ()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_modules_are_found(kind: str) -> None:
    value, wanted = KINDS[kind]
    found = modules_of(value)
    assert [id(m) for m in found] == [id(m) for m in wanted]


def test_what_is_used_comes_first_and_cycles_end() -> None:
    def first(x: Tensor) -> Tensor:
        return second(x)

    def second(x: Tensor) -> Tensor:
        return first(PIPELINE.run(x))

    assert modules_of(first)[0] is PIPELINE.unet
    assert modules_of(lambda x: PIPELINE.other(x)) == (PIPELINE.vae, PIPELINE.unet)


def test_networks_of_other_calls_are_none_of_a_network_around_a_denoiser() -> None:
    """Neither what the package remembers of them nor the objects that it keeps alive."""
    x, module = torch.zeros(1, 2), net()
    alive = weakref.ref(module)
    slotted = Denoiser(Slots(module), "sample", schedules.Flow(), (2,))
    slotted(x, 0.5, torch.zeros(1))
    inner = Denoiser(lambda x, t, cond: x, "sample", schedules.Flow(), (2,))

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return self.inner(x, float(t[0]), cond)

    outer = Outer()
    around = Denoiser(outer, "sample", schedules.Flow(), (2,))
    assert modules_of(outer) == (outer,) and around.dtype is None
    y = around(x.double() + 1 / 3, 0.5, torch.zeros(1))
    assert torch.equal(y, x.double() + 1 / 3)
    del slotted, module
    gc.collect()
    assert alive() is None


def test_a_name_that_is_bound_anew_is_followed() -> None:
    held = net()
    denoiser = Denoiser(lambda x, t, y: held(x), "sample", schedules.Flow(), (2,))
    assert denoiser.modules == (held,)
    held = net()
    assert denoiser.modules == (held,)


class Said(nn.Module):
    def __init__(self, dtype: object, *stored: torch.dtype) -> None:
        super().__init__()
        for index, kind in enumerate(stored):
            self.register_buffer(str(index), torch.zeros(1).to(kind))
        if dtype is not None:
            self.dtype = dtype


F8, F16, F32 = torch.float8_e4m3fn, torch.float16, torch.float32


@pytest.mark.parametrize(
    ("module", "dtype"),
    [
        (Said(None, F16, F32), F16),
        (Said(None, F8, F32), F32),
        (Said(None, torch.int64, F16), F16),
        (Said(None, F8), None),
        (Said(F16, F8), F16),  # layerwise casting
        (Said(F16, F32, F16), F16),  # some layers kept in float32
        (Said(F32, F16), F16),  # said before .half()
        (Said("float16", F32), F32),
        (Said(F8, F8, F16), F16),
        (Said(F16), None),
    ],
)
def test_dtype_is_the_one_computed_in(module: nn.Module, dtype: torch.dtype | None) -> None:
    assert dtype_of([module]) == dtype
    assert dtype_of([nn.Tanh(), module]) == dtype


def test_weights_that_are_only_stored_in_eight_bits_serve() -> None:
    """As diffusers' layerwise casting does it, with its own hooks where it is installed."""
    diffusers = pytest.importorskip("diffusers")
    config: dict[str, Any] = {"sample_size": 8, "in_channels": 1, "out_channels": 1}
    config |= {"block_out_channels": (8,), "norm_num_groups": 4, "layers_per_block": 1}
    config |= {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    torch.manual_seed(0)
    plain = diffusers.UNet2DModel(**config, num_class_embeds=2).requires_grad_(False)
    cast = diffusers.UNet2DModel(**config, num_class_embeds=2).requires_grad_(False)
    cast.load_state_dict(plain.state_dict())
    cast.enable_layerwise_casting(storage_dtype=F8, compute_dtype=torch.bfloat16)
    assert F8 in {parameter.dtype for parameter in cast.parameters()}
    plain.load_state_dict({name: value.float() for name, value in cast.state_dict().items()})

    def denoiser(net: nn.Module) -> Denoiser:
        function = lambda x, t, y: net(x, t, y).sample  # noqa: E731
        return Denoiser(function, "epsilon", schedules.ScaledLinear(), (1, 8, 8), 0)

    assert denoiser(cast).dtype == torch.bfloat16
    for rectify in ("vjp", "jvp", "fd"):
        found, wanted = (
            sample(denoiser(net), [1], rectify=rectify, solver="euler", steps=2, progress=False)
            for net in (cast, plain)
        )
        change = (found.samples - wanted.samples).norm() / wanted.samples.norm()
        assert change < 0.05, (rectify, change)  # bfloat16 computes
