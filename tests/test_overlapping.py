"""Calls that overlap on one network give what single calls give, bit for bit, and leave no trace.

The network is in training mode, with dropout and batch statistics: whatever one call restores while
another runs would show in the samples.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rerun import Rerun
from torch import Tensor, nn

from reg_engine import Denoiser, Engine, sample, schedules
from reg_engine.loop.graphs import Graphs

CHANNELS, SHAPE, LABELS = 4, (1, 4, 4), [0, 2, 1]


class Mixed(nn.Module):
    """A residual block that a plain, a recorded and a dual pass run differently."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.batch = nn.GroupNorm(2, CHANNELS), nn.BatchNorm2d(CHANNELS)
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)[:, None]
        mixed = F.scaled_dot_product_attention(tokens, tokens, tokens)[:, 0].transpose(1, 2)
        return x + self.drop(torch.tanh(self.conv(self.batch(x)))) + self.drop(mixed.reshape_as(x))


class Net(nn.Module):
    """Enter, two blocks, leave; in training mode, with a label."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.enter = nn.Conv2d(1, CHANNELS, 1)
        self.label = nn.Embedding(4, CHANNELS)
        self.blocks = nn.ModuleList([Mixed(), Mixed()])
        self.leave = nn.Conv2d(CHANNELS, 1, 1)
        self.train()

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        h = self.enter(x) + (self.label(cond) + t[:, None].cos())[:, :, None, None]
        for block in self.blocks:
            h = block(h)
        return self.leave(h)


CALLS: list[dict[str, Any]] = [
    {"rectify": None},
    {"rectify": "vjp"},
    {"rectify": "jvp"},
    {"rectify": "fd_batched"},
    {"rectify": "vjp", "memory_budget": 1},  # every block is recomputed
    {"rectify": "vjp", "compile": True},
    {"rectify": "jvp", "compile": True},
]


@pytest.fixture(autouse=True)
def compiled_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile through Dynamo, without the seconds that generating code takes."""
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **o: compile(f, backend="eager", **o))


def model(net: nn.Module | None = None) -> Denoiser:
    net = net or Net()
    return Denoiser(net, "epsilon", schedules.ScaledLinear(), SHAPE, 3, num_classes=3)


SHARED: dict[str, Any] = {"steps": 2, "solver": "euler", "scale": 3.0, "progress": False}


def samples(denoiser: Denoiser, seed: int, **choices: Any) -> Tensor:
    seeds = range(seed, seed + len(LABELS))
    return sample(denoiser, LABELS, seeds=seeds, **SHARED, **choices).samples


def traces(net: nn.Module) -> list[Any]:
    """Whatever a call may change in a network."""
    return [
        [m.training for m in net.modules()],
        [p.requires_grad for p in net.parameters()],
        [b.tolist() for b in net.buffers()],
        [name for m in net.modules() for name in vars(m)],
    ]


class Overlap:
    """Calls of CALLS over one network, each compared with what it gives alone on another one."""

    def __init__(self) -> None:
        self.denoiser = model()
        self.before = traces(self.denoiser.net)  # type: ignore[arg-type]
        alone = model()
        self.alone = [samples(alone, seed, **call) for seed, call in enumerate(CALLS)]

    def call(self, index: int) -> bool:
        """Whether call number `index` gives what it gives alone."""
        index %= len(CALLS)
        return torch.equal(samples(self.denoiser, index, **CALLS[index]), self.alone[index])

    def check_traces(self) -> None:
        assert traces(self.denoiser.net) == self.before  # type: ignore[arg-type]


@pytest.fixture
def overlap() -> Overlap:
    return Overlap()


ROUNDS = pytest.mark.parametrize("rounds", [2, pytest.param(50, marks=pytest.mark.slow)])


@ROUNDS
def test_two_threads(overlap: Overlap, rounds: int) -> None:
    """Every pair of calls, started at once."""
    pairs = [(i, j) for i in range(len(CALLS)) for j in range(i, len(CALLS))]
    with ThreadPoolExecutor(2) as pool:
        for round in range(rounds):
            some = pairs if rounds > 2 else pairs[round::2]
            for i, j in some[:: 1 if rounds == 2 else 4]:
                assert list(pool.map(overlap.call, (i, j))) == [True, True], (CALLS[i], CALLS[j])
    overlap.check_traces()


@ROUNDS
def test_six_calls_of_asyncio(overlap: Overlap, rounds: int) -> None:
    async def six(first: int) -> list[bool]:
        return await asyncio.gather(*(asyncio.to_thread(overlap.call, first + k) for k in range(6)))

    for round in range(rounds):
        assert asyncio.run(six(round)) == [True] * 6, round
    overlap.check_traces()


def engine(denoiser: Denoiser, **choices: Any) -> Engine:
    return Engine(denoiser, batch_size=1, **SHARED, **choices)


