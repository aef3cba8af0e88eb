"""Panels of a mixture in the plane."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from reg_engine import oracles
from reg_engine.pictures.plane import density, draw_arrows, draw_cloud, draw_target, frame

MIXTURE = oracles.two_class_2d()


def test_the_density_is_that_of_the_target_and_stands_as_contour_takes_it() -> None:
    for y, w, sigma, reach in ((0, 0.0, 0.0, 2.0), (0, 2.0, 0.3, 1.5), (1, 1.0, 0.0, 2.0)):
        x, y_axis, found = density(MIXTURE, y, w, sigma, reach, points=41)
        assert (x[0], x[-1], found.max()) == (-reach, reach, 1.0)
        row, column = 7, 25
        point = torch.tensor([[x[column], y_axis[row]], [x[20], y_axis[30]]])
        log = (1 + w) * MIXTURE.log_prob(point, 1.0, sigma, y=y)
        log = log - w * MIXTURE.log_prob(point, 1.0, sigma)
        ratio = (log[0] - log[1]).exp()
        assert float(found[row, column] / found[30, 20]) == pytest.approx(float(ratio), rel=1e-9)


def test_all_classes_are_not_guided() -> None:
    plain, guided = density(MIXTURE, None)[2], density(MIXTURE, None, w=3.0)[2]
    assert torch.equal(plain, guided) and plain.shape == (241, 241)


def test_what_is_drawn() -> None:
    above, below = Figure().subplots(1, 2)
    points = torch.tensor([[0.0, 1.0], [0.5, -0.5]], dtype=torch.float64)
    draw_target(above, MIXTURE, 2.0, 51)
    draw_cloud(above, points, "#0072B2")
    *_, dots = above.collections
    assert torch.equal(torch.as_tensor(dots.get_offsets().data), points)
    assert to_hex(dots.get_facecolor()[0]) == "#0072b2"
    draw_arrows(below, MIXTURE, (points, 2 * points), "k", 0.5, 2.0, 51)
    *_, arrows = below.collections
    assert arrows.scale == 1 and arrows.angles == arrows.scale_units == "xy"
    assert torch.equal(torch.as_tensor(arrows.XY), points)
    assert torch.equal(torch.stack([torch.as_tensor(arrows.U), torch.as_tensor(arrows.V)], 1),
                       2 * points)  # fmt: skip
    frame(below, (-2, 2), (-1, 1))
    assert (below.get_xlim(), below.get_ylim(), below.get_aspect()) == ((-2, 2), (-1, 1), 1.0)
