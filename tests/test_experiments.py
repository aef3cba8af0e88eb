"""The registry of experiments and its command: names, folders, errors, what a run leaves."""

from __future__ import annotations

import json
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import reg_engine
from reg_engine.cli import cli
from reg_engine.cli.experiment import experiment
from reg_engine.experiments import EXPERIMENTS, Report, run_experiment


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    """An experiment named `small` of one number and two claims; every report that it was given."""
    seen: list[Report] = []

    def run(report: Report) -> None:
        seen.append(report)
        (report.work / "run").mkdir(exist_ok=True)
        (report.work / "run" / "checkpoint.pt").write_text("done", encoding="utf-8")
        report.numbers["draw"] = float(torch.rand((), generator=report.generator()))
        report.claim("sure", "one is one", 1 == 1, "1")
        report.claim("not", "the device is a GPU", report.device.type == "cuda", "cpu")

    module = types.ModuleType("reg_engine.experiments.small")
    module.run = run  # type: ignore[attr-defined]
    module.OPTIONS = ("steps",)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reg_engine.experiments.small", module)
    monkeypatch.setitem(EXPERIMENTS, "small", "A small one")
    return seen


def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no experiment but `small`."""
    for name in [name for name in EXPERIMENTS if name != "small"]:
        monkeypatch.delitem(EXPERIMENTS, name)


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_every_experiment_has_a_module_and_a_line_of_help(name: str) -> None:
    assert find_spec(f"reg_engine.experiments.{name.replace('-', '_')}") is not None
    assert f"\n    {name} " in (experiment.callback.__doc__ or "")


def test_a_run_leaves_a_page_and_numbers_and_no_work(small: list[Report], tmp_path: Path) -> None:
    found = run_experiment("small", tmp_path, quick=True, seed=3)
    stored = json.loads((tmp_path / "small" / "numbers.json").read_text(encoding="utf-8"))
    assert stored == found
    assert stored["command"] == "reg-engine experiment small --quick --seed 3"
    assert stored["versions"]["torch"] == torch.__version__
    assert stored["numbers"]["claims"]["sure"] == {
        "text": "one is one",
        "holds": True,
        "found": "1",
    }
    page = (tmp_path / "small" / "README.md").read_text(encoding="utf-8")
    assert page.startswith("# A small one\n")
    assert "| the device is a GPU | **NO** | cpu |" in page
    assert sorted(p.name for p in (tmp_path / "small").iterdir()) == ["README.md", "numbers.json"]


def test_a_seed_repeats_and_another_one_differs(small: list[Report], tmp_path: Path) -> None:
    draws = [
        run_experiment("small", tmp_path / str(k), seed=seed)["numbers"]["draw"]
        for k, seed in enumerate((5, 5, 6))
    ]
    assert draws[0] == draws[1] != draws[2]


def test_an_interrupted_run_keeps_its_work(
    small: list[Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Report, "claim", stop)
        run_experiment("small", tmp_path)
    assert (tmp_path / "small" / "work" / "full-0" / "run" / "checkpoint.pt").read_text(
        encoding="utf-8"
    ) == "done"
    run_experiment("small", tmp_path)
    assert not (tmp_path / "small" / "work").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"name": "theroy"}, "Did you mean 'theory'"),
        ({"name": "theory", "seed": -1}, "seed: is -1"),
        ({"name": "theory", "options": {"part": "x"}}, "theory has no setting 'part'"),
        ({"name": "distill", "options": {"prat": "x"}}, "Did you mean 'part'"),
        (
            {"name": "cifar10", "options": {"hour": "2"}},
            "--set: unknown name 'hour'. Did you mean 'hours'",
        ),
        ({"name": "theory", "seed": True}, "seed: is True"),
    ],
)
def test_bad_input(arguments: dict[str, object], text: str, tmp_path: Path) -> None:
    with pytest.raises(reg_engine.InputError, match=text):
        run_experiment(out=tmp_path, **arguments)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(reg_engine.InputError, match="^device: .* Give .cpu."):
        run_experiment("theory", tmp_path, device="cuda")


def test_out_that_is_a_file(small: list[Report], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("", encoding="utf-8")
    with pytest.raises(reg_engine.InputError, match="--out"):
        run_experiment("small", tmp_path / "taken")
    assert not small


def test_the_command(small: list[Report], tmp_path: Path) -> None:
    arguments = ["experiment", "small", "--quick", "--out", str(tmp_path), "--set", "steps=3"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "1 of 2 claims hold" in result.output
    assert "does not hold: the device is a GPU (cpu)" in result.output
    assert small[0].quick and small[0].options == {"steps": "3"}
    assert small[0].command == "reg-engine experiment small --quick --set steps=3"


def test_all_runs_every_one(
    small: list[Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _alone(monkeypatch)
    monkeypatch.setitem(EXPERIMENTS, "other", "Another")
    monkeypatch.setitem(
        sys.modules, "reg_engine.experiments.other", sys.modules["reg_engine.experiments.small"]
    )
    arguments = ["experiment", "all", "--out", str(tmp_path)]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert [report.name for report in small] == ["small", "other"]
    assert result.output.endswith("2 claims do not hold\n")


def test_real_data_goes_to_what_reads_it(
    small: list[Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _alone(monkeypatch)
    module = sys.modules["reg_engine.experiments.small"]
    monkeypatch.setitem(sys.modules, "reg_engine.experiments.other", module)
    monkeypatch.setitem(EXPERIMENTS, "other", "Another")
    monkeypatch.setattr("reg_engine.experiments.WITH_DATA", ("small",))
    arguments = ["experiment", "all", "--out", str(tmp_path), "--data", "here"]
    CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert [(report.name, report.data) for report in small] == [("small", "here"), ("other", None)]
    with pytest.raises(reg_engine.InputError, match="data: other reads none.*small"):
        run_experiment("other", tmp_path, data="here")


def test_a_data_set_has_a_folder_of_its_own(
    small: list[Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a title; its command says it."""
    _alone(monkeypatch)
    monkeypatch.setitem(EXPERIMENTS, "small", "A small one of MNIST")
    module = sys.modules["reg_engine.experiments.small"]
    monkeypatch.setitem(sys.modules, "reg_engine.experiments.other", module)
    monkeypatch.setitem(EXPERIMENTS, "other", "Another")
    monkeypatch.setattr("reg_engine.experiments.WITH_DATA_SET", ("small",))
    arguments = ["experiment", "small", "--out", str(tmp_path)]
    for folder, more in (("small", []), ("small-fashion", ["--data-set", "fashion"])):
        said = CliRunner().invoke(cli, [*arguments, *more], catch_exceptions=False).output
        assert f"  {tmp_path / folder / 'README.md'}\n" in said
    for folder, title, more in (
        ("small", "MNIST", ""),
        ("small-fashion", "Fashion-MNIST", " --data-set fashion"),
    ):
        page = (tmp_path / folder / "README.md").read_text(encoding="utf-8")
        assert page.startswith(f"# A small one of {title}\n")
        stored = json.loads((tmp_path / folder / "numbers.json").read_text(encoding="utf-8"))
        assert stored["command"] == f"reg-engine experiment small{more}"
    arguments[1] = "all"
    CliRunner().invoke(cli, [*arguments, "--data-set", "fashion"], catch_exceptions=False)
    assert [(report.name, report.data_set) for report in small] == [
        ("small", "mnist"),
        ("small", "fashion"),
        ("small", "fashion"),
        ("other", "mnist"),  # it has data of its own
    ]
    with pytest.raises(reg_engine.InputError, match="data_set: other has data of its own.*small"):
        run_experiment("other", tmp_path, data_set="fashion")
    with pytest.raises(
        reg_engine.InputError, match="data_set: .*'fashoin'.*Did you mean 'fashion'"
    ):
        run_experiment("small", tmp_path, data_set="fashoin")


