"""The experiment `distill`: its points and measures against plain statements, its claims, and what
a tiny run leaves."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import reg_engine
from reg_engine import InputError
from reg_engine.calibration.damping import Damping
from reg_engine.distillation import Distillation
from reg_engine.evaluation.fronts import Measured
from reg_engine.experiments import Report, run_experiment
from reg_engine.experiments.distill import images, main, mixture
from reg_engine.experiments.distill.subject import METHODS, Point, Size, subject_of
from reg_engine.experiments.theory.scores import SCHEDULE, Target, sobol_noise
from reg_engine.models import packaged_adapter, packaged_damping
from reg_engine.networks.adapter import Adapter, belonging
from reg_engine.networks.lowrank import LowRank
from reg_engine.oracles import two_class_2d
from reg_engine.storage.shards import Shards

pytest.importorskip("matplotlib")

LEARNING = Distillation(
    scales=(1.0, 5.0), steps=2, round_steps=2, paths=2, samples=8, pairs=8, parts=2,
    solvers=("heun",), solver_steps=(2, 3),
)  # fmt: skip
PLANE = mixture.Size(LEARNING, 128, 20, 32, 64, 2, (1.0, 2.0), (2, 5))
PICTURES = Size(10, (2.0, 3.0), (), (), (("dpmpp_2m", 2), ("heun", 2)), batch_size=10, rounds=1)


def _small(path: Path, seed: int) -> Path:
    """An adapter of the packaged digits that changes a little."""
    model = reg_engine.load_model("mnist")
    change = LowRank.of(model.modules, 0.05, 4.0)
    generator = torch.Generator().manual_seed(seed)
    for parameter in change.parameters():
        parameter.data += 0.003 * torch.randn(parameter.shape, generator=generator)
    Adapter(change, (1.0, 4.0), belonging(model), {"teacher": "vjp"}).save(path)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _small(tmp_path_factory.mktemp("adapter") / "small.safetensors", seed=0)


SAID: list[str] = []
STORED: list[str] = []  # by the last run


@pytest.fixture(scope="module")
def ran(small: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run of the quick kind at tiny size, stopped before the images and, with another adapter,
    within them."""
    folder = tmp_path_factory.mktemp("distill")
    other = _small(folder / "other.safetensors", seed=1)
    given: dict[str, Any] = {"quick": True, "options": {"adapter": str(small)}}
    store = Shards.store

    def storing(self: Shards, name: str, *what: Any) -> None:
        STORED.append(name)
        store(self, name, *what)

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("REG_ENGINE_DATA", raising=False)
        patch.setattr(main, "QUICK", (PLANE, PICTURES))
        for name, adapter in (("measured", small), ("by_class", other)):
            with patch.context() as stopping, pytest.raises(KeyboardInterrupt):
                stopping.setattr(images, name, _stopped)
                options = {"adapter": str(adapter)}
                run_experiment("distill", folder, **{**given, "options": options})
        patch.setattr(Shards, "store", storing)
        patch.setattr(Report, "say", lambda self, text: SAID.append(text))
        found = run_experiment("distill", folder, **given)
    return folder / "distill", found["numbers"]


