"""The packaged models: CFG and REG from the same seeds, what the judge reads, what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..calibration.damping import Damping, calibrate_damping
from ..engine import Engine
from ..errors import choice
from ..loop.stats import Output
from ..metrics import label_agreement
from ..models import PACKAGED, NoisyClassifier, load_classifier, load_model
from ..networks.denoisers import Denoiser
from ..pictures.images import grid, to_uint8
from ..pictures.plots import OKABE_ITO
from ..values import store
from .methods import METHODS, as_scale, as_within, colour_of, guidance_of
from .view import Picture, View, Wanted, always, png, stopping

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DigitChoices", "compare", "curve", "run", "sheet"]

GAP = 2  # pixels between images: a frame is drawn there
FRAME = torch.tensor([0xE6, 0x9F, 0x00], dtype=torch.uint8)  # Okabe and Ito's orange


@dataclass(frozen=True)
class DigitChoices:
    """What a visitor chose.

    Args:
        model: a name in PACKAGED.
        methods: two names of METHODS.
        scale: guidance scale in [1, 10].
        steps: Heun steps in [2, 32].
        each: images of each of the ten labels, in [1, 5].
        seed: of the first image, in [0, 9999]; both methods have the same.

    Raises:
        InputError: a value out of range, an unknown name.
    """

    model: str = "mnist"
    methods: tuple[str, str] = ("CFG", "REG (auto)")
    scale: float = 4.0
    steps: int = 8
    each: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        choice("model", self.model, PACKAGED)
        for name in self.methods:
            choice("method", name, METHODS)
        store(
            self,
            scale=as_scale(self.scale),
            steps=as_within("steps", self.steps, 2, 32),
            each=as_within("each", self.each, 1, 5),
            seed=as_within("seed", self.seed, 0, 9999),
        )

    @property
    def labels(self) -> Tensor:
        """Row by row: every row has each label once."""
        return torch.arange(10).repeat(self.each)


@lru_cache(len(PACKAGED))
def model_of(name: str) -> tuple[Denoiser, NoisyClassifier]:
    """A packaged model and its judge, read once."""
    return load_model(name), load_classifier(name)


@lru_cache(len(PACKAGED))
def damping_of(name: str) -> Damping:
    """A packaged model's damping, measured once: a second or two."""
    labels = torch.arange(10)
    return calibrate_damping(model_of(name)[0], labels, seeds=range(10), steps=6, progress=False)


def run(choices: DigitChoices, method: str, wanted: Wanted = always) -> Output:
    """One method's samples.

    Raises:
        Stale: `wanted` is no longer true.
    """
    guidance = guidance_of(method, choices.scale, lambda: damping_of(choices.model))
    engine = Engine(
        model_of(choices.model)[0],
        guidance=guidance,
        solver="heun",
        steps=choices.steps,
        progress=False,
    )
    seeds = range(choices.seed, choices.seed + len(choices.labels))
    return engine.sample(choices.labels, seeds=seeds, callback=stopping(wanted))


def compare(choices: DigitChoices, wanted: Wanted = always) -> View:
    """Both methods' images, the judge's word on them, and their cost.

    Raises:
        Stale: `wanted` is no longer true.
    """
    judge, pictures, rows = model_of(choices.model)[1], [], []
    for method in choices.methods:
        out = run(choices, method, wanted)
        right = agrees(judge, out.samples, choices.labels)
        found = label_agreement(judge, out.samples, choices.labels)
        alt = (
            f"{method} at scale {choices.scale:g}: {len(right)} images, a column a label; the "
            f"judge reads {int(right.sum())} as asked."
        )
        pictures.append(Picture(png(figure, method, choices, out, right), alt))
        rows.append(
            (
                method,
                f"{found.share:.0%} ({found.low:.0%} to {found.high:.0%})",
                f"{out.stats.nfe:.1f}",
                f"{out.stats.backward:g}",
                f"{out.stats.seconds:.2f}",
            )
        )
    head = ("method", "read as asked (95 %)", "evaluations a sample", "backward passes", "seconds")
    note = (
        "The judge is the packaged noise-aware classifier at noise level 0. What it reads as "
        "another label has an orange frame. A few images say little: the range is wide."
    )
    return View(tuple(pictures), head, tuple(rows), (note,))


def agrees(judge: NoisyClassifier, samples: Tensor, labels: Tensor) -> Tensor:
    """Which samples the judge reads as asked, (N,) bool."""
    with torch.no_grad():
        logits = judge(samples.clamp(-1, 1), torch.zeros(len(samples)))
    return logits.argmax(1) == labels


def sheet(samples: Tensor, right: Tensor, columns: int = 10) -> Tensor:
    """Images (N, 1, H, W) as one uint8 picture (H', W', 3), what the judge reads otherwise framed.

    Ink is dark on white paper.
    """
    images = 255 - to_uint8(samples)
    page = grid(images, columns, GAP, shade=255).expand(-1, -1, 3).clone()
    height, width = images.shape[1:3]
    for index in (~right).nonzero().flatten().tolist():
        top, left = index // columns * (height + GAP), index % columns * (width + GAP)
        box = page[top : top + height + 2 * GAP, left : left + width + 2 * GAP]
        inside = box[GAP:-GAP, GAP:-GAP].clone()
        box[:] = FRAME
        box[GAP:-GAP, GAP:-GAP] = inside
    return page


def figure(method: str, choices: DigitChoices, out: Output, right: Tensor) -> Figure:
    """The sheet under its title."""
    from matplotlib.figure import Figure

    page = sheet(out.samples, right)
    height = 5.4 * page.shape[0] / page.shape[1]
    made = Figure(figsize=(5.4, height + 0.5))
    axes = made.add_axes((0, 0, 1, height / (height + 0.5)))
    axes.imshow(page.numpy(), interpolation="nearest")
    axes.set_axis_off()
    title = f"{method}, scale {choices.scale:g}: {int(right.sum())} of {len(right)} read as asked"
    axes.set_title(title, color=colour_of(method), fontsize=12)
    return made


def curve(model: str = "mnist", scale: float = 4.0) -> View:
    """The damping F of a packaged model over the noise level, and w F at a scale.

    Raises:
        InputError: an unknown model, a scale out of range.
    """
    damping = damping_of(choice("model", model, PACKAGED))
    weight = damping(as_scale(scale))
    hi = weight.span(0.15)[1]
    alt = (
        f"Damping F of {model} over the noise level: largest at low noise, below 0.15 above "
        f"{hi:.2g}."
    )
    note = (
        f"F is the share of guidance that REG keeps, on average, at a noise level "
        f"(calibrate_damping, {damping.report['samples']} samples). It falls below 0.15 at "
        f"{hi:.2g}: above, guidance may be left out for little loss. At scale {weight.scale:g} the "
        f"weight is {weight.scale - 1:g} F."
    )
    return View((Picture(png(_curve, weight, hi), alt),), notes=(note,))


def _curve(weight: Any, hi: float) -> Figure:
    from matplotlib.figure import Figure

    made = Figure(figsize=(5.4, 3), layout="constrained")
    axes = made.subplots()
    axes.plot(weight.levels, weight.factors, "o-", color=OKABE_ITO["purple"], ms=4)
    axes.axhline(0.15, color="0.5", lw=0.8, ls=":")
    axes.axvline(hi, color="0.5", lw=0.8, ls=":")
    axes.set(xscale="log", ylim=(0, None), xlabel="noise level", ylabel="F, the share that is kept")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("damping curve", fontsize=11)
    return made
