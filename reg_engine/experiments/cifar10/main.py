"""CIFAR-10: CFG and classifier guidance over scales, with and without REG and postprocessing.

On a GPU (`--device cuda`) everything is trained, sampled and scored: about an hour, resumable.
Elsewhere the same code runs at tiny size, and the page says that the numbers are still to come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...data.cifar10 import CIFAR10
from ...evaluation.bench import Bench, Features
from ...fidelity import nearest_distances
from ...pictures.plots import check_matplotlib
from ...postprocess import Neighbours, dinov2_features
from ...storage.files import write_whole
from ...training import PieceOver
from ...training.classification import accuracy
from ..draws import Sampling
from ..image_runs import draw_samples, wrapped
from ..report import Report
from .data import load_data
from .models import FULL, Models, Sizes, features_from, load_models, sizes_of
from .page import curves, scores_table, setting, tables
from .pieces import deadline_of
from .sampling import EDM_SCALES, FLOW_SCALES, Scored, bases, evaluate, posts_of, train_posts

REPLICATES = 20  # of the bootstrap behind a distance's error
MOST = 1000  # images that precision, recall and memorisation look at
LAST = {"flow": FLOW_SCALES[-1], "edm": EDM_SCALES[-1]}
QUESTION = """The classifier-centric study (arXiv 2503.10638) samples CIFAR-10 with classifier-free
guidance from a rectified flow (its Tab. 2) and from an EDM model (Tab. 3), and repairs the samples
with a second flow towards near real images. Does that hold, and what does REG (arXiv 2501.18865) do
beside it? Both tables are laid out here, with REG beside plain guidance, and with classifier
guidance, which the study leaves out."""
LOSSY = """The images come out of JPEG files: a lossy copy. Distances in this page compare with each
other, not with figures published for the original, the paper's included."""
UNMEASURED = """**Our numbers are still to come.** {why}: each network was trained for a few steps
at a tiny size and a few samples were drawn, so that the code ran from end to end. What those
samples score says nothing and is not shown; {ran}. Only the metric was tried: training images are
at a distance of {real:.2g} from the test images, samples at {lowest:.2g} or more."""
COMMAND = """This command fills the cells, from any copy of CIFAR-10:

```
reg-engine experiment cifar10 --data cifar10_jpeg.tar.gz --device cuda
```
"""
MISSING = """**Not finished.** The first thing that is missing: {missing}; what follows it is
missing too. {count} rows are scored. The same command goes on:

```
{command}
```"""
PLAN = """It is planned for about an hour on a GPU of the H100's class, by arithmetic and not by
measurement: {flow:g} minutes for the flow, {edm:g} for the EDM model, {judge:g} for the judge and
{guide:g} for the guiding classifier, {post:g} for each of two postprocessing flows, the rest for
{samples} samples a point. `--set hours=8` and `--set samples=50000` go nearer to the paper. A run
that was stopped goes on; with `--set piece=8` it stops by itself after eight minutes."""
CURVES = """FID over the CFG scale as the paper reports it: postprocessing costs quality at the
lowest scale of each table, and gains the more the larger the scale."""
AGAINST = """The paper says: at CFG 1.25 of Tab. 2 the flow's samples are best left alone (6.151;
the nearest postprocessing, 40 neighbours in DINOv2 patches, gives 6.252), and from 1.75 on every
kind of postprocessing lowers the FID; on EDM samples it does so from 2.25 on. It has no REG, no
classifier guidance, no error bars, and no look at memorisation on this data. Not known to us: its
label dropout, learning rates, the split and the number of samples behind its FID, how EDM was
retrained and sampled, and where Tab. 3 searched neighbours. Ours: {ours}."""


def run(report: Report) -> None:
    """Train, sample, postprocess and score; or go through all of it at tiny size.

    With `--set piece=MINUTES` it ends by itself, and the page says what is missing.

    Raises:
        InputError: no data in a run that is not quick; an option or a file that cannot be used.
    """
    deadline, sizes = deadline_of(report), sizes_of(report)
    user = _preflight(report)
    data, kind = load_data(report, sizes.train, sizes.test)
    report.say(f"{kind}: {len(data.train_labels)} + {len(data.test_labels)} images")
    report.numbers |= {"measured": sizes.minutes is not None, "data": kind}
    scored: list[Scored] = []
    try:
        models = load_models(report, sizes, data, deadline)
        bench = _score(report, sizes, models, data, user, scored, deadline)
    except PieceOver as over:
        _unfinished(report, sizes, scored, str(over), data.lossy)
        return
    report.numbers["stages"] = models.stages
    if sizes.minutes is None:
        _sound(report, bench, scored)
    else:
        judged = accuracy(models.judge, data.test_images, data.test_labels)
        _measured(report, models, bench.name, scored, judged)
    _write(report, sizes, models, scored, data.lossy)


def _score(
    report: Report,
    sizes: Sizes,
    models: Models,
    data: CIFAR10,
    user: tuple[Features, str] | None,
    scored: list[Scored],
    deadline: float | None,
) -> Bench:
    """Every point of both bases into `scored`; the bench that scored them."""
    sampling = Sampling(sizes.samples, report.seed, sizes.sampling_batch, str(report.device))
    bench = Bench(
        models.judge,
        sampling.labels,
        data.test_images,
        REPLICATES,
        report.generator(92),
        features=user,
        train=data.train_images,
        most=MOST,
    )
    for base in bases(models, sizes):
        flows = train_posts(base, report, sizes, models, data, sampling, deadline)
        evaluate(base, report, models, bench, flows, sampling, scored, deadline)
    return bench


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


