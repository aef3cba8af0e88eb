"""A run of `reg-engine generate` as it is seen: lines, a bar, JSON, metrics; and its plan."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

import click

from ..loop.progress import Progress
from .bulk import recipe

if TYPE_CHECKING:
    from ..generation import Finished, Records

__all__ = ["planned", "run", "spans"]


def run(
    shards: Callable[[Callable[[], bool]], Iterator[Finished]],
    records: Records,
    given: dict[str, Any],
    as_json: bool,
    output: TextIO | None = None,
) -> None:
    """Show what becomes of a job.

    Args:
        shards: makes them, and asks its argument before each whether to stop.
        records: of the folder, opened.
        given: the command's options.
        output: where lines go; None: standard output.
    """
    from ..generation.grace import Grace
    from ..generation.metrics import Metrics

    job, missing = records.job, records.missing()
    first = {"event": "start", "images": len(job), "shards": job.shards, "missing": spans(missing)}
    _say(
        output, first, as_json, f"{len(missing)} of {job.shards} shards to make: {first['missing']}"
    )
    bar = Progress(job.shards, given["progress"] and not as_json, "generating")
    plain = not sys.stderr.isatty()
    metrics = Metrics(given["metrics"], records, len(missing))
    with Grace(given["grace"]) as stop, metrics, bar:
        counted = job.shards - len(missing)
        bar.advance(counted)
        for shard in shards(stop):
            bar.advance(shard.done - counted)
            counted = shard.done
            metrics.count(shard)
            line, text = _line(shard, job.shards, metrics.seconds_left)
            if as_json or plain:
                _say(output, line, as_json, text)
    failed = metrics.failed
    last = {"event": "end", "images": metrics.images, "failed": failed, "seconds": metrics.seconds}
    last |= {"shards_left": len(records.missing()), "out": given["out"]}
    text = f"{metrics.images} images made in {metrics.seconds:.1f} s, "
    text += f"{last['shards_left']} shards left"
    text += f"; NaN in seeds {', '.join(map(str, failed))}" if failed else ""
    _say(output, last, as_json, text)


def _line(shard: Finished, shards: int, left: float) -> tuple[dict[str, Any], str]:
    kept = {name: value for name, value in shard._asdict().items() if name != "files"}
    kept |= {"event": "shard", "shards": shards}
    kept["seconds_left"] = left if math.isfinite(left) else None
    text = f"shard {shard.number}: {shard.images} images in {shard.seconds:.1f} s; "
    return kept, f"{text}{shard.done} of {shards} shards, {left:.0f} s left"


def planned(given: dict[str, Any], chosen: frozenset[str]) -> tuple[dict[str, Any], str]:
    """Counts first; then one batch is made and timed, and written nowhere."""
    from ..generation import Records

    begun = time.perf_counter()
    job, sampler, settings = recipe(given, chosen)
    records = Records(given["out"], job, sampler.fingerprint(), settings)
    ready = time.perf_counter()
    if records.out.is_dir() and (records.out / "job.json").exists():
        records.open()
    missing = records.missing()
    size = job.shard_size or 1  # a Job has filled it in
    left = sum(min(size, len(job) - number * size) for number in missing)
    report: dict[str, Any] = {"images": len(job), "shards": job.shards, "images_left": left}
    report |= {"missing": spans(missing), "plan_seconds": time.perf_counter() - ready}
    report["model_seconds"] = ready - begun
    seeds = job.shard(0).seeds[: job.batch_size]
    labels = [job.labels.of(seed) for seed in seeds]
    sampler.settle(labels[0], seeds[0])
    clock = time.perf_counter()
    images = sampler(labels, seeds).numpy()
    files = list(job.writer().files("000000", images, seeds, labels))
    report["seconds_per_image"] = (time.perf_counter() - clock) / len(seeds)
    report["bytes_per_image"] = sum(len(data) for _, data in files) / len(seeds)
    report["seconds_left"] = report["seconds_per_image"] * left
    report["bytes_left"] = round(report["bytes_per_image"] * left)
    text = (
        f"{len(job):,} images in {job.shards:,} shards; {left:,} images to make, of shards "
        f"{report['missing']}\nabout {report['bytes_left'] / 1e6:,.1f} MB and "
        f"{report['seconds_left']:,.0f} s of one process, by a batch of {len(seeds)}"
    )
    return report, text


def spans(numbers: list[int]) -> str:
    """[1, 2, 3, 7] as '1-3,7'; of many spans the first."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    texts = [f"{low}-{high}" if high > low else f"{low}" for low, high in found]
    return ",".join(texts[:50]) + (",..." if len(texts) > 50 else "") or "none"


def _say(output: TextIO | None, data: dict[str, Any], as_json: bool, text: str) -> None:
    """One line at once: a log, or a reader of JSON lines, follows."""
    click.echo(json.dumps(data) if as_json else text, file=output)
    (output or sys.stdout).flush()
