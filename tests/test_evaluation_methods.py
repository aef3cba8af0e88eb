"""Methods at a scale: the guidance they stand for, and file names that tell them apart."""

from __future__ import annotations

import pytest

from reg_engine import Constant, Gibbs, Guidance, InputError, Interval
from reg_engine.calibration.damping import Damping
from reg_engine.evaluation.methods import Method, MethodPoint

RAYLEIGH = Damping("rayleigh", (0.1, 1.0), ((0.9, 0.2),))
TILT = Damping("tilt", (0.1, 1.0), ((0.9, 0.2),), (2.0,), (0.1,))


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        (Method("CFG", (3.0,)), Guidance(Constant(3.0), rectify=None)),
        (Method("REG (fd)", (3.0,), "fd"), Guidance(Constant(3.0), rectify="fd")),
        (
            Method("REG (fd), interval", (3.0,), "fd", (0.1, 2.0)),
            Guidance(Interval(3.0, 0.1, 2.0), rectify="fd"),
        ),
        (
            Method("damping d", (3.0,), damping=RAYLEIGH, skip_below=0.3),
            Guidance(RAYLEIGH(3.0, skip_below=0.3), rectify=None),
        ),
    ],
)
def test_a_method_is_a_guidance_at_every_scale(method: Method, wanted: Guidance) -> None:
    assert method.guidance(3.0) == wanted
    assert method.guidance(1.0) == Guidance(Constant(1.0), rectify=None)  # nothing guides
    assert method.plain is (method.name == "CFG")


def test_a_scale_that_was_not_calibrated_is_refused() -> None:
    method = Method("damping d", (2.0, 3.0), damping=TILT)
    assert method.guidance(2.0).weight == TILT(2.0) and method.guidance(1.0).weight == Constant(1.0)
    with pytest.raises(InputError, match="scale: is 3, outside"):
        method.guidance(3.0)


def test_points_have_files_of_their_own_but_at_scale_one() -> None:
    methods = [
        Method("CFG", ()),
        Method("REG (fd)", (), "fd"),
        Method("REG (fd), plan p", (), "fd"),
        Method("interval 0.3-2.5", (), interval=(0.3, 2.5)),
        Method("damping d, skip 0.15", (), damping=RAYLEIGH, skip_below=0.15),
        Method("CFG, Gibbs 0.4, 2", (), refine=Gibbs(0.4, 2)),
    ]
    names = {MethodPoint(method, 2.0).file for method in methods}
    assert names == {
        "none-2.0",
        "fd-2.0",
        "REG-fd-plan-p-2.0",
        "interval-0.3-2.5-2.0",
        "damping-d-skip-0.15-2.0",
        "CFG-Gibbs-0.4-2-2.0",
    }
    assert {MethodPoint(method, 1.0).file for method in methods} == {"none-1.0"}
    assert MethodPoint(methods[1], 2.0).row == {"method": "REG (fd)", "scale": 2.0}
