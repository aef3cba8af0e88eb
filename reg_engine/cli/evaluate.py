"""`reg-engine evaluate`: a set of images scored, or guidance methods of a model compared over
scales at equal label confidence."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch

from ..data.mnist import load_data_set
from ..errors import InputError
from ..models import PACKAGED, classifier_for, data_of, load_model
from ..resume import digest
from ..storage.files import check_writable, write_whole
from ..storage.shards import Shards
from .config import said
from .options import apply, emit, fit, json_option, numbers, plan_of, run_options
from .score import bench_features, score_images
from .score_options import SCORING, score_options
from .shell import stopped

if TYPE_CHECKING:
    from ..evaluation.fronts import Measured
    from ..evaluation.methods import Method
    from ..networks.denoisers import Denoiser

__all__ = ["evaluate"]

REPLICATES = 300  # bootstrap resamples
PICTURED = 1000  # samples that precision and recall look at, at most


@click.command(
    epilog="Example: reg-engine evaluate samples.npz --features inception:weights.pth "
    "--stats imagenet.npz --out out/scores; "
    "reg-engine evaluate --scales 1,1.5,2,3,4,6 --samples 1000 --data mnist.npz "
    "--methods 'cfg; interval=0.3:2.5; fd_batched; damping=damping.json,skip=0.15' "
    "--out out/evaluation"
)
@click.argument("path", required=False)
@apply(run_options)
@click.option("--scales", default="1,1.5,2,3,4,6", show_default=True, help="Guidance scales.")
@click.option(
    "--rectify", default=None, help="Estimators to compare; none = CFG.  [default: none,auto]"
)
@click.option(
    "--methods",
    default=None,
    help="Instead of --rectify, parted by semicolons: cfg, an estimator, interval=LO:HI, "
    "adapter=FILE or damping=FILE (mnist and fashion are packaged), with more after commas "
    "(skip=0.15, plan=FILE, refine=0.4:2), and scales of its own after @.",
)
@click.option(
    "--adapter", default=None, help="mnist, fashion, or a file of `distill`: a method more."
)
@click.option(
    "--plan", default="full", show_default=True, help="full, LO:HI noise levels, or a file."
)
@click.option(
    "--confidence",
    default=None,
    help="Levels (mean log-odds of the label) to compare at; default: spread over CFG's front.",
)
@click.option("--samples", default=1000, show_default=True, type=int, help="Samples a point.")
@click.option(
    "--data",
    default=None,
    help="mnist.npz or fashion_mnist.npz, as the model was trained on; default: REG_ENGINE_DATA, "
    "or a download.",
)
@apply(score_options)
@click.option(
    "--out",
    default="out/evaluation",
    show_default=True,
    help="Writes OUT.json, and OUT.png of a model; unfinished work lies in OUT.parts/.",
)
@json_option
@click.pass_context
def evaluate(
    context: click.Context, path: str | None, out: str, as_json: bool, **options: Any
) -> None:
    """Score the images at PATH; or, without PATH, guidance methods of a model over scales.

    PATH is a folder of pictures or of .tar shards, a .tar, an .npz or an .npy. FID, inception
    score, KID, precision and recall are measured in the features of any network, with all
    conventions in the result; CLIP score and others with prompts.

    Of a model: label agreement, confidence and FID, each method held against CFG at equal
    confidence. FID is measured in the packaged classifier's features, or those of --features,
    against the test images of the data set that the model was trained on, or --stats.
    """
    scoring = {name: options.pop(name) for name in SCORING}
    run = {name: options[name] for name in ("batch_size", "device", "progress")}
    if path is not None:
        _refuse(context, options.keys() - run.keys(), "is of a model, and PATH are images")
        chosen = frozenset(name for name in scoring if said(context, name))
        score_images(path, out, as_json, run, scoring, chosen)
        return
    shared = {"features", "resize", "stats"}
    _refuse(context, scoring.keys() - shared, "is of images, and there is no PATH")
    _compare(out, as_json, {name: scoring[name] for name in shared}, **options)


def _refuse(context: click.Context, names: Iterable[str], problem: str) -> None:
    """What the other use of the command has."""
    for name in sorted(names):
        if said(context, name):
            raise InputError(f"--{name.replace('_', '-')}", problem, "Leave one of them out")


def _compare(
    out: str,
    as_json: bool,
    judged_by: dict[str, Any],
    *,
    scales: str,
    rectify: str | None,
    methods: str | None,
    adapter: str | None,
    plan: str,
    confidence: str | None,
    samples: int,
    data: str | None,
    model: str,
    **run: Any,
) -> None:
    """Guidance methods of a model over scales; the judge is loaded here, for no other command."""
    from ..evaluation.bench import Bench, judge
    from ..evaluation.compare import comparison
    from ..evaluation.sampling import Sampler
    from ..pictures.evaluation import save_evaluation

    if samples < 10:
        raise InputError("--samples", f"is {samples}", "Give 10 or more; FID needs about 1000")
    target, _ = (check_writable(Path(f"{out}.{kind}"), "--out") for kind in ("json", "png"))
    denoiser, classifier, data_set = load_model(model), classifier_for(model), data_of(model)
    if classifier is None or data_set is None:
        known = " or ".join(PACKAGED)
        raise InputError("--model", f"{model} has no classifier to judge it", f"Give {known}")
    fit("--samples", samples, denoiser)
    planned, chosen = plan_of(plan), _methods(methods, rectify, adapter, scales, plan)
    _check(chosen, denoiser)
    levels = None if confidence is None else sorted(numbers("confidence", confidence))
    judging, own = bench_features(judged_by, run["device"])
    images = load_data_set(data_set, data)
    assert denoiser.num_classes is not None  # a model with a classifier has classes
    labels = torch.arange(samples) % denoiser.num_classes
    settings = {"model": model, "data": data_set, "plan": plan, "samples": samples, **run}
    settings.pop("progress")
    kept = {"edges": planned.edges, "modes": planned.modes, "weights": digest(denoiser)}
    shards = Shards(Path(f"{out}.parts"), settings | kept)
    real = images.test_images
    generator = torch.Generator().manual_seed(0)
    bench = Bench(classifier, labels, real, REPLICATES, generator, most=PICTURED, **own)
    truth = judge(classifier, real, torch.from_numpy(images.test_labels))
    sampler = Sampler(denoiser, shards, bench, run)
    measured: dict[str, list[Measured]] = {each.name: [] for each in chosen}
    with stopped(shards.folder, "*.npz"):
        for point, engine in sampler.engines(chosen).items():
            found = sampler.measure(point, engine)
            measured[point.method.name].append(found)
            if not as_json:
                click.echo(_line(found.row))
    confidences = float(truth.odds.mean())
    report = {"settings": settings | judging, "confidence_of_test_images": confidences}
    report |= comparison(measured, next((m.name for m in chosen if m.plain), None), levels)
    write_whole(target, (json.dumps(report, indent=1) + "\n").encode(), "--out")
    save_evaluation(report, Path(f"{out}.png"))
    shards.remove()
    emit(report, as_json, f"{_table(report)}written to {out}.json and {out}.png")


def _methods(
    methods: str | None, rectify: str | None, adapter: str | None, scales: str, plan: str
) -> list[Method]:
    """Of --methods, or of --rectify; and of --adapter."""
    from .methods import methods_of

    if methods is not None and rectify is not None:
        raise InputError("--rectify", "is given beside --methods", "Give one of them")
    if methods is None:
        methods = (rectify or "none,auto").replace(",", ";")
    return methods_of(methods, numbers("scales", scales), plan_of(plan), adapter)


def _check(methods: list[Method], denoiser: Denoiser) -> None:
    """Refuse the adapter of another model before anything is read or written."""
    for each in methods:
        if each.adapter is not None:
            each.adapter.check(denoiser)


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['method']:24} scale {row['scale']:<5g} FID {row['fid']:7.3f}  confidence "
        f"{row['confidence']:6.2f}  agreement {row['agreement']:7.2%}  effective scale "
        f"{row['effective_scale']:.2f}  nfe {_work(row)}  {row['seconds']:.1f} s"
    )


def _work(row: dict[str, Any]) -> str:
    """Evaluations a sample, and backward passes."""
    return f"{row['nfe']:.1f}" + (f" + {row['backward']:.0f}" if row["backward"] else "")


def _table(report: dict[str, Any]) -> str:
    """FID of every front at every level, how far from CFG's, and what a sample costs."""
    if not report["levels"]:
        return ""
    work: dict[str, str] = {}
    for point in report["points"]:  # the last, of the largest scale: at 1 all methods cost the same
        work[point["method"]] = _work(point)
    lines = ["", "FID at equal confidence (minus CFG's front, with the half-width of 95 %):"]
    columns = "".join(f"{level:>26.2f}" for level in report["levels"])
    lines.append(f"{'confidence':24}{'evaluations':>12}{columns}")
    for name, cells in report["fronts"].items():
        held = name != report["compared_with"]
        texts = "".join(f"{_cell(cell, held):>26}" for cell in cells)
        lines.append(f"{name:24}{work[name]:>12}{texts}")
    return "\n".join([*lines, "", ""])


def _cell(cell: dict[str, Any] | None, held: bool) -> str:
    if cell is None:
        return "-"
    apart = cell.get("cfg") if held else None
    error = f" ({apart['difference']:+.3f} ± {apart['error']:.3f})" if apart else ""
    return f"{cell['fid']:.3f}{error}"
