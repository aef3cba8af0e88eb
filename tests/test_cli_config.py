"""Options as a TOML file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from reg_engine.cli import cli
from reg_engine.errors import InputError


def run(*words: Any) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def test_written_and_read(tmp_path: Path) -> None:
    file, out = tmp_path / "run.toml", tmp_path / "a.png"
    words = ["--labels", "3,7", "--steps", 2, "--scale", 2.5, "--rectify", "vjp", "--no-progress"]
    assert run("sample", *words, "--out", out, "--save-config", file).exit_code == 0
    assert sorted(file.read_text().splitlines()) == sorted(
        ['labels = "3,7"', "scale = 2.5", 'rectify = "vjp"', f'out = "{out}"', "steps = 2"]
        + ["progress = false"]
    )
    out.unlink()
    assert run("sample", "--config", file).exit_code == 0
    shown = json.loads(run("show", out, "--json").stdout)
    assert (shown["labels"], shown["scale"], shown["steps"]) == ([3, 7], 2.5, 2)


def test_the_command_line_goes_before(tmp_path: Path) -> None:
    file, out = tmp_path / "run.toml", tmp_path / "a.png"
    file.write_text('labels = "3"\nsteps = 2\nprogress = false\nper-label = 2\n')
    assert run("sample", "--config", file, "--steps", 1, "--out", out).exit_code == 0
    shown = json.loads(run("show", out, "--json").stdout)
    assert (shown["labels"], shown["steps"]) == ([3, 3], 1)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("steps = ", "cannot be read as TOML"),
        ("stepz = 3", "stepz = 3 is no option.*Known: adapter, as_json, batch_size"),
        ("[steps]\nx = 1", "is no option"),
        ("config = 'other.toml'", "is no option"),
        ("seeds = 'x'", "seeds"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    done = run("sample", "--config", file, "--out", tmp_path / "a.png")
    assert isinstance(done.exception, InputError)
    with pytest.raises(InputError, match=problem):
        raise done.exception
    missing = run("sample", "--config", tmp_path / "none.toml")
    assert "cannot be read" in str(missing.exception)
