"""How a pipeline may ask its network, on one that anybody can work out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")

from torch import Tensor, nn  # noqa: E402
from torch._dynamo.testing import CompileCounter  # noqa: E402

from reg_engine import InputError  # noqa: E402
from reg_engine.integrations.diffusers import reg  # noqa: E402


class Net(nn.Module):
    """Called with three copies of a state, or with prompts of two lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, sample: Tensor, timestep: Any, prompt: Tensor, scale: float = 1.0) -> Any:
        lengths = torch.full((len(sample), 1, 1), float(prompt.shape[1]))
        return (self.weight * sample * prompt.mean(1)[:, None] * lengths * scale,)


class Pipe:
    def __init__(self) -> None:
        from diffusers import DDIMScheduler

        self.unet, self.scheduler = Net(), DDIMScheduler()
        self.scheduler.set_timesteps(4)


def test_a_cache_between_calls_is_refused() -> None:
    """It answers a perturbed state with what it kept of another."""
    pipe = Pipe()
    pipe.unet.is_cache_enabled = True
    with reg(pipe), pytest.raises(InputError, match=r"its Net keeps .*Call disable_cache\(\)"):
        pipe.unet(torch.randn(4, 1, 4), pipe.scheduler.timesteps[0], torch.randn(4, 2, 4))


def test_a_network_that_is_kept_elsewhere() -> None:
    """Offloading brings its parameters where the states are, when it is asked."""
    pipe, held = Pipe(), Net()
    x, prompt = torch.randn(2, 1, 4).repeat(2, 1, 1), torch.randn(4, 2, 4)
    t = pipe.scheduler.timesteps[1]
    with reg(pipe, rectify="fd"):
        wanted = pipe.unet(x, t, prompt)[0]
    pipe.unet.to("meta").forward = held.forward
    with reg(pipe, rectify="fd"):
        assert torch.equal(pipe.unet(x, t, prompt)[0], wanted)
    assert pipe.unet.weight.device.type == "meta"


def test_three_predictions_are_refused() -> None:
    pipe = Pipe()
    x = torch.randn(2, 1, 4).repeat(3, 1, 1)
    with reg(pipe), pytest.raises(InputError, match="three predictions a step"):
        pipe.unet(x, pipe.scheduler.timesteps[0], torch.randn(6, 2, 4))


@pytest.mark.parametrize("steps", [1, 2])
def test_samples_that_begin_alike_are_no_pair(steps: int) -> None:
    """Two prompts from one noise, asked one after the other, look like both in one batch."""
    pipe, prompts = Pipe(), [torch.randn(2, 5, 4) for _ in range(2)]
    x, t = torch.randn(1, 1, 4).repeat(2, 1, 1), pipe.scheduler.timesteps[1]
    c, u = (pipe.unet(x, t, prompt)[0] for prompt in prompts)
    with reg(pipe, rectify=None, scale=3.0) as rectified:
        for _ in range(steps):
            told = [pipe.unet(x, t, prompt)[0] for prompt in prompts]
            for one in told:
                torch.testing.assert_close(one, c + 2.0 * (c - u), rtol=1e-4, atol=1e-5)
    assert rectified.stats.samples == 2


def test_samples_that_begin_alike_without_guidance() -> None:
    class Off(Pipe):
        do_classifier_free_guidance = False

    class Flux(Pipe):
        def __call__(self, true_cfg_scale: float = 1.0) -> None: ...

    x, prompt = torch.randn(1, 1, 4).repeat(2, 1, 1), torch.randn(2, 5, 4)
    for pipe in (Off(), Flux()):
        t = pipe.scheduler.timesteps[0]
        wanted = pipe.unet(x, t, prompt)[0]
        with reg(pipe, scale=3.0):
            assert torch.equal(pipe.unet(x, t, prompt)[0], wanted)


def test_three_samples_that_begin_alike_are_no_three_predictions() -> None:
    class Three(Pipe):
        image_guidance_scale = 1.5  # as InstructPix2Pix

    pipe, prompts = Pipe(), torch.randn(6, 2, 4)
    x, t = torch.randn(1, 1, 4).repeat(6, 1, 1), pipe.scheduler.timesteps[0]
    u, c = pipe.unet(x, t, prompts)[0].chunk(2)
    with reg(pipe, rectify=None, scale=3.0):
        told = pipe.unet(x, t, prompts)[0]
    torch.testing.assert_close(told, (c + 2.0 * (c - u)).repeat(2, 1, 1), rtol=1e-4, atol=1e-5)
    pipe = Three()
    with reg(pipe), pytest.raises(InputError, match="three predictions a step"):
        pipe.unet(x, t, prompts)


