"""Jobs: shards as functions of their numbers, ranges that overlap, and ten million seeds."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from generation_cases import job

from reg_engine import InputError
from reg_engine.generation import Job, Uniform, ranges_of


def test_shards_are_the_seeds_in_order() -> None:
    what = job(seeds=(range(100, 110), range(5), range(40, 43)))
    assert (len(what), what.shards) == (18, 3)
    seeds = [seed for number in range(3) for seed in what.shard(number).seeds]
    assert seeds == [*range(5), *range(40, 43), *range(100, 110)]
    assert [len(what.shard(n).seeds) for n in range(3)] == [8, 8, 2]
    assert what.shard(2).name == "000002"
    assert what.settings()["seeds"] == "0-4,40-42,100-109"


@pytest.mark.parametrize(
    ("batch", "size"), [(50, 250), (8, 256), (300, 300), (1000, 1000), (1, 256), (100, 300)]
)
def test_a_shard_is_whole_batches(batch: int, size: int) -> None:
    assert Job((range(10**6),), Uniform(3), batch_size=batch).shard_size == size


def test_texts_are_ranges() -> None:
    assert ranges_of("0-49999") == (range(50_000),)
    assert ranges_of("7, 9-11,0-2") == (range(3), range(7, 8), range(9, 12))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0-9,9-12", "0-9 and 9-12 overlap"),
        ("5,5", "overlap"),
        ("9-3", "no range"),
        ("", "no list"),
        ("-3", "no list"),
        ("1-", "no list"),
        ("1.5", "no list"),
        ("0-9223372036854775808", "no range"),
    ],
)
def test_seeds_that_are_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        ranges_of(text)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"seeds": ()}, "seeds"),
        ({"seeds": (range(0, 10, 2),)}, "seeds"),
        ({"seeds": ([1, 2],)}, "seeds"),
        ({"batch_size": 0}, "batch_size"),
        ({"shard_size": 10}, "multiple of the batch size 4"),
        ({"format": "gif"}, "format"),
        ({"quality": 90}, "for png"),
        ({"format": "jpeg", "quality": 101}, "quality"),
    ],
)
def test_jobs_that_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        job(**given)


def test_ten_million_seeds_are_planned_in_little_memory() -> None:
    code = (
        "import resource, tempfile, reg_engine.generation as g\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "job = g.Job(g.ranges_of('0-9999999'), g.Uniform(1000))\n"
        "records = g.Records(tempfile.gettempdir() + '/nowhere', job, 'k')\n"
        "missing = records.missing()\n"
        "assert len(missing) == job.shards == 40000, len(missing)\n"
        "assert job.shard(39999).seeds == list(range(9999750, 10000000))\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20_000  # KiB: a list of the seeds alone has 400,000
