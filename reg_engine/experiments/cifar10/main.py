"""CIFAR-10: CFG and classifier guidance over scales, with and without REG and postprocessing.

On a GPU (`--device cuda`) everything is trained, sampled and scored: about an hour, resumable.
Elsewhere the same code runs at tiny size, and the page says that the numbers are still to come.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...fidelity import nearest_distances
from ...pictures.plots import check_matplotlib
from ...postprocess import Neighbours, dinov2_features
from ...storage.files import write_whole
from ...training.classification import accuracy
from ..mnist.figures import draw_samples
from ..report import Report
from .data import load_data
from .models import FULL, Models, load_models, sizes_of
from .page import classifier_table, curves, setting, tables
from .sampling import Row, Sampling, bases, evaluate, posts_of, train_posts
from .scores import Features, Ruler, features_from, make_ruler

__all__ = ["run"]

QUESTION = """The classifier-centric study (arXiv 2503.10638) samples CIFAR-10 with classifier-free
guidance from a rectified flow (its Tab. 2) and from an EDM model (Tab. 3), and repairs the samples
with a second flow towards near real images. Both tables are laid out here, with REG
(arXiv 2501.18865) beside plain guidance, and with classifier guidance, which the study leaves out.
"""
LOSSY = """The images come out of JPEG files: a lossy copy. Distances in this page compare with each
other, not with figures published for the original, the paper's included."""
UNMEASURED = """**Our numbers are still to come.** {why}: each network was trained for a few steps
at a tiny size and a few samples were drawn, so that the code ran from end to end. What those
samples score says nothing and is not shown. This command fills the cells, from any copy of
CIFAR-10:

```
reg-engine experiment cifar10 --data cifar10_jpeg.tar.gz --device cuda
```

It is planned for about an hour on a GPU of the H100's class, by arithmetic and not by measurement:
{plan}."""

AGAINST = """The paper says: at CFG 1.25 of Tab. 2 the flow's samples are best left alone (6.151;
the nearest postprocessing, 40 neighbours in DINOv2 patches, gives 6.252), and from 1.75 on every
kind of postprocessing lowers the FID; on EDM samples it does so from 2.25 on. It has no REG, no
classifier guidance, no error bars, and no look at memorisation on this data. Not known to us: its
label dropout, learning rates, the split and the number of samples behind its FID, how EDM was
retrained and sampled, and where Tab. 3 searched neighbours. Ours: {ours}."""


def run(report: Report) -> None:
    """Train, sample, postprocess and score; or go through all of it at tiny size.

    Raises:
        InputError: no data in a run that is not quick; an option or a file that cannot be used.
    """
    sizes = sizes_of(report)
    tiny, user = sizes.minutes is None, _preflight(report)
    data, kind = load_data(report, sizes.train, sizes.test)
    report.say(f"{kind}: {len(data.train_labels)} + {len(data.test_labels)} images")
    models = load_models(report, sizes, data)
    ruler = make_ruler(models.judge, data.train_images, data.test_images, user)
    rows: list[Row] = []
    device = str(report.device)
    sampling = Sampling(sizes.samples, report.seed, sizes.sampling_batch, device)
    for base in bases(models, sizes):
        flows = train_posts(base, report, sizes, models, data, sampling)
        rows += evaluate(base, report, models, ruler, flows, sampling)
    judged = accuracy(models.judge, data.test_images, data.test_labels)
    spaces = [post.name for post in posts_of("flow", report, sizes)]
    report.text(QUESTION)
    if tiny:
        why = "This was a quick run" if report.quick else "This run had no GPU"
        report.text(UNMEASURED.format(why=why, plan=_plan()))
        if kind.startswith("stand-in"):
            report.text(f"No CIFAR-10 was given either: the code ran on **{kind}**.")
    if data.lossy:
        report.text(LOSSY)
    report.section("Setting")
    setting(report, sizes, models, kind)
    tables(report, None if tiny else rows, spaces)
    classifier_table(report, None if tiny else rows)
    _figures(report, rows, tiny)
    ours = "not measured yet, so there is nothing to hold against it" if tiny else "see the claims"
    report.section("Against the paper", AGAINST.format(ours=ours))
    _exercised(report, models, rows)
    report.numbers |= {"measured": not tiny, "data": kind, "stages": models.stages}
    if tiny:
        _sound(report, ruler, rows)
    else:
        _measured(report, models, ruler, rows, judged)


def _preflight(report: Report) -> tuple[Features, str] | None:
    """Everything that a late stage needs, tried before the hour begins; the user's features."""
    check_matplotlib()
    Neighbours(torch.zeros(1, 1))
    nearest_distances(torch.zeros(1, 1), torch.zeros(1, 1))
    if "neighbours" in report.options:
        dinov2_features(report.options["neighbours"])
    if "features" not in report.options:
        return None
    return features_from(report.options["features"], report.device)


