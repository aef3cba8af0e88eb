"""What a picture says of itself, and who reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from PIL import Image

from reg_engine.cli import cli


def run(*words: Any) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def test_a_grid_of_labels_is_shown(tmp_path: Path) -> None:
    out = tmp_path / "digits.png"
    run("sample", "--labels", "3", "--steps", 1, "--out", out, "--no-progress")
    found = json.loads(run("show", out, "--json").stdout)
    assert found["labels"] == [3] and found["model"] == "mnist"
    assert found["command"].startswith("reg-engine sample --steps 1")
    assert str(tmp_path) not in json.dumps(found)
    text = run("show", out).stdout
    assert ["labels", "[3]"] in [line.split() for line in text.splitlines()]


def test_pictures_that_say_nothing(tmp_path: Path) -> None:
    note = tmp_path / "note.png"
    assert "is no PNG" in str(run("show", note).exception)
    note.write_text("no picture")
    assert "is no PNG" in str(run("show", note).exception)
    Image.new("RGB", (2, 2)).save(note)
    assert "says nothing of itself" in str(run("show", note).exception)
