"""The experiments of both papers behind this project, each run by one command.

`run_experiment(name, out)` is `reg-engine experiment NAME --out OUT`. An experiment is a module
with `run(report)`: it computes, and leaves figures, tables, numbers and claims in the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ..data.mnist import DATA_SETS
from ..errors import InputError, choice
from ..values import as_int, shown, usable
from .report import Report

__all__ = ["EXPERIMENTS", "WITH_DATA", "WITH_DATA_SET", "Report", "run_experiment", "settings_for"]

# Name -> title of its page. Its package here is the name with underscores.
EXPERIMENTS: dict[str, str] = {
    "theory": "What guidance should do, what CFG does, and what REG repairs",
    "reg-1d": "REG in one dimension: the paper's toy",
    "reg-2d": "REG in two dimensions: fields, samples and win ratios",
    "frontier": "The frontier: distance to the target against cost, for every method",
    "trajectories": "Guidance from a classifier's point of view: trajectories",
    "fractal": "Guidance and postprocessing on a fractal mixture",
    "mnist": "Guidance on MNIST: fronts of quality against confidence",
    "postprocess": "Postprocessing on MNIST: the flow's own guidance, and few real images",
    "distill": "Half of CFG's price on MNIST: guidance distilled into an adapter",
    "cifar10": "Guidance and postprocessing on CIFAR-10",
}
WITH_DATA_SET = ("mnist", "postprocess", "distill")  # those that run on any data set of data.mnist
WITH_DATA = (*WITH_DATA_SET, "cifar10")  # those that read real data


def run_experiment(
    name: str,
    out: Path | str = "out/experiments",
    *,
    quick: bool = False,
    seed: int = 0,
    data: str | None = None,
    data_set: str = "mnist",
    device: str | torch.device = "cpu",
    options: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run one experiment; it writes OUT/NAME/README.md, numbers.json and figures (PNG, SVG).

    Long work inside is resumable: a run that was stopped goes on when called again in the same
    way, from what lies in OUT/NAME/work.

    Args:
        name: a key of EXPERIMENTS.
        out: folder of all experiments.
        quick: small sizes, seconds to a minute each.
        seed: of everything random, >= 0.
        data: path of real data, of the experiments in WITH_DATA.
        data_set: of the experiments in WITH_DATA_SET: "mnist" or "fashion" (Fashion-MNIST), whose
            folder is OUT/NAME-fashion.
        device: where networks run.
        options: further settings of an experiment, each in its module's OPTIONS.

    Returns:
        What numbers.json holds.

    Raises:
        InputError: an unknown name, setting or data set, data for an experiment that reads none, a
            seed below 0, a folder that cannot be written, missing data or packages; CUDA asked for
            where there is none.
    """
    choice("experiment", name, EXPERIMENTS)
    images = DATA_SETS[choice("data_set", data_set, DATA_SETS)].title
    if data_set != "mnist" and name not in WITH_DATA_SET:
        known = ", ".join(WITH_DATA_SET)
        raise InputError("data_set", f"{name} has data of its own", f"Leave it out, or run {known}")
    if data is not None and name not in WITH_DATA:
        known = ", ".join(WITH_DATA)
        raise InputError("data", f"{name} reads none", f"Leave it out, or run {known}")
    seed = as_int("seed", seed, 0)
    usable(device)
    own = settings_for([name], options or {})[name]
    report = Report(
        name,
        EXPERIMENTS[name].replace("MNIST", images),
        out,
        quick=quick,
        seed=seed,
        data=data,
        data_set=data_set,
        device=device,
        options=own,
    )
    _module(name).run(report)
    return report.finish()


def settings_for(names: Sequence[str], options: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Each experiment's own among some settings, by its name.

    Args:
        names: keys of EXPERIMENTS. options: setting -> value.

    Raises:
        InputError: a setting that none of them has in its module's OPTIONS.
    """
    if not options:
        return {name: {} for name in names}
    known = {name: getattr(_module(name), "OPTIONS", ()) for name in names}
    every = list(dict.fromkeys(key for own in known.values() for key in own))
    for key in options:
        if not every:
            problem = f"{', '.join(names)} has no setting {shown(key)}"
            raise InputError("--set", problem, "Leave it out")
        choice("--set", key, every)
    return {
        name: {key: value for key, value in options.items() if key in own}
        for name, own in known.items()
    }


def _module(name: str) -> Any:
    return import_module(f"{__name__}.{name.replace('-', '_')}")
