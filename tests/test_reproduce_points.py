"""Points of a recipe: which, how they are named, and what they ask of the networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nets import CLASSES, SHAPE, TinyNet

from reg_engine import Denoiser, Engine, Guidance, schedules
from reg_engine.errors import InputError
from reg_engine.reproduce import RECIPES
from reg_engine.reproduce.points import RecipePoint, evaluations, points_of

EDM2, DIT, SD = (RECIPES[name] for name in ("edm2-s-512", "dit-xl-2-256", "sd-1.4"))


def test_a_recipe_has_every_method_with_and_without_reg() -> None:
    found = points_of(EDM2)
    assert len(found) == 7 * 5 * 2
    assert len({p.name for p in found}) == 2 + 6 * 5 * 2, "unguided: one for each main network"
    assert found[0].scale == 1.0 and found[-1].scale == 3.0
    stems = [p.files and p.files.net for p in found]
    changes = sum(a != b for a, b in zip(stems, stems[1:], strict=False))
    assert changes == 1, "a network is not loaded again at every scale"
    names = {p.name for p in points_of(SD, ["vanilla"], ["none"], [1.0, 2.5])}
    assert names == {"none", "vanilla-none-2.5"}


def model(recipe: str) -> Denoiser:
    net = TinyNet()
    if recipe == "edm2-s-512":
        return Denoiser(net, "edm", schedules.EDM(), SHAPE, CLASSES, num_classes=CLASSES)
    schedule = schedules.VPLinear(spacing="linspace")

    def both(x: Any, t: Any, cond: Any) -> Any:
        return torch.cat([net(x, t, cond), x.tanh()], 1)

    return Denoiser(
        both, "epsilon", schedule, SHAPE, CLASSES, num_classes=CLASSES, learned_variance=True
    )


@pytest.mark.parametrize("recipe", [EDM2, DIT], ids=lambda r: r.name)
@pytest.mark.parametrize("method", ["vanilla", "linear", "cosine", "interval"])
@pytest.mark.parametrize("rectify", ["none", "paper", "fd", "blend", "characteristic"])
def test_evaluations_are_those_that_an_engine_counts(
    recipe: Any, method: str, rectify: str
) -> None:
    (point,) = points_of(recipe, [method], [rectify], [2.0], steps=8)
    guidance = Guidance(recipe.weight(method, 2.0), rectify=None if rectify == "none" else rectify)
    engine = Engine(
        model(recipe.name),
        guidance=guidance,
        solver=recipe.solver,
        steps=8,
        solver_options=dict(recipe.solver_options),
        check=False,
        progress=False,
    )
    stats = engine.sample([0, 1]).stats
    assert evaluations(point) == stats.nfe + stats.backward


def test_of_a_pipeline_two_a_step() -> None:
    for scale, rectify, wanted in ((1.0, "paper", 50), (3.0, "none", 100), (3.0, "vjp", 150)):
        assert evaluations(RecipePoint(SD, "vanilla", rectify, scale, 50)) == wanted


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"methods": ["interval"]}, "methods"),
        ({"methods": []}, "methods"),
        ({"estimators": ["pper"]}, "rectify"),
        ({"scales": [-1.0]}, "scales"),
        ({"steps": 0}, "steps"),
    ],
)
def test_what_is_refused(given: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError) as caught:
        points_of(SD, **given)
    assert caught.value.argument == named
