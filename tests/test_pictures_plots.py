"""Plots: colours that differ, files that are written whole, and a package that may be missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from PIL import Image, ImageColor

from reg_engine.errors import InputError
from reg_engine.pictures.plots import OKABE_ITO, check_matplotlib, save_figure


def test_colours_are_far_apart() -> None:
    values = [ImageColor.getrgb(colour) for colour in OKABE_ITO.values()]
    for number, one in enumerate(values):
        for other in values[:number]:
            assert sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) > 40**2


def test_a_figure_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    save_figure(Figure(figsize=(2, 1), dpi=100), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (200, 100)
    before = (tmp_path / "a.png").read_bytes()

    class Broken:
        def savefig(self, file, **_):
            file.write(b"half")
            raise OSError("no space left")

    with pytest.raises(InputError, match="no space left"):
        save_figure(Broken(), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_missing_matplotlib_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match="plot: matplotlib is not installed"):
        check_matplotlib()
