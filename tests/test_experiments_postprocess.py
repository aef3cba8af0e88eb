"""The `postprocess` experiment: its measures against plain statements, its claims, a quick run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reg_engine import load_classifier
from reg_engine.evaluation.bench import Bench
from reg_engine.evaluation.fronts import Measured
from reg_engine.experiments import Report, run_experiment
from reg_engine.experiments.postprocess.claims import PAPER, claims, rises
from reg_engine.experiments.postprocess.flows import Settings, chosen, settings_of
from reg_engine.experiments.postprocess.measures import COPY, Nearness, changes, farther
from reg_engine.experiments.postprocess.page import summary
from reg_engine.fidelity import memorisation, nearest_distances, precision_recall

pytest.importorskip("faiss")
pytest.importorskip("matplotlib")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# Measures


def test_the_mean_share_of_farther_ones_is_the_memorisation_statistic() -> None:
    ours, theirs = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([0.5, 2.0, 2.0, 9.0])
    assert farther(ours, theirs).tolist() == [3 / 4, (1 + 3) / 8, 1 / 4]
    samples, train, held = drawn(30, 4), drawn(50, 4, seed=1), drawn(40, 4, seed=2)
    found = farther(nearest_distances(samples, train), nearest_distances(held, train)).mean()
    expected = memorisation(samples, train, held, count=1).nearer
    assert math.isclose(float(found), expected, rel_tol=1e-12)


def test_nearness_is_its_plain_statement() -> None:
    judge = load_classifier("mnist")
    labels = torch.arange(20) % 10
    test = ((drawn(30, 28, 28, seed=4) + 1) * 127.5).to(torch.uint8).numpy()
    bench = Bench(judge, labels, test, 2, torch.Generator().manual_seed(0))
    real, unseen, samples = (
        drawn(12, 1, 28, 28, seed=1),
        drawn(9, 1, 28, 28, seed=2),
        1.2 * drawn(20, 1, 28, 28, seed=3),
    )
    samples[5] = real[7] + 1e-3  # a copy
    found = Nearness(real, unseen, bench)(samples)
    clipped = samples.clamp(-1, 1)
    near = torch.cdist(clipped.flatten(1).double(), real.flatten(1).double()).sort(1).values
    assert torch.allclose(found["distance"], near[:, 0], rtol=1e-5)
    assert torch.allclose(found["unseen"], nearest_distances(clipped, unseen), rtol=1e-5)
    expected = memorisation(clipped, real, unseen, count=1).nearer
    assert math.isclose(float(found["nearer"].mean()), expected, abs_tol=1e-9)
    assert found["copies"].tolist() == (near[:, 0] < COPY * near[:, 1]).double().tolist()
    assert found["copies"].sum() == 1 and found["copies"][5] == 1
    with torch.no_grad():
        own = judge.features(clipped).double()
    assert float(found["recall"].mean()) == precision_recall(own, bench.real)[1]


def measured(fids: list[float]) -> Measured:
    values = torch.tensor(fids, dtype=torch.float64)
    return Measured(None, {"fid": fids[0]}, values, values)


def test_changes_are_paired() -> None:
    was = {"distance": torch.tensor([1.0, 2.0, 3.0, 4.0]).double()}
    now = {"distance": torch.tensor([0.5, 2.0, 2.0, 3.5]).double()}
    found = changes(measured([3.0, 2.0, 5.0]), measured([2.0, 1.5, 3.0]), was, now)
    gaps = torch.tensor([-0.5, 0.0, -1.0, -0.5]).double()
    assert found["distance"] == pytest.approx(
        {
            "before": 2.5,
            "after": 2.0,
            "difference": -0.5,
            "error": 1.959963984540054 * float(gaps.std()) / 2,
        }
    )
    assert found["fid"]["before"] == 3.0 and found["fid"]["after"] == 2.0
    spread = float(torch.tensor([-0.5, -2.0]).double().std())
    assert found["fid"]["difference"] == -1.0
    assert found["fid"]["error"] == pytest.approx(1.959963984540054 * spread)
    alone = changes(measured([1.0, 1.0, 1.0]), measured([1.0, 1.0, 1.0]), {}, {})
    assert alone["fid"]["error"] == 0.0


def test_the_real_images_are_equally_many_of_each_label_and_nested() -> None:
    labels = torch.arange(10).repeat(12).numpy()
    parts = {n: chosen(labels, n, torch.Generator().manual_seed(4)) for n in (20, 50, 120, 999)}
    for count in (20, 50):
        kinds = torch.from_numpy(labels)[parts[count]].bincount(minlength=10)
        assert kinds.tolist() == [count // 10] * 10
        assert parts[count].tolist() == sorted(set(parts[count].tolist()))
    assert set(parts[20].tolist()) < set(parts[50].tolist())
    assert parts[120].tolist() == parts[999].tolist() == list(range(120))
    other = chosen(labels, 20, torch.Generator().manual_seed(5))
    assert other.tolist() != parts[20].tolist()
    rare = torch.tensor([0, 1, 0, 0, 0]).numpy()  # a label runs out: the others give more
    assert chosen(rare, 4, torch.Generator().manual_seed(0)).numel() == 4


# Claims


def row(scale: float, real: int, after: float, **more: tuple[float, float]) -> dict[str, Any]:
    def part(before: float, after: float, error: float = 0.01) -> dict[str, float]:
        return {"before": before, "after": after, "difference": after - before, "error": error}

    found = {"fid": part(1.0, after), "recall": part(0.5, 0.4), "distance": part(9.0, 8.0)}
    found |= {"nearer": part(0.5, 0.505), "copies": part(0.0, 0.2)}
    return {"real": real, "scale": scale, **found, **{k: part(*v) for k, v in more.items()}}


def report_of(tmp_path: Path, fids: list[float], few: list[dict[str, Any]]) -> Report:
    report = Report("postprocess", "Title", tmp_path)
    rows = [
        {
            "own": own,
            "fid": fid,
            "change": {"value": fid - 1.0, "error": 0.05},
            "rise": {"value": fid - fids[0], "error": 0.05},
        }
        for own, fid in zip((1.0, 2.0, 3.0), fids, strict=True)
    ]
    report.numbers |= {"own": {"scale": 2.75, "before": {"fid": 1.0}, "after": rows}, "few": few}
    claims(report)
    return report


@pytest.mark.parametrize(
    ("fids", "falls", "rise", "word"),
    [
        ([0.9, 0.95, 1.1], True, True, "FID rises (+0.200 ± 0.050; higher in 2 of 2 steps)"),
        ([0.98, 0.97, 1.0], False, False, "FID does not change measurably"),
        ([1.2, 1.1, 1.0], False, False, "FID falls (-0.200"),
    ],
)
def test_claims_of_the_own_scale_are_answered_beyond_the_bar(
    fids: list[float], falls: bool, rise: bool, word: str, tmp_path: Path
) -> None:
    few = [row(2.75, 100, 1.3), row(2.75, 1000, 0.9)]
    report = report_of(tmp_path, fids, few)
    made = report.numbers["claims"]
    assert made["flow_lowers_fid"]["holds"] is falls
    assert made["own_scale_raises_fid"]["holds"] is rise
    assert word in summary(report.numbers)
    assert "FID 1.000 → 1.300 (± 0.010)" in summary(report.numbers)
    assert rises(report.numbers["own"]["after"]) == (fids[1] > fids[0]) + (fids[2] > fids[1])


def test_claims_of_few_images(tmp_path: Path) -> None:
    few = [row(1.0, 100, 1.005), row(1.0, 1000, 0.9, recall=(0.5, 0.505), nearer=(0.5, 0.6))]
    made = report_of(tmp_path, [1.0, 1.0, 1.0], few).numbers["claims"]
    holds = {name: claim["holds"] for name, claim in made.items()}
    assert not holds["fid_100_1"] and holds["fid_1000_1"]
    assert holds["recall_100_1"] and not holds["recall_1000_1"]
    assert not holds["nearer_100_1"] and holds["nearer_1000_1"]
    assert holds["distance_100_1"] and holds["distance_1000_1"]
    assert holds["few_1_worse"]  # 0.105 apart, bars 0.01 each
    assert made["few_1_worse"]["found"] == "+0.105 ± 0.020 at most"
    level = [row(1.0, 100, 0.919), row(1.0, 1000, 0.9)]
    level_made = report_of(tmp_path, [1.0, 1.0, 1.0], level).numbers["claims"]
    assert not level_made["few_1_worse"]["holds"]


# The run


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quick run's folder, without data."""
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("REG_ENGINE_DATA", raising=False)
        run_experiment("postprocess", out, quick=True)
    return out / "postprocess"


