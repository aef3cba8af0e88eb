"""Prints the table of docs/oracle.md: how far guided samples are from the distribution they aim at.

python docs/oracle_table.py            # about two minutes on one core
"""

from __future__ import annotations

from reg_engine import oracles
from reg_engine.experiments.theory.scores import Sampler, Target, sobol_noise
from reg_engine.rectifiers import RECTIFIERS

COUNT = 4096


def main() -> None:
    """One row for each w, a column for each method: class 0 by 18 Heun steps."""
    mixture = oracles.two_class_2d()
    sampler = Sampler(mixture, sobol_noise(COUNT))
    unguided = sampler.unguided()
    print("| w | floor | unguided | CFG | " + " | ".join(RECTIFIERS) + " | golden |")
    print("|---" * (len(RECTIFIERS) + 5) + "|")
    for w in (0.5, 1.0, 2.0, 4.0):
        target = Target(mixture, w, COUNT)
        row = [target.floor(COUNT), target.score(unguided)]
        for method in (None, *RECTIFIERS):
            row.append(target.score(sampler.guided(1 + w, method)[0]))
        row.append(target.score(sampler.golden(w)))
        print(f"| {w:g} | " + " | ".join(f"{value:.1e}" for value in row) + " |", flush=True)


if __name__ == "__main__":
    main()
