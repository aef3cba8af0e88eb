"""`reg-engine experiment`: the papers' experiments, one command each."""

from __future__ import annotations

import time
from typing import Any

import click

from ..errors import InputError, choice

__all__ = ["experiment"]


@click.command(
    epilog="Example: reg-engine experiment theory --quick --out out/experiments",
)
@click.argument("name", metavar="NAME|all")
@click.option("--quick", is_flag=True, help="Small sizes: all of them in minutes.")
@click.option(
    "--out",
    default="out/experiments",
    show_default=True,
    help="Writes OUT/NAME/README.md, numbers.json and figures.",
)
@click.option("--seed", default=0, show_default=True, type=int, help="Of everything random.")
@click.option(
    "--data",
    default=None,
    help="Real data (mnist, postprocess, distill, cifar10): a file or folder.",
)
@click.option(
    "--data-set",
    default="mnist",
    show_default=True,
    help="mnist or fashion (Fashion-MNIST), of `mnist`, `postprocess` and `distill`; writes "
    "OUT/NAME-fashion.",
)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting of the experiment's own; may be given again.",
)
def experiment(
    name: str,
    quick: bool,
    out: str,
    seed: int,
    data: str | None,
    data_set: str,
    device: str,
    settings: tuple[str, ...],
) -> None:
    """Run an experiment and write its page, figures and numbers.

    \b
    theory        what guidance should do, exactly, against what CFG and REG do
    reg-1d        REG's 1-D toy: gradients and win ratios
    reg-2d        REG's 2-D toy: fields, samples, win ratios of every guidance method
    frontier      every method on mixtures of 1 to 16 dimensions, against its cost
    trajectories  how classifiers and CFG bend denoising trajectories
    fractal       a 2-D fractal before and after postprocessing
    mnist         FID against confidence, with and without REG and postprocessing; also of
                  Fashion-MNIST
    postprocess   the flow's own guidance scale, and flows towards few real images; likewise
    distill       guidance in an adapter: one evaluation a step, beside its teacher and CFG;
                  likewise
    cifar10       the same in colour; needs a GPU for its numbers
    all           every one of them

    A run that was stopped goes on when the same command is given again.
    """
    # Here, so that the other commands start without plots and training.
    from ..experiments import EXPERIMENTS, WITH_DATA, WITH_DATA_SET, run_experiment, settings_for
    from ..experiments.report import folder_of

    names = list(EXPERIMENTS) if name == "all" else [choice("NAME", name, [*EXPERIMENTS, "all"])]
    own = settings_for(names, _options(settings))
    failed = 0
    for each in names:
        began = time.monotonic()
        images = data_set if name != "all" or each in WITH_DATA_SET else "mnist"
        found = run_experiment(
            each,
            out,
            quick=quick,
            seed=seed,
            data=data if name != "all" or each in WITH_DATA else None,
            data_set=images,
            device=device,
            options=own[each],
        )
        claims: dict[str, Any] = found["numbers"]["claims"]
        missed = [claim for claim in claims.values() if not claim["holds"]]
        failed += len(missed)
        click.echo(
            f"{each:13} {time.monotonic() - began:6.1f} s  {len(claims) - len(missed)} of "
            f"{len(claims)} claims hold  {folder_of(out, each, images) / 'README.md'}"
        )
        for claim in missed:
            click.echo(f"{'':13} does not hold: {claim['text']} ({claim['found']})")
    if len(names) > 1:
        click.echo(f"{failed} claims do not hold" if failed else "every claim holds")


def _options(settings: tuple[str, ...]) -> dict[str, str]:
    options = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not (key and equals and value):
            raise InputError("--set", f"{setting!r} is no setting", "Write --set key=value")
        options[key] = value
    return options