@ROUNDS
def test_two_interleaved_streams_that_end_in_any_order(overlap: Overlap, rounds: int) -> None:
    for round in range(rounds):
        i, j = round % len(CALLS), (round + 1) % len(CALLS)
        a = engine(overlap.denoiser, **CALLS[i]).stream(LABELS, range(i, i + 3))
        b = engine(overlap.denoiser, **CALLS[j]).stream(LABELS, range(j, j + 3))
        alone_a = list(engine(model(), **CALLS[i]).stream(LABELS, range(i, i + 3)))
        alone_b = list(engine(model(), **CALLS[j]).stream(LABELS, range(j, j + 3)))
        for k in range(3):
            if k < 2:
                assert torch.equal(next(a)[1], alone_a[k][1])
            assert torch.equal(next(b)[1], alone_b[k][1])
            if k == 1:
                [a.close, lambda: None][round % 2]()  # type: ignore[operator]
        del a, b  # one of them unfinished
        overlap.check_traces()


class Nested(nn.Module):
    """Samples with the network that it hides, before it first asks it."""

    def __init__(self, net: nn.Module, call: Callable[[], bool]) -> None:
        super().__init__()
        self.net, self.call, self.right = [net], call, list[bool]()

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        if not self.right:
            self.right.append(self.call())
        result: Tensor = self.net[0](x, t, cond)
        return result


@ROUNDS
def test_a_call_inside_a_call(overlap: Overlap, rounds: int) -> None:
    """The network itself and the postprocess sample with the same network."""
    assert isinstance(overlap.denoiser.net, nn.Module)
    for round in range(rounds):
        outer, inner = (round + 4) % len(CALLS), round % len(CALLS)
        net = Nested(overlap.denoiser.net, partial(overlap.call, inner))

        def postprocess(found: Tensor, cond: Any, net: Nested = net) -> Tensor:
            net.right.append(net.call())
            return found

        got = samples(model(net), outer, **CALLS[outer], postprocess=postprocess)
        assert torch.equal(got, overlap.alone[outer]), (inner, outer)
        assert net.right == [True, True], (inner, outer)
    overlap.check_traces()


def test_between_the_batches_of_a_stream_the_network_is_the_callers() -> None:
    """A user's own backward pass, with dropout, while a stream is open."""
    denoiser = model()
    net: Any = denoiser.net
    stream = engine(denoiser, rectify="vjp").stream(LABELS)
    next(stream)
    assert net.training and net.blocks[1].drop.training
    net(torch.randn(2, *SHAPE), torch.rand(2), torch.tensor([0, 1])).square().sum().backward()
    assert all(p.grad is not None and p.requires_grad for p in net.parameters())
    net.eval()  # what the caller sets meanwhile stays
    list(stream)
    assert not net.training


def test_one_engine_serves_threads_that_choose_and_compile() -> None:
    alone = samples(model(), 0, rectify="auto", compile=True)
    shared = Engine(model(), rectify="auto", compile=True, **SHARED)
    start = threading.Barrier(3)

    def call(_: int) -> Tensor:
        start.wait()
        return shared.sample(LABELS, range(3)).samples

    with ThreadPoolExecutor(3) as pool:
        assert all(torch.equal(found, alone) for found in pool.map(call, range(3)))


def test_dynamo_is_left_as_it_was(overlap: Overlap) -> None:
    import torch._dynamo.config as dynamo

    before = dynamo.recompile_limit
    a = engine(overlap.denoiser, compile=True).stream(LABELS)
    b = engine(overlap.denoiser, compile=True).stream(LABELS)
    next(a), next(b)
    a.close()
    b.close()
    assert dynamo.recompile_limit == before
    found: list[int] = []
    thread: Callable[[], None] = lambda: found.append(dynamo.recompile_limit)  # noqa: E731
    worker = threading.Thread(target=thread)
    worker.start()
    worker.join()
    assert found == [before]


def test_threads_share_one_choice_of_estimator(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` tries the network once, and the others wait for what it finds."""
    from reg_engine.loop import rows

    tried, settled, start = [], rows.settled, threading.Barrier(3)

    def counted(*args: Any) -> Any:
        tried.append(1)
        return settled(*args)

    monkeypatch.setattr(rows, "settled", counted)
    interval = sys.getswitchinterval()
    shared = Engine(model(), rectify="auto", **SHARED)

    def call(_: int) -> None:
        start.wait()
        shared.sample(LABELS, range(3))

    sys.setswitchinterval(1e-5)  # so that all of them come while the first one tries
    try:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(call, range(3)))
    finally:
        sys.setswitchinterval(interval)
    assert len(tried) == 1


@pytest.mark.parametrize("rectify", [None, "vjp", "fd_batched"])
def test_threads_take_turns_at_a_captures_places(rectify: str | None) -> None:
    """Two batches of one kind have one place for their states."""
    calls = [(seed, [seed % 3] * 3) for seed in range(6)]
    alone = Engine(model(), rectify=rectify, **SHARED)
    wanted = [alone.sample(cond, range(seed, seed + 3)).samples for seed, cond in calls]
    shared = Engine(model(), rectify=rectify, **SHARED)
    shared._graphs = Graphs(Rerun(), always=True)

    def call(chosen: tuple[int, list[int]]) -> Tensor:
        seed, cond = chosen
        out = shared.sample(cond, range(seed, seed + 3))
        assert out.stats.capture == "captured"
        return out.samples

    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            assert all(map(torch.equal, pool.map(call, calls), wanted))
