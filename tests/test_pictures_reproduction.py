"""The fronts of a reproduction: a panel a method, a line an estimator, the right numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from reg_engine.pictures.reproduction import draw_reproduction, save_reproduction


def report(score: str | None) -> dict[str, Any]:
    points = []
    for method in ("vanilla", "interval"):
        for k, rectify in enumerate(("none", "paper")):
            for scale in (1.0, 2.0, 3.0):
                row = {"method": method, "rectify": rectify, "scale": scale}
                row["fid"] = {"value": 5 - scale - k}
                points.append(row | ({score: {"mean": 10 * scale + k}} if score else {}))
    return {"title": "tiny", "samples": 50_000, "points": points}


@pytest.mark.parametrize(
    ("score", "label"),
    [("is", "inception score"), ("clip", "CLIP score"), (None, "guidance scale")],
)
def test_lines_are_the_points(score: str | None, label: str) -> None:
    figure = draw_reproduction(report(score))
    assert [axes.get_title() for axes in figure.axes] == ["vanilla", "interval"]
    for axes in figure.axes:
        assert axes.get_xlabel() == label
        cfg, reg = axes.lines
        assert (cfg.get_label(), reg.get_label()) == ("CFG", "REG (paper)")
        assert list(reg.get_ydata()) == [3.0, 2.0, 1.0]
        assert list(reg.get_xdata()) == ([11.0, 21.0, 31.0] if score else [1.0, 2.0, 3.0])
        said = [text.get_text() for text in axes.texts]
        assert said == (["3", "3"] if score else [])
    assert "50,000" in figure.get_suptitle() and "scales 1, 2, 3" in figure.get_suptitle()


def test_it_is_written(tmp_path: Path) -> None:
    save_reproduction(report("is"), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
