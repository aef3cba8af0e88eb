"""Distillation as a whole: what is learned, resumed and refused."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from adapter_cases import SHORT, TINY, model

from reg_engine import Denoiser, InputError, schedules
from reg_engine.distillation import Distillation, Teacher, differences, distill
from reg_engine.distillation.pairs import made
from reg_engine.distillation.task import DistillationTask
from reg_engine.networks.adapter import Adapter


def numbers(found: Adapter) -> torch.Tensor:
    return torch.cat([p.flatten() for p in found.change.parameters()])


@pytest.fixture(scope="module")
def base() -> Denoiser:
    return model()


def test_the_student_learns_its_teacher(base: Denoiser, tmp_path: Path) -> None:
    """It comes near to CFG's estimates and samples; the model's own weights stay."""
    before = {name: value.clone() for name, value in base.net.state_dict().items()}
    wanted = Distillation(scales=(1.0, 4.0), steps=500, round_steps=50, lr=2e-2, **TINY)
    result = distill(base, out=tmp_path, guidance="none", settings=wanted, show=False)
    assert result.adapter is not None and result.path == tmp_path / "adapter.safetensors"
    assert (result.step, result.steps, result.stopped) == (500, 500, None)
    assert result.numbers == sum(p.numel() for p in result.adapter.change.parameters())
    assert result.share == result.numbers / sum(p.numel() for p in base.net.parameters()) <= 1
    assert result.adapter.about["teacher"] == "none"
    assert not (tmp_path / "round.pt").exists()
    for name, value in base.net.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.requires_grad and p.grad is None for p in base.net.parameters())
    student = base.with_adapter(result.path)
    cond = torch.arange(32) % 2
    for one in differences(student, Teacher(base, "none"), cond, range(900, 932), (2.0, 4.0)):
        assert one.samples < 0.25, one
        assert sorted(one.estimates)[6] < 0.4, one  # the median of the levels
        assert one.evaluations == (12, 24)


def test_a_run_that_is_stopped_ends_with_the_same_adapter(base: Denoiser, tmp_path: Path) -> None:
    whole = distill(base, out=tmp_path / "whole", settings=SHORT, show=False)
    stops = 0
    while True:  # a deadline that is over allows one step
        part = distill(
            base, out=tmp_path / "parts", settings=SHORT, show=False, deadline=time.monotonic()
        )
        if part.adapter is not None:
            break
        stops += 1
        assert (part.stopped, part.path, part.step) == ("piece", None, stops)
    assert stops >= 4
    assert whole.adapter is not None
    assert torch.equal(numbers(whole.adapter), numbers(part.adapter))


def test_a_round_that_is_lost_or_damaged_is_said(base: Denoiser, tmp_path: Path) -> None:
    distill(base, out=tmp_path, settings=SHORT, show=False, deadline=time.monotonic())
    kept = (tmp_path / "round.pt").read_bytes()
    (tmp_path / "round.pt").write_bytes(kept[: len(kept) // 2])
    with pytest.raises(InputError, match=r"out: .*round\.pt is damaged"):
        distill(base, out=tmp_path, settings=SHORT, show=False)
    (tmp_path / "round.pt").unlink()
    with pytest.raises(InputError, match=r"round\.pt, the pairs of step 1, is missing"):
        distill(base, out=tmp_path, settings=SHORT, show=False)
    (tmp_path / "round.pt").write_bytes(kept)
    assert distill(base, out=tmp_path, settings=SHORT, show=False).adapter is not None


def test_a_folder_of_another_run_is_refused(base: Denoiser, tmp_path: Path) -> None:
    distill(base, out=tmp_path, settings=SHORT, show=False, deadline=time.monotonic())
    for other, guidance in ((base, "fd"), (model(seed=4), "vjp")):
        with pytest.raises(InputError, match="data: .* was trained on other data"):
            distill(other, out=tmp_path, guidance=guidance, settings=SHORT, show=False)
    longer = Distillation(scales=(1.0, 4.0), steps=8, round_steps=2, **TINY)
    with pytest.raises(InputError, match=r"config: .* steps 6 \(now 8\)"):
        distill(base, out=tmp_path, settings=longer, show=False)


def test_what_cannot_be_distilled_is_said(tmp_path: Path) -> None:
    net = model().net
    function = Denoiser(
        lambda x, t, label: net(x, t, label), "edm", schedules.EDM(), (2,), 2, num_classes=2
    )
    with pytest.raises(InputError, match="model: runs its network from within a function"):
        distill(function, out=tmp_path, settings=SHORT, show=False)
    unlabelled = Denoiser(net, "edm", schedules.EDM(), (2,), 2)
    with pytest.raises(InputError, match="conditions: are needed"):
        distill(unlabelled, out=tmp_path, settings=SHORT, show=False)
    many = Distillation(scales=(1.0, 4.0), **{**TINY, "pairs": 1000})
    with pytest.raises(InputError, match="pairs: is 1000, and a group has"):
        distill(model(), out=tmp_path / "many", settings=many, show=False)


def test_a_killed_run_ends_with_the_same_adapter(
    base: Denoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 within a round, and while a round is made: what is on disk is enough."""
    whole = distill(base, out=tmp_path / "whole", settings=SHORT, show=False)
    for kind, calls in (("loss", 4), ("round", 2)):
        out = tmp_path / kind
        child = os.fork()
        if child == 0:
            try:
                left = [calls]

                def dying(
                    *args: object, real: Callable[..., object], left: list[int] = left
                ) -> object:
                    left[0] -= 1
                    if not left[0]:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return real(*args)

                name = {"loss": "task.DistillationTask.loss", "round": "run.made"}[kind]
                target = f"reg_engine.distillation.{name}"
                real = DistillationTask.loss if kind == "loss" else made
                own = functools.partialmethod if kind == "loss" else functools.partial
                monkeypatch.setattr(target, own(dying, real=real))
                distill(base, out=out, settings=SHORT, show=False)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        found = distill(base, out=out, settings=SHORT, show=False)
        assert found.adapter is not None and whole.adapter is not None
        assert torch.equal(numbers(found.adapter), numbers(whole.adapter)), kind
