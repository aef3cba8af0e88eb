"""`reg-engine distill`, and sampling with what it writes."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from adapter_cases import model
from click.testing import CliRunner

from reg_engine import InputError, load_model
from reg_engine.cli import cli
from reg_engine.distillation import Difference
from reg_engine.networks.adapter import Adapter, belonging
from reg_engine.networks.lowrank import LowRank


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reg_engine.models.load_model", lambda name: model())


def ran(*arguments: str) -> dict:
    found = CliRunner().invoke(cli, [*arguments, "--no-progress", "--json"])
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


def test_a_run_in_pieces_ends_with_an_adapter_and_its_distances(tiny: None, tmp_path: Path) -> None:
    asked = ("distill", "--guidance", "cfg", "--scales", "1:4", "--share", "0.9", "--steps", "3")
    out = ("--out", str(tmp_path / "run"), "--compared", "4")
    first = ran(*asked, *out, "--piece", "1e-9")
    assert (first["step"], first["stopped"], first["path"]) == (1, "piece", None)
    assert "differences" not in first
    last = ran(*asked, *out)
    path = tmp_path / "run" / "adapter.safetensors"
    assert (last["step"], last["path"]) == (3, str(path))
    assert 0.7 < last["share"] <= 0.9
    scales = [one["scale"] for one in last["differences"]]
    assert scales == pytest.approx([4**0.25, 2, 4**0.75, 4]), "even in ln s, 1 left out"
    kept = json.loads((tmp_path / "run" / "differences.json").read_text())
    assert kept == last["differences"]
    found = Adapter.load(path)
    assert found.about["teacher"] == "cfg" and found.scales == (1.0, 4.0)
    words = CliRunner().invoke(cli, [*asked, *out, "--no-progress"]).output
    assert "step 3 of 3" in words and f"adapter: {path}" in words and "4.00" in words


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--scales", "1-4"), "--scales: is '1-4'"),
        (("--scales", "4:1"), "scales: are (4.0, 1.0)"),
        (("--guidance", "cfg; vjp"), "--guidance: is 'cfg; vjp'"),
        (("--guidance", "cfg@2"), "--guidance: is 'cfg@2'"),
        (("--guidance", "vjp,plan=0.3:3"), "--guidance: takes no plan"),
        (("--guidance", "fast"), "fast"),
        (("--piece", "0"), "--piece"),
        (("--compared", "0"), "--compared"),
        (("--share", "2"), "share: is 2"),
    ],
)
def test_bad_input_is_named(tiny: None, tmp_path: Path, given: tuple[str, ...], words: str) -> None:
    found = CliRunner().invoke(cli, ["distill", "--out", str(tmp_path / "run"), *given])
    assert isinstance(found.exception, InputError) and words in str(found.exception)
    assert not (tmp_path / "run").exists()


def test_levels_at_which_the_teacher_does_nothing_are_no_numbers() -> None:
    """JSON has no infinity, and a table no use for one."""
    command = importlib.import_module("reg_engine.cli.distill")
    found = [Difference(2.0, [20.0, 1.0], [float("inf"), 0.25], 0.5, (8.0, 14.0))]
    (row,) = json.loads(json.dumps(command._rows(found), allow_nan=False))
    assert row["estimates"] == [None, 0.25] and row["samples"] == 0.5
    assert command._line(found[0]) == "  2.00     0.50     – 0.25"


def test_sample_takes_an_adapter(tmp_path: Path) -> None:
    denoiser = load_model("mnist")
    path = tmp_path / "a.safetensors"
    change = LowRank.of(denoiser.modules, 0.05, 4.0)
    Adapter(change, (1.0, 4.0), belonging(denoiser)).save(path)
    how = ("sample", "--labels", "0,1", "--steps", "2", "--solver", "euler", "--scale", "3")
    out = ("--adapter", str(path), "--out", str(tmp_path / "a.png"))
    found = ran(*how, *out, "--compare")
    rows = found["methods"]
    assert list(rows) == ["CFG", "adapter"]
    assert (rows["CFG"]["nfe"], rows["adapter"]["nfe"]) == (4, 2)
    assert rows["adapter"]["reason"].startswith("the adapter holds guidance of scale 3")
    alone = ran(*how, *out)
    assert list(alone["methods"]) == ["adapter"]
    for option, value in (("--damping", "none.json"), ("--rectify", "vjp")):
        both = CliRunner().invoke(cli, [*how, *out, option, value])
        assert f"{option}: does not go with --adapter" in str(both.exception)
    bare = CliRunner().invoke(cli, [*how, *out[2:], "--skip-below", "0.1"])
    assert "--skip-below: goes with --damping" in str(bare.exception)
    wrong = CliRunner().invoke(cli, [*how, *out, "--model", "fashion"])
    assert "adapter: belongs to another model" in str(wrong.exception)
