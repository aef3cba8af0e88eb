"""Draws docs/images/guidance.png, the first picture of the README, and prints its numbers.

python docs/guidance_picture.py            # about a minute on one core

Class 0 of a mixture of two classes, whose target at every guidance scale is known and can be drawn
from: 4,096 samples of each method by 18 Heun steps, scored against the target by energy distance.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import torch
from torch import Tensor

from reg_engine import Engine, oracles
from reg_engine.explorer.mixture import MIXTURE, MODEL, sobol_noise
from reg_engine.pictures.plane import METHOD_COLOURS, draw_cloud, draw_target, frame

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

COUNT, DRAWN, SCALES, SHOWN, SETS = 4096, 1200, (1.5, 2.0, 3.0, 4.0, 5.0), 3.0, 4
METHODS = METHOD_COLOURS
LAYOUT = [["no guidance", "CFG", "REG"], ["target", "distance", "distance"]]


def sampled(method: str, scale: float, count: int) -> Tensor:
    """Samples (count, 2) of class 0; every method starts from one scrambled Sobol sequence, so
    that what differs between two methods is theirs."""
    engine = Engine(
        MODEL,
        scale=1.0 if method == "no guidance" else scale,
        rectify="vjp" if method == "REG" else None,
        solver="heun",
        steps=18,
        dtype=torch.float64,
        progress=False,
    )
    labels = torch.zeros(count, dtype=torch.long)
    return engine.sample(labels, noise=sobol_noise(count)).samples


def distances(count: int) -> dict[str, list[float]]:
    """Energy distance to the target at every scale: the methods, and as `floor` what another set
    of draws from the target itself scores."""
    found: dict[str, list[float]] = {name: [] for name in (*METHODS, "floor")}
    for scale in SCALES:
        draw = MIXTURE.target_sampler(scale - 1)
        sets = [draw(count, torch.Generator().manual_seed(seed)) for seed in range(SETS + 1)]
        samples = {name: sampled(name, scale, count) for name in METHODS} | {"floor": sets.pop()}
        for name, points in samples.items():
            scores = [oracles.energy_distance(points, each) for each in sets]
            found[name].append(sum(scores) / SETS)
    return found


def picture(path: Path, count: int = COUNT) -> dict[str, list[float]]:
    """Draw it; the numbers of its last panel."""
    found = distances(count)
    figure, axes = plt.subplot_mosaic(LAYOUT, figsize=(9, 5.4), layout="constrained")
    target = MIXTURE.target_sampler(SHOWN - 1)(count, torch.Generator().manual_seed(SETS))
    clouds = {name: sampled(name, SHOWN, count) for name in METHODS} | {"target": target}
    for name, points in clouds.items():
        axis, colour = axes[name], METHODS.get(name, "black")
        draw_target(axis, MIXTURE, SHOWN - 1)
        draw_cloud(axis, points[:DRAWN], colour)
        frame(axis, (-1.7, 1.5), (-1.3, 1.5))
        axis.set_title({"no guidance": name}.get(name, f"{name}, scale {SHOWN:g}"), color=colour)
        score = found.get(name, found["floor"])[SCALES.index(SHOWN)]
        axis.set_xlabel(f"distance to the target {score:.4f}")
    axis = axes["distance"]
    for name, values in found.items():
        colour, style = METHODS.get(name, "black"), "--" if name == "floor" else "o-"
        axis.plot(SCALES, values, style, color=colour, ms=4)
        word = "target itself" if name == "floor" else name
        axis.annotate(word, (SCALES[-1] + 0.1, values[-1]), color=colour, va="center")
    axis.set(yscale="log", xlim=(1.3, 6.3), xticks=SCALES, xlabel="guidance scale")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_title("energy distance to the target")
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return found


def main() -> None:
    """The figure, and its numbers."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/guidance.png")
    found = picture(path)
    print("scale        " + "".join(f"{scale:10g}" for scale in SCALES))
    for name, values in found.items():
        print(f"{name:13}" + "".join(f"{value:10.1e}" for value in values))
    print(path)


if __name__ == "__main__":
    main()
