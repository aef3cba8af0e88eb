"""On and off."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")

from torch import Tensor, nn  # noqa: E402

from reg_engine import Guidance, InputError  # noqa: E402
from reg_engine.integrations import diffusers as door  # noqa: E402


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, sample: Tensor, timestep: Any, label: Tensor) -> Any:
        return (self.weight * sample * label[:, None],)


class Pipe:
    def __init__(self) -> None:
        from diffusers import DDIMScheduler

        self.unet, self.scheduler = Net(), DDIMScheduler()
        self.scheduler.set_timesteps(4)

    def __call__(self) -> Tensor:
        x = torch.linspace(-1, 1, 4).reshape(1, 4).repeat(2, 1)
        label = torch.tensor([0.5, 2.0])
        return self.unet(x, self.scheduler.timesteps[1], label)[0]


def test_a_block_and_what_is_left_of_it() -> None:
    pipe = Pipe()
    before, places = pipe(), dict(pipe.unet.__dict__)
    with door.reg(pipe, rectify="fd") as rectified:
        assert not torch.equal(pipe(), before)
    assert rectified.stats.samples == 1
    assert pipe.unet.__dict__ == places and torch.equal(pipe(), before)


def test_an_error_inside_leaves_it_as_it_was() -> None:
    pipe = Pipe()
    before = pipe()
    with pytest.raises(KeyError), door.reg(pipe, rectify="fd"):
        raise KeyError
    assert "_compiled_call_impl" not in pipe.unet.__dict__ and torch.equal(pipe(), before)
    with pytest.raises(RuntimeError), door.reg(pipe, rectify="fd"):
        pipe.unet(torch.ones(2, 4), pipe.scheduler.timesteps[1], torch.ones(2, 7, 3))
    assert "_compiled_call_impl" not in pipe.unet.__dict__


def test_what_wrapped_the_forward_before_is_asked_and_comes_back() -> None:
    pipe = Pipe()
    inner, asked = pipe.unet.forward, []

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        asked.append(len(args[0]))
        return inner(*args, **kwargs)

    pipe.unet.forward = wrapped
    with door.reg(pipe, rectify="vjp"):
        pipe()
    assert sum(asked) >= 2 and pipe.unet.__dict__["forward"] is wrapped


def test_a_forward_replaced_inside_stays_replaced_and_guided() -> None:
    """As offloading does at the end of every call of a pipeline."""
    pipe = Pipe()
    with door.reg(pipe, rectify="fd"):
        wanted, inner = pipe(), pipe.unet.forward
        pipe.unet.forward = lambda *args, **kwargs: inner(*args, **kwargs)
        assert torch.equal(pipe(), wanted)
        del pipe.unet.forward
        assert torch.equal(pipe(), wanted)
    assert not torch.equal(pipe(), wanted)


def test_copies_are_plain() -> None:
    pipe = Pipe()
    before = pipe()
    with door.reg(pipe, rectify="fd"):
        pipe.unet = copy.deepcopy(pipe.unet)
        assert torch.equal(pipe(), before)


def test_a_network_of_two_pipelines_is_enabled_once() -> None:
    pipe, other = Pipe(), Pipe()
    other.unet = pipe.unet
    before = pipe()
    with door.reg(pipe, rectify="fd"):
        with pytest.raises(InputError, match="network from another pipeline that is enabled"):
            door.enable(other)
        assert not torch.equal(pipe(), before)
    with door.reg(other, rectify="fd"):
        assert not torch.equal(other(), before)
    assert torch.equal(pipe(), before)


def test_enable_and_disable() -> None:
    pipe = Pipe()
    before = pipe()
    rectified = door.enable(pipe, rectify="fd")
    with pytest.raises(InputError, match=r"enabled already. Call disable\(pipe\) first"):
        door.enable(pipe)
    assert not torch.equal(pipe(), before) and rectified.stats.estimator == "fd"
    door.disable(pipe)
    door.disable(pipe)
    assert torch.equal(pipe(), before)
    door.enable(pipe, rectify="fd")
    door.disable(pipe)


def test_nothing_to_do_is_nothing() -> None:
    pipe = Pipe()
    with door.reg(pipe, rectify=None) as rectified:
        assert rectified.hooks == [] and rectified.stats is None
        assert "_compiled_call_impl" not in pipe.unet.__dict__


def test_a_guidance_of_ones_own() -> None:
    pipe = Pipe()
    with door.reg(pipe, guidance=Guidance(3.0, rectify=None)):
        told = pipe()
    ref, cond = pipe()
    torch.testing.assert_close(told[0], cond + 2.0 * (cond - ref))
    assert torch.equal(told[0], told[1])


def test_bad_input() -> None:
    pipe = Pipe()
    for broken in (object(), type("Other", (), {"unet": Net()})()):
        with pytest.raises(InputError, match="without a network that denoises, or without a sched"):
            door.enable(broken)
    minus = type("HiDreamImagePipeline", (Pipe,), {})()
    with pytest.raises(InputError, match="HiDreamImagePipeline, whose network predicts minus"):
        door.enable(minus)
    with pytest.raises(InputError, match=r"'blend' depends on w.*Give scale= as well"):
        door.enable(pipe, rectify="blend")
    with pytest.raises(InputError, match="scale"), door.reg(pipe, scale=-1.0):
        pipe()
    with pytest.raises(InputError, match="rectify"), door.reg(pipe, rectify="vpj"):
        pipe()
    assert "_compiled_call_impl" not in pipe.unet.__dict__
