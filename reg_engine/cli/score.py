"""`reg-engine evaluate PATH`: a set of images scored, with every convention in the result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import InputError
from ..storage.files import check_writable, write_whole
from ..storage.shards import Shards
from ..version import __version__
from .options import emit
from .score_options import check_used, metrics_of
from .shell import stopped

if TYPE_CHECKING:
    from ..scoring import Conventions, Extraction, Network
    from ..scoring.prompts import PromptScore
    from ..scoring.source import Source

__all__ = ["bench_features", "score_images"]


def score_images(
    path: str,
    out: str,
    as_json: bool,
    run: dict[str, Any],
    options: dict[str, Any],
    chosen: frozenset[str],
) -> None:
    """Score the images at `path` and write OUT.json.

    Args:
        run: batch_size, device and progress. options: those of score_options. chosen: names of
            those that somebody gave.
    """
    # Here, so that the other commands start without.
    from ..scoring import Conventions, open_images
    from ..scoring.job import check_metrics
    from ..scoring.prompts import load_prompt_score, read_prompts

    base, device = out.removesuffix(".json"), run["device"] or "cpu"
    target = check_writable(Path(f"{base}.json"), "--out")
    written = options["write_stats"] and check_writable(
        Path(options["write_stats"]), "--write-stats"
    )
    how = Conventions(**{key: options[key] for key in Conventions.__dataclass_fields__})
    source, network, metrics = open_images(path), _network(options, device), metrics_of(options)
    check_used(chosen, metrics, options)
    check_metrics(metrics, bool(options["stats"]), bool(options["reference"]))
    judges = [load_prompt_score(text, device) for text in options["prompt_score"]]
    if (options["prompts"] is None) != (not judges):
        lacking = "--prompt-score" if options["prompts"] else "--prompts"
        raise InputError(lacking, "is missing", "Give both, or neither")
    prompts = read_prompts(options["prompts"], len(source)) if judges else []
    job = _Job(source, base, run, options)
    result: dict[str, Any] = {}
    with stopped(target.parent, f"{target.stem}*.parts/*.npz"):
        if network is not None:
            result = job.scores(network, metrics, how, written)
        for judge in judges:
            result[judge.name] = job.prompt_score(judge, prompts)
    write_whole(target, (json.dumps(result, indent=1) + "\n").encode(), "--out")
    for shards in job.kept:
        shards.remove()
    emit(result, as_json, f"{_text(result)}written to {target}")


def bench_features(options: dict[str, Any], device: str | None) -> tuple[dict[str, Any], Any]:
    """What --features and --stats change where a model is judged: the settings that say so, and the
    arguments of evaluation.bench.Bench; nothing where neither is given."""
    from ..metrics import Frechet
    from ..scoring.images import pictured
    from ..scoring.reference import file_reference
    from ..scoring.statistics import described

    if options["features"] is None:
        for name in ("stats", "resize"):
            if options[name] is not None:
                raise InputError(f"--{name}", "says nothing without --features", "Give both")
        return {}, {}
    network = _network({**options, "prompt_score": ()}, device or "cpu")
    assert network is not None

    def features(images: Tensor) -> Tensor:
        return network(pictured(images))[0]

    settings, own = {"features": described(network)}, {"features": (features, network.name)}
    if options["stats"] is None:
        return settings, own
    found = file_reference(options["stats"], network)
    settings["stats"] = {"source": found.name, **found.note}
    target = Frechet.of_moments(found.mean, found.covariance)
    return settings, own | {"reference": target}


def _network(options: dict[str, Any], device: str) -> Network | None:
    from ..scoring import load_network
    from ..scoring.resize import resize_of

    text, resize = options["features"], options["resize"]
    if text is None:
        if not options["prompt_score"]:
            raise InputError(
                "--features", "is missing", "Name a feature network: --help lists them"
            )
        return None
    return load_network(text, resize=resize and resize_of(resize), device=device)


class _Job:
    """How images are read, and where finished blocks are kept."""

    def __init__(self, source: Source, base: str, run: dict[str, Any], options: dict[str, Any]):
        from ..scoring import Extraction

        self.source, self.base, self.options = source, base, options
        reads = {key: options[key] for key in ("workers", "on_error")}
        self.how = Extraction(run["batch_size"], **reads, progress=run["progress"])
        self.kept: list[Shards] = []

    def through(self, name: str, **made_of: Any) -> Extraction:
        """With its own folder of finished blocks."""
        versions = {"reg_engine": __version__, "torch": torch.__version__}
        settings = {"images": self.source.fingerprint(), "batch_size": self.how.batch_size}
        self.kept.append(Shards(Path(f"{self.base}{name}.parts"), settings | made_of | versions))
        return replace(self.how, shards=self.kept[-1])

    def scores(
        self, network: Network, metrics: list[str], how: Conventions, written: Path | None
    ) -> dict[str, Any]:
        """The scores in the network's features."""
        from ..scoring import open_images, score
        from ..scoring.reference import cache_folder, file_reference
        from ..scoring.statistics import described

        stats, against = self.options["stats"], self.options["reference"]
        reference = None if against is None else open_images(against)
        key = None if reference is None else reference.fingerprint()
        found = score(
            self.source,
            network,
            metrics,
            how,
            statistics=None if stats is None else file_reference(stats, network),
            reference=reference,
            extraction=self.through("", features=described(network), reference=key),
            cache=cache_folder() if self.options["cache"] else None,
        )
        if written is not None:
            found.statistics.save(written, "--write-stats")
        return found.result

    def prompt_score(self, judge: PromptScore, prompts: list[str]) -> dict[str, Any]:
        """One score of images beside their prompts."""
        from ..scoring.extract import extract
        from ..scoring.prompts import mean_score

        how = self.through(f".{judge.name}", judge=judge.fingerprint, prompts=prompts)
        return mean_score(extract(self.source, judge.asking(prompts), how, judge.name), judge)


def _text(result: dict[str, Any]) -> str:
    """A line for each score."""
    lines = []
    if "images" in result:
        images, network = result["images"], result["features"]
        left = f", {images['unreadable']} left out" if images["unreadable"] else ""
        lines.append(
            f"{images['count']} images{left}; {network['width']} features of {network['name']}"
        )
    for name, found in {**result.get("metrics", {}), **result}.items():
        if isinstance(found, dict) and ({"value", "mean", "precision"} & set(found)):
            lines.append(f"{name:12}{_numbers(found)}")
    lines += [f"note: {result['warning']}"] if "warning" in result else []
    return "".join(f"{line}\n" for line in lines)


def _numbers(found: dict[str, Any]) -> str:
    if "precision" in found:
        return f"precision {found['precision']:.4f}  recall {found['recall']:.4f}  k {found['k']}"
    value = found.get("value", found.get("mean"))
    spread = found.get("error", found.get("std"))
    return f"{value:.6g}" + ("" if spread is None else f" ± {spread:.3g}")
