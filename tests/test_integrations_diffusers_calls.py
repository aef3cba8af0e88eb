"""A network's call, taken apart and put together."""

from __future__ import annotations

from inspect import signature
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reg_engine import InputError
from reg_engine.integrations.diffusers.calls import Call, Each, signature_of


class Net(nn.Module):
    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(
        self, sample: Tensor, timestep: Any, prompt: Any = None, img_ids: Any = None, **others: Any
    ) -> Any: ...


def call(*args: Any, net: nn.Module | None = None, **kwargs: Any) -> Call:
    net = net or Net()
    return Call.of(signature_of(net), net, args, kwargs)


def test_rows_and_what_has_none() -> None:
    x, prompt, extra = (
        torch.randn(4, 2, 3, 3),
        torch.randn(4, 5),
        [torch.randn(4, 2), torch.ones(3)],
    )
    ids, sizes = torch.ones(4, 3), [[(1, 2)]] * 4
    whole = call(
        x, torch.tensor(7), prompt, img_ids=ids, added={"a": extra}, sizes=sizes, flag=True
    )
    assert whole.told == 7.0 and whole.channels == 2
    rows = torch.tensor([3, 0, 3])
    given = whole.told_about(torch.zeros(3, 2, 3, 3), rows)
    assert torch.equal(given.pop(""), torch.zeros(3, 2, 3, 3))
    assert torch.equal(given["prompt"], prompt[rows]) and given["img_ids"] is ids
    assert (
        torch.equal(given["added"]["a"][0], extra[0][rows]) and given["added"]["a"][1] is extra[1]
    )
    assert given["sizes"] == [[(1, 2)]] * 3 and given["flag"] is True
    assert given["timestep"] is whole.timestep


def test_times_have_rows_or_none() -> None:
    x = torch.randn(4, 2, 3, 3)
    for timestep, wanted in ((torch.full((4,), 5.0), 3), (torch.tensor([5.0]), 1)):
        given = call(x, timestep).told_about(x[:3], torch.arange(3))
        assert given["timestep"].tolist() == [5.0] * wanted
    assert call(x, 12).told == 12.0
    with pytest.raises(InputError, match="several times at once"):
        call(x, torch.tensor([1.0, 2.0, 1.0, 1.0])).told  # noqa: B018


@pytest.mark.parametrize(
    ("shape", "config", "channels"),
    [
        ((2, 9, 4, 4), {"out_channels": 4}, 4),  # a mask and a picture upon the state
        ((2, 4, 4, 4), {"out_channels": 8}, 4),  # learned variances
        ((2, 6, 64), {"out_channels": None}, 64),
        ((2, 6, 64), {"out_channels": 16, "patch_size": 2}, 64),  # packed: a token is a patch
        ((2, 6, 96), {"out_channels": 64}, 64),
        ((2, 5, 3, 4, 4), {}, 5),
    ],
)
def test_channels_of_the_state(shape: tuple, config: dict, channels: int) -> None:
    x = torch.randn(shape)
    found = call(x, 1, net=Net(**config))
    axis = -1 if len(shape) == 3 else 1
    assert found.channels == channels and torch.equal(found.state, x.narrow(axis, 0, channels))
    put = found.told_about(torch.zeros_like(found.state), torch.tensor([1, 0]))[""]
    assert put.shape == x.shape and not put.narrow(axis, 0, channels).any()
    rest = shape[axis] - channels
    assert torch.equal(put.narrow(axis, channels, rest), x.flip(0).narrow(axis, channels, rest))


def test_frames_before_channels() -> None:
    """As CogVideoX has them, here with more frames than channels and a picture stacked upon."""

    class CogVideoXTransformer3DModel(Net): ...

    x = torch.randn(2, 5, 4, 3, 3)
    found = call(x, 1, net=CogVideoXTransformer3DModel(out_channels=2))
    assert found.axis == 2 and found.channels == 2 and torch.equal(found.state, x[:, :, :2])
    put = found.told_about(torch.zeros(1, 5, 2, 3, 3), torch.tensor([1]))[""]
    assert torch.equal(put[:, :, 2:], x[1:, :, 2:]) and not put[:, :, :2].any()


