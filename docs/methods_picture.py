"""Draws the pictures of docs/methods.md, docs/images/methods_KIND.png, and prints their numbers.

python docs/methods_picture.py             # about two minutes on one core

Class 0 of the mixture of docs/guidance_picture.py: samples of every method by 40 Euler steps from
the same noise, plain guidance (no rectifier) but for the panel "REG", over the target at scale 3.
What needs an image or a layer is drawn on the packaged digits instead.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import guidance_picture as first
import matplotlib.pyplot as plt
import torch
from torch import Tensor

import reg_engine as r
from reg_engine.pictures.plane import draw_cloud, draw_target, frame

COUNT, SCALE, STEPS = 2048, 3.0, 40
CHOICES: dict[str, Any] = {"solver": "euler", "steps": STEPS, "progress": False}
ON_DIGITS = {
    "no guidance": r.Guidance(1.0, rectify=None),
    "CFG": r.Guidance(4.0, rectify=None),
    "FDG((4, 2))": r.Guidance(direction=r.FDG((4.0, 2.0)), rectify=None),
    'PAG("attend")': r.Guidance(4.0, r.PAG("attend"), rectify=None),
    'SEG("attend")': r.Guidance(4.0, r.SEG("attend"), rectify=None),
    'SLG("attend")': r.Guidance(4.0, r.SLG("attend"), rectify=None),
}


def classifier(x: Tensor, t: Tensor) -> Tensor:
    """Exact log p(c given x_t) of both classes, (B, 2)."""
    schedule, level = first.MODEL.schedule, float(t[0])
    alpha, sigma = (float(value) for value in schedule(level))
    both = [first.MIXTURE.log_prob(x, alpha, sigma, y=y) for y in (0, 1)]
    return torch.stack(both, 1).log_softmax(1)


def worse() -> Any:
    """A model of the same mixture whose clusters are wider, 0.3 for 0.18: a worse one."""
    known = first.MIXTURE
    wide = r.oracles.GaussianMixture(known.means, 0.3, labels=torch.arange(8) // 4)
    return wide.denoiser(schedule=first.MODEL.schedule)


def methods() -> dict[str, dict[str, r.Guidance]]:
    """Kind -> title -> guidance, at scale 3 where the method has a scale of ours."""
    cond = torch.zeros(256, dtype=torch.long)
    damping = r.calibrate_damping(first.MODEL, cond, progress=False)
    engine = r.Engine(first.MODEL, scale=1.0, **CHOICES)
    weights = {
        "Constant(3): CFG": r.Constant(SCALE),
        "Interval(3, 0.2, 2)": r.Interval(SCALE, 0.2, 2.0),
        "Linear(5, 1)": r.Linear(5.0, 1.0),
        "Cosine(3)": r.Cosine(SCALE),
        "CFGPlusPlus(0.3)": r.CFGPlusPlus(0.3),
        "Damped (rayleigh)": damping(SCALE),
        "Mambo(3)": r.Mambo(SCALE),
        "PowerLaw(2)": r.PowerLaw(2.0),
        "BetaCurve(3)": r.BetaCurve(SCALE),
        "Gate(3)": r.Gate(SCALE),
        "Feedback.timed": r.Feedback.timed(engine.table),
    }
    plain = {name: r.Guidance(weight, rectify=None) for name, weight in weights.items()}
    plain["REG: Constant(3), vjp"] = r.Guidance(SCALE, rectify="vjp")
    references = {
        "Unconditional()": r.Unconditional(),
        "BadModel(wider)": r.BadModel(worse()),
        "Classifier(exact)": r.Classifier(classifier),
        "ICG()": r.ICG(),
    }
    directions = {
        "Delta()": r.Delta(),
        "APG()": r.APG(),
        "APGMix((3, 3))": r.APGMix((SCALE, SCALE)),
        "CFGZeroStar()": r.CFGZeroStar(),
        "TCFG()": r.TCFG(),
    }
    adjustments = {
        "none": (),
        "Rescale(0.7)": r.Rescale(0.7),
        "ZeroInit(1)": r.ZeroInit(1),
        "Clip(1.2)": r.Clip(1.2),
        "TAG(1.15)": r.TAG(1.15),
        "GuidedChannels(1)": r.GuidedChannels(1),
    }
    scale = {"APGMix((3, 3))": 2.0}  # it brings its own
    return {
        "weights": plain,
        "references": {n: r.Guidance(SCALE, x, rectify=None) for n, x in references.items()},
        "directions": {
            n: r.Guidance(scale.get(n, SCALE), rectify=None, direction=x)
            for n, x in directions.items()
        },
        "adjustments": {
            n: r.Guidance(SCALE, rectify=None, adjust=x) for n, x in adjustments.items()
        },
    }


def cloud(guidance: r.Guidance, count: int) -> tuple[Tensor, float]:
    """Samples (count, 2), and their energy distance to the target."""
    engine = r.Engine(first.MODEL, guidance=guidance, dtype=torch.float64, **CHOICES)
    points = engine.sample(
        torch.zeros(count, dtype=torch.long), noise=first.sobol_noise(count)
    ).samples
    draw = first.MIXTURE.target_sampler(SCALE - 1)
    target = draw(2 * count, torch.Generator().manual_seed(0))
    return points, r.oracles.energy_distance(points, target)


def clouds(path: Path, chosen: dict[str, r.Guidance], count: int) -> dict[str, float]:
    """One panel a method; their energy distances."""
    columns = 4 if len(chosen) > 6 else len(chosen)
    rows = -(-len(chosen) // columns)
    size = (2.3 * columns, 2.45 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    figure.get_layout_engine().set(h_pad=0.09, w_pad=0.05)
    found = {}
    for axis, (name, guidance) in zip(axes.flat, chosen.items(), strict=True):
        points, found[name] = cloud(guidance, count)
        draw_target(axis, first.MIXTURE, SCALE - 1)
        colour = first.METHODS["REG" if name.startswith("REG") else "CFG"]
        draw_cloud(axis, points[:600], colour)
        frame(axis, (-2.2, 1.5), (-1.5, 2.0))
        axis.set_title(name, fontsize=9)
        inside = (points - torch.tensor([-0.35, 0.25])).abs().amax(1) < 1.8
        out = "" if inside.double().mean() > 0.5 else ", most outside"
        axis.set_xlabel(f"distance {found[name]:.4f}{out}", fontsize=9)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return found


def digits(path: Path, methods: dict[str, r.Guidance] = ON_DIGITS) -> dict[str, float]:
    """One row a method; the share of digits that the packaged classifier reads as asked."""
    from reg_engine.metrics import label_agreement

    model, labels = r.load_model("mnist"), torch.arange(10)
    judge, found = r.load_classifier("mnist"), {}
    figure, axes = plt.subplots(len(methods), 1, figsize=(7, 0.75 * len(methods)))
    for axis, (name, guidance) in zip(axes.flat, methods.items(), strict=True):
        engine = r.Engine(model, guidance=guidance, steps=18, progress=False)
        many = engine.sample(labels.repeat(10), seeds=range(100))
        found[name] = label_agreement(judge, many.samples, labels.repeat(10)).share
        axis.imshow(many.images[:10, :, :, 0].transpose(0, 1).flatten(1), cmap="gray_r")
        axis.set(xticks=[], yticks=[])
        axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return found


def main(folder: Path, count: int = COUNT) -> dict[str, dict[str, float]]:
    """All pictures into a folder; their numbers."""
    found = {}
    for kind, chosen in methods().items():
        found[kind] = clouds(folder / f"methods_{kind}.png", chosen, count)
        for name, value in found[kind].items():
            print(f"{kind:12} {name:24} {value:8.4f}", flush=True)
    found["digits"] = digits(folder / "methods_digits.png")
    for name, value in found["digits"].items():
        print(f"{'digits':12} {name:24} {value:8.2f}")
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images"))
