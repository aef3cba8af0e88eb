"""The picture of an evaluation: its panels show the report's own numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reg_engine.pictures.evaluation import draw_evaluation, save_evaluation

pytest.importorskip("matplotlib", reason="plots need the eval extra")


def point(method: str, scale: float, confidence: float, fid: float) -> dict[str, Any]:
    row = {"method": method, "scale": scale, "fid": fid, "fid_error": 0.02}
    return row | {"confidence": confidence, "confidence_error": 0.1}


def cell(level: float, fid: float, nfe: float, backward: float, difference: float) -> Any:
    own = {"confidence": level, "fid": fid, "fid_error": 0.03, "nfe": nfe, "backward": backward}
    error = 0.01 if difference else 0.0
    return own | {"cfg": {"fid": 0.5, "difference": difference, "error": error}}


REPORT: dict[str, Any] = {
    "points": [
        point("CFG", 1.0, 3.0, 0.6),
        point("CFG", 2.0, 4.0, 0.3),
        point("REG (vjp)", 1.0, 3.0, 0.6),
        point("REG (vjp)", 3.0, 4.2, 0.25),
    ],
    "levels": [3.5, 4.0, 4.1],
    "fronts": {
        "CFG": [cell(3.5, 0.5, 20, 0, 0), cell(4.0, 0.5, 20, 0, 0), None],
        "REG (vjp)": [cell(3.5, 0.4, 18, 9, -0.1), cell(4.0, 0.45, 20, 10, -0.05), None],
    },
    "compared_with": "CFG",
    "confidence_of_test_images": 3.7,
}


def drawn(axes: Any) -> dict[str, list[tuple[float, float]]]:
    """colour -> the points of its lines, from left to right."""
    found: dict[str, list[tuple[float, float]]] = {}
    for container in axes.containers:
        line = container[0]
        found.setdefault(line.get_color(), []).extend(map(tuple, line.get_xydata().tolist()))
    return found


def bars(axes: Any) -> list[float]:
    """Lengths of the vertical error bars."""
    segments = [s for c in axes.containers for line in c[2] for s in line.get_segments()]
    return [float(s[1][1] - s[0][1]) for s in segments if s[0][0] == s[1][0]]


def test_the_panels_show_the_numbers() -> None:
    figure = draw_evaluation(REPORT)
    scale, front, apart, cost = figure.axes
    cfg, reg = "#D55E00", "#0072B2"
    assert drawn(scale) == {cfg: [(1, 0.6), (2, 0.3)], reg: [(1, 0.6), (3, 0.25)]}
    assert drawn(front) == {cfg: [(3.0, 0.6), (4.0, 0.3)], reg: [(3.0, 0.6), (4.2, 0.25)]}
    assert bars(scale) == bars(front) == pytest.approx([0.04] * 4)
    # labels: a scale each, the shared unguided point's once
    assert [text.get_text() for text in front.texts] == ["1", "2", "3"]
    ((x, _),) = {tuple(line.get_xdata()) for line in front.lines if line.get_linestyle() == ":"}
    assert x == 3.7
    # per cent of CFG's 0.5; CFG itself is the line at 0
    assert drawn(apart) == {reg: [(3.5, pytest.approx(-20)), (4.0, pytest.approx(-10))]}
    assert bars(apart) == pytest.approx([4, 4])
    assert drawn(cost) == {cfg: [(20, 0.5)], reg: [(30, 0.45)]}  # ten of them backward passes
    equal = {**REPORT["fronts"], "same": REPORT["fronts"]["CFG"]}
    crowded = drawn(
        draw_evaluation(
            {**REPORT, "points": [*REPORT["points"], point("same", 1, 3, 0.6)], "fronts": equal}
        ).axes[3]
    )
    assert crowded[cfg] == [(pytest.approx(19.775), 0.5)]
    assert crowded["#009E73"] == [(pytest.approx(20.225), 0.5)]
    assert "4" in cost.get_title() and bars(cost) == pytest.approx([0.06, 0.06])


def test_every_method_has_a_look_of_its_own() -> None:
    names = [f"m{k}" for k in range(14)]
    points = [point(name, s, 3 + s, 0.5 + 0.01 * k) for k, name in enumerate(names) for s in (1, 2)]
    figure = draw_evaluation({**REPORT, "points": points, "fronts": {}, "levels": []})
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names
    looks = {(c[0].get_color(), c[0].get_marker()) for c in figure.axes[0].containers}
    assert len(looks) == 14


def test_what_cannot_be_compared_is_said() -> None:
    for fronts in ({}, {"REG": []}, {"REG": [None, None, None]}):
        figure = draw_evaluation({**REPORT, "fronts": fronts, "compared_with": None})
        assert "need `cfg`" in figure.axes[2].texts[0].get_text()
        assert "two scales" in figure.axes[3].texts[0].get_text()


def test_the_file_shows_both_methods(tmp_path: Path) -> None:
    save_evaluation(REPORT, tmp_path / "e.png")
    page = np.array(Image.open(tmp_path / "e.png").convert("RGB")).reshape(-1, 3)
    for colour in ((0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2)):
        assert (np.abs(page.astype(int) - colour).max(1) < 8).sum() > 200
