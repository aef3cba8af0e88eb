"""The postprocessing section of the `mnist` experiment's page, and what the papers say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from ..report import Report, shown
from .figures import draw_post, draw_samples
from .page import title
from .post import NEIGHBOURS, SOLVER, SOLVER_STEPS, SPACES, After, PostSettings
from .sampling import Sampled

__all__ = ["against_the_papers", "moved_by", "postprocessing"]


def moved_by(space: str) -> str:
    """A flow in words."""
    return "moved, pixels" if space == "pixels" else "moved, features"


def postprocessing(
    report: Report,
    after: Sequence[After],
    sets: dict[str, Tensor],
    memory: list[dict[str, Any]],
    settings: PostSettings,
    pool: Sequence[Sampled],
) -> None:
    """Before and after the flow: fidelity, memorisation, pictures."""
    from_where = "; ".join(title(s.point) for s in pool)
    report.section(
        "Postprocessing",
        f"One flow for all scales (arXiv 2503.10638, App. A), from samples to one of the "
        f"{NEIGHBOURS} nearest training images, conditional on the label, in two versions: nearest "
        f"in pixels, and in the judge's features. Trained on {len(pool[0].samples):,} samples each "
        f"of: {from_where}; other seeds, and at scales that are not evaluated but 1. "
        f"U-Net {settings.channels}, {settings.steps:,} steps of {settings.batch_size}; "
        f"{SOLVER}, {SOLVER_STEPS} steps (the paper: dopri5).",
    )
    report.figure(
        "postprocessing",
        draw_post(after),
        "Before and after the flow. Open: samples made without REG; filled: with REG.",
    )
    rows = []
    for each in after:
        before, moved = each.before.row, each.after.row
        rows.append(
            [
                title(each.before.point),
                SPACES[each.space],
                f"{before['fid']:.3f} → {moved['fid']:.3f} ± {moved['fid_error']:.3f}",
                f"{before['agreement']:.1%} → {moved['agreement']:.1%}",
                f"{before['precision']:.3f} → {moved['precision']:.3f}",
                f"{before['recall']:.3f} → {moved['recall']:.3f}",
            ]
        )
    report.table(["samples", "neighbours in", "FID", "agreement", "precision", "recall"], rows)
    report.figure(
        "samples",
        draw_samples(sets),
        "The same twenty seeds in every row: the flow moves a sample and draws no other one.",
    )
    columns = ["nearer", "below_typical", "samples_median"]
    report.table(
        ["samples", "nearer than test images", "nearer than their median", "median distance"],
        [[row["set"], *(row[key] for key in columns)] for row in memory],
        "Memorisation: distances in pixels to the nearest training image, against those of test "
        f"images (median {_held(memory)}). First column: how often a sample is nearer than "
        "a test image, 0.5 for real data, towards 1 for copies.",
    )
    report.numbers["postprocessing"] = {
        "settings": asdict(settings),
        "points": [{"space": a.space, "before": a.before.row, "after": a.after.row} for a in after],
        "memorisation": memory,
    }


PAPERS = """
* **REG** (arXiv 2501.18865, Fig. 3 and Table 2) compares the same five methods, each with and
  without REG, as fronts of FID against Inception score on ImageNet, 50,000 images a point. Its
  numbers are not known to us, so only the trend can be compared. Confidence of a digit classifier
  takes the place of the Inception score here, its features that of Inception's.
* On EDM2 the paper's linear and cosine weights beat constant ones, on DiT they do not. Here they
  stand on the fronts above; linear in sigma from 80 leaves little weight where digits form
  (sigma below 3), which is why its scales are larger.
* **The classifier-centric study** (arXiv 2503.10638, Figs. 6, 7, S2, S3) shows MNIST in pictures
  only, without numbers: there is nothing to agree with in figures. Its recipe is followed: a linear
  classifier on image and step guides an unconditional model, and one flow moves samples of all
  scales to one of their {k} nearest training images. Memorisation and recall, which it does not
  measure, are in the tables above.
* {verdict}
* Not known: learning rates, the scales of its pictures, the paper's top-k on MNIST (20 is from its
  CIFAR-10 table). Network, optimizer steps and solver are smaller here than theirs.
"""


def against_the_papers(report: Report, after: Sequence[After]) -> None:
    """What the papers say, and how it compares."""
    plain = [
        a for a in after if a.before.point.method == "vanilla" and not a.before.point.rectified
    ]
    scale = max(a.before.point.scale for a in plain)
    changes = ", ".join(
        f"{a.after.row['fid'] / a.before.row['fid'] - 1:+.0%} (neighbours in {SPACES[a.space]})"
        for a in plain
        if a.before.point.scale == scale
    )
    verdict = (
        "On CIFAR-10 that study halves the FID of strong guidance (Tab. 2: 35.8 to 17.3 at scale "
        f"2.25; Tab. 3: 16.3 to 7.5 at scale 4). Here postprocessing changes CFG's at scale "
        f"{scale:g} by {changes}, with a far smaller pool, network and training (theirs: 50,000 "
        "samples, 400,000 steps)."
    )
    report.section("Against the papers", PAPERS.format(k=NEIGHBOURS, verdict=verdict))


def _held(memory: list[dict[str, Any]]) -> str:
    """The median distance of held-out images, which is one for all sets."""
    return shown(memory[0]["heldout_median"])
