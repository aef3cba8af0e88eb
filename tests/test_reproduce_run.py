"""A recipe run at tiny size: the right networks and guidance, scores, and going on after a stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from reproduce_cases import feature_file, statistics_of, weights

from reg_engine import BadModel, Guidance, GuidedChannels, Interval, load_model, sample
from reg_engine.errors import InputError
from reg_engine.models import latents_of
from reg_engine.pictures.images import to_uint8
from reg_engine.reproduce import RECIPES, Reproduction
from reg_engine.reproduce.points import RecipePoint, points_of
from reg_engine.reproduce.run import Judge, Models
from reg_engine.reproduce.sampled import Classes
from reg_engine.scoring import Conventions, load_network, score
from reg_engine.storage.shards import Shards

S64, S512, DIT = (RECIPES[name] for name in ("edm2-s-64", "edm2-s-512", "dit-xl-2-256"))
HOW = Conventions(splits=2)


def pictures(models: Models, point: RecipePoint) -> torch.Tensor:
    return models(point).read(range(4)).images


def by_hand(guidance: Guidance, net: Path, **choices: Any) -> torch.Tensor:
    given = {"solver": "heun", "steps": 3, "progress": False, **choices}
    samples = sample(load_model(net), torch.arange(4), guidance=guidance, **given).samples
    return to_uint8(samples).permute(0, 3, 1, 2)


def test_cfg_and_autoguidance_ask_the_presets_networks(tmp_path: Path) -> None:
    points = points_of(S512, ["interval", "autoguidance"], ["paper"], [2.0], steps=3)
    folder = weights(tmp_path / "nets", points)
    models = Models(folder, 8)
    for point, weight in zip(points, (Interval(2.0, 0.28, 2.90), 2.0), strict=True):
        files = point.files
        assert files is not None and files.reference is not None
        net, bad = (folder / f"{stem}.safetensors" for stem in (files.net, files.reference))
        guidance = Guidance(weight, BadModel(load_model(bad)), "paper")
        assert torch.equal(pictures(models, point), by_hand(guidance, net))


def test_without_a_network_without_labels_the_guide_is_told_none(tmp_path: Path) -> None:
    (point,) = points_of(S64, ["vanilla"], ["none"], [2.0], steps=3)
    folder = weights(tmp_path / "nets", [point])
    assert point.files is not None and point.files.reference is not None
    net, bad = (folder / f"{s}.safetensors" for s in (point.files.net, point.files.reference))
    found = pictures(Models(folder, 8), point)
    told = Guidance(2.0, BadModel(load_model(bad), 5), None)
    assert torch.equal(found, by_hand(told, net))
    with_labels = Guidance(2.0, BadModel(load_model(bad)), None)
    assert not torch.equal(found, by_hand(with_labels, net))


def test_dit_guides_three_channels_by_its_learned_variance(tmp_path: Path) -> None:
    (point,) = points_of(DIT, ["vanilla"], ["none"], [3.0], steps=4)
    folder = weights(tmp_path / "nets", [point])
    path = folder / "DiT-XL-2-256x256.safetensors"

    def decoder(of: Path) -> Any:
        assert of == path and latents_of(of) is not None
        return lambda samples: samples[:, :3]

    found = pictures(Models(folder, 8, decoder), point)
    guidance = Guidance(3.0, rectify=None, adjust=GuidedChannels(3))
    options = {"solver": "ddpm", "steps": 4, "solver_options": {"variance": "learned"}}
    samples = sample(
        load_model(path), torch.arange(4), guidance=guidance, progress=False, **options
    ).samples
    assert torch.equal(found, to_uint8(samples[:, :3]).permute(0, 3, 1, 2))
    with pytest.raises(InputError, match="vae"):
        Models(folder, 8)(point)


def judged(tmp_path: Path) -> Judge:
    network = load_network(f"{feature_file(tmp_path)}:network")
    return Judge(network, ("fid", "is"), statistics_of(network), (), HOW)


def rows(tmp_path: Path, folder: Path, points: list[RecipePoint], count: int = 12) -> list[Any]:
    work = Reproduction(S64, Models(folder, count), judged(tmp_path), tmp_path / "parts", 4)
    return list(work.measure(points))


def test_scores_are_those_of_the_pictures(tmp_path: Path) -> None:
    points = points_of(S64, ["vanilla"], ["none", "fd"], [1.0, 2.0], steps=2)
    folder = weights(tmp_path / "nets", points)
    found = rows(tmp_path, folder, points)
    assert [(r["rectify"], r["scale"]) for r in found] == [
        ("none", 1.0), ("fd", 1.0), ("none", 2.0), ("fd", 2.0),
    ]  # fmt: skip
    assert found[0]["fid"] == found[1]["fid"] != found[2]["fid"] != found[3]["fid"]
    judge = judged(tmp_path)
    source = Models(folder, 12)(points[3])
    parts = torch.cat([source.read(range(k, k + 4)).images for k in (0, 4, 8)])
    alone = score([parts], judge.network, ["fid", "is"], HOW, statistics=judge.statistics)
    wanted = alone.result["metrics"]
    assert found[3]["fid"]["value"] == pytest.approx(wanted["fid"]["value"], rel=1e-9)
    assert found[3]["is"] == pytest.approx(wanted["is"])
    assert found[3]["cost"]["nfe"] == 3 * 3 and found[2]["cost"]["nfe"] == 3 * 2


def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = points_of(S64, ["vanilla"], ["none"], [1.0, 2.0], steps=2)
    folder = weights(tmp_path / "nets", points)
    clean = rows(tmp_path, folder, points)
    again = rows(tmp_path, folder, points)
    assert again == clean, "nothing is made twice"
    for file in (tmp_path / "parts").rglob("*"):
        if file.is_file():
            file.unlink()
    asked: list[str] = []
    stored = Shards.store

    def stopping(self: Shards, name: str, *given: Any) -> None:
        asked.append(name)
        if name.startswith(points[1].name) and self.folder.name == "points":
            raise KeyboardInterrupt
        stored(self, name, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Shards, "store", stopping)
        with pytest.raises(KeyboardInterrupt):
            rows(tmp_path, folder, points)
    resumed = rows(tmp_path, folder, points)
    for row, other in zip(resumed, clean, strict=True):
        assert (row["fid"], row["is"]) == (other["fid"], other["is"])


def test_other_weights_are_measured_anew(tmp_path: Path) -> None:
    points = points_of(S64, ["vanilla"], ["none"], [2.0], steps=2)
    folder = weights(tmp_path / "nets", points)
    first = rows(tmp_path, folder, points)
    assert points[0].files is not None
    net, other = (
        folder / f"{s}.safetensors" for s in (points[0].files.net, points[0].files.reference)
    )
    data = other.read_bytes()
    other.write_bytes(net.read_bytes())
    net.write_bytes(data)
    assert rows(tmp_path, folder, points)[0]["fid"] != first[0]["fid"]


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    (point,) = points_of(S64, ["vanilla"], ["none"], [2.0])
    with pytest.raises(InputError, match=r"edm2-img64-s-1073741-0.045.safetensors"):
        Models(tmp_path, 8)(point)
    with pytest.raises(InputError, match="count"):
        Models(tmp_path, 0)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each call samples, as they are sampled."""
    seen: list[int] = []
    read = Classes.read

    def reading(self: Classes, numbers: range) -> Any:
        seen.append(len(numbers))
        return read(self, numbers)

    monkeypatch.setattr(Classes, "read", reading)
    return seen


