"""Points are measured as their samples are, scale 1 is one point of all, and a run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import CLASSES, TinyNet, tiny
from torch import Tensor, nn

from reg_engine import Denoiser, Gibbs, InputError
from reg_engine.calibration.damping import Damping
from reg_engine.engine import Engine
from reg_engine.evaluation.bench import Bench
from reg_engine.evaluation.effective import effective_scales
from reg_engine.evaluation.methods import Method, MethodPoint
from reg_engine.evaluation.sampling import PROBED, Sampler
from reg_engine.storage.shards import Shards

LABELS = torch.arange(60) % CLASSES
CHOICES: dict[str, Any] = {"solver": "euler", "steps": 3, "batch_size": 25, "progress": False}
METHODS = [
    Method("CFG", (3.0, 1.0)),
    Method("REG (fd)", (1.0, 2.0), "fd"),
    Method("damping d", (2.0,), damping=Damping("rayleigh", (0.1, 9.0), ((0.9, 0.2),))),
]


class Head(nn.Module):
    """A judge of the pixels."""

    num_features = 16

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(16, CLASSES)

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class Quiet(TinyNet):
    """Keeps no record: it is the same network after a call."""

    def forward(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        found = super().forward(x, t, cond)
        self.calls.clear()
        return found


def model() -> Denoiser:
    return tiny(net=Quiet())


def sampler(folder: Path) -> Sampler:
    real = np.random.default_rng(0).integers(0, 256, (80, 4, 4), dtype=np.uint8)
    judge: Any = Head()
    bench = Bench(judge, LABELS, real, 20, torch.Generator().manual_seed(0))
    return Sampler(model(), Shards(folder, {"a": 1}), bench, CHOICES)


def rows_of(own: Sampler, methods: list[Method]) -> dict[tuple[str, float], dict[str, Any]]:
    found = [own.measure(point, engine) for point, engine in own.engines(methods).items()]
    return {(each.row["method"], each.row["scale"]): each.row for each in found}


def test_rounds_are_more_rows_but_at_scale_one(tmp_path: Path) -> None:
    refine = Gibbs(0.5, 2)
    engines = sampler(tmp_path).engines([Method("CFG, Gibbs", (1.0, 2.0), refine=refine)])
    plain, refined = (engine.table.rows for engine in engines.values())
    assert len(plain) == 3 and len(refined) > 5
    wanted = Engine(model(), scale=2.0, rectify=None, refine=refine, **CHOICES)
    assert refined == wanted.table.rows


def test_a_point_is_what_its_samples_are(tmp_path: Path) -> None:
    own = sampler(tmp_path / "parts")
    rows = rows_of(own, METHODS)
    assert list(rows) == [
        ("CFG", 1.0),
        ("CFG", 3.0),
        ("REG (fd)", 1.0),
        ("REG (fd)", 2.0),
        ("damping d", 2.0),
    ]
    for method, scale, nfe in ((METHODS[0], 3.0, 6), (METHODS[1], 2.0, 9), (METHODS[2], 2.0, 6)):
        engine = Engine(model(), guidance=method.guidance(scale), **CHOICES)
        out = engine.sample(LABELS, range(60))
        row = rows[method.name, scale]
        wanted = own.bench(MethodPoint(method, scale), out.samples, out.stats.as_dict()).row
        assert {key: row[key] for key in wanted} == wanted
        assert row["nfe"] == nfe and row["estimator"] == (method.rectify or "none")
        effective = effective_scales(engine, LABELS[:PROBED], list(range(PROBED)))
        assert row["effective_scale"] == pytest.approx(float(effective.mean()), rel=1e-12)
    assert rows["CFG", 3.0]["effective_scale"] == pytest.approx(3.0, rel=1e-3)
    assert rows["damping d", 2.0]["effective_scale"] < 1.95


def test_scale_one_is_sampled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    whole = Engine.sample

    def counted(self: Engine, labels: Tensor, seeds: list[int]) -> Any:
        seen.append(float(self.weights[0]))
        return whole(self, labels, seeds)

    monkeypatch.setattr(Engine, "sample", counted)
    rows = rows_of(sampler(tmp_path), METHODS[:2])
    assert seen == [0.0] * 3 + [2.0] * 3 + [1.0] * 3  # three batches a point
    first, other = rows["CFG", 1.0], rows["REG (fd)", 1.0]
    assert other == first | {"method": "REG (fd)"} and first["effective_scale"] == 1.0


def test_what_is_kept_is_not_sampled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows_of(sampler(tmp_path), METHODS)
    for name in ("sample", "steps"):
        monkeypatch.setattr(Engine, name, lambda *_, **__: pytest.fail("sampled again"))
    assert rows_of(sampler(tmp_path), METHODS) == before
    changed = Method("damping d", (2.0,), damping=Damping("rayleigh", (0.1, 9.0), ((0.8, 0.2),)))
    with pytest.raises(InputError, match="other settings"):
        rows_of(sampler(tmp_path), [changed])


def test_a_wrong_choice_is_refused_before_anything_is_sampled(tmp_path: Path) -> None:
    own = sampler(tmp_path)
    with pytest.raises(InputError, match="unknown name 'fdd'"):
        own.engines([METHODS[0], Method("REG (fdd)", (2.0,), "fdd")])
    assert not list(tmp_path.iterdir())
