"""Shared changes end with the last user; a rerouted forward is one thread's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reg_engine.networks import sharing
from reg_engine.networks.sharing import as_it_was, forward_of, held, rerouted


class Light:
    on = True

    def off(self) -> Callable[[], None] | None:
        if not self.on:
            return None
        self.on = False
        return lambda: setattr(self, "on", True)


def elsewhere(function: Callable[[], Any]) -> Any:
    """What the function gives in another thread."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_a_change_lasts_until_the_last_leaves(order: tuple[int, ...]) -> None:
    light, dark = Light(), Light()
    dark.on = False
    users = [ExitStack() for _ in range(3)]
    for user in users:
        user.enter_context(held([(light, "on", light.off), (dark, "on", dark.off)]))
    for number in order:
        assert not light.on
        users[number].close()
    assert light.on and not dark.on and not sharing._HELD


def test_every_user_makes_the_change_again_where_somebody_undid_it() -> None:
    light = Light()
    with held([(light, "on", light.off)]):
        light.on = True
        with held([(light, "on", light.off)]):
            assert not light.on
        assert not light.on
    assert light.on


def test_a_change_that_fails_undoes_the_earlier_ones() -> None:
    def broken() -> None:
        raise KeyError

    light = Light()
    with pytest.raises(KeyError), held([(light, "on", light.off), (light, "broken", broken)]):
        pass
    assert light.on and not sharing._HELD


def double(block: nn.Module) -> Callable[[Tensor], Tensor]:
    forward = forward_of(block)
    return lambda x: 2 * forward(x)


def test_a_forward_is_this_threads_and_wraps_what_was_there() -> None:
    block, x = nn.Linear(2, 2), torch.ones(1, 2)
    plain = block(x)
    with rerouted({block: double(block)}):
        with rerouted({block: double(block)}):
            assert torch.equal(block(x), 4 * plain)
            assert torch.equal(elsewhere(lambda: block(x)), plain)
            with as_it_was():
                assert torch.equal(block(x), plain)
        assert torch.equal(block(x), 2 * plain)
        assert torch.equal(elsewhere(lambda: forward_of(block)(x)), plain)
    assert torch.equal(block(x), plain) and "forward" not in vars(block)


def test_somebody_elses_patch_is_called_and_put_back() -> None:
    block, x = nn.Linear(2, 2), torch.ones(1, 2)
    patch = block.forward = double(block)  # type: ignore[method-assign]
    wanted = block(x)
    with rerouted({block: double(block)}):
        assert torch.equal(block(x), 2 * wanted)
    assert vars(block)["forward"] is patch
    later = double(block)
    with rerouted({block: double(block)}):
        block.forward = later  # type: ignore[method-assign]
    assert vars(block)["forward"] is later  # came meanwhile, and stays