def test_without_guidance_all_methods_are_one_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = points_of(S64, None, ["none", "paper"], [1.0], steps=1)
    folder, seen = weights(tmp_path / "nets", points), counted(monkeypatch)
    found = rows(tmp_path, folder, points)
    assert len(found) == 10 and sum(seen) == 12
    assert len({row["fid"]["value"] for row in found}) == 1


def test_other_settings_leave_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = points_of(S64, ["vanilla"], ["none"], [2.0], steps=1)
    folder, seen = weights(tmp_path / "nets", points), counted(monkeypatch)
    twelve = rows(tmp_path, folder, points)
    assert rows(tmp_path, folder, points, count=16)[0]["fid"] != twelve[0]["fid"]
    assert sum(seen) == 12 + 16
    assert rows(tmp_path, folder, points) == twelve and sum(seen) == 12 + 16


def test_what_the_last_point_lacks_is_said_before_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = points_of(S512, ["vanilla", "autoguidance"], ["none"], [2.0], steps=1)
    folder, seen = weights(tmp_path / "nets", points[:1]), counted(monkeypatch)
    with pytest.raises(InputError, match=r"edm2-img512-s-2147483-0.070.safetensors"):
        rows(tmp_path, folder, points)
    given = weights(tmp_path / "nets", points)
    with pytest.raises(InputError, match="makes no latents"):
        Models(given, 8, lambda _: lambda samples: samples)(points[0])
    assert not seen


@pytest.mark.parametrize(
    ("name", "said"), [("alone", "no logits"), ("wide", "8 features, the network makes 16")]
)
def test_features_that_do_not_fit_are_refused_after_one_batch(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = feature_file(tmp_path)
    file.write_text(
        file.read_text()
        + """
def alone(images):
    return network(images)[0]


def wide(images):
    features, logits = network(images)
    return torch.cat([features, features], 1), logits
"""
    )
    points = points_of(S64, ["vanilla"], ["none"], [2.0], steps=1)
    sampler, seen = Models(weights(tmp_path / "nets", points), 12), counted(monkeypatch)
    real = replace(statistics_of(load_network(f"{file}:network")), note={})
    judge = Judge(load_network(f"{file}:{name}"), ("fid", "is"), real, (), HOW)
    with pytest.raises(InputError, match=said):
        next(Reproduction(S64, sampler, judge, tmp_path / "parts", 4).measure(points))
    assert seen == [4]