def _plan() -> str:
    assert FULL.minutes is not None
    m = FULL.minutes
    return (
        f"{m['flow']:g} minutes for the flow, {m['edm']:g} for the EDM model, {m['judge']:g} for "
        f"the judge and {m['guide']:g} for the guiding classifier, {m['post']:g} for each of two "
        f"postprocessing flows, the rest for {FULL.samples} samples a point. `--set hours=8` and "
        "`--set samples=50000` go nearer to the paper. A run that was stopped goes on"
    )


def _figures(report: Report, rows: Sequence[Row], tiny: bool) -> None:
    report.section("Figures")
    measured = None if tiny else rows
    caption = "FID over the CFG scale as the paper reports it: postprocessing costs quality at the "
    caption += "lowest scale of each table, and gains the more the larger the scale."
    if not tiny:
        caption += " Below ours: compare shapes, not heights. Filled marks: with REG."
    report.figure("curves", curves(measured), caption)
    if tiny:
        return  # pictures of noise
    shown: dict[str, Any] = {}
    for row in rows:
        if (row.base, row.point.scale) in (("flow", 2.75), ("edm", 4.0), ("flow", 2.0)):
            name = "CG" if row.point.method == "cg" else "CFG"
            name = f"{row.base}, {name} {row.point.scale:g}{' + REG' * row.point.rectified}"
            shown[name + (f", {row.post}" if row.post else "")] = row.first
    said = "Samples of the same seeds below each other, classes airplane to truck."
    report.figure("samples", draw_samples(shown, 10), said)


def _exercised(report: Report, models: Models, rows: Sequence[Row]) -> None:
    report.section("What ran")
    keys = ("name", "steps", "file", "parameters")
    lines = [[stage.get(key, "-") for key in keys] for stage in models.stages]
    report.table(["network", "optimizer steps", "given file", "parameters"], lines)
    points = len([row for row in rows if row.post is None])
    report.text(
        f"{points} points sampled, {len(rows) - points} times postprocessed, each scored for FID, "
        "agreement, confidence, precision, recall and nearness to the training images."
    )


def _sound(report: Report, ruler: Ruler, rows: Sequence[Row]) -> None:
    """What a tiny run can say for sure: the metric tells real images from an untrained model's."""
    real, lowest = ruler.judged(ruler.train), min(row.scores["fid_judge"] for row in rows)
    report.numbers["exercise"] = {
        "points": len(rows),
        "fid_of_training_images": real,
        "lowest_fid_of_untrained_samples": lowest,
    }
    report.claim(
        "metric_orders",
        "Training images are nearer to the test images (FID) than any sample of these networks, "
        "which saw three batches",
        real < lowest,
        f"{real:.2g} against {lowest:.2g} or more",
    )


def _measured(
    report: Report, models: Models, ruler: Ruler, rows: Sequence[Row], judged: float
) -> None:
    """Numbers of a full run, the paper's statements held against them, and the networks kept."""
    report.numbers["features"] = ruler.name
    report.numbers["judge_accuracy"] = judged
    report.numbers["points"] = [
        {
            "base": row.base,
            "method": row.point.method,
            "scale": row.point.scale,
            "estimator": row.point.estimator,
            "post": row.post,
            **row.scores,
        }
        for row in rows
    ]
    plain = {
        (r.base, r.point.scale, r.post): r.scores["fid"]
        for r in rows
        if r.point.method == "vanilla" and not r.point.rectified
    }
    for base, last in (("flow", 2.75), ("edm", 4.0)):
        best = min(v for (b, s, post), v in plain.items() if (b, s) == (base, last) and post)
        before = plain[base, last, None]
        report.claim(
            f"{base}_postprocessing",
            f"Postprocessing lowers the FID of {base} samples at CFG {last:g} (Tab. 2, 3)",
            best < before,
            f"{before:.3g} before, {best:.3g} after",
        )
        rectified = [
            r.scores["fid"]
            for r in rows
            if (r.base, r.point.scale, r.post) == (base, last, None) and r.point.rectified
        ][0]
        report.claim(
            f"{base}_reg",
            f"REG lowers the FID of {base} samples at CFG {last:g}",
            rectified < before,
            f"{before:.3g} without, {rectified:.3g} with",
        )
    folder = report.folder / "models"
    folder.mkdir(exist_ok=True)
    for name, file in models.files.items():
        if name not in report.options:
            write_whole(folder / f"{name}.safetensors", Path(file).read_bytes(), "--out")
