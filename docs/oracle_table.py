"""Prints the table of docs/oracle.md: how far guided samples are from the distribution they aim at.

python docs/oracle_table.py            # about two minutes on one core
python docs/oracle_table.py damped     # the dampings alone, with calibrations by five seeds
python docs/oracle_table.py lazy       # what evaluates where it is due, by solver, five seeds
"""

from __future__ import annotations

import sys

import torch

from reg_engine import calibrate_damping, oracles, sample
from reg_engine.experiments.theory.scores import SCHEDULE, Sampler, Target, sobol_noise
from reg_engine.rectifiers import PRODUCTS, Alternate
from reg_engine.schedules import Flow

COUNT = 4096


def main() -> None:
    """One row for each w, a column for each method: class 0 by 18 Heun steps."""
    mixture = oracles.two_class_2d()
    sampler = Sampler(mixture, sobol_noise(COUNT))
    unguided = sampler.unguided()
    print("| w | floor | unguided | CFG | " + " | ".join(PRODUCTS) + " | golden |")
    print("|---" * (len(PRODUCTS) + 5) + "|")
    for w in (0.5, 1.0, 2.0, 4.0):
        target = Target(mixture, w, COUNT)
        row = [target.floor(COUNT), target.score(unguided)]
        for method in (None, *PRODUCTS):
            row.append(target.score(sampler.guided(1 + w, method)[0]))
        row.append(target.score(sampler.golden(w)))
        print(f"| {w:g} | " + " | ".join(f"{value:.1e}" for value in row) + " |", flush=True)


def damped(seeds: int = 5) -> None:
    """Mean and deviation over calibrations and noise by `seeds` seeds; every sample costs what CFG
    costs (K delta: half more)."""
    mixture = oracles.two_class_2d()
    model = mixture.denoiser(schedule=SCHEDULE)
    methods = {"rayleigh": 64, "tilt": 512}
    print("| w | floor | CFG | K delta (`fd`) | " + " | ".join(methods) + " |")
    print("|---" * (len(methods) + 4) + "|")
    for w in (1.0, 2.0, 4.0):
        target = Target(mixture, w, COUNT)
        rows: dict[str, list[float]] = {name: [] for name in ("CFG", "fd", *methods)}
        for seed in range(seeds):
            sampler = Sampler(mixture, sobol_noise(COUNT, scramble=seed))
            rows["CFG"].append(target.score(sampler.guided(1 + w, None)[0]))
            rows["fd"].append(target.score(sampler.guided(1 + w, "fd")[0]))
            for method, count in methods.items():
                own = range(1000 * seed, 1000 * seed + count)
                choices = {"steps": 18, "dtype": torch.float64, "progress": False}
                damping = calibrate_damping(model, 0, method=method, seeds=own, **choices)
                rows[method].append(target.score(sampler.guided(damping(1 + w), None)[0]))
        found = (torch.tensor(values) for values in rows.values())
        cells = (f"{v.mean():.1e} ± {v.std():.0e}" for v in found)
        print(f"| {w:g} | {target.floor(COUNT):.1e} | " + " | ".join(cells) + " |", flush=True)


WAYS = {"heun": 18, "dpmpp_2m": 20, "euler": 32, "flow_heun": 18}
METHODS = {
    "CFG": None,
    "`fd_batched`": "fd_batched",
    "`lazy`": "lazy",
    "`alternate`": "alternate",
    "`Alternate(tolerance=0.1, reference=0.2)`": Alternate(tolerance=0.1, reference=0.2),
    "`blend`": "blend",
    "`lazy_blend`": "lazy_blend",
}


def lazy(seeds: int = 5, count: int = 1024) -> None:
    """Mean and deviation over `seeds` seeds of noise and target, and evaluations a sample."""
    mixture, cond = oracles.two_class_2d(), torch.zeros(count, dtype=torch.long)
    print("| solver, steps | w | " + " | ".join(METHODS) + " |")
    print("|---" * (len(METHODS) + 2) + "|")
    for solver, steps in WAYS.items():
        model = mixture.denoiser(schedule=Flow() if solver.startswith("flow") else SCHEDULE)
        choices = {"solver": solver, "steps": steps, "dtype": torch.float64, "progress": False}
        for w in (1.0, 2.0, 4.0):
            cells = []
            for method in METHODS.values():
                values, nfe = [], 0.0
                for seed in range(seeds):
                    own = range(count * seed, count * (seed + 1))
                    out = sample(
                        model, cond, scale=1 + w, rectify=method, seeds=own, check=False, **choices
                    )
                    draws = mixture.target_sampler(w)(
                        2 * count, torch.Generator().manual_seed(seed)
                    )
                    values.append(float(oracles.energy_distance(out.samples, draws)))
                    nfe += out.stats.nfe / seeds
                found = torch.tensor(values)
                cells.append(f"{found.mean():.1e} ± {found.std():.0e} ({nfe:.0f})")
            print(f"| {solver}, {steps} | {w:g} | " + " | ".join(cells) + " |", flush=True)


TABLES = {"damped": damped, "lazy": lazy}

if __name__ == "__main__":
    TABLES.get("".join(sys.argv[1:]), main)()
