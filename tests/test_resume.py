"""Kept batches are taken only by a sampling that would make the same ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import TinyNet
from nets import tiny as denoiser_of

import reg_engine
from reg_engine import Engine, Guidance, InputError, Plan, resume
from reg_engine.resume import engine_key, run_resumable
from reg_engine.storage.shards import Shards

LABELS, SEEDS = torch.tensor([0, 1, 2, 0, 1]), [5, 6, 7, 8, 9]


class Net(TinyNet):
    """Without the record of its calls, which is part of what it holds."""

    def forward(self, x, t, cond):
        out = super().forward(x, t, cond)
        self.calls.clear()
        return out


def engine(**choices: Any) -> Engine:
    given = {"scale": 2.0, "rectify": "fd", "solver": "euler", "steps": 3, "batch_size": 2}
    model = choices.pop("model", None) or denoiser_of(net=Net())
    return Engine(model, progress=False, **{**given, **choices})


def run(folder: Path, labels=LABELS, seeds=SEEDS, **choices: Any):
    return run_resumable(engine(**choices), labels, seeds, Shards(folder, {}), "a")


def nudged() -> Any:
    model = denoiser_of(net=Net())
    model.net.leave.bias.data[0] += 1e-7
    return model


CHANGES = [
    {"scale": math.nextafter(2.0, 3)},
    {"steps": 4},
    {"solver": "heun"},
    {"solver_options": {"times": [80.0, 10.0, 1.0, 0.0]}},
    {"rectify": "vjp"},
    {"rectify": None},
    {"plan": Plan.interval(0.1, 20.0)},
    {
        "guidance": Guidance(reg_engine.Interval(2.0, 0.1, 1.0), rectify="fd"),
        "scale": None,
        "rectify": "auto",
    },
    {"dtype": torch.float64},
    {"schedule": reg_engine.schedules.EDM(sigma_max=70.0)},
    {"postprocess": lambda samples, cond: samples},
    {"model": nudged()},
]


def test_a_stopped_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole = engine().sample(LABELS, SEEDS)
    run(tmp_path)
    kept = sorted(tmp_path.glob("*.npz"))
    assert [path.name for path in kept] == ["a-00000.npz", "a-00001.npz", "a-00002.npz"]
    kept[1].unlink()
    before = kept[0].stat().st_mtime_ns, kept[2].stat().st_mtime_ns
    samples, stats = run(tmp_path)
    assert torch.equal(samples, whole.samples)
    assert (stats.samples, stats.nfe) == (5, whole.stats.nfe)
    assert before == (kept[0].stat().st_mtime_ns, kept[2].stat().st_mtime_ns)


@pytest.mark.parametrize("change", CHANGES, ids=[str(c)[:40] for c in CHANGES])
def test_another_setting_is_never_mixed_in(tmp_path: Path, change: dict[str, Any]) -> None:
    run(tmp_path)
    (tmp_path / "a-00002.npz").unlink()
    with pytest.raises(InputError, match="made with other settings"):
        run(tmp_path, **change)


def test_other_labels_seeds_or_versions_are_not_mixed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path)
    with pytest.raises(InputError, match="other settings"):
        run(tmp_path, labels=LABELS.flip(0))
    with pytest.raises(InputError, match="other settings"):
        run(tmp_path, seeds=[5, 6, 7, 8, 10])
    monkeypatch.setattr(resume, "__version__", "0.0.0")
    with pytest.raises(InputError, match="other settings"):
        run(tmp_path)


def test_batches_of_another_size_are_made_again(tmp_path: Path) -> None:
    run(tmp_path)
    samples, _ = run(tmp_path, batch_size=4)
    assert torch.equal(samples, engine(batch_size=4).sample(LABELS, SEEDS).samples)


def test_use_does_not_change_a_key() -> None:
    one = engine()
    before = engine_key(one)
    one.sample(LABELS, SEEDS)
    assert engine_key(one) == before == engine_key(engine())
