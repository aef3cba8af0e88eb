"""Captured sampling without a GPU: the recorder that runs the recorded work again at each replay.

Everything but `CudaRecorder` is the same as on a GPU: fixed places, the device's counter, the row's
numbers read from tables, one recording a mode. So a captured batch must equal the eager one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from loop import run
from nets import CLASSES, SHAPE, Shy, TinyNet, tiny
from rerun import Rerun
from torch import Tensor

from reg_engine import (
    BadModel,
    CaptureError,
    Cosine,
    Engine,
    Guidance,
    InputError,
    NumericalError,
    Plan,
    schedules,
)
from reg_engine.guidance.adjustments import Rescale, ZeroInit
from reg_engine.guidance.directions import APG, TCFG, CFGZeroStar
from reg_engine.loop.graphs import KEPT, WARM_UP, CudaRecorder, Graphs, graphs_for
from reg_engine.noise import SampleNoise
from reg_engine.rectifiers import RECTIFIERS, looks
from reg_engine.solvers import SOLVERS, Row, table

Work = Callable[[], None]


def pair(model: object = None, **choices: object) -> tuple[Engine, Engine, Rerun]:
    """An eager engine, one that records from the first batch on, and its recorder."""
    choices = {"steps": 5, "progress": False, **choices}
    eager, captured = (Engine(model or tiny(), **choices) for _ in range(2))
    recorder = Rerun()
    captured._graphs = Graphs(recorder, always=True)
    return eager, captured, recorder


def same(eager: Engine, captured: Engine, seeds: range = range(4)) -> None:
    """Samples bit for bit, and the work counted."""
    cond = [i % 3 for i in seeds]
    a, b = eager.sample(cond, seeds=seeds), captured.sample(cond, seeds=seeds)
    assert b.stats.capture == "captured"
    assert torch.equal(a.samples, b.samples)
    for name in ("nfe", "backward", "modes", "estimator", "samples"):
        assert getattr(a.stats, name) == getattr(b.stats, name), name


CAPTURED = [None, *(name for name in RECTIFIERS if not looks(name))]


@pytest.mark.parametrize("rectify", CAPTURED)
@pytest.mark.parametrize("solver", SOLVERS)
def test_captured_samples_equal_eager_ones(rectify: str | None, solver: str) -> None:
    """Short tables too: what warms up at the last row must not run past it."""
    other = {"pndm": ("epsilon", schedules.ScaledLinear())}
    if SOLVERS[solver].flow_only:
        other[solver] = ("flow", schedules.Flow())
    model = tiny(*other.get(solver, ()))
    for steps in (1, 2, 3, 10):
        short = {"skip_prk": True} if solver == "pndm" and steps < 4 else {}
        choices = {"solver": solver, "solver_options": short, "steps": steps, "rectify": rectify}
        eager, captured, _ = pair(model, scale=2.5, **choices)
        same(eager, captured)
    same(eager, captured, range(7, 11))


@pytest.mark.parametrize("solver", ["heun", "ddpm", "dpmpp_2m", "euler_ancestral"])
@pytest.mark.parametrize("rectify", [None, "vjp"])
def test_captured_samples_are_those_of_the_formulas(rectify: str | None, solver: str) -> None:
    """Against plain arithmetic that shares no step with the engine."""
    model, labels, seeds, w = tiny(), torch.tensor([0, 1, 2]), range(3), 1.5
    null = torch.full_like(labels, CLASSES)

    def guided(x: Tensor, row: Row) -> Tensor:
        x = x.detach().requires_grad_(True)
        cond, ref = model(x, row.t, labels), model(x, row.t, null)
        delta = (cond - ref).detach()
        if rectify is not None:
            delta = row.alpha * torch.autograd.grad(cond, x, delta)[0]
        return (cond + w * delta).detach()

    _, captured, _ = pair(
        model, scale=1 + w, rectify=rectify, solver=solver, steps=4, dtype=torch.float64
    )
    rows, noise, like = table(solver, model.schedule, 4), SampleNoise(seeds), torch.empty(3, *SHAPE)
    like = like.double()
    start = rows.init_scale * noise.normal(like)
    draws = (noise.normal(like) for _ in iter(int, 1))
    exact = run(rows, guided, start, draws)
    out = captured.sample(labels, seeds=seeds)
    assert out.stats.capture == "captured"
    # The network computes in float32: its rounding, carried through some evaluations.
    torch.testing.assert_close(out.samples, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("prediction", "schedule", "solver"),
    [
        ("epsilon", schedules.VPLinear(), "ddim"),
        ("v_prediction", schedules.ScaledLinear(), "pndm"),
        ("epsilon", schedules.VPLinear(), "ddpm"),
        ("flow", schedules.Flow(shift=2.0), "flow_heun"),
    ],
)
def test_every_prediction_and_solver_reads_its_numbers_on_the_device(
    prediction: str, schedule: schedules.Schedule, solver: str
) -> None:
    eager, captured, _ = pair(
        tiny(prediction, schedule), scale=2.0, rectify="vjp", solver=solver, dtype=torch.float64
    )
    same(eager, captured)


@pytest.mark.parametrize("direction", [APG(), CFGZeroStar(), TCFG()])
def test_directions_and_memory_are_captured(direction: object) -> None:
    guidance = Guidance(2.0, rectify="fd_batched", direction=direction, adjust=(Rescale(0.7),))
    eager, captured, _ = pair(guidance=guidance)
    same(eager, captured)


def test_a_worse_model_on_another_schedule_is_captured() -> None:
    torch.manual_seed(1)
    worse = tiny("flow", schedules.Flow(), TinyNet(width=5))
    eager, captured, _ = pair(guidance=Guidance(2.0, BadModel(worse), rectify="vjp"))
    same(eager, captured)


def test_cuda_undoes_each_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorder of a GPU, with nothing behind torch.cuda: what it runs, in which order."""
    stream = SimpleNamespace(wait_stream=lambda other: None, device=None)
    fakes = {
        "graph_pool_handle": lambda: (0, 0),
        "Stream": lambda device: stream,
        "current_stream": lambda device: stream,
        "stream": lambda stream: nullcontext(),
        "CUDAGraph": lambda: SimpleNamespace(replay=lambda: order.append("replay")),
        "graph": lambda graph, **options: nullcontext(order.append("capture")),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    order: list[str] = []
    recorder = CudaRecorder(torch.device("cuda"))
    replay = recorder(lambda: order.append("work"), lambda: order.append("restore"))
    replay()
    assert order == ["work", "restore"] * WARM_UP + ["capture", "work", "replay"]


def test_one_recording_a_mode() -> None:
    """`reg` is recorded twice, because the first has no lagged direction; `cond` and `cfg` once."""
    plan = Plan.interval(0.05, 5.0)
    eager, captured, recorder = pair(scale=2.0, rectify="fd_batched", plan=plan, steps=8)
    same(eager, captured)
    assert set(captured.modes) == {"cond", "cfg", "reg"}
    assert recorder.recorded == 4 and recorder.replayed == len(captured.modes)
    captured.sample([0, 1, 2, 0])
    assert recorder.recorded == 4


def test_clipped_estimates() -> None:
    options = {"clip": 0.2, "keep_epsilon": True, "eta": 0.5}
    choices = {"solver": "ddim", "schedule": schedules.VPLinear(), "solver_options": options}
    eager, captured, _ = pair(
        tiny("sample", schedules.VPLinear()), scale=2.0, rectify="vjp", **choices
    )
    same(eager, captured)
    assert (eager.sample([0]).samples.abs().max() - 0.2).abs() < 1e-6  # the last step returns it


def test_a_weight_that_changes_from_row_to_row() -> None:
    eager, captured, _ = pair(guidance=Guidance(Cosine(3.0), rectify="vjp"))
    same(eager, captured)


def test_batches_and_shapes_keep_their_own_captures() -> None:
    _, captured, recorder = pair(scale=2.0, rectify=None, batch_size=2)
    captured.sample([0, 1, 2], seeds=range(3))
    assert recorder.recorded == 2  # a batch of 2 and one of 1
    for count in range(3, 3 + KEPT):
        captured.batch_size = None
        captured.sample([0] * count, seeds=range(count))
    assert len(captured._graphs._kept) == KEPT
    before = recorder.recorded
    captured.sample([0], seeds=[5])
    assert recorder.recorded == before + 1  # the oldest was dropped


def test_new_weights_are_captured_anew() -> None:
    _, captured, recorder = pair(scale=2.0, rectify=None)
    first = captured.sample([0, 1]).samples
    captured.denoiser.net.leave.weight.data.mul_(2.0)  # in place: the graph reads it there
    changed = captured.sample([0, 1]).samples
    assert recorder.recorded == 1 and not torch.equal(first, changed)
    captured.denoiser.net.leave.weight = torch.nn.Parameter(torch.zeros(16, 24))
    assert not torch.equal(captured.sample([0, 1]).samples, changed)
    assert recorder.recorded == 2


def test_the_callers_noise_and_labels_are_taken_up() -> None:
    eager, captured, _ = pair(scale=2.0, rectify="vjp")
    for seed in range(2):
        noise = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
        a = eager.sample([0, 1, seed], noise=noise, seeds=range(3)).samples
        assert torch.equal(captured.sample([0, 1, seed], noise=noise, seeds=range(3)).samples, a)


def test_a_vanished_lag_is_noticed_and_sampled_eagerly() -> None:
    eager, captured, _ = pair(tiny(net=Shy()), scale=2.0, rectify="fd_batched")
    a, b = eager.sample([0, 1]), captured.sample([0, 1])
    assert "vanished" in b.stats.capture
    assert torch.equal(a.samples, b.samples) and a.stats.nfe == b.stats.nfe


def test_what_asks_for_its_row_is_refused_or_sampled_eagerly() -> None:
    guidance = Guidance(2.0, rectify=None, adjust=(ZeroInit(1),))
    eager, captured, recorder = pair(guidance=guidance)
    with pytest.raises(CaptureError, match="row"):
        captured.sample([0, 1])
    captured._graphs = Graphs(recorder, always=False)
    captured.sample([0, 1])
    for _ in range(2):
        out = captured.sample([0, 1])
        assert "row's number" in out.stats.capture
        assert torch.equal(out.samples, eager.sample([0, 1]).samples)


def test_auto_leaves_the_first_batch_of_its_kind_alone() -> None:
    _, captured, recorder = pair(scale=2.0, rectify=None)
    captured._graphs = Graphs(recorder, always=False)
    assert "first batch" in captured.sample([0, 1]).stats.capture and not recorder.recorded
    assert captured.sample([0, 1]).stats.capture == "captured" and recorder.recorded == 1


def test_nan_in_a_captured_run_is_named() -> None:
    _, captured, _ = pair(scale=2.0, rectify=None)
    captured.sample([0, 1])
    with torch.no_grad():
        captured.denoiser.net.label.weight[1] = torch.nan
    with pytest.raises(NumericalError, match=r"evaluation 0 .*samples \[1\]"):
        captured.sample([0, 1])


def test_a_failed_recording_leaves_the_state_as_it_was() -> None:
    """A recorder that fails at the second mode: the batch is sampled eagerly, with its own work."""

    class Failing(Rerun):
        def __call__(self, work: Work, restore: Work) -> Work:
            replay = super().__call__(work, restore)
            if self.recorded == 2:
                raise RuntimeError("operation not permitted when stream is capturing")
            return replay

    eager, captured, _ = pair(scale=2.0, rectify="fd_batched")
    captured._graphs = Graphs(Failing(), always=False)
    captured.sample([0, 1])
    out = captured.sample([0, 1])
    assert "not permitted" in out.stats.capture
    wanted = eager.sample([0, 1])
    assert torch.equal(out.samples, wanted.samples) and out.stats.nfe == wanted.stats.nfe


def test_graphs_that_do_not_fit_leave_the_memory_to_an_eager_run() -> None:
    def full(work: Work, restore: Work) -> Work:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    eager, captured, _ = pair(scale=2.0, rectify=None)
    captured._graphs = Graphs(full, always=False)
    captured.sample([0, 1])
    out = captured.sample([0, 1])
    assert "out of memory" in out.stats.capture and not captured._graphs._kept
    assert torch.equal(out.samples, eager.sample([0, 1]).samples)


def test_who_captures() -> None:
    assert graphs_for(False, torch.device("cpu")) == (None, "not captured: not asked for")
    assert "no CUDA graphs" in graphs_for("auto", torch.device("cpu"))[1]
    for bad in (True, "always"):
        with pytest.raises(InputError, match="capture"):
            Engine(tiny(), capture=bad)
