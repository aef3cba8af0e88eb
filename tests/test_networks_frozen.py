"""Freezing, recording, checkpointing and counting saved bytes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from nets import TinyNet, tiny
from torch import nn

from reg_engine import InputError, sample
from reg_engine.networks.frozen import Compiled, SavedBytes, checkpointed, frozen, recording


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def test_frozen_restores_each_parameter_and_module_as_it_was() -> None:
    net = Stack().train()
    net.blocks[1].eval()
    net.blocks[2][0].weight.requires_grad_(False)
    before = [p.requires_grad for p in net.parameters()], [m.training for m in net.modules()]
    with pytest.raises(KeyError), frozen([net]):
        assert not any(p.requires_grad for p in net.parameters())
        assert not any(m.training for m in net.modules())
        raise KeyError
    assert (
        [p.requires_grad for p in net.parameters()],
        [m.training for m in net.modules()],
    ) == before


def test_freezing_saves_less() -> None:
    net, x = Stack(), torch.randn(64, 8)
    with SavedBytes([net]) as free, recording(x) as inside:
        net(inside)
    with frozen([net]), SavedBytes([net]) as kept, recording(x) as inside:
        net(inside)
    # Frozen: the four tanh outputs. Otherwise the inputs of the linear layers too.
    assert kept.total == 4 * 64 * 8 * 4
    assert free.total == kept.total + 64 * 8 * 4


def test_recording_works_inside_inference_mode_and_leaves_x_alone() -> None:
    net = Stack().requires_grad_(False)
    with torch.inference_mode():
        x = torch.randn(2, 8)
        with recording(x) as inside:
            (gradient,) = torch.autograd.grad(net(inside).sum(), inside)
        assert x.is_inference() and not x.requires_grad
    wanted = torch.func.vjp(net, x.clone())[1](torch.ones(2, 8))[0]
    assert torch.equal(gradient, wanted)


def test_checkpointed_puts_every_forward_back_also_somebody_elses() -> None:
    net = Stack()
    calls = []
    original = net.blocks[0].forward
    net.blocks[0].forward = lambda x: (calls.append(1), original(x))[1]
    patched = net.blocks[0].forward
    with pytest.raises(KeyError), checkpointed([net]) as blocks:
        assert blocks == 4
        with recording(torch.randn(2, 8)) as x:
            torch.autograd.grad(net(x).sum(), x)
        assert len(calls) == 2, "the block must run again in the backward pass"
        raise KeyError
    assert net.blocks[0].forward is patched
    assert all("forward" not in block.__dict__ for block in list(net.blocks)[1:])


def test_compiled_blocks_run_inside_and_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def compile(function: Callable[..., torch.Tensor], **options: object) -> Any:
        def run(*args: torch.Tensor) -> torch.Tensor:
            ran.append(options)
            return function(*args)

        return run

    monkeypatch.setattr(torch, "compile", compile)
    net, x = Stack(), torch.ones(1, 8)
    compiled = Compiled((net,))
    wanted = net(x)
    for _ in range(2):
        with compiled():
            assert torch.equal(net(x), wanted)
    assert len(ran) == 8 and not any("forward" in block.__dict__ for block in net.blocks)
    net(x)
    assert len(ran) == 8
    with pytest.raises(InputError, match="compile"):
        Compiled((nn.Linear(2, 2),))


@pytest.mark.slow
def test_a_really_compiled_network_gives_the_same() -> None:
    net, x = Stack(), torch.randn(3, 8, requires_grad=True)
    wanted = net(x)
    with frozen((net,)), Compiled((net,))():
        found = net(x)
        (gradient,) = torch.autograd.grad(found.sum(), x)
    assert torch.allclose(found, wanted, atol=1e-6)
    assert torch.allclose(gradient, torch.autograd.grad(wanted.sum(), x)[0], atol=1e-6)


@pytest.mark.slow
def test_many_shapes_of_one_class_are_all_compiled() -> None:
    """Ten widths: more variants than Dynamo keeps unless told."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(n + 2, n + 3) for n in range(10)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x = block(x)
            return x

    from torch._dynamo.utils import counters

    counters.clear()
    net = Net()
    with Compiled((net,))():
        net(torch.ones(1, 2))
    assert counters["stats"]["unique_graphs"] == 10


def built(around: Any) -> nn.Module:
    """A network in training mode, with buffers and a shared weight."""
    with around():
        torch.manual_seed(2)
        net = Stack()
        net.blocks.append(nn.BatchNorm1d(8))
        net.blocks[1][0].weight = net.blocks[0][0].weight
    return net.train()


def gradient_of(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with recording(x) as inside:
        return torch.autograd.grad(net(inside).square().sum(), inside)[0]


@pytest.mark.parametrize("around", [nullcontext, torch.inference_mode])
def test_weights_made_in_inference_mode_are_recorded_and_stay(around: Any) -> None:
    """A host that runs everything in inference mode (ComfyUI) loads its networks there too."""
    net, plain, x = built(torch.inference_mode), built(nullcontext), torch.randn(3, 8)
    before = dict(net.named_parameters()) | dict(net.named_buffers())
    flags = [p.requires_grad for p in net.parameters()]
    with around(), frozen([plain]):
        wanted = gradient_of(plain, x)
    with around(), frozen([net]):
        with frozen([net]):
            gradient_of(net, x)
        assert torch.equal(gradient_of(net, x), wanted)
        assert net.blocks[0][0].weight.data_ptr() == before["blocks.0.0.weight"].data_ptr()
        assert not net.training
    after = dict(net.named_parameters()) | dict(net.named_buffers())
    assert after.keys() == before.keys() and all(after[k] is v for k, v in before.items())
    assert [p.requires_grad for p in net.parameters()] == flags and net.training


def test_compiled_blocks_are_recomputed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def compile(function: Callable[..., torch.Tensor], **options: object) -> Any:
        return lambda x: (ran.append(1), function(x))[1]

    monkeypatch.setattr(torch, "compile", compile)
    net, x = Stack(), torch.randn(2, 8)
    wanted = gradient_of(net, x)
    with Compiled((net,))(), checkpointed([net]):
        assert torch.equal(gradient_of(net, x), wanted)
    assert len(ran) == 8, "each block runs compiled, forward and again in the backward pass"


@pytest.mark.parametrize("rectify", [None, "auto", "paper", "vjp", "jvp", "fd_batched"])
def test_a_network_built_in_inference_mode_is_served(rectify: str | None) -> None:
    """Also in training mode; its flags and tensors are afterwards what they were."""
    with torch.inference_mode():
        net = TinyNet().train()
    before = list(net.named_parameters()), [p.requires_grad for p in net.parameters()]
    got, wanted = (
        sample(tiny(net=n), [0, 1, 2], scale=2.0, rectify=rectify, steps=3, progress=False)
        for n in (net, TinyNet())
    )
    assert torch.equal(got.samples, wanted.samples)
    assert got.stats.estimator == wanted.stats.estimator
    after = list(net.named_parameters()), [p.requires_grad for p in net.parameters()]
    assert all(a[1] is b[1] for a, b in zip(before[0], after[0], strict=True))
    assert before[1] == after[1] and net.training


def test_weights_that_were_swapped_meanwhile_stay() -> None:
    """Offloading or a LoRA puts others in their place: those are not undone."""
    with torch.inference_mode():
        net, other = nn.Linear(2, 2), nn.Parameter(torch.zeros(2, 2))
    bias = net.bias
    with frozen([net]):
        assert not net.bias.is_inference() and net.bias.data_ptr() == bias.data_ptr()
        net._parameters["weight"] = other
    assert net.weight is other and net.bias is bias
