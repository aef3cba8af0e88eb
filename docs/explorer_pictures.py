"""Draws docs/images/ways.webp, scales.png and frontier.png, of docs/guidance.md, and prints their
numbers.

python docs/explorer_pictures.py            # about a minute on one core

The ways of samples under CFG and REG on the mixture of `reg-engine explore`; digits over scale and
method; and what `reg-engine experiment frontier` found in the plane, from its committed numbers.
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image

from reg_engine import Engine
from reg_engine.explorer import digits
from reg_engine.explorer.methods import colour_of, guidance_of
from reg_engine.explorer.mixture import LIMITS, MIXTURE, MODEL, damping, sobol_noise
from reg_engine.pictures.plane import draw_cloud, draw_target, frame
from reg_engine.pictures.plots import OKABE_ITO

SCALE, STEPS, COUNT = 3.0, 40, 400
METHODS = ("CFG", "REG (vjp)")
SCALES, ON_DIGITS = (2.0, 4.0, 6.0, 8.0), ("CFG", "damping", "REG (auto)")
FRONTIER = Path(__file__).parent / "experiments/frontier/numbers.json"
# Name -> colour and marker: families as everywhere here, the exact guidance a star.
SHOWN = {
    "unguided": ("grey", "x"),
    "cfg": ("vermillion", "o"),
    "interval": ("green", "^"),
    "rayleigh": ("purple", "D"),
    "vjp": ("blue", "s"),
    "alternate": ("blue", ">"),
    "blend": ("sky", "P"),
    "golden": ("black", "*"),
}


def ways(path: Path, steps: int = STEPS, count: int = COUNT) -> int:
    """An animation of samples on their way, divided by the root of 1 + (noise level)^2 so that
    they stay in the picture; its frames."""
    labels, noise = torch.zeros(count, dtype=torch.long), sobol_noise(count)
    runs = [
        list(
            Engine(
                MODEL,
                guidance=guidance_of(method, SCALE, damping),
                solver="euler",
                steps=steps,
                dtype=torch.float64,
                progress=False,
            ).steps(labels, noise=noise)
        )
        for method in METHODS
    ]
    frames = []
    for both in zip(*runs, strict=True):
        made = Figure(figsize=(7, 3.6), dpi=90)
        place = {"left": 0.01, "right": 0.99, "top": 0.9, "bottom": 0.08, "wspace": 0.02}
        for axes, method, step in zip(
            made.subplots(1, 2, gridspec_kw=place), METHODS, both, strict=True
        ):
            draw_target(axes, MIXTURE, SCALE - 1, 101)
            level = step.s  # of EDM the time is the noise level
            points = step.x_next / math.sqrt(1 + level**2)
            draw_cloud(axes, points, colour_of(method))
            frame(axes, *LIMITS)
            axes.set_title(f"{method}, scale {SCALE:g}", color=colour_of(method))
            axes.set_xlabel(f"noise level {level:.2f}")
        file = io.BytesIO()
        made.savefig(file, format="png")
        frames.append(Image.open(file).convert("RGB"))
    frames = frames[len(frames) // 5 :: 2] + [frames[-1]]  # what is all noise looks alike
    lengths = [110] * (len(frames) - 1) + [2500]
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=lengths, loop=0, quality=60
    )
    return len(frames)


def scales(path: Path, over: Sequence[float] = SCALES, steps: int = 8) -> dict[str, list[float]]:
    """A row a scale, a column a method, from the same seeds; the shares that are read as asked."""
    judge, found = digits.model_of("mnist")[1], {}
    made = Figure(figsize=(11, 0.9 * len(over) + 0.5), dpi=100)
    place = {"left": 0.05, "right": 0.995, "top": 0.9, "bottom": 0.01, "wspace": 0.03}
    panels = made.subplots(len(over), len(ON_DIGITS), gridspec_kw=place, squeeze=False)
    for column, method in zip(panels.T, ON_DIGITS, strict=True):
        found[method] = []
        for axes, scale in zip(column, over, strict=True):
            choices = digits.DigitChoices(scale=scale, steps=steps, each=2)
            out = digits.run(choices, method)
            right = digits.agrees(judge, out.samples, choices.labels)
            found[method].append(float(right.double().mean()))
            axes.imshow(digits.sheet(out.samples, right).numpy())
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        column[0].set_title(method, color=colour_of(method))
    for axes, scale in zip(panels[:, 0], over, strict=True):
        axes.set_ylabel(f"scale {scale:g}")
    made.savefig(path, metadata={"Software": None})
    return found


def frontier(path: Path, w: float = 2.0) -> dict[str, tuple[float, float]]:
    """Distance to the target over evaluations in the plane; name -> both."""
    numbers = json.loads(FRONTIER.read_text("utf-8"))["numbers"]
    plane, column = numbers["mixtures"]["2-D"], numbers["setting"]["weights"].index(w)
    made, found = Figure(figsize=(7, 4.2), dpi=100, layout="constrained"), {}
    axes = made.subplots()
    for name, (colour, marker) in SHOWN.items():
        each = plane["methods"][name]
        cost, distance = float(each["cost"]), float(each["distance"][column])
        found[name] = (cost, distance)
        bar = float(each["deviation"][column])
        look = {"color": OKABE_ITO[colour], "fmt": marker, "ms": 8, "capsize": 2}
        axes.errorbar(cost, distance, yerr=bar, **look)
        text = numbers["titles"][name].replace("`", "")
        axes.annotate(text, (cost, distance), xytext=(8, 4), textcoords="offset points", fontsize=9)
    axes.axhline(float(plane["floor"][column]), color="0.5", ls=":", lw=1)
    axes.set(yscale="log", xlim=(0, 1.35 * max(cost for cost, _ in found.values())))
    axes.set(xlabel="evaluations and backward passes a sample")
    axes.set(ylabel="energy distance to the target")
    axes.set_title(f"In the plane, scale {1 + w:g}; dotted: the target itself", fontsize=11)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    made.savefig(path, metadata={"Software": None})
    return found


def main(folder: Path) -> None:
    """All three into a folder, and their numbers."""
    print("frames", ways(folder / "ways.webp"), "bytes", (folder / "ways.webp").stat().st_size)
    print("scale       " + "".join(f"{scale:8g}" for scale in SCALES))
    for method, shares in scales(folder / "scales.png").items():
        print(f"{method:12}" + "".join(f"{share:8.0%}" for share in shares))
    for name, (cost, distance) in frontier(folder / "frontier.png").items():
        print(f"{name:12} {cost:6.1f} evaluations, distance {distance:.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images"))
