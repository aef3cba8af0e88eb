"""A derivative that is lost in part is noticed, and none that is whole is accused."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from derivative_cases import LOST, SHAPE, UNPULLABLE, Around, Residual, seen, smooth
from torch import Tensor, nn

from reg_engine import Engine, EstimatorError, sample
from reg_engine.networks.frozen import frozen
from reg_engine.rectifiers import JVP, VJP, verify
from reg_engine.rectifiers.forward import product

pytestmark = pytest.mark.usefixtures("alike")

LABELS = [3, 7]
CALL = {"scale": 3.0, "solver": "euler", "steps": 4, "progress": False}
REVERSE, FORWARD = ("paper", "vjp", "diagonal"), ("jvp",)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("prediction", ["epsilon", "edm"])
def test_right_derivatives_pass(dtype: torch.dtype, prediction: str) -> None:
    state = torch.float64 if dtype == torch.float64 else torch.float32
    accused = []
    for name, net in smooth():
        if name == "finely rounded" and dtype in (torch.float16, torch.bfloat16):
            continue  # the steps of these dtypes span several of its own: it has a slope there
        with frozen([net]), torch.no_grad():
            engine = Engine(seen(net.to(dtype), prediction), dtype=state, **CALL)
            point = engine._trial((torch.tensor(LABELS), None), 1)
            for rectifier in (VJP(), JVP()):
                try:
                    verify.verified(rectifier, point)
                except EstimatorError as error:
                    accused.append((name, str(error)))
    assert not accused


@pytest.mark.parametrize("rectify", [*REVERSE, *FORWARD])
@pytest.mark.parametrize("name", LOST)
def test_a_lost_branch_is_an_error_and_auto_goes_round_it(name: str, rectify: str) -> None:
    around, loses = LOST[name]
    net = Residual(around=around)
    model = seen(net)
    if ("forward" if rectify == "jvp" else "reverse") in loses:
        with pytest.raises(EstimatorError, match=f"'{rectify}' cannot .*fd_batched"):
            sample(model, LABELS, rectify=rectify, **CALL)
    else:
        sample(model, LABELS, rectify=rectify, **CALL)
    out = sample(model, LABELS, **CALL)
    assert out.stats.estimator == ("fd_batched" if "forward" in loses else "jvp")
    assert "off a finite difference" in out.stats.reason
    whole = sample(seen(Residual()), LABELS, rectify=out.stats.estimator, **CALL)
    assert relative(out.samples, whole.samples) < 1e-4


def test_only_a_wrong_derivative_can_be_taken_unchecked() -> None:
    """What is refused fails without the check, too."""

    class Mixing(Residual):
        def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return super().forward(x - x.mean(0), t, cond)

    for net, unless in ((Mixing(), False), (Residual(around=LOST["out of sight"][0]), True)):
        with pytest.raises(EstimatorError, match="'jvp' cannot serve this network") as raised:
            sample(seen(net), LABELS, rectify="jvp", **CALL)
        assert ("check=False" in str(raised.value)) is unless


def _product(net: nn.Module, dtype: torch.dtype) -> Tensor:
    """K d as autograd takes it, where and along what the check looks."""
    engine = Engine(seen(net), rectify="jvp", dtype=dtype, **CALL)
    point = engine._trial((torch.tensor(LABELS), None), 1)
    with torch.no_grad():
        return product(point, verify._direction(point, torch.Generator().manual_seed(0)))[1]


@pytest.mark.parametrize(
    ("dtype", "seen_from"),
    [
        (torch.float64, 0.004),
        (torch.float32, 0.012),
        (torch.float16, 0.12),
        (torch.bfloat16, 0.25),
    ],
)
def test_how_small_a_lost_part_is_seen(dtype: torch.dtype, seen_from: float) -> None:
    """The gain of a lost branch decides how much of K d it carries."""
    state = torch.float64 if dtype == torch.float64 else torch.float32
    sizes = []
    for gain in (0.03, 0.3, 1.0, 3.0, 10.0, 30.0):
        whole, lost = (
            Residual(gain=gain, around=a).to(dtype) for a in (None, LOST["out of sight"][0])
        )
        size = relative(_product(lost, state), _product(whole, state))
        sizes.append(size)
        engine = Engine(seen(lost), rectify="jvp", dtype=state, **CALL)
        if size > seen_from:
            with pytest.raises(EstimatorError, match="off a finite difference"):
                engine.sample(LABELS)
        elif size < 0.4 * seen_from:
            engine.sample(LABELS)
    assert min(sizes) < 0.4 * seen_from < seen_from < max(sizes)


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("name", UNPULLABLE)
def test_a_failing_backward_pass_is_an_estimator_error_and_auto_falls_back(
    name: str, check: bool
) -> None:
    model = seen(Residual(around=UNPULLABLE[name]))
    for rectify in REVERSE:
        with pytest.raises(EstimatorError, match="fd_batched"):
            sample(model, LABELS, rectify=rectify, check=check, **CALL)
    out = sample(model, LABELS, check=check, **CALL)
    assert out.stats.estimator in ("jvp", "fd_batched") and "no reverse mode" in out.stats.reason
    whole = sample(seen(Residual()), LABELS, rectify=out.stats.estimator, **CALL)
    if name != "written in place":  # another function
        assert relative(out.samples, whole.samples) < 1e-4


def test_recomputed_blocks_are_tried_as_they_will_run() -> None:
    """A block whose second run sees other shapes: recorded it serves, recomputed it does not."""

    class Fickle(nn.Module):
        def __init__(self, branch: nn.Module) -> None:
            super().__init__()
            self.branch, self.runs = branch, 0

        def forward(self, h: Tensor) -> Tensor:
            self.runs += 1
            return self.branch(h) if self.runs % 2 else self.branch(h).exp().log()

    net = Residual()
    net.branches[1] = Fickle(net.branches[1])
    sample(seen(net), LABELS, rectify="vjp", **CALL)
    with pytest.raises(EstimatorError, match="fd_batched"):
        sample(seen(net), LABELS, rectify="vjp", memory_budget=1, **CALL)


def test_memory_that_runs_out_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(torch.autograd, "grad", full)
    with pytest.raises(torch.OutOfMemoryError):
        sample(seen(Residual()), LABELS, rectify="vjp", **CALL)
    out = sample(seen(Residual()), LABELS, **CALL)
    assert out.stats.estimator == "jvp" and "out of memory" in out.stats.reason


def test_the_networks_own_errors_stay_its_own() -> None:
    def broken(m: nn.Module, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        raise RuntimeError("the user's own")

    for rectify in ("vjp", "jvp", "auto"):
        for check in (True, False):
            with pytest.raises(RuntimeError, match=r"^the user's own$"):
                sample(seen(Around(broken)), LABELS, rectify=rectify, check=check, **CALL)


def test_once_a_network_and_configuration() -> None:
    net = Residual()
    first, again = (sample(seen(net), LABELS, rectify="vjp", **CALL).stats for _ in range(2))
    assert first.checks == 9 and again.checks == 0  # 1 + 4 differences, 2 of each way
    assert first.nfe == again.nfe == 8 and first.backward == again.backward == 4
    assert sample(seen(net), LABELS, rectify="paper", **CALL).stats.checks == 0, "the same pass"
    assert sample(seen(net), LABELS, rectify="jvp", **CALL).stats.checks == 7
    assert sample(seen(net), LABELS, rectify="fd", **CALL).stats.checks == 3
    assert sample(seen(Residual()), LABELS, rectify="vjp", check=False, **CALL).stats.checks == 0
    assert sample(seen(net.double()), LABELS, rectify="vjp", **CALL).stats.checks == 9
    around = LOST["detached"][0]
    net.branches[1].forward = lambda h, own=net.branches[1].forward: own(h.detach())
    for _ in range(2):
        with pytest.raises(EstimatorError, match="off a finite difference"):
            sample(seen(net), LABELS, rectify="vjp", **CALL)
    assert around is not None


def test_the_check_changes_no_sample_and_keeps_no_network() -> None:
    def noisy(m: nn.Module, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return m(x + 0.1 * torch.randn_like(x), t, y)

    runs = []
    for check in (True, False):
        torch.manual_seed(1)
        net = Around(noisy, Residual())
        runs.append(sample(seen(net), LABELS, rectify="vjp", check=check, **CALL).samples)
    assert torch.equal(*runs)
    known = weakref.ref(net)
    del net
    gc.collect()
    assert known() is None


def test_functions_and_what_cannot_be_remembered_are_checked_too() -> None:
    class Slotted:
        __slots__ = ("net",)

        def __init__(self, net: nn.Module) -> None:
            self.net = net

        def __call__(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
            return self.net(x, t, cond)

    lost = Residual(around=LOST["detached"][0])
    for net in (lambda x, t, y: lost(x, t, y), lost.forward, Slotted(lost)):
        with pytest.raises(EstimatorError, match="off a finite difference"):
            sample(seen(net), LABELS, rectify="vjp", **CALL)


@pytest.mark.slow
def test_compiled_blocks_keep_their_tangents_or_are_refused() -> None:
    """The eager samples, whichever way: a compiled block drops its tangent."""
    for rectify in ("jvp", "vjp", "auto"):
        eager = sample(seen(Residual()), LABELS, rectify=rectify, **CALL)
        try:
            out = sample(seen(Residual()), LABELS, rectify=rectify, compile=True, **CALL)
        except EstimatorError as error:
            assert rectify == "jvp" and "fd_batched" in str(error)
            continue
        assert out.stats.estimator == eager.stats.estimator
        assert relative(out.samples, eager.samples) < 1e-4
    assert tuple(out.samples.shape[1:]) == SHAPE