def test_settings_go_to_those_that_have_them(
    small: list[Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown one is refused before anything runs, by the function and by the command."""
    _alone(monkeypatch)
    monkeypatch.setitem(EXPERIMENTS, "other", "Another")
    other = types.ModuleType("reg_engine.experiments.other")
    other.run = small.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reg_engine.experiments.other", other)
    arguments = ["experiment", "all", "--out", str(tmp_path), "--set"]
    CliRunner().invoke(cli, [*arguments, "steps=3"], catch_exceptions=False)
    assert [(report.name, report.options) for report in small] == [
        ("small", {"steps": "3"}),
        ("other", {}),
    ]
    result = CliRunner().invoke(cli, [*arguments, "stepz=3"])
    assert "Did you mean 'steps'" in str(result.exception)
    result = CliRunner().invoke(cli, ["experiment", "other", "--set", "stepz=3"])
    assert "other has no setting 'stepz'" in str(result.exception)
    for name, words in (("small", "Did you mean 'steps'"), ("other", "has no setting 'stepz'")):
        with pytest.raises(reg_engine.InputError, match=words):
            run_experiment(name, tmp_path, options={"stepz": "3"})
    assert len(small) == 2


@pytest.mark.parametrize("setting", ["steps", "=3", "steps="])
def test_a_setting_needs_key_and_value(setting: str, tmp_path: Path) -> None:
    arguments = ["experiment", "theory", "--out", str(tmp_path), "--set", setting]
    result = CliRunner().invoke(cli, arguments)
    assert isinstance(result.exception, reg_engine.InputError)
    assert "--set key=value" in str(result.exception)
