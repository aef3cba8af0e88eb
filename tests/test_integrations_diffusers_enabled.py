"""What is on in which pipeline, over all its networks, and for how long."""

from __future__ import annotations

import gc

import pytest

pytest.importorskip("diffusers", reason="diffusers is not installed")

from test_integrations_diffusers_switch import Net, Pipe  # noqa: E402

from reg_engine import InputError  # noqa: E402
from reg_engine.integrations import diffusers as door  # noqa: E402
from reg_engine.integrations.diffusers.enabled import networks_of  # noqa: E402


def test_every_network_of_a_pipeline_is_hooked() -> None:
    pipe = Pipe()
    pipe.transformer, pipe.transformer_2 = Net(), None
    with door.reg(pipe) as rectified:
        assert [hook.module for hook in rectified.hooks] == [pipe.unet, pipe.transformer]


def test_the_cost_is_that_of_all_networks() -> None:
    """Two experts take turns along the way."""
    pipe = Pipe()
    pipe.transformer = Net()
    with door.reg(pipe, rectify="vjp") as rectified:
        pipe()
        first = rectified.stats
        pipe.unet = pipe.transformer
        pipe()
    assert (first.nfe, first.backward) == (2, 1)
    assert (rectified.stats.nfe, rectified.stats.backward) == (4, 2)
    assert rectified.stats.modes == {"reg": 2} and rectified.stats.samples == 1


def test_a_pipeline_is_not_kept_alive() -> None:
    from reg_engine.integrations.diffusers.enabled import ENABLED

    pipe = Pipe()
    with door.reg(pipe, rectify="fd"):
        pipe()
    del pipe
    gc.collect()
    assert len(ENABLED) == 0


def test_networks_are_found_by_their_names() -> None:
    pipe = Pipe()
    assert networks_of(pipe) == [pipe.unet]
    pipe.transformer_2 = Net()
    assert networks_of(pipe) == [pipe.unet, pipe.transformer_2]
    for broken in (object(), type("Other", (), {"unet": Net()})()):
        with pytest.raises(InputError, match="without a network that denoises"):
            networks_of(broken)
