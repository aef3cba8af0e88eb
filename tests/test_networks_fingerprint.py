"""A fingerprint changes with the weights, and with nothing else."""

from __future__ import annotations

import threading

import torch
from nets import SHAPE, TinyNet, tiny
from torch import nn

from reg_engine import Denoiser, oracles, schedules
from reg_engine.networks.fingerprint import fingerprint


def test_equal_weights_are_equal() -> None:
    own = fingerprint(tiny())
    assert len(own) == 64
    assert own == fingerprint(tiny()) == fingerprint(tiny().on(schedules.EDM(sigma_max=20.0)))
    assert own == fingerprint(tiny(net=TinyNet().double()))
    assert own == fingerprint(tiny("epsilon", schedules.VPLinear()))


def test_every_tensor_and_shape_counts() -> None:
    own = fingerprint(tiny())
    for name in TinyNet().state_dict():
        net = TinyNet()
        with torch.no_grad():
            net.state_dict()[name].add_(1e-3)
        assert fingerprint(tiny(net=net)) != own, name
    three = Denoiser(TinyNet(), "edm", schedules.EDM(), SHAPE, 3, num_classes=4)
    flat = Denoiser(TinyNet(), "edm", schedules.EDM(), (16,), 3, num_classes=3)
    assert len({own, fingerprint(three), fingerprint(flat)}) == 3


def test_functions_count_where_they_can() -> None:
    one, two = oracles.two_class_2d().denoiser(), oracles.two_class_2d().denoiser()
    assert fingerprint(one) == fingerprint(two) != fingerprint(oracles.two_class_2d().denoiser(y=1))
    lock = threading.Lock()
    held = Denoiser(lambda x, t, y: (lock, x)[1], "sample", schedules.EDM(), (2,))
    assert fingerprint(held) == ""


def test_large_tensors_are_looked_at_here_and_there() -> None:
    class Wide(nn.Module):
        def __init__(self, last: float) -> None:
            super().__init__()
            self.values = nn.Parameter(torch.zeros(16 * 1000))
            with torch.no_grad():
                self.values[15 * 1000] = last

    assert fingerprint(tiny(net=Wide(0.0))) != fingerprint(tiny(net=Wide(1.0)))
