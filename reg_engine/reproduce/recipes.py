"""What each experiment samples, from which files, by which methods: data.

Where the paper does not say (it gives no grid of scales, no tables of its weights' ends), the
choice is ours and the field says so. Times are measured: one evaluation of one sample in bfloat16
on an NVIDIA H200, CFG replayed from graphs, batches of 8 (4 of SD), the rows of
bench/results/nvidia_h200.csv; `by_operations` where a network was not measured and its operations
over those of a measured one stand in (docs/models.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import choice
from ..guidance import Constant, Cosine, Interval, Linear, Weight
from ..models.presets import PRESETS, Checkpoint

__all__ = ["METHODS", "RECIPES", "Files", "Recipe", "recipe"]


@dataclass(frozen=True)
class Files:
    """The networks of a method, by the names of their files without ending.

    Args:
        net: the guided network.
        reference: the network that is its reference; None: itself, asked without a label.
        labels: whether the reference is told the labels.
    """

    net: str
    reference: str | None = None
    labels: bool = True


@dataclass(frozen=True)
class Recipe:
    """One row of the paper's Tables 2 and 3, and its front in Figs. 3 and 4.

    Args:
        name, title: in commands, and in tables.
        where: of the paper.
        cfg: networks of vanilla, linear, cosine and interval CFG; None: those of a pipeline's
            folder.
        autoguidance: networks of autoguidance; None: nobody published them.
        solver, steps, solver_options: the sampler. Of a pipeline the scheduler's own is taken.
        scales: a grid of our choice; 1 is no guidance.
        convention: of Linear and Cosine, guidance/weights.py.
        interval: noise levels of interval CFG; None: the paper has none for this model.
        channels: how many are guided; None = all.
        latents: whether a VAE makes the pictures.
        seconds: of one evaluation of one sample, see above.
        by_operations: whether `seconds` is not measured.
        count: samples a point, the paper's.
        note: where the choice is ours.
    """

    name: str
    title: str
    where: str
    cfg: Files | None
    seconds: float
    scales: tuple[float, ...]
    solver: str | None = None
    steps: int = 50
    solver_options: Mapping[str, Any] = field(default_factory=dict)
    autoguidance: Files | None = None
    convention: str = "diffusers"
    interval: tuple[float, float] | None = None
    channels: int | None = None
    latents: bool = False
    by_operations: bool = False
    count: int = 50_000
    note: str = ""

    @property
    def prompts(self) -> bool:
        """Whether it makes pictures of prompts."""
        return self.cfg is None

    @property
    def methods(self) -> tuple[str, ...]:
        """Those of METHODS that it has."""
        without = {"interval"} if self.interval is None else set()
        without |= set() if self.autoguidance else {"autoguidance"}
        return tuple(name for name in METHODS if name not in without)

    def files(self, method: str) -> Files | None:
        """The networks of a method; None: those of the pipeline."""
        return self.autoguidance if method == "autoguidance" else self.cfg

    def weight(self, method: str, scale: float) -> Weight:
        """The weight of a method at a scale."""
        return METHODS[choice("methods", method, self.methods)](self, scale)


def _interval(recipe: Recipe, scale: float) -> Weight:
    assert recipe.interval is not None  # or it is not among its methods
    return Interval(scale, *recipe.interval)


METHODS: dict[str, Callable[[Recipe, float], Weight]] = {
    "vanilla": lambda _, scale: Constant(scale),
    "linear": lambda recipe, scale: Linear(scale, 1.0, recipe.convention),
    "cosine": lambda recipe, scale: Cosine(scale, convention=recipe.convention),
    "interval": _interval,
    "autoguidance": lambda _, scale: Constant(scale),
}


def recipe(name: str) -> Recipe:
    """The recipe of a name, such as "edm2-s-512".

    Raises:
        InputError: an unknown name.
    """
    return RECIPES[choice("recipe", name, RECIPES)]


def _stem(net: Checkpoint) -> str:
    return net.file.removesuffix(".pkl")


def _of_preset(name: str, labels: bool = True) -> Files:
    found = PRESETS[name]
    assert found.guide is not None
    return Files(_stem(found.net), _stem(found.guide), labels)


TABLE = "Table 2 and Fig. 3"
EDM2: dict[str, Any] = {
    "where": TABLE,
    "scales": (1.0, 1.2, 1.4, 1.7, 2.0, 2.5, 3.0),
    "solver": "heun",
    "steps": 32,
    "convention": "edm",
    "interval": (0.28, 2.90),  # of the authors' own command, zhengqigao/REG, EDMv2/README.md
}
PROMPTS: dict[str, Any] = {
    "where": "Table 3 and Fig. 4",
    "cfg": None,
    "scales": (1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0),
    "count": 5000,
    "note": "captions of COCO 2017's validation images, one a picture; the paper drew 5,000 at "
    "random",
}
RECIPES: dict[str, Recipe] = {
    each.name: each
    for each in (
        Recipe(
            "dit-xl-2-256",
            "DiT-XL/2, 256 x 256",
            TABLE,
            Files("DiT-XL-2-256x256"),
            seconds=0.1418 / (8 * 16),
            scales=(1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0),
            solver="ddpm",
            steps=250,
            solver_options={"variance": "learned"},
            convention="dit",
            interval=(0.745, 3.48),  # t from 205 to 502 of the authors' command
            channels=3,
            latents=True,
        ),
        Recipe(
            "edm2-s-64",
            "EDM2-S, 64 x 64",
            cfg=_of_preset("edm2-img64-s-autog-fid", labels=False),
            autoguidance=_of_preset("edm2-img64-s-autog-fid"),
            seconds=0.257296 / (8 * 30),
            note="no network without labels is published at 64: the guide of autoguidance is asked "
            "without one; the paper does not say what it took",
            **EDM2,
        ),
        Recipe(
            "edm2-s-512",
            "EDM2-S, 512 x 512",
            cfg=_of_preset("edm2-img512-s-guid-fid"),
            autoguidance=_of_preset("edm2-img512-s-autog-fid"),
            seconds=0.258329 / (8 * 30),
            latents=True,
            **EDM2,
        ),
        Recipe(
            "edm2-xxl-512",
            "EDM2-XXL, 512 x 512",
            cfg=_of_preset("edm2-img512-xxl-guid-fid"),
            autoguidance=_of_preset("edm2-img512-xxl-autog-fid"),
            seconds=0.258329 / (8 * 30) * 2.19 / 0.40,
            by_operations=True,
            latents=True,
            **EDM2,
        ),
        Recipe("sd-1.4", "Stable Diffusion 1.4", seconds=0.277274 / (4 * 18), **PROMPTS),
        Recipe(
            "sd-xl",
            "Stable Diffusion XL",
            seconds=0.277274 / (4 * 18) * 13.52 / 1.61,
            by_operations=True,
            **PROMPTS,
        ),
    )
}
