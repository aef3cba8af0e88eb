"""The pictures of docs/guidance.md, drawn small by their script."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT
from PIL import Image

pytest.importorskip("matplotlib", reason="matplotlib is not installed")


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("drawn", ROOT / "docs/explorer_pictures.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_ways_move(script: Any, tmp_path: Path) -> None:
    path = tmp_path / "ways.webp"
    count = script.ways(path, steps=10, count=100)
    with Image.open(path) as moving:
        assert moving.n_frames == count == 5
        seen = []
        for number in range(count - 1):  # the last is held, and no other than the end
            moving.seek(number)
            seen.append(moving.convert("L").tobytes())
        assert len(set(seen)) == count - 1
    with Image.open(ROOT / "docs/images/ways.webp") as kept:
        assert kept.n_frames > 10 and kept.info["loop"] == 0
    assert (ROOT / "docs/images/ways.webp").stat().st_size < 1_000_000


@pytest.mark.slow
def test_the_page_says_what_the_digits_show(script: Any, tmp_path: Path) -> None:
    found = script.scales(tmp_path / "scales.png", over=(2.0, 6.0))
    page = " ".join((ROOT / "docs/guidance.md").read_text("utf-8").split())
    assert "CFG keeps 20, 18, 13 and 10 at the four scales, the others all" in page
    assert [round(20 * share) for share in found["CFG"]] == [20, 13]
    assert found["damping"] == found["REG (auto)"] == [1.0, 1.0]


def test_the_frontier_is_the_committed_one(script: Any, tmp_path: Path) -> None:
    found = script.frontier(tmp_path / "frontier.png")
    numbers = json.loads(script.FRONTIER.read_text("utf-8"))["numbers"]
    plane, column = numbers["mixtures"]["2-D"], numbers["setting"]["weights"].index(2.0)
    for name, (cost, distance) in found.items():
        each = plane["methods"][name]
        assert (cost, distance) == (float(each["cost"]), float(each["distance"][column]))
    floor = float(plane["floor"][column])
    assert found["cfg"][1] > 40 * floor and found["alternate"][1] < floor
    assert (round(found["cfg"][0]), round(found["alternate"][0])) == (70, 46)
