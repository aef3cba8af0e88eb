"""EDM2's layers: each equation by number, and that magnitudes are kept, with error bars."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from edm2_cases import drawn
from torch import Tensor

from reg_engine.models.edm2_layers import Block, Fourier, Layer, join, silu, total, unit

ROUNDED = 1e-3  # 0.596 has three digits, and 1e-4 stands beside each norm


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_equations_by_number() -> None:
    rms = math.sqrt((9 + 16) / 2)
    two = numbers(3, -4)[None]
    assert torch.allclose(unit(two), two / (rms + 1e-4), rtol=1e-14)
    assert torch.allclose(unit(two, 0), two / (two.abs() + 1e-4), rtol=1e-14)
    assert torch.allclose(
        silu(numbers(1, -2)), numbers(0.7310585786 / 0.596, -0.2384058440 / 0.596)
    )
    assert torch.allclose(total(numbers(1), numbers(2), 0.3), numbers(1.3 / math.sqrt(0.58)))
    a, b = numbers(5)[None, :, None, None], numbers(1, 2, 3)[None, :, None, None]
    joined = join(a, b, 0.25)  # C = sqrt(4 / (0.75^2 + 0.25^2))
    c = math.sqrt(4 / 0.625)
    wanted = [c * 0.75 * 5, *(c * 0.25 / math.sqrt(3) * v for v in (1, 2, 3))]
    assert torch.allclose(joined.flatten(), numbers(*wanted))
    fourier = Fourier(2).double()
    fourier.freqs.copy_(numbers(1, 2))
    fourier.phases.copy_(numbers(0.5, -1))
    wanted = [math.sqrt(2) * math.cos(0.75), math.sqrt(2) * math.cos(-0.5)]
    assert torch.allclose(fourier(numbers(0.25))[0], numbers(*wanted))


def test_a_layer_by_number() -> None:
    layer = Layer(2, 1).double().eval().requires_grad_(False)
    layer.weight.copy_(numbers(3, 4)[None])
    x = numbers(1, 2)[None]
    norm = math.sqrt(12.5) + 1e-4
    assert torch.allclose(layer(x), numbers((3 + 8) / norm / math.sqrt(2))[None])
    assert torch.allclose(layer(x, numbers(0.5)[0]), 0.5 * layer(x))
    assert torch.equal(layer.weight, numbers(3, 4)[None])  # in use alone


# What each layer makes of unit normal numbers, as independent pieces: (pieces, anything).
def _silu() -> Tensor:
    return silu(torch.randn(256, 4096))


def _total(share: float) -> Tensor:
    return total(torch.randn(256, 4096), torch.randn(256, 4096), share)


def _joined(share: float) -> Tensor:
    return join(torch.randn(256, 24, 8, 8), torch.randn(256, 8, 8, 8), share)


def _fourier() -> Tensor:
    return Fourier(1 << 18)(torch.tensor([0.3])).reshape(256, -1)


def _layer(kernel: int) -> Tensor:
    layer = drawn(Layer(48, 32, kernel)).requires_grad_(False)
    y = layer(torch.randn(256, 48, *[6] * (2 if kernel else 0)))
    return y[..., 1:-1, 1:-1] if kernel else y  # beside the zeros around the image


def _normalised() -> Tensor:
    return unit(30 * torch.randn(64, 64, 8, 8), 1)


MAGNITUDES: dict[str, Callable[[], Tensor]] = {
    "silu": _silu,
    "total 0.3": lambda: _total(0.3),
    "total 0.5": lambda: _total(0.5),
    "join 0.5": lambda: _joined(0.5),
    "join 0.2": lambda: _joined(0.2),
    "fourier": _fourier,
    "linear": lambda: _layer(0),
    "1x1": lambda: _layer(1),
    "3x3": lambda: _layer(3),
    "pixel norm": _normalised,
}


def within(squares: Tensor, tolerance: float = ROUNDED) -> None:
    """The mean of independent pieces' mean squares is 1, within four of its own deviations."""
    deviation = float(squares.std() / math.sqrt(len(squares)))
    assert deviation < 0.02
    assert abs(float(squares.mean()) - 1) <= 4 * deviation + tolerance


@pytest.mark.parametrize("name", MAGNITUDES)
def test_unit_variance_in_unit_variance_out(name: str) -> None:
    torch.manual_seed(4)
    y = MAGNITUDES[name]()
    within(y.square().flatten(1).mean(1), 2 * ROUNDED)


@pytest.mark.parametrize("decoder", [False, True])
@pytest.mark.parametrize("outputs", [48, 64])
def test_a_block_keeps_the_magnitude_over_drawn_weights(decoder: bool, outputs: int) -> None:
    """In expectation over weights: SiLU's mean is a direction that some weights prefer."""
    torch.manual_seed(5)
    squares = []
    for _ in range(24):
        block = Block(48, outputs, 32, decoder=decoder).eval().requires_grad_(False)
        y = block(torch.randn(2, 48, 12, 12), torch.randn(2, 32))  # its new gain is 0
        squares.append(y[..., 2:-2, 2:-2].square().mean())
    within(torch.stack(squares), 0.01)