def test_prompts_frame_by_frame() -> None:
    """As AnimateDiff repeats them."""

    class UNetMotionModel(Net): ...

    x, prompt = torch.randn(4, 2, 3, 4, 4), torch.arange(4.0).repeat_interleave(3)[:, None]
    found = call(x, 1, prompt, net=UNetMotionModel())
    one, other = found.part(slice(2)), found.part(slice(2, None))
    assert not one.like(other) and one.beside(other).like(found)
    given = found.told_about(x[:2], torch.tensor([3, 1]))
    assert given["prompt"].flatten().tolist() == [3.0] * 3 + [1.0] * 3
    assert call(x, 1, prompt).told_about(x[:2], torch.tensor([3, 1]))["prompt"] is prompt


def test_repeats_looks_at_the_state_alone() -> None:
    x = torch.randn(2, 4, 3, 3)
    stacked = torch.cat([torch.cat([x, x]), torch.randn(4, 5, 3, 3)], 1)
    found = call(stacked, 1, net=Net(out_channels=4))
    assert found.repeats(2) and not found.repeats(3) and not found.part(slice(3)).repeats(2)
    assert not call(torch.randn(4, 4, 3, 3), 1).repeats(2)


def test_alike_and_beside() -> None:
    x, a, b = torch.randn(2, 4), torch.randn(2, 5), torch.randn(2, 5)
    one, other = call(x, 3, a, scale=1.0), call(x + 1, 4, a.clone(), scale=1.0)
    assert one.like(other) and not one.like(call(x, 3, b, scale=1.0))
    assert not one.like(call(x, 3, a, scale=2.0)) and not one.like(call(x, 3, a))
    both = one.beside(call(x, 3, b, scale=1.0))
    given = both.told_about(x[:1], torch.tensor([3]))
    assert torch.equal(given["prompt"], b[1:]) and given["scale"] == 1.0
    assert one.beside(call(x, 3, torch.randn(2, 6), scale=1.0)) is None  # another length
    assert one.beside(call(x, 3, b, scale=2.0)) is None


def test_what_cannot_be_taken_apart() -> None:
    class Timeless(nn.Module):
        def forward(self, sample: Tensor) -> Any: ...

    with pytest.raises(InputError, match="no timestep"):
        call(torch.randn(2, 4), net=Timeless())
    x, ids = torch.randn(2, 6, 4), torch.zeros(6, 3)
    ids[:, 1], ids[4:, 0] = torch.arange(6), 1.0  # 4 tokens of the state, 2 of a picture
    call(x, 1, img_ids=ids[:4], img_shapes=[[(1, 2, 2)]] * 2)
    for beside in ({"img_ids": ids}, {"img_shapes": [[(1, 2, 2), (1, 1, 2)]] * 2}):
        with pytest.raises(InputError, match="tokens of a picture beside those of the state"):
            call(x, 1, **beside)
    with pytest.raises(InputError, match="states in a list"):
        call([torch.randn(2, 4)], 1)
    with pytest.raises(InputError, match="a sizes of its own for each sample"):
        call(torch.randn(2, 4), 1, sizes=[1, 2])
    assert Each([1]) == Each([1])


def test_the_form_is_the_class_own_whatever_wraps_it() -> None:
    net = Net()
    wanted = signature(Net.forward)
    assert signature_of(torch.compile(net, backend="eager")) == wanted == signature_of(net)
    net.forward = lambda *args, **kwargs: None  # type: ignore[method-assign]
    assert signature_of(net) == wanted


def test_layers_to_skip_have_no_rows() -> None:
    """As many as there are samples, in SD3."""
    x = torch.randn(2, 4, 3, 3)
    given = call(x, 1, skip_layers=[7, 8]).told_about(x[:1], torch.tensor([1]))
    assert given["skip_layers"] == [7, 8]


def test_how_coarsely_a_time_is_told() -> None:
    x = torch.randn(2, 4, 3, 3)
    told = [call(x, t).rounding for t in (7, torch.tensor(7), torch.tensor(0.5).bfloat16())]
    assert told == [0.0, 0.0, 2.0**-7]
