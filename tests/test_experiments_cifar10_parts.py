"""The CIFAR-10 experiment's parts: networks, points, postprocessing, scores; all resumable."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cifar_runs import Trained, bench_of, report, trained_in
from torch import Tensor

from reg_engine.errors import InputError
from reg_engine.experiments.cifar10 import sampling as cifar10_sampling
from reg_engine.experiments.cifar10.models import FULL, TINY, features_from, load_models
from reg_engine.experiments.cifar10.page import TABLE2, TABLE3
from reg_engine.experiments.cifar10.sampling import (
    EDM_SCALES,
    FLOW_SCALES,
    Scored,
    bases,
    evaluate,
    posts_of,
    train_posts,
)
from reg_engine.experiments.draws import Point, Sampling
from reg_engine.models.classifier import NoisyClassifier
from reg_engine.postprocess import Postprocess
from reg_engine.storage.weights import save_weights
from reg_engine.training import PieceOver
from reg_engine.training.classification import accuracy
from reg_engine.training.colour_classifier import ColourClassifierTask

pytest.importorskip("diffusers")
pytest.importorskip("faiss")


# Networks, samples, postprocessing


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("REG_ENGINE_DATA", raising=False)
        return trained_in(tmp_path_factory.mktemp("trained"))


def test_finished_training_is_read_again(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    own, models, data = trained
    monkeypatch.setattr("reg_engine.training.trainer.Trainer._train_step", None)
    again = load_models(own, TINY, data)
    assert again.digests == models.digests and again.stages == models.stages
    judge, guide = models.judge.state_dict(), models.guide.state_dict()
    assert any(not torch.equal(judge[name], guide[name]) for name in judge)  # two networks


def test_given_weights_are_used_and_wrong_ones_die_before_training(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, models, data = trained
    monkeypatch.setattr("reg_engine.training.trainer.Trainer._train_step", None)
    found = load_models(report(tmp_path, options=models.files), TINY, data)
    assert found.digests == models.digests and "steps" not in found.stages[0]
    grey = tmp_path / "grey.safetensors"
    net = NoisyClassifier((16, 32), 16, 16)
    save_weights(grey, net.state_dict(), {"architecture": "classifier", "arguments": net.arguments})
    for options, problem in (
        ({"flow": models.files["edm"]}, "--set flow: .* is a 'edm' model"),
        ({"edm": models.files["flow"]}, "Give one that `reg-engine train cifar10-edm`"),
        ({"flow": models.files["judge"]}, "holds a 'classifier'"),
        ({"judge": str(grey)}, "--set judge: .* is a classifier of grey images"),
        ({"guide": "none.safetensors"}, "there is no file"),
    ):
        with pytest.raises(InputError, match=problem):
            load_models(report(tmp_path, options=options), TINY, data)


def test_the_points_are_the_columns_of_the_papers_tables(
    trained: Trained,
) -> None:
    flow, edm = bases(trained[1], FULL)
    for base, scales, table in ((flow, FLOW_SCALES, TABLE2), (edm, EDM_SCALES, TABLE3)):
        for estimator in ("none", "vjp"):
            own = [p for p in base.points if (p.method, p.estimator) == ("vanilla", estimator)]
            assert tuple(p.scale for p in own if p.scale != 1) == scales
        assert all(len(values) == len(scales) for values in table.values())
    guided = [p for p in flow.points if p.method == "cg"]
    assert [p.scale for p in guided] == [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0]
    assert len(flow.points) + len(edm.points) == 37


def test_classifier_guidance_is_of_the_unconditional_model(
    trained: Trained,
) -> None:
    """w = 0 never hears the label; w > 0 moves samples by the classifier of that label."""
    models = trained[1]
    for parameter in models.flow.modules[0].parameters():  # a network that hears its label
        with torch.no_grad():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    base = bases(models, TINY)[0]
    sampling = Sampling(4, 0, 4)
    free = cifar10_sampling._engine(base, Point("cg", 0.0), models, sampling)
    steered = cifar10_sampling._engine(base, Point("cg", 4.0), models, sampling)
    plain = cifar10_sampling._engine(base, Point("vanilla", 1.0), models, sampling)
    assert free.table.rows[0].t == pytest.approx(80 / 81)
    labels = [torch.full((4,), label) for label in (2, 7)]

    def gap(engine: Any) -> float:
        one, other = (engine.sample(label, range(4)).samples for label in labels)
        return float((one - other).abs().max())

    assert gap(free) == 0 and gap(steered) > 1e-6 and gap(plain) > 1e-6


def test_bfloat16_networks_sample_as_float32_ones_do(trained: Trained) -> None:
    """What a GPU runs: half-precision networks under a float32 state, REG and CG included."""
    models = trained.models
    half = replace(models, flow=copy.deepcopy(models.flow))
    for module in half.flow.modules:
        module.to(torch.bfloat16)
    sampling = Sampling(4, 0, 4)
    for point in (Point("vanilla", 1.5, "vjp"), Point("cg", 2.0, "vjp")):
        found = []
        for each in (models, half):
            engine = cifar10_sampling._engine(bases(each, TINY)[0], point, each, sampling)
            found.append(engine.sample(sampling.labels, range(4)).samples)
        assert found[1].dtype == torch.float32
        gap = (found[0] - found[1]).square().mean().sqrt() / found[0].std()
        assert 0 < float(gap) < 0.05
    moved = Postprocess(half.flow, "flow_heun", steps=2)(found[0], sampling.labels)
    wanted = Postprocess(models.flow, "flow_heun", steps=2)(found[0], sampling.labels)
    assert float((moved - wanted).square().mean().sqrt() / wanted.std()) < 0.05


def test_scored_points_are_kept(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, models, data = trained
    base = bases(models, TINY)[1]
    base = replace(base, points=base.points[1:3])
    sampling = Sampling(16, 0, 8)
    bench = bench_of(models, data, sampling.labels, most=1000)
    flows = train_posts(base, own, TINY, models, data, sampling)
    assert list(flows) == ["pixel-20"] == posts_of("edm", own, TINY)
    rows: list[Scored] = []
    evaluate(base, own, models, bench, flows, sampling, rows)
    assert [(r.point.estimator, r.row["post"]) for r in rows] == [
        ("none", None),
        ("none", "pixel-20"),
        ("vjp", None),
        ("vjp", "pixel-20"),
    ]
    assert all(float(r.first.abs().max()) <= 1 or r.row["post"] for r in rows)
    # The flow's own evaluations, Heun's last step by Euler, come on top.
    more = 2 * TINY.solver_steps[2] - 1
    assert rows[1].row["nfe"] == rows[0].row["nfe"] + more > more
    assert not list((own.work / "points").glob("*/*.npz"))  # samples go once they are scored
    monkeypatch.setattr(cifar10_sampling, "run_resumable", None)
    again: list[Scored] = []
    evaluate(base, own, models, bench, flows, sampling, again, 0.0)  # kept
    assert [r.row for r in again] == [json.loads(json.dumps(r.row)) for r in rows]
    other = Sampling(16, 1, 8)
    with pytest.raises(InputError, match="other settings"):
        evaluate(base, own, models, bench, flows, other, [])
    new = report(tmp_path)
    with pytest.raises(PieceOver, match="^edm: 2 points of samples"):
        evaluate(base, new, models, bench, flows, sampling, [], 0.0)
    with pytest.raises(PieceOver, match="^edm: the samples that postprocessing is trained on"):
        train_posts(base, new, TINY, models, data, sampling, 0.0)


def test_minutes_become_steps_once(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    own, _, data = trained
    sizes = replace(TINY, minutes={"post": 3.0})
    asked: list[Any] = []

    def plan(*arguments: Any) -> int:
        asked.append(arguments[-1])
        return 77

    monkeypatch.setattr(cifar10_sampling, "plan_steps", plan)
    assert [cifar10_sampling._post_steps(own, sizes, data) for _ in range(2)] == [77, 77]
    assert asked == [3.0]


# Scores


def test_scores_of_the_test_images_themselves(trained: Trained) -> None:
    _, models, data = trained
    task = ColourClassifierTask(data.test_images, data.test_labels)
    assert task.sigma_data > 0
    bench = bench_of(models, data, task.labels, most=50)
    images = task.images.float() / 127.5 - 1
    found = bench(Point("vanilla", 1.0), images, {"nfe": 0, "backward": 0}).row
    assert abs(found["fid"]) < 1e-6 and found["fid"] < found["fid_error"]
    right = accuracy(models.judge, data.test_images, data.test_labels)
    assert found["agreement"] == pytest.approx(right)
    assert found["agreement_interval"][0] < right < found["agreement_interval"][1]
    assert found["precision"] > 0.8 and found["recall"] > 0.8
    assert 0.3 < found["nearer"] < 0.7  # as near to the training images as unseen images are


def test_a_users_features_make_the_distance(trained: Trained) -> None:
    """In features that are mean colours, a shift of every pixel by c has distance 3 c^2."""
    _, models, data = trained

    def colours(images: Tensor) -> Tensor:
        return images.mean((2, 3))

    labels = torch.from_numpy(data.test_labels)
    bench = bench_of(models, data, labels, features=(colours, "colours"))
    images = torch.from_numpy(data.test_images).permute(0, 3, 1, 2).float() / 127.5 - 1
    found = bench(Point("vanilla", 1.0), images + 0.25, {"nfe": 0, "backward": 0}).row
    assert found["fid"] == pytest.approx(3 * 0.25**2, rel=1e-4)
    assert found["fid"] != found["fid_judge"] and bench.name == "colours"


def test_feature_networks_from_files(trained: Trained, tmp_path: Path) -> None:
    models, device = trained[1], torch.device("cpu")
    features, name = features_from(models.files["judge"], device)
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(features(images), models.judge.features(images))
    assert name == "classifier cifar10_classifier.safetensors"
    with pytest.raises(InputError, match="--set features: .* is no feature network"):
        features_from(tmp_path / "inception.pth", device)
    with pytest.raises(InputError, match="transformers|config.json"):
        features_from(tmp_path, device)
