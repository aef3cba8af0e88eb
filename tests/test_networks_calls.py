"""How a network is called: keywords that have no rows, integer time, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nets import CLASSES, SHAPE, TinyNet, tiny
from rerun import Rerun
from torch import Tensor, nn

import reg_engine
from reg_engine import RECTIFIERS, Denoiser, Engine, InputError, schedules
from reg_engine.loop.graphs import Graphs
from reg_engine.rectifiers import looks

POSITIONS = torch.linspace(-1, 1, 12).reshape(3, 4)  # no axis for samples


class Placed(TinyNet):
    """Adds rows of ids; writes into what it was given, as networks do."""

    def forward(
        self, x: Tensor, t: Tensor, cond: Tensor, *, ids: Any, mode: str, offset: Tensor
    ) -> Tensor:
        assert mode == "add" and ids["deep"][0].shape == (3, 4) and offset.dim() == 0
        out = super().forward(x, t, cond) + ids["deep"][0].sum(0) * offset
        ids["deep"][0].zero_()
        return out


EXTRA = {"ids": {"deep": [POSITIONS]}, "mode": "add", "offset": torch.tensor(0.5)}


@pytest.mark.usefixtures("alike")
@pytest.mark.parametrize("rectify", [None, *RECTIFIERS, "auto"])
def test_keywords_without_rows_travel_as_they_are(rectify: str | None) -> None:
    torch.manual_seed(0)
    placed = Denoiser(Placed(), "edm", schedules.EDM(), SHAPE, CLASSES, extra=EXTRA)
    net = TinyNet()
    bound = tiny(net=_Shifted(net, 0.5 * POSITIONS.sum(0)))
    choices = {"scale": 2.5, "rectify": rectify, "steps": 3, "progress": False}
    wanted = reg_engine.sample(bound, [0, 1, 2], **choices).samples
    engine = Engine(placed, batch_size=2, **choices)
    eager = engine.sample([0, 1, 2]).samples
    assert torch.allclose(eager, wanted, rtol=1e-4, atol=1e-4)
    engine._graphs = None if looks(rectify) else Graphs(Rerun(), always=True)
    assert torch.equal(engine.sample([0, 1, 2]).samples, eager)
    assert float(POSITIONS[0, 0]) == -1.0  # the caller's own is untouched


class _Shifted(nn.Module):
    def __init__(self, net: nn.Module, shift: Tensor) -> None:
        super().__init__()
        self.net, self.shift = net, shift

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        return self.net(x, t, cond) + self.shift


def test_keywords_reach_a_view_and_another_device() -> None:
    seen: list[Any] = []

    def net(x: Tensor, t: Tensor, cond: Any, ids: Tensor) -> Tensor:
        seen.append(ids)
        return x

    model = Denoiser(net, "sample", schedules.VPLinear(), SHAPE, extra={"ids": POSITIONS})
    x = torch.zeros(2, *SHAPE)
    model.on(schedules.EDM())(x, 1.0, None)
    model(x.to("meta"), 500.0, None)
    assert torch.equal(seen[0], POSITIONS) and seen[1].device.type == "meta"


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"idx": 1}, "does not fit net .*"),
        ({"x": 1}, "does not fit net .*multiple values"),
        ({}, "does not fit net .*ids"),
        ([1], "dict"),
        ({1: 2}, "dict"),
    ],
)
def test_keywords_that_do_not_fit_are_refused(extra: Any, says: str) -> None:
    def net(x: Tensor, t: Tensor, cond: Any, *, ids: Tensor) -> Tensor:
        return x

    with pytest.raises(InputError, match=f"^extra: .*{says}"):
        Denoiser(net, "sample", schedules.EDM(), SHAPE, extra=extra)


class Table(nn.Module):
    """Looks t up, as the networks of chains of steps do."""

    def __init__(self, steps: int = 1000) -> None:
        super().__init__()
        self.time, self.seen = nn.Embedding(steps, 1), []
        nn.init.normal_(self.time.weight)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        self.seen.append(t)
        return self.time(t)[:, :, None, None] * torch.tanh(x)


def table_model(net: nn.Module, **options: Any) -> Denoiser:
    return Denoiser(net, "epsilon", schedules.VPLinear(), SHAPE, CLASSES, **options)


def test_integer_time_is_the_step() -> None:
    """Equal to the function that rounds by hand, for steps between integers too."""
    net = Table()
    model = table_model(net, time="integer")
    rounding = table_model(lambda x, t, cond: net(x, t.round().clamp_min(0).long(), cond))
    for schedule in (None, schedules.EDM(sigma_max=100.0)):
        for rectify in (None, "vjp", "fd_batched"):
            choices = {"steps": 4, "rectify": rectify, "schedule": schedule, "progress": False}
            got, wanted = (
                reg_engine.sample(m, [0, 1], scale=2.0, **choices).samples
                for m in (model, rounding)
            )
            assert torch.equal(got, wanted)
    assert {t.dtype for t in net.seen} == {torch.long}
    x = torch.zeros(1, *SHAPE)
    net.seen.clear()
    for t in (998.6, 0.4, -0.9, 412.0):
        model(x, t, torch.zeros(1).long())
    assert [int(t) for t in net.seen] == [999, 0, 0, 412]
    engine = Engine(model, scale=2.0, rectify=None, steps=4, progress=False)
    eager = engine.sample([0, 1]).samples
    engine._graphs = None if looks(rectify) else Graphs(Rerun(), always=True)
    assert torch.equal(engine.sample([0, 1]).samples, eager)


@pytest.mark.parametrize("rectify", [None, "vjp", "jvp", "auto"])
def test_a_table_of_times_that_is_given_floats_says_how(rectify: str | None) -> None:
    with pytest.raises(InputError, match=r"^time: .*Denoiser\(time='integer'\)"):
        reg_engine.sample(
            table_model(Table()), [0], scale=2.0, rectify=rectify, steps=2, progress=False
        )


def test_integer_time_counts_the_steps_of_a_chain() -> None:
    for prediction, schedule in (
        ("epsilon", schedules.EDM()),
        ("flow", schedules.Flow()),
        ("edm", schedules.VPLinear()),
    ):
        with pytest.raises(InputError, match="^time: 'integer' counts"):
            Denoiser(Table(), prediction, schedule, SHAPE, time="integer")
    with pytest.raises(InputError, match="^time: "):
        table_model(Table(), time="int")