def _sound(report: Report, bench: Bench, scored: Sequence[Scored]) -> None:
    """What a tiny run can say for sure: the metric tells real images from an untrained model's."""
    assert bench.frechet is not None and bench.train is not None
    real = bench.frechet(bench.train)
    lowest = min(each.row.get("fid_judge", each.row["fid"]) for each in scored)
    report.numbers["exercise"] = {
        "points": len(scored),
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
    report: Report, models: Models, features: str, scored: Sequence[Scored], judged: float
) -> None:
    """Numbers of a full run, the paper's statements held against them, and the networks kept."""
    report.numbers["features"] = features
    report.numbers["judge_accuracy"] = judged
    report.numbers["points"] = [each.row for each in scored]
    for base, last in LAST.items():
        before, best, rectified = _last(report.numbers["points"], base)
        report.claim(
            f"{base}_postprocessing",
            f"Postprocessing lowers the FID of {base} samples at CFG {last:g} (Tab. 2, 3)",
            best < before,
            f"{before:.3g} before, {best:.3g} after",
        )
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


def _last(rows: Sequence[Mapping[str, Any]], base: str) -> tuple[float, float, float]:
    """FID of CFG at a base's largest scale: as it is, best postprocessed, with REG."""
    own = [r for r in rows if (r["base"], r["method"], r["scale"]) == (base, "vanilla", LAST[base])]
    fids = {(r["estimator"] != "none", r["post"]): r["fid"] for r in own}
    best = min(fid for (rectified, post), fid in fids.items() if post and not rectified)
    return fids[False, None], best, fids[True, None]


def _summary(report: Report, scored: Sequence[Scored]) -> str:
    """What was found, in a few lines."""
    numbers = report.numbers
    points = len([each for each in scored if each.row["post"] is None])
    ran = f"{points} points were sampled and {len(scored) - points} times postprocessed"
    if not numbers["measured"]:
        exercise = numbers["exercise"]
        said = UNMEASURED.format(
            why="This was a quick run" if report.quick else "This run had no GPU",
            ran=ran,
            real=exercise["fid_of_training_images"],
            lowest=exercise["lowest_fid_of_untrained_samples"],
        )
        if numbers["data"].startswith("stand-in"):
            said += f" No CIFAR-10 was given either: the code ran on **{numbers['data']}**."
        return said
    lines = []
    for base, last in LAST.items():
        before, best, rectified = _last(numbers["points"], base)
        lines.append(
            f"* {base} at CFG {last:g}: FID {before:.3g}; with REG {rectified:.3g}; postprocessed "
            f"{best:.3g} at best, without REG."
        )
    held = [claim["holds"] for claim in numbers["claims"].values()]
    return "\n".join([*lines, f"* {ran}; {sum(held)} of {len(held)} claims hold (last table)."])


def _unfinished(
    report: Report, sizes: Sizes, scored: Sequence[Scored], missing: str, lossy: bool
) -> None:
    """The page of a run whose piece is over: what is scored, and what comes next."""
    report.unfinished = True
    rows = [each.row for each in scored] if sizes.minutes is not None else []
    report.numbers |= {"missing": missing, "points": rows}
    said = MISSING.format(missing=missing, count=len(scored), command=report.command)
    report.section("In short", wrapped(QUESTION) + "\n\n" + said)
    if lossy:
        report.text(wrapped(LOSSY))
    tables(report, rows or None, posts_of("flow", report, sizes))
    scores_table(report, rows or None)


def _write(
    report: Report, sizes: Sizes, models: Models, scored: Sequence[Scored], lossy: bool
) -> None:
    """The page."""
    tiny = sizes.minutes is None
    rows = None if tiny else [each.row for each in scored]
    report.section("In short", wrapped(f"{QUESTION}\n\n{_summary(report, scored)}"))
    if tiny:
        assert FULL.minutes is not None
        report.text(COMMAND)
        report.text(wrapped(PLAN.format(**FULL.minutes, samples=FULL.samples)))
    if lossy:
        report.text(wrapped(LOSSY))
    setting(report, sizes, models, report.numbers["data"])
    tables(report, rows, posts_of("flow", report, sizes))
    scores_table(report, rows)
    report.section("Figures")
    more = "" if tiny else " Below ours: compare shapes, not heights. Filled marks: with REG."
    report.figure("curves", curves(rows), wrapped(CURVES + more))
    if not tiny:  # else they are pictures of noise
        pictured = {*LAST.items(), ("flow", 2.0)}
        pictures = {}
        for each in scored:
            base, post = each.row["base"], each.row["post"]
            if (base, each.point.scale) in pictured:
                name = f"{base}, {each.point.title}" + (f", {post}" if post else "")
                pictures[name] = each.first
        said = "Samples of the same seeds below each other, classes airplane to truck."
        report.figure("samples", draw_samples(pictures, 10), said)
    ours = "not measured yet, so there is nothing to hold against it" if tiny else "see the claims"
    report.section("Against the paper", wrapped(AGAINST.format(ours=ours)))
    keys = ("name", "steps", "file", "parameters")
    lines = [[stage.get(key, "-") for key in keys] for stage in models.stages]
    report.section("What ran")
    report.table(["network", "optimizer steps", "given file", "parameters"], lines)