def _stopped(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_stopped_run_goes_on(ran: tuple[Path, dict[str, Any]]) -> None:
    """Nothing is trained or drawn again, and nothing of the work is left."""
    assert not [said for said in SAID if "training" in said or "distances" in said]
    assert not (ran[0] / "work" / "quick-0").exists()


def test_another_adapter_keeps_what_does_not_depend_on_it(ran: tuple[Path, dict[str, Any]]) -> None:
    """Its numbers are its own: test_the_images_are_what_the_engine_gives."""
    assert len(STORED) == 2 * 2 and all(name.startswith("student-") for name in STORED)


def test_the_plane_is_what_the_engine_gives(ran: tuple[Path, dict[str, Any]]) -> None:
    """Golden guidance by the exact closed form; costs of every method."""
    found = ran[1]["mixture"]
    steps, weights = PLANE.steps, PLANE.weights
    assert set(found["methods"]) == set(mixture.METHODS)
    costs = {name: own["cost"] for name, own in found["methods"].items()}
    for name in ("unguided", "golden", "student_golden", "student_vjp", "student_rayleigh"):
        assert costs[name] == [3.0, 9.0], name
    assert costs["cfg"] == [6.0, 18.0] and costs["vjp"] == [9.0, 27.0]
    for name in ("interval", "low"):
        assert all(costs["unguided"][k] <= costs[name][k] <= costs["cfg"][k] for k in (0, 1))
    assert costs["unguided"] < costs["low"], "one of five levels lies in it"
    exact, scores = two_class_2d(), []
    for seed in (0, 1):
        out = reg_engine.sample(
            exact.golden_denoiser(weights[1], schedule=SCHEDULE), torch.zeros(32).long(),
            noise=sobol_noise(32, 2, seed).float(), scale=1.0, solver="heun", steps=steps[1],
            progress=False,
        )  # fmt: skip
        scores.append(Target(exact, weights[1], 64, seed=10_000 + 100 * seed).score(out.samples))
    golden = found["methods"]["golden"]
    assert golden["distance"][1][1] == pytest.approx(sum(scores) / 2, rel=1e-4)
    assert golden["deviation"][1][1] == pytest.approx(
        abs(scores[0] - scores[1]) / math.sqrt(2), rel=1e-3
    )
    for name, rows in found["shortfall"].items():
        assert name in main.mixture.STUDENTS and [row["scale"] for row in rows] == [1.5, 2, 3, 5]
        assert all(row["evaluations"][0] == 17 for row in rows)


def test_the_images_are_what_the_engine_gives(
    ran: tuple[Path, dict[str, Any]], small: Path
) -> None:
    """The student's distance from its teacher, by hand; costs of every method."""
    found, model = ran[1]["images"], reg_engine.load_model("mnist")
    rows = {(r["method"], r["scale"], r["solver"]): r for r in found["points"]}
    assert len(rows) == len(found["points"]) == (1 + 7 * 2) + (1 + 2 * 2)
    assert rows["student", 3.0, "dpmpp_2m"]["nfe"] == 2 and rows["cfg", 3.0, "dpmpp_2m"]["nfe"] == 4
    assert rows["vjp", 2.0, "heun"]["nfe"] == 6 and rows["vjp", 2.0, "heun"]["backward"] == 3
    assert found["samples"] == 10 and not found["real_images"] and found["against"] == []
    assert found["against_cfg"] == []
    assert found["adapter"] == {"teacher": "vjp"} and found["teacher"] == "vjp"
    assert 0.04 < found["share"] <= 0.05
    labels, seeds = torch.arange(10), range(images.FIRST, images.FIRST + 10)
    chosen: dict[str, Any] = {"solver": "dpmpp_2m", "steps": 2, "progress": False}
    ours, theirs, plain = (
        reg_engine.sample(one, labels, seeds=seeds, **own, **chosen).samples.double()
        for one, own in (
            (model.with_adapter(small), {"scale": 3.0}),
            (model, {"scale": 3.0, "rectify": "vjp"}),
            (model, {"scale": 1.0}),
        )
    )
    parts = (ours - theirs).flatten(1).norm(dim=1) / (plain - theirs).flatten(1).norm(dim=1)
    own = next(row for row in found["by_class"] if row["scale"] == 3.0)
    assert own["classes"] == pytest.approx(parts.tolist(), rel=1e-3)
    assert own["all"] == pytest.approx(
        float((ours - theirs).norm() / (plain - theirs).norm()), rel=1e-3
    )


def test_the_page_shows_every_number(ran: tuple[Path, dict[str, Any]]) -> None:
    folder, numbers = ran
    text = (folder / "README.md").read_text("utf-8")
    names = ["README.md", "mixture.png", "mixture.svg", "numbers.json"]
    assert sorted(p.name for p in folder.iterdir()) == names
    for line, steps in enumerate(PLANE.steps):
        part = text.partition(f"### {steps} Heun steps\n")[2].partition("\n#")[0]
        for method, found in numbers["mixture"]["methods"].items():
            pairs = zip(found["distance"][line], found["deviation"][line], strict=True)
            cells = " | ".join(f"{1e3 * v:.3g} ± {1e3 * s:.1g}" for v, s in pairs)
            title = mixture.METHODS[method]
            assert f"| {title} | {found['cost'][line]:.0f} | {cells} |" in part
    for row in numbers["images"]["points"]:
        title = METHODS[row["method"]] + ", the teacher" * (row["method"] == "vjp")
        assert f"| {title} | {row['scale']:g} | " in text
    assert "whose teacher is `vjp`: 4.8% of" in text
    assert json.loads((folder / "numbers.json").read_text("utf-8"))["numbers"] == numbers
    assert set(numbers["claims"]) == {"half", "image_half"}
    assert all(claim["holds"] for claim in numbers["claims"].values())


def test_clothes_are_read_without_the_plane(tmp_path: Path) -> None:
    """What belongs to the digits does not fit them."""
    with pytest.raises(InputError, match="has no packaged one"):
        packaged_adapter("cifar10")
    report = Report("distill", "x", tmp_path, quick=True, data_set="fashion")
    report.options["adapter"] = str(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="adapter"):
        main.run(report)
    assert "mixture" not in report.numbers


def test_an_adapter_of_another_teacher_is_refused(small: Path, tmp_path: Path) -> None:
    """It would be held against a front that is not its teacher's."""
    path = tmp_path / "cfg.safetensors"
    replace(Adapter.load(small), about={"teacher": "cfg"}).save(path)
    options = {"adapter": str(path), "part": "images"}
    report = Report("distill", "x", tmp_path, quick=True, options=options)
    with pytest.raises(InputError, match="than vjp or damping=mnist,skip=0.15: 'cfg'"):
        main.run(report)


def test_a_student_of_the_damping(small: Path, tmp_path: Path) -> None:
    """It and its teacher are sampled at every setting, at larger scales too."""
    path = tmp_path / "damped.safetensors"
    replace(Adapter.load(small), about={"teacher": "damping=mnist,skip=0.15"}).save(path)
    options = {"adapter": str(path), "part": "images"}
    subject = subject_of(Report("distill", "x", tmp_path, options=options))
    points = subject.points(Size(10, (2.0,), (3.0,), (1.1,), (("heun", 2), ("dpmpp_2m", 2))))
    assert [(p.method, p.scale) for p in points if p.solver == "dpmpp_2m"] == [
        ("unguided", 1.0), ("damping", 2.0), ("damping", 3.0), ("student", 2.0), ("student", 3.0)
    ]  # fmt: skip
    assert [p.scale for p in points if p.method == "vjp"] == [2.0]
    assert [p.scale for p in points if p.method == "cfg"] == [1.1, 2.0]
    damped = next(p for p in points if p.method == "damping" and p.scale == 3.0)
    weight = Damping.load(packaged_damping("mnist"))(3.0, skip_below=0.15)
    ours, theirs = (
        engine.sample(torch.arange(2), seeds=[5, 6]).samples
        for engine in (
            subject.engine(damped, 2),
            reg_engine.Engine(subject.model, scale=weight, rectify=None, solver="heun", steps=2),
        )
    )
    assert torch.equal(ours, theirs)


def test_one_part_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for part in (mixture, images):
        monkeypatch.setattr(part, "measured", lambda *_, name=part.__name__: asked.append(name))
    for name in ("mixture_claims", "image_claims", "write"):
        monkeypatch.setattr(main, name, lambda report: None)
    for given, data_set, wanted in (
        ({"part": "images"}, "mnist", [images]),
        ({"part": "mixture"}, "mnist", [mixture]),
        ({}, "mnist", [mixture, images]),
        ({}, "fashion", [images]),
    ):
        asked.clear()
        main.run(Report("distill", "x", tmp_path, data_set=data_set, options=given))
        assert asked == [each.__name__ for each in wanted]
    report = Report("distill", "x", tmp_path, data_set="fashion", options={"part": "mixture"})
    with pytest.raises(InputError, match="^part: "):
        main.run(report)


def point(method: str, scale: float, fid: float, confidence: float, steps: int = 16) -> Measured:
    where = Point(method, scale, "dpmpp_2m", steps)
    fids = torch.tensor([fid, fid + 0.1, fid - 0.1, fid], dtype=torch.float64)
    sure = torch.full((4,), confidence, dtype=torch.float64)
    row = {**where.row, "fid": fid, "confidence": confidence}
    return Measured(where, row, fids, sure)


def test_a_student_is_held_against_its_own_teachers_front() -> None:
    """Halfway between two scales the teacher's FID is their geometric mean; another number of steps
    counts for nothing; where the student is surer there is no answer."""
    found = [
        point("unguided", 1.0, 4.0, 8.0),
        point("vjp", 2.0, 1.0, 9.0),
        point("vjp", 3.0, 4.0, 10.0),
        point("vjp", 2.0, 0.1, 9.6, steps=8),
        point("cfg", 2.0, 0.1, 9.6),
        point("student", 2.0, 2.5, 9.5),
        point("student", 3.0, 2.5, 10.1),
    ]
    rows = images.against({each.point: each for each in found}, "vjp")
    assert [row["scale"] for row in rows] == [2.0, 3.0]
    assert rows[0]["front"] == pytest.approx(2.0) and rows[1]["front"] is None
    assert rows[0]["difference"][0] == pytest.approx(0.5) and rows[1]["difference"] is None
    assert rows[0]["fid"] == 2.5 and rows[0]["confidence"] == 9.5
    found.append(point("student", 2.0, 2.5, 9.5, steps=8))  # CFG was not sampled so
    row, surer = images.against({each.point: each for each in found}, "cfg")
    assert row["front"] == pytest.approx(0.1) and surer["front"] is None


def test_distances_by_class() -> None:
    labels, at = torch.tensor([0, 0, 1]), ("dpmpp_2m", 16)

    def all_of(*values: float) -> Tensor:
        return torch.tensor(values)[:, None, None, None].expand(3, 1, 2, 2)

    samples = {
        Point("unguided", 1.0, *at): all_of(0.0, 0.0, 0.0),
        Point("vjp", 2.0, *at): all_of(1.0, 1.0, 2.0),
        Point("student", 2.0, *at): all_of(1.0, 0.0, 1.0),
        Point("student", 2.0, "heun", 9): all_of(9.0, 9.0, 9.0),
    }
    (row,) = images.by_class(samples, labels, at, "vjp")
    assert row["scale"] == 2.0
    assert row["classes"].tolist() == pytest.approx([math.sqrt(0.5), 0.5])
    assert float(row["all"]) == pytest.approx(math.sqrt(2 / 6))
