"""The command line: `reg-engine sample | generate | show | calibrate | convert | train | distill |
evaluate | reproduce | experiment | explore | profile | doctor`."""

from __future__ import annotations

import sys

import click

from ..version import __version__
from .calibrate import calibrate
from .convert import convert
from .distill import distill
from .doctor import doctor
from .evaluate import evaluate
from .experiment import experiment
from .explore import explore
from .generate import generate
from .notes import show
from .profile import profile
from .reproduce import reproduce
from .sample import sample
from .shell import Commands, run
from .train import train

__all__ = ["cli", "main"]


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="reg-engine")
def cli() -> None:
    """Guided sampling from diffusion and flow models, with rectified gradient guidance (REG).

    Example: reg-engine sample --model mnist --labels 0-9 --scale 4 --out digits.png
    """


for _command in (
    *(sample, generate, show, calibrate, convert, train, distill, evaluate, reproduce, experiment),
    *(explore, profile, doctor),
):
    cli.add_command(_command)


def main() -> None:
    """Entry point: an error that names its remedy is printed without a traceback, exit code 2."""
    sys.exit(run(cli))
