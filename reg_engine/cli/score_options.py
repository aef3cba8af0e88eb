"""What `reg-engine evaluate PATH` is asked for: its options, and which of them say something."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from ..errors import InputError

__all__ = ["SCORING", "check_used", "metrics_of", "score_options"]

score_options = [
    click.option(
        "--features",
        default=None,
        help="A feature network: mnist, fashion, inception:FILE, dinov2:FOLDER, module:name, "
        "file.py:name, a TorchScript .pt or an .onnx. Code that is named is run.",
    ),
    click.option(
        "--resize",
        default=None,
        help="SIZE or SIZE:FILTER before the network: pil-bicubic (default), pil-bilinear, "
        "pil-lanczos, torch-bilinear, torch-bicubic, tf-bilinear.",
    ),
    click.option(
        "--stats",
        default=None,
        help="Reference: an .npz with mu and sigma of the same features, or a .pkl of EDM2.",
    ),
    click.option("--reference", default=None, help="Reference: images, as PATH."),
    click.option(
        "--metrics",
        default=None,
        help="fid, is, kid, pr, parted by commas.  [default: fid, where there is a reference]",
    ),
    click.option("--splits", default=10, show_default=True, type=int, help="Of is."),
    click.option("--subsets", default=100, show_default=True, type=int, help="Of kid."),
    click.option(
        "--subset-size", default=1000, show_default=True, type=int, help="Images a subset of kid."
    ),
    click.option("--k", default=3, show_default=True, type=int, help="Neighbours of pr."),
    click.option(
        "--bootstrap", default=0, show_default=True, type=int, help="Resamples for fid's error bar."
    ),
    click.option(
        "--seed", default=2020, show_default=True, type=int, help="Of splits, subsets, resamples."
    ),
    click.option(
        "--prompt-score",
        multiple=True,
        help="clip:FOLDER, imagereward:FILE or hpsv2:FILE; may be given several times.",
    ),
    click.option("--prompts", default=None, help="A text file: line k is the prompt of image k."),
    click.option(
        "--workers", default=2, show_default=True, type=int, help="Threads that read images ahead."
    ),
    click.option(
        "--on-error",
        default="stop",
        show_default=True,
        help="stop at an image that cannot be read, or skip and count it.",
    ),
    click.option("--write-stats", default=None, help="Write mu and sigma of the images as .npz."),
    click.option(
        "--cache/--no-cache", default=True, help="Keep statistics of the images of --reference."
    ),
]
# The score that a convention is of.
CONVENTIONS = {
    "splits": "is",
    "subsets": "kid",
    "subset_size": "kid",
    "k": "pr",
    "bootstrap": "fid",
}
SCORING = [
    "features",
    "resize",
    "stats",
    "reference",
    "metrics",
    "splits",
    "subsets",
    "subset_size",
    "k",
    "bootstrap",
    "seed",
    "prompt_score",
    "prompts",
    "workers",
    "on_error",
    "write_stats",
    "cache",
]
OF_FEATURES = ("resize", "stats", "reference", "metrics", "write_stats")


def check_used(chosen: frozenset[str], metrics: Sequence[str], options: dict[str, Any]) -> None:
    """Refuse options that would do nothing.

    Args:
        chosen: names of those that somebody gave. metrics: as metrics_of. options: all of them.

    Raises:
        InputError: one of a score, or of features or a reference, that is not asked for.
    """
    says: dict[str, tuple[object, str]] = {
        **{name: (of in metrics, f"{of} in --metrics") for name, of in CONVENTIONS.items()},
        "stats": ("fid" in metrics, "fid in --metrics"),
        "reference": ({"fid", "kid", "pr"} & set(metrics), "a metric that needs it"),
        "cache": (options["reference"], "--reference"),
        "seed": (metrics, "--metrics"),
    }
    if options["features"] is None:
        says |= dict.fromkeys(OF_FEATURES, (False, "--features"))
    for name in sorted(chosen & says.keys()):
        used, lacking = says[name]
        if not used:
            option = f"--{name.replace('_', '-')}"
            raise InputError(option, f"does nothing without {lacking}", "Leave it out")


def metrics_of(options: dict[str, Any]) -> list[str]:
    """Of --metrics; without it fid, where it has what it needs."""
    if options["metrics"] is not None:
        names = [name.strip() for name in options["metrics"].split(",")]
        return list(dict.fromkeys(name for name in names if name))
    asked = options["features"] and (options["stats"] or options["reference"])
    return ["fid"] if asked else []
