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

from reg_engine import Engine, oracles, schedules

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

COUNT, DRAWN, SCALES, SHOWN, SETS = 4096, 1200, (1.5, 2.0, 3.0, 4.0, 5.0), 3.0, 4
MIXTURE = oracles.two_class_2d()
MODEL = MIXTURE.denoiser(schedule=schedules.EDM(sigma_min=0.01, sigma_max=20.0))
METHODS = {"no guidance": "0.45", "CFG": "#D55E00", "REG": "#0072B2"}
LAYOUT = [["no guidance", "CFG", "REG"], ["target", "distance", "distance"]]


def sampled(method: str, scale: float, count: int) -> Tensor:
    """Samples (count, 2) of class 0; every method starts from one scrambled Sobol sequence, so
    that what differs between two methods is theirs."""
    sobol = torch.quasirandom.SobolEngine(2, scramble=True, seed=0)
    uniform = sobol.draw(count, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
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
    return engine.sample(labels, noise=torch.special.ndtri(uniform)).samples


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
        axis.contourf(*_density(None, 0.0), levels=[0.03, 9], colors=["0.91"])
        axis.contour(*_density(0, SHOWN - 1), levels=[0.05, 0.5], colors="black", linewidths=0.8)
        axis.scatter(*points[:DRAWN].T, s=3, color=colour, alpha=0.6, linewidths=0)
        axis.set(xlim=(-1.7, 1.5), ylim=(-1.3, 1.5), xticks=[], yticks=[], aspect="equal")
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


def _density(y: int | None, w: float) -> tuple[Tensor, Tensor, Tensor]:
    """A grid and p(x given y)^(1+w) / p(x)^w on it, its largest value 1; y None: all classes."""
    line = torch.linspace(-2, 2, 241, dtype=torch.float64)
    x = torch.cartesian_prod(line, line)
    log = MIXTURE.log_prob(x) if y is None else (1 + w) * MIXTURE.log_prob(x, y=y)
    log = log if y is None else log - w * MIXTURE.log_prob(x)
    density = (log - log.max()).exp().reshape(len(line), len(line)).T
    return line, line, density


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
