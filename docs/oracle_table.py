"""Prints the table of docs/oracle.md: how far guided samples are from the distribution they aim at.

python docs/oracle_table.py            # about three minutes on one core
"""

from __future__ import annotations

import torch

import reg_engine
from reg_engine import oracles, schedules

COUNT = 4096
SCHEDULE = schedules.EDM(sigma_min=0.01, sigma_max=20.0)
MIXTURE = oracles.two_class_2d()
METHODS = (None, "paper", "vjp", "jvp", "fd", "fd_batched", "diagonal", "diagonal_batched")


def sobol_noise(count: int) -> torch.Tensor:
    """Unit normal noise (count, 2) from a scrambled Sobol sequence: scores repeat to 2 %."""
    uniform = torch.quasirandom.SobolEngine(2, scramble=True, seed=0).draw(count)
    return torch.special.ndtri(uniform.double().clamp(1e-9, 1 - 1e-9))


def samples(
    model: reg_engine.Denoiser, scale: float, rectify: str | None, count: int
) -> torch.Tensor:
    """Class 0 by 18 Heun steps."""
    return reg_engine.sample(
        model,
        torch.zeros(count, dtype=torch.long),
        scale=scale,
        rectify=rectify,
        steps=18,
        noise=sobol_noise(count),
        dtype=torch.float64,
        progress=False,
    ).samples


def main() -> None:
    """One row for each w, a column for each method."""
    print("| w | floor | unguided | " + " | ".join(m or "CFG" for m in METHODS) + " | golden |")
    print("|---" * (len(METHODS) + 4) + "|")
    for w in (0.5, 1.0, 2.0, 4.0):
        sampler = MIXTURE.target_sampler(w)
        targets = [sampler(COUNT, torch.Generator().manual_seed(seed)) for seed in range(4)]
        floor = sum(float(torch.pdist(t).mean()) for t in targets) / 4 * 2 / COUNT

        def score(found: torch.Tensor, targets: list[torch.Tensor] = targets) -> float:
            return sum(oracles.energy_distance(found, t) for t in targets) / len(targets)

        exact = MIXTURE.denoiser(schedule=SCHEDULE)
        row = [floor, score(samples(exact, 1.0, None, COUNT))]
        row += [score(samples(exact, w + 1, method, COUNT)) for method in METHODS]
        golden = MIXTURE.golden_denoiser(w, schedule=SCHEDULE, nodes=33)
        row.append(score(samples(golden, 1.0, None, 512)))
        print(f"| {w:g} | " + " | ".join(f"{value:.1e}" for value in row) + " |", flush=True)


if __name__ == "__main__":
    main()
