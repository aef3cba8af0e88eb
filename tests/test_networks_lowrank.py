"""Low-rank changes: against the formula, against peft, and what they leave alone."""

from __future__ import annotations

import math

import pytest
import torch
from adapter_cases import Net, change, model
from torch import nn

from reg_engine import InputError
from reg_engine.networks.lowrank import LowRank, Shape, Worn, layers_of


def test_a_change_is_the_formula_of_the_module() -> None:
    found, scale, most = change(model(), most=5.0), 2.5, 5.0
    u = math.log(scale) / math.log(most)
    for name in ("enter", "time", "out"):
        a, b, p = (found.parts[f"{name}/{part}"].double() for part in "ABP")
        gates = p @ torch.tensor([u, u**2, u**3], dtype=torch.float64)
        weight, bias = found.change(name, scale)
        torch.testing.assert_close(weight.double(), b @ torch.diag(gates) @ a, atol=1e-6, rtol=1e-5)
        if name == "time":
            assert bias is None
        else:
            c = found.parts[f"{name}/C"].double()
            wanted = c[:, 0] * u + c[:, 1] * u**2 + c[:, 2] * u**3
            torch.testing.assert_close(bias.double(), wanted, atol=1e-6, rtol=1e-5)


def test_scale_one_and_new_changes_change_nothing() -> None:
    denoiser = model()
    for found, scale in ((change(denoiser), 1.0), (LowRank.of(denoiser.modules, 1.0, 4.0), 3.0)):
        for name in found.shapes:
            weight, bias = found.change(name, scale)
            assert not weight.any() and (bias is None or not bias.any())
    new = LowRank.of(denoiser.modules, 1.0, 4.0)
    assert all(new.parts[f"{name}/A"].any() for name in new.shapes), "then nothing could be learned"
    assert torch.equal(new.parts["out/P"], torch.tensor([[1.0, 0, 0]]).repeat(new.rank, 1))


def test_the_largest_rank_that_fits_is_taken() -> None:
    denoiser = model()
    whole = sum(p.numel() for p in denoiser.net.parameters())
    # rank r of enter (16, 2), time (16, 1), out (2, 16), phi of 3, biases of 16 and 2.
    taken = [2 * (16 + 2 + 3) * 1 + (16 + 1 + 3) + 3 * 18, 2 * (16 + 2 + 3) * 2 + 20 + 3 * 18]
    for rank, count in enumerate(taken, 1):
        found = LowRank.of(denoiser.modules, count / whole, 4.0)
        assert found.rank == rank
        assert sum(p.numel() for p in found.parameters()) == count
    less = LowRank.of(denoiser.modules, (taken[1] - 1) / whole, 4.0)
    assert less.rank == 1
    with pytest.raises(InputError, match=r"share: is 0\.01. Give at least 0\.\d+: rank 1"):
        LowRank.of(denoiser.modules, 0.01, 4.0)


def test_layers_are_those_that_use_their_weight_as_it_is() -> None:
    class Odd(nn.Linear):
        pass

    shared = nn.Linear(3, 3)
    root = nn.ModuleDict({"a": shared, "b": shared, "odd": Odd(2, 2), "conv": nn.Conv2d(1, 2, 3)})
    assert list(layers_of([root])) == ["a", "conv"]
    assert list(layers_of([root, nn.Linear(1, 1)])) == ["0.a", "0.conv", "1."]
    with pytest.raises(InputError, match="no linear layer"):
        layers_of([nn.Embedding(2, 2)])


def test_a_copy_shares_every_tensor_and_the_model_stays_as_it_is() -> None:
    denoiser = model()
    before = {name: value.clone() for name, value in denoiser.net.state_dict().items()}
    worn = Worn(denoiser.net, denoiser.modules)
    worn.wear(change(denoiser), 3.0)
    assert worn.net is not denoiser.net
    assert worn.net.label.weight is denoiser.net.label.weight
    assert worn.net.out.weight is not denoiser.net.out.weight
    assert isinstance(worn.net.out.weight, nn.Parameter), "moved and frozen as one"
    for name, value in denoiser.net.state_dict().items():
        assert torch.equal(value, before[name])
    worn.wear(change(denoiser), 1.0)
    torch.testing.assert_close(worn.net.out.weight.data, denoiser.net.out.weight.data)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_the_changed_weight_is_that_of_peft(kind: str) -> None:
    """At one scale the change is LoRA with B scaled by its gates: an independent peer."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    layer = nn.Linear(6, 5) if kind == "linear" else nn.Conv2d(3, 5, 3, stride=2, padding=1)
    x = torch.randn(4, 6) if kind == "linear" else torch.randn(4, 3, 8, 8)
    net = nn.Sequential(layer).double()
    found = LowRank({"0": Shape(5, layer.weight[0].numel(), True)}, 2, 4.0).double()
    for parameter in found.parameters():
        parameter.data.normal_()
    worn = Worn(net, [net])
    worn.wear(found.requires_grad_(False), 2.0)
    config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=["0"], lora_bias=False)
    theirs = peft.inject_adapter_in_model(config, nn.Sequential(layer)).double()
    gates = found.parts["0/P"] @ found.phi(2.0)
    a, b = found.parts["0/A"], found.parts["0/B"] * gates
    lora = theirs[0]
    lora.lora_A["default"].weight.data = a.reshape(lora.lora_A["default"].weight.shape)
    lora.lora_B["default"].weight.data = b.reshape(lora.lora_B["default"].weight.shape)
    bias = (found.parts["0/C"] @ found.phi(2.0)).reshape(5, *[1] * (x.dim() - 2))
    with torch.no_grad():
        torch.testing.assert_close(worn.net(x.double()), theirs(x.double()) + bias)


def test_worn_weights_carry_the_derivative() -> None:
    denoiser = model()
    found = change(denoiser).double().requires_grad_(True)
    net = denoiser.net.double()
    worn = Worn(net, [net])
    x, t = torch.randn(5, 2, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    label = torch.tensor([0, 1, 2, 0, 1])

    def value(scale: float) -> torch.Tensor:
        worn.wear(found, scale)
        return worn.net(x, t, label).square().sum()

    value(3.0).backward()
    for name in ("enter/A", "time/B", "out/P", "out/C"):
        parameter, step = found.parts[name], 1e-6
        gradient = parameter.grad[0, 0].item()
        with torch.no_grad():
            parameter[0, 0] += step
            ahead = value(3.0).item()
            parameter[0, 0] -= 2 * step
            behind = value(3.0).item()
            parameter[0, 0] += step
        assert gradient == pytest.approx((ahead - behind) / (2 * step), rel=1e-5), name


def test_a_network_that_a_function_hides_is_refused() -> None:
    net = Net()
    with pytest.raises(InputError, match="within a function"):
        Worn(lambda x, t, label: net(x, t, label), [net])

    class Held:
        def __init__(self) -> None:
            self.inner = net

        def __call__(self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            return self.inner(x, t, label)

    worn = Worn(Held(), [net])
    worn.wear(change(model()), 3.0)
    x, t, label = torch.randn(2, 2), torch.rand(2), torch.tensor([0, 1])
    assert not torch.equal(worn.net(x, t, label), net(x, t, label))
