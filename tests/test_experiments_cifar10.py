"""The CIFAR-10 experiment: a run without a GPU claims nothing, and every part that a GPU fills."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cifar_runs import report, trained_in
from test_data_cifar10 import pictures, tar

from reg_engine.errors import InputError
from reg_engine.experiments import run_experiment
from reg_engine.experiments.cifar10 import main as cifar10
from reg_engine.experiments.cifar10.data import load_data
from reg_engine.experiments.cifar10.models import FULL, TINY, sizes_of
from reg_engine.experiments.cifar10.page import EMPTY, TABLE3, curves, tables
from reg_engine.experiments.cifar10.sampling import EDM_SCALES, FLOW_SCALES, Scored

pytest.importorskip("diffusers")
pytest.importorskip("faiss")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REG_ENGINE_DATA", raising=False)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Numbers and folder of one quick run without data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("REG_ENGINE_DATA", raising=False)
        out = tmp_path_factory.mktemp("experiments")
        return run_experiment("cifar10", out, quick=True), out / "cifar10"


# A run without a GPU


def test_a_quick_run_goes_through_everything_and_claims_nothing(
    quick: tuple[dict[str, Any], Path],
) -> None:
    numbers, page = quick[0]["numbers"], (quick[1] / "README.md").read_text(encoding="utf-8")
    assert numbers["measured"] is False and "points" not in numbers
    assert [stage["name"] for stage in numbers["stages"]] == ["judge", "guide", "flow", "edm"]
    assert numbers["exercise"]["points"] == 2 * (6 + 3)  # each before and after postprocessing
    assert all(stage["steps"] == TINY.steps for stage in numbers["stages"])
    assert "Our numbers are still to come" in page and "stand-in images, no CIFAR" in page
    ours = [line for line in page.splitlines() if line.startswith("| ours |")]
    assert len(ours) == 2 * (5 + 2)
    for line in ours:
        cells = [cell.strip() for cell in line.strip("|").split("|")][5:]
        assert set(cells) == {EMPTY}
    assert sorted(p.name for p in quick[1].iterdir()) == [
        "README.md",
        "curves.png",
        "curves.svg",
        "numbers.json",
    ]


def test_the_metric_tells_real_images_from_those_of_untrained_networks(
    quick: tuple[dict[str, Any], Path],
) -> None:
    found = quick[0]["numbers"]["exercise"]
    assert found["fid_of_training_images"] < 0.1 * found["lowest_fid_of_untrained_samples"]
    assert quick[0]["numbers"]["claims"]["metric_orders"]["holds"]


# Data and sizes


def test_data_are_cifar_where_given_and_stand_ins_in_a_quick_run_alone(tmp_path: Path) -> None:
    path = tar(tmp_path / "cifar10_jpeg.tar.gz", pictures("jpg"))
    found, kind = load_data(report(tmp_path, data=str(tmp_path)))
    assert "JPEG files (lossy)" in kind and found.lossy and len(found.train_labels) == 4
    cut, _ = load_data(report(tmp_path, data=str(path)), 3, 1)
    assert len(cut.train_images) == 3 and len(cut.test_labels) == 1
    rows = [found.train_images.tolist().index(image) for image in cut.train_images.tolist()]
    assert [found.train_labels[row] for row in rows] == cut.train_labels.tolist()
    others = tmp_path / "others"
    others.mkdir()
    for data in (None, str(others), str(tmp_path / "mnist.npz")):
        made, kind = load_data(report(tmp_path, data=data))
        assert kind.startswith("stand-in images") and len(made.train_images) == 400
        with pytest.raises(InputError, match="data: no CIFAR-10"):
            load_data(report(tmp_path, data=data, quick=False))
    with pytest.raises(InputError, match="there is no"):
        load_data(report(tmp_path, data=str(tmp_path / "none.tar.gz")))


def test_sizes_follow_the_device_and_the_options(tmp_path: Path) -> None:
    full = {"quick": False, "device": "cuda"}
    assert sizes_of(report(tmp_path, device="cuda")) is TINY
    assert sizes_of(report(tmp_path, quick=False)) is TINY
    assert sizes_of(report(tmp_path, **full)) == FULL
    longer = sizes_of(report(tmp_path, **full, options={"hours": "8", "samples": "50000"}))
    assert longer.samples == 50_000 and longer.minutes is not None and FULL.minutes is not None
    assert longer.minutes["flow"] == 8 * FULL.minutes["flow"]
    plan = dict(FULL.minutes)
    assert sum(plan.values()) + plan["post"] < 46  # two postprocessing flows; the rest samples
    for options, problem in (
        ({"hours": "two"}, "--set hours: 'two' is no number"),
        ({"hours": "-1"}, "--set hours: is -1"),
        ({"samples": "50"}, "--set samples: is 50"),
    ):
        with pytest.raises(InputError, match=problem):
            sizes_of(report(tmp_path, **full, options=options))


# The page of a full run


def made(base: str, scale: float, rectify: bool, post: str | None, fid: float) -> Scored:
    keys = ("agreement", "confidence", "precision", "recall", "nearer", "nfe")
    row = {"base": base, "method": "vanilla", "scale": scale, "post": post, "fid": fid}
    row |= {"estimator": "vjp" if rectify else "none", "fid_error": 0.1, **dict.fromkeys(keys, 0.5)}
    return Scored(row, torch.zeros(10, 3, 32, 32))


def full_rows() -> list[Scored]:
    """FID grows with the scale; postprocessing takes 2 off, REG 1 on the flow and none on EDM."""
    rows = []
    for base, scales in (("flow", (1.0, *FLOW_SCALES)), ("edm", (1.0, *EDM_SCALES))):
        for scale in scales:
            for rectify in (False, True)[: 1 if scale == 1 else 2]:
                gain = 1.0 if rectify and base == "flow" else 0.0
                rows.append(made(base, scale, rectify, None, 5 * scale - gain))
                rows.append(made(base, scale, rectify, "pixel-20", 5 * scale - gain - 2))
    return rows


def test_measured_numbers_land_in_their_cells(tmp_path: Path) -> None:
    own = report(tmp_path)
    tables(own, [each.row for each in full_rows()], ["pixel-20"])
    own.finish()
    page = (tmp_path / "cifar10" / "README.md").read_text(encoding="utf-8")
    lines = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in ("paper", "ours"):
            lines[tuple(cells[:5]), len(cells) - 5] = cells[5:]
    assert lines[("paper", "no", "yes", "DINOv2 patch", "40"), 6][0] == "6.252"
    assert lines[("paper", "no", "no", "-", "-"), 8] == [
        f"{v:#.4g}" for v in TABLE3[("no", "-", "-")]
    ]
    assert lines[("ours", "no", "no", "-", "-"), 6][0] == "6.25 ± 0.1"
    assert lines[("ours", "yes", "yes", "pixel", "20"), 6][5] == "10.8 ± 0.1"  # 5 * 2.75 - 3
    assert lines[("ours", "no", "yes", "pixel", "20"), 8][7] == "18 ± 0.1"
    assert set(lines[("ours", "no", "yes", "DINOv2 CLS", "20"), 6]) == {EMPTY}
    assert "--set neighbours=FOLDER" in page


def test_a_full_run_is_held_against_the_paper(tmp_path: Path) -> None:
    own, models, _ = trained_in(tmp_path)
    cifar10._measured(own, models, "the judge's features", full_rows(), 0.9)
    claims = {key: claim["holds"] for key, claim in own.numbers["claims"].items()}
    assert claims == {
        "flow_postprocessing": True,
        "flow_reg": True,
        "edm_postprocessing": True,
        "edm_reg": False,
    }
    assert len(own.numbers["points"]) == len(full_rows())
    assert own.numbers["points"][0]["fid"] == 5 and own.numbers["judge_accuracy"] == 0.9
    kept = sorted(p.name for p in (own.folder / "models").iterdir())
    assert kept == [f"{name}.safetensors" for name in ("edm", "flow", "guide", "judge")]


def test_a_full_page_begins_with_what_was_found(tmp_path: Path) -> None:
    own, models, data = trained_in(tmp_path)
    own.numbers |= {"measured": True, "data": "CIFAR-10"}
    cifar10._measured(own, models, "the judge's features", full_rows(), 0.9)
    cifar10._write(own, FULL, models, full_rows(), data.lossy)
    own.finish()
    page = (tmp_path / "cifar10" / "README.md").read_text(encoding="utf-8")
    assert "* flow at CFG 2.75: FID 13.8; with REG 12.8; postprocessed 11.8 at best" in page
    assert "3 of 4 claims hold" in page and EMPTY not in page.partition("Table 3")[2]
    assert (tmp_path / "cifar10" / "samples.png").exists()


def test_curves_draw_what_was_measured_below_the_paper() -> None:
    assert len(curves(None).axes) == 2
    drawn = curves([each.row for each in full_rows()]).axes
    ours = drawn[2]
    heights = [np.asarray(line.get_ydata()) for line in ours.get_lines()]
    plain = [h for h in heights if len(h) == 7 and h[0] == 5.0 and h[-1] == 5 * 2.75]
    assert len(drawn) == 4 and len(plain) == 1