def test_the_first_call_of_a_run_is_no_pair_with_the_last_of_another() -> None:
    """One noise, one step, no guidance, another prompt."""
    pipe, x = Pipe(), torch.randn(2, 1, 4)
    with reg(pipe, rectify=None, scale=3.0) as rectified:
        for _ in range(2):
            pipe.scheduler.set_timesteps(1)
            pipe.unet(x, pipe.scheduler.timesteps[0], torch.randn(2, 5, 4))
    assert rectified.stats is None


def test_guidance_that_ends_early() -> None:
    """Where the pipeline says so, its only prediction is the network's."""
    pipe, x = Pipe(), torch.randn(2, 1, 4)
    prompts, t = torch.randn(2, 2, 5, 4), pipe.scheduler.timesteps[1]
    wanted = pipe.unet(x, t, prompts[0])[0]
    with reg(pipe, rectify=None, scale=3.0):
        told = [pipe.unet(x, t, prompt)[0] for prompt in prompts]
        assert not torch.allclose(told[0], wanted)
        pipe.do_classifier_free_guidance = False
        assert torch.equal(pipe.unet(x, t, prompts[0])[0], wanted)


def test_prompts_of_two_lengths_are_asked_one_after_the_other() -> None:
    pipe = Pipe()
    x, long, short = torch.randn(2, 1, 4), torch.randn(2, 5, 4), torch.randn(2, 3, 4)
    t = pipe.scheduler.timesteps[1]
    c, u = pipe.unet(x, t, long)[0], pipe.unet(x, t, short, scale=2.0)[0]
    with reg(pipe, rectify=None, scale=3.0) as rectified:
        for _ in range(2):  # the second knows the pair from the first
            told = pipe.unet(x, t, long)[0], pipe.unet(x, t, short, scale=2.0)[0]
            for one in told:
                torch.testing.assert_close(one, c + 2.0 * (c - u), rtol=1e-4, atol=1e-5)
    assert rectified.hooks[0].guided == 2 and rectified.stats.nfe == 5


@pytest.mark.parametrize("short", [3, 5])
def test_what_both_are_told_alike_is_of_the_step_itself(short: int) -> None:
    """Its time, and what a ControlNet adds; the step before knows only how the two differ."""

    class Timed(Net):
        def forward(self, sample: Tensor, timestep: Any, prompt: Tensor, added: Tensor) -> Any:
            return ((super().forward(sample, timestep, prompt)[0] + added) * (1 + timestep),)

    pipe = Pipe()
    pipe.unet = Timed()
    x, prompts = torch.randn(2, 1, 4), (torch.randn(2, 5, 4), torch.randn(2, short, 4))
    with reg(pipe, rectify=None, scale=3.0) as rectified:
        for t in pipe.scheduler.timesteps[1:]:
            added = torch.randn(2, 1, 4)
            c, u = (Timed.forward(pipe.unet, x, t, prompt, added)[0] for prompt in prompts)
            told = [pipe.unet(x, t, prompt, added)[0] for prompt in prompts]
            for one in told:
                torch.testing.assert_close(one, c + 2.0 * (c - u), rtol=1e-4, atol=1e-3)
    assert rectified.hooks[0].guided == 3 and rectified.stats.nfe == 7


def test_another_reference_than_the_step_before() -> None:
    """What was answered for the wrong one is mended in place."""
    pipe = Pipe()
    x, prompt = torch.randn(2, 1, 4), torch.randn(2, 5, 4)
    t = pipe.scheduler.timesteps[1]
    with reg(pipe, rectify=None, scale=3.0):
        for seed in range(3):
            other = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(seed))
            told = pipe.unet(x, t, prompt)[0], pipe.unet(x, t, other)[0]
            c, u = (0.5 * x * p.mean(1)[:, None] * 5 for p in (prompt, other))
            for one in told:
                torch.testing.assert_close(one, c + 2.0 * (c - u), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("inside", [True, False])
def test_compiled_networks(inside: bool) -> None:
    pipe = Pipe()
    x, t = torch.randn(2, 1, 4).repeat(2, 1, 1), pipe.scheduler.timesteps[1]
    prompt = torch.randn(4, 2, 4)
    plainly = pipe.unet(x, t, prompt)[0]
    with reg(pipe, rectify="fd"):
        wanted = pipe.unet(x, t, prompt)[0]
    counted = CompileCounter()
    if inside:
        pipe.unet.compile(backend=counted)
    else:
        pipe.unet = torch.compile(pipe.unet, backend=counted)
    with reg(pipe, rectify="fd") as rectified:
        torch.testing.assert_close(pipe.unet(x, t, prompt)[0], wanted)
    assert rectified.stats.estimator == "fd" and counted.frame_count
    torch.testing.assert_close(pipe.unet(x, t, prompt)[0], plainly)
    assert float((wanted - plainly).norm() / plainly.norm()) > 0.1