def test_a_quick_run_has_both_tables(quick: Path) -> None:
    numbers = json.loads((quick / "numbers.json").read_text(encoding="utf-8"))["numbers"]
    assert numbers["real_images"] is False and numbers["claims"] == {}
    own = numbers["own"]
    assert [r["own"] for r in own["after"]] == [1.0, 3.0]
    # Heun: two evaluations a step but the last; guided, twice as many.
    assert [r["nfe"] for r in own["after"]] == [15, 30]
    assert own["after"][0]["rise"] == {"value": 0.0, "error": 0.0}
    few = numbers["few"]
    assert [(r["real"], r["scale"]) for r in few] == [
        (20, 1.0),
        (20, 2.75),
        (200, 1.0),
        (200, 2.75),
    ]
    # The flow's own scale 1 is the flow itself.
    assert own["after"][0]["fid"] == few[-1]["fid"]["after"]
    assert own["after"][0]["change"]["value"] == few[-1]["fid"]["difference"]
    assert own["after"][1]["fid"] != own["after"][0]["fid"]
    assert few[1]["distance"]["before"] != few[3]["distance"]["before"]  # of other real images
    assert few[1]["unseen"]["before"] == few[3]["unseen"]["before"]
    page = (quick / "README.md").read_text(encoding="utf-8")
    assert "stood in for real images" in " ".join(page.split())
    assert "| before | 10.75 | " in page and f"| 3.00 | {PAPER[3.0]:g} | " in page
    left = {p.name for p in quick.iterdir()}
    figures = {
        f"{name}.{kind}" for name in ("own_scale", "few_real", "samples") for kind in ("png", "svg")
    }
    assert left == {"README.md", "numbers.json", *figures}


def test_full_sizes(tmp_path: Path) -> None:
    settings = settings_of(Report("postprocess", "Title", tmp_path))
    assert isinstance(settings, Settings) and tuple(PAPER) == settings.own
    assert settings.real == (100, 1000, 60_000) and settings.sampling.count == 1000
    gpu = settings_of(Report("postprocess", "Title", tmp_path, device="cuda"))
    assert gpu.sampling.count == 10_000
