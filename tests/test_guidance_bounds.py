"""The numbers that guidance takes: both ends of every range, and what is kept of them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from bound_cases import LEAST, MOST, above, below, holds
from nets import flow_point, pair

from reg_engine import InputError
from reg_engine.guidance.adjustments import TAG, Clip, Rescale, ZeroInit
from reg_engine.guidance.directions import APG, TCFG, APGMix, CFGZeroStar
from reg_engine.guidance.feedback import Feedback
from reg_engine.guidance.frequency import FDG
from reg_engine.guidance.independent import ICG
from reg_engine.guidance.perturbed import SEG
from reg_engine.guidance.sample_weights import BetaCurve, Gate, Mambo, PowerLaw
from reg_engine.guidance.weights import CFGPlusPlus, Constant, Cosine, Interval, Linear

SCALE = ((0.0, MOST), (-LEAST, math.inf))
SHARE = ((0.0, 1.0), (-LEAST, above(1.0)))
POSITIVE = ((LEAST, MOST), (0.0, math.inf))


@pytest.mark.parametrize(
    ("kind", "name", "bounds", "others"),
    [
        (Constant, "scale", SCALE, {}),
        (Interval, "scale", SCALE, {"lo": 0.5, "hi": 3.0}),
        (Interval, "lo", ((0.0, below(3.0)), (-LEAST, math.inf)), {"scale": 2.0, "hi": 3.0}),
        (Interval, "hi", ((above(0.5), math.inf), (0.5,)), {"scale": 2.0, "lo": 0.5}),
        (Linear, "start", SCALE, {}),
        (Linear, "end", SCALE, {"start": 2.0}),
        (Cosine, "scale", SCALE, {}),
        (Cosine, "power", POSITIVE, {"scale": 2.0}),
        (CFGPlusPlus, "strength", SHARE, {}),
        (Clip, "limit", POSITIVE, {}),
        (Clip, "keep_epsilon", ((True, False), (1, 0.0)), {}),
        (Rescale, "share", SHARE, {}),
        (ZeroInit, "evaluations", ((0, 7), (-1, 1.0)), {}),
        (APG, "momentum", ((above(-1.0), below(1.0)), (-1.0, 1.0)), {}),
        (APG, "radius", ((LEAST, math.inf), (0.0,)), {}),
        (APG, "parallel", ((0.0, MOST), (-LEAST, math.inf)), {}),
        (APGMix, "after", ((0, 7), (-1, 1.0)), {}),
        (FDG, "parallel", ((0.0, MOST), (-LEAST, math.inf)), {}),
        (TAG, "amplify", ((0.0, MOST), (-LEAST, math.inf)), {}),
        (Mambo, "scale", SCALE, {}),
        (Mambo, "alpha", SCALE, {}),
        (PowerLaw, "strength", SCALE, {}),
        (PowerLaw, "power", SCALE, {"strength": 1.0}),
        (BetaCurve, "scale", SCALE, {}),
        (BetaCurve, "a", ((1.0, MOST), (below(1.0), math.inf)), {"scale": 2.0}),
        (BetaCurve, "b", ((1.0, MOST), (below(1.0), math.inf)), {"scale": 2.0}),
        (BetaCurve, "gamma", SCALE, {"scale": 2.0}),
        (Gate, "scale", SCALE, {}),
        (Gate, "agreement", ((-1.0, 1.0), (below(-1.0), above(1.0))), {"scale": 2.0}),
        (Feedback, "temperature", SCALE, {"offset": -0.1}),
        (Feedback, "offset", ((-MOST, MOST), (math.inf, -math.inf)), {"temperature": 0.1}),
        (Feedback, "mix", ((LEAST, below(1.0)), (0.0, 1.0)), {"temperature": 0.1, "offset": -0.1}),
        (
            Feedback,
            "largest",
            ((above(1.0), MOST), (1.0, math.inf)),
            {"temperature": 0.1, "offset": -0.1},
        ),
        (SEG, "sigma", ((LEAST, math.inf), (0.0,)), {"layers": 0}),
        (ICG, "redraw", ((True, False), (1, 0.0)), {}),
    ],
)
def test_ranges_end_where_they_say(
    kind: Any, name: str, bounds: tuple[tuple[Any, ...], ...], others: dict[str, Any]
) -> None:
    holds(kind, name, *bounds, **others)


@pytest.mark.parametrize(
    "method", [APG(), CFGZeroStar(), TCFG(), Rescale(), TAG(1.3)], ids=lambda m: type(m).__name__
)
def test_a_method_reduces_on_the_backend_that_was_chosen(method: Any) -> None:
    p = flow_point()
    pairs = pair(p)
    assert method(replace(p, backend="reference"), *pairs).isfinite().all()
    with pytest.raises(InputError, match="^backend: .*elsewhere"):
        method(replace(p, backend="elsewhere"), *pairs)


@pytest.mark.parametrize("weight", [Mambo(), PowerLaw(1.0), Gate(2.0)], ids=repr)
def test_a_weight_reduces_on_the_backend_that_was_chosen(weight: Any) -> None:
    p = flow_point()
    cond, ref = pair(p)
    assert weight.per_sample(replace(p, backend="reference"), cond, cond - ref).isfinite().all()
    with pytest.raises(InputError, match="^backend: .*elsewhere"):
        weight.per_sample(replace(p, backend="elsewhere"), cond, cond - ref)