def test_frequencies_and_phases_are_drawn_as_the_paper_has_them() -> None:
    """freqs ~ 2 pi N(0, 1), phases ~ U(0, 2 pi): each mean within four of its deviations."""
    torch.manual_seed(9)
    count = 1 << 16
    fourier, bar = Fourier(count), 4 / math.sqrt(1 << 16)
    freqs, phases = fourier.freqs / (2 * math.pi), fourier.phases / (2 * math.pi)
    assert abs(float(freqs.mean())) < bar
    assert abs(float(freqs.square().mean()) - 1) < bar * math.sqrt(2)
    assert float(phases.min()) >= 0 and float(phases.max()) < 1
    assert abs(float(phases.mean()) - 0.5) < bar / math.sqrt(12)
    assert abs(float(phases.square().mean()) - 1 / 3) < bar * math.sqrt(1 / 5 - 1 / 9)


def test_what_is_joined_contributes_its_share() -> None:
    torch.manual_seed(6)
    a, b = torch.randn(64, 48, 16, 16), torch.randn(64, 16, 16, 16)
    for share in (0.5, 0.2):
        one, other = join(a, b, share).square().sum((0, 2, 3)).split([48, 16])
        assert float(other.sum() / one.sum()) == pytest.approx((share / (1 - share)) ** 2, rel=0.02)


def test_silus_constant_is_the_integral() -> None:
    x = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = (-x * x / 2).exp() / math.sqrt(2 * math.pi)
    square = torch.trapezoid(torch.nn.functional.silu(x).square() * density, x)
    assert float(square.sqrt()) == pytest.approx(0.596, abs=5e-4)  # as the paper rounds it


def test_training_forces_the_stored_weights_and_gradients_are_orthogonal_to_them() -> None:
    """Eq. 66; and by Eq. 47 the length of the weights has no gradient."""
    torch.manual_seed(7)
    layer = Layer(9, 4).double()
    before = 5 * layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.copy_(before)
    x = torch.randn(3, 9, dtype=torch.float64)
    answer = layer.eval()(x)
    assert torch.equal(layer.weight, before)
    trained = layer.train()(x)
    rms = before.square().mean(1, keepdim=True).sqrt()
    assert torch.allclose(layer.weight, before / (rms + 1e-4), rtol=1e-12)
    assert torch.allclose(trained, answer, rtol=1e-3)  # 1e-4 once more beside other norms
    trained.pow(3).sum().backward()
    assert layer.weight.grad is not None
    along = (layer.weight * layer.weight.grad).sum(1)
    assert (along.abs() <= 1e-3 * layer.weight.norm(dim=1) * layer.weight.grad.norm(dim=1)).all()
    assert layer.weight.grad.norm() > 0.1


def test_settled_weights_are_used_as_they_are_and_saved_at_unit_magnitude() -> None:
    layer = drawn(Layer(9, 4, 3)).requires_grad_(False)
    assert isinstance(layer, Layer)
    x, own = torch.randn(2, 9, 5, 5), {"weight": layer.weight.clone()}
    wanted = layer(x)
    for _ in range(2):  # the second changes nothing
        layer.settle()
        assert torch.equal(layer(x), wanted)
    assert torch.allclose(layer.weight.flatten(1).norm(dim=1), torch.ones(4), atol=2e-4)
    saved = layer.state_dict()["weight"]
    assert torch.allclose(saved, unit(own["weight"]), rtol=1e-6)
    layer.weight.mul_(2)
    assert torch.allclose(layer(x), 2 * wanted)
    layer.load_state_dict({}, strict=False)
    assert not layer.settled and torch.allclose(layer.weight, 2 * saved)
    layer.load_state_dict(own)
    assert torch.equal(layer(x), wanted)
    layer.settle()
    assert layer.eval().settled and torch.equal(layer(x), wanted)
    assert not layer.train().settled and torch.allclose(layer.weight, saved, rtol=1e-6)
    layer.settle(False)
    assert torch.allclose(layer.weight, saved, rtol=1e-6)


def test_norms_hold_in_half_precision_and_frequencies_keep_their_digits() -> None:
    x = torch.full((1, 1 << 17), 250.0)  # neither its squares nor its norm fit float16
    assert torch.equal(unit(x.half()), torch.ones(1, 1 << 17).half())
    fourier = Fourier(64)
    wanted = fourier(torch.tensor([1.3]))
    for dtype in (torch.float16, torch.bfloat16):
        moved = Fourier(64)
        moved.load_state_dict(fourier.state_dict())
        moved.to(dtype)
        assert moved.freqs.dtype == torch.float32
        assert torch.equal(moved(torch.tensor([1.3])), wanted)
    assert moved.double().phases.dtype == torch.float64
    assert fourier(torch.tensor([1.3]).double()).dtype == torch.float64
    assert fourier(torch.tensor([1.5]).half()).dtype == torch.float32
    assert torch.nn.Sequential(Fourier(4)).to("meta")[0].freqs.is_meta


def test_a_block_clips_what_it_leaves() -> None:
    torch.manual_seed(8)
    block = drawn(Block(8, 8, 4, decoder=True)).requires_grad_(False)
    x = 3e4 * torch.randn(1, 8, 4, 4)
    y = block(x, torch.zeros(1, 4))
    assert float(y.max()) == 256 and float(y.min()) == -256
    inside = block(x / 3e4, torch.zeros(1, 4))
    assert 0 < float(inside.abs().max()) < 256
