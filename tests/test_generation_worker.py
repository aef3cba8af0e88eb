"""Workers: whoever makes what, the bytes are the same; what fails is named, what is lost made."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from generation_cases import Numbers, job, made, opened, tree, worker
from nets import CLASSES, TinyNet

from reg_engine import Denoiser, Engine, InputError, NumericalError, schedules
from reg_engine.generation import Cycle, Job, OfLabels, generate, verify
from reg_engine.generation.finish import MANIFEST
from reg_engine.generation.leases import Leases

TEMPORARY = ".reg_engine-0123456789abcdef.tmp"


def test_batches_are_those_of_the_job(tmp_path: Path) -> None:
    sampler = Numbers()
    found = made(tmp_path / "o", sampler)
    assert sampler.batches == [list(range(s, min(s + 4, 26))) for s in range(0, 26, 4)]
    assert sampler.settled == [(job().labels.of(0), 0)]
    assert [(each.number, each.images, each.done) for each in found] == [
        (0, 8, 1),
        (1, 8, 2),
        (2, 8, 3),
        (3, 2, 4),
    ]
    other = Numbers()
    assert made(tmp_path / "o", other) == [] and other.batches == other.settled == []


def test_parts_and_starts_make_the_same_files(tmp_path: Path) -> None:
    made(tmp_path / "whole")
    whole = tree(tmp_path / "whole")
    for index in (2, 0, 1):
        found = made(tmp_path / "o", part=(index, 3))
        assert [each.number % 3 for each in found] == [index] * len(found)
        assert (tmp_path / "o" / MANIFEST).exists() == (index == 1)  # the last one writes it
    assert tree(tmp_path / "o") == whole
    order = [each.number for each in made(tmp_path / "late", start=0.5)]
    assert order == [2, 3, 0, 1] and tree(tmp_path / "late") == whole


def test_an_engine_whoever_begins_where(tmp_path: Path) -> None:
    """REG's estimator is settled on the job's first image, not on a worker's first."""
    net = Denoiser(
        TinyNet(size=12), "edm", schedules.EDM(), (3, 2, 2), CLASSES, num_classes=CLASSES
    )
    what = Job((range(14),), Cycle(tuple(range(CLASSES))), batch_size=2, shard_size=4)
    for name, start in (("a", 0.0), ("b", 0.6)):
        net.net.calls.clear()  # an attribute like any other: part of the key
        engine = Engine(net, scale=3.0, steps=3, progress=False, batch_size=2)
        made(tmp_path / name, OfLabels(engine), what, start=start)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize("count", [2, 4])
def test_processes_make_the_same_files(tmp_path: Path, count: int) -> None:
    what = job(98)
    made(tmp_path / "one", what=what)
    workers = [worker(tmp_path / "o", what, start=rank / count) for rank in range(count)]
    for each in workers:
        each.join(60)
        assert each.exitcode == 0
    assert tree(tmp_path / "o") == tree(tmp_path / "one")
    assert os.listdir(tmp_path / "o" / "leases") == []


def killed(out: Path, rounds: int, seed: int) -> None:
    """kill -9 of a worker somewhere in its work, again and again, then two resumes at once."""
    draw, what = np.random.default_rng(seed), job(98)
    for turn in range(rounds):
        left = [int(draw.integers(1, 9))]

        def before(seeds: list[int], left: list[int] = left) -> None:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

        # Before some batch, or at any moment: in the middle of a write, too.
        victim = worker(out, what, before if turn % 2 else None, start=float(draw.random()))
        victim.join(60 if turn % 2 else 0.3 * float(draw.random()))
        victim.kill()
        victim.join(60)
        assert victim.exitcode in (-signal.SIGKILL, 0)
    resumes = [worker(out, what, start=start, expiry=0.5) for start in (0.0, 0.1)]
    for each in resumes:
        each.join(60)
        assert each.exitcode == 0


def whole(out: Path, reference: Path) -> None:
    """Nothing missing, duplicated, truncated or foreign."""
    made(reference, what=job(98))
    assert tree(out) == tree(reference)
    found = verify(Numbers(), opened(out, job(98)), 10)
    assert found.whole and found.remade in (10, 12) and found.files == 99


def test_a_kill_costs_a_shard_and_nothing_else(tmp_path: Path) -> None:
    killed(tmp_path / "o", 4, 0)
    whole(tmp_path / "o", tmp_path / "reference")


@pytest.mark.slow
def test_thirty_kills(tmp_path: Path) -> None:
    for seed in range(10):
        killed(tmp_path / f"o{seed}", 3, seed)
        whole(tmp_path / f"o{seed}", tmp_path / f"reference{seed}")


def test_a_kill_while_it_writes_leaves_no_half(tmp_path: Path) -> None:
    """What was begun has a name of its own and is swept at the end."""
    what = job(98)
    folder = tmp_path / "o" / "000000"
    made(tmp_path / "o", what=what, part=(1, 2))
    (folder / TEMPORARY).write_bytes(b"half")
    (tmp_path / "o" / "leases" / "000001").write_bytes(b"{}")  # of one lost after its record
    made(tmp_path / "o", what=what)
    whole(tmp_path / "o", tmp_path / "reference")


def test_what_a_lost_one_left_beside_a_finished_job_goes(tmp_path: Path) -> None:
    """Killed between its last record and the end."""
    out = tmp_path / "o"
    made(out)
    left = (out / "leases" / "done", out / "leases" / "000003", out / "shards" / TEMPORARY)
    for path in left:
        path.write_bytes(b"{}")
    (out / "leases" / "mine.txt").write_bytes(b"x")
    assert made(out) == [] and not any(path.exists() for path in left)
    assert os.listdir(out / "leases") == ["mine.txt"]


def test_a_clock_that_jumps_while_two_work(tmp_path: Path) -> None:
    """Leases say an hour later, an hour earlier, many times within their expiry: the living keep
    what they have, and the bytes are the same."""
    what, leases = job(98), tmp_path / "o" / "leases"
    made(tmp_path / "one", what=what)
    (tmp_path / "log").mkdir()

    def before(seeds: list[int]) -> None:
        time.sleep(0.04)
        (tmp_path / "log" / f"{seeds[0]}-{os.getpid()}").touch()

    both = [worker(tmp_path / "o", what, before, start=s, expiry=5.0) for s in (0.0, 0.5)]
    jumps, hour = 0, 3600.0
    while any(each.is_alive() for each in both):
        for lease in leases.iterdir() if leases.is_dir() else ():
            with suppress(FileNotFoundError):
                now = time.time() + (hour if jumps % 2 else -hour)
                os.utime(lease, (now, now))
                jumps += 1
        time.sleep(0.01)
    assert [each.exitcode for each in both] == [0, 0] and jumps > 10
    assert tree(tmp_path / "o") == tree(tmp_path / "one")
    assert len(list((tmp_path / "log").iterdir())) == 25  # nothing was made twice


def test_leases_of_garbage_are_waited_out(tmp_path: Path) -> None:
    leases = tmp_path / "o" / "leases"
    leases.mkdir(parents=True)
    for name in ("000001", "done"):
        (leases / name).write_bytes(b"garbage")
    found = made(tmp_path / "o", expiry=0.2)
    assert [each.number for each in found] == [0, 2, 3, 1]
    assert (tmp_path / "o" / MANIFEST).exists() and os.listdir(leases) == []


def test_what_its_owner_has_just_ended_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, sampler = Leases.take, Numbers()

    def late(self: Leases, name: str) -> bool:
        if name == "000001":  # done by another after this one has looked
            monkeypatch.undo()
            made(tmp_path / "o", part=(1, 4))
        return take(self, name)

    monkeypatch.setattr(Leases, "take", late)
    assert [each.number for each in made(tmp_path / "o", sampler)] == [0, 2, 3]
    assert [8, 9, 10, 11] not in sampler.batches


def test_memory_that_runs_out_halves_the_batch_and_is_remembered(tmp_path: Path) -> None:
    sampler = Numbers(most=1)
    found = made(tmp_path / "o", sampler)
    assert {len(batch) for batch in sampler.batches} == {1}
    assert [each.batch_size for each in found] == [1, 1, 1, 1]
    assert opened(tmp_path / "o").done("000002")["batch_size"] == 1  # type: ignore[index]
    tried: list[int] = []
    again = Numbers(most=2, before=lambda seeds: tried.append(len(seeds)))
    made(tmp_path / "two", again)
    assert tried == [4, *[2] * 13]  # one batch ran out, none after it
    with pytest.raises(torch.OutOfMemoryError):
        made(tmp_path / "none", Numbers(most=0))
    assert os.listdir(tmp_path / "none" / "leases") == []


def test_another_error_is_no_lack_of_memory(tmp_path: Path) -> None:
    def fail(seeds: list[int]) -> None:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        made(tmp_path / "o", Numbers(before=fail))
    assert os.listdir(tmp_path / "o" / "leases") == [] and not (tmp_path / "o" / "shards").exists()


@pytest.mark.parametrize("kind", ["png", "npz"])
def test_nan_names_its_seed_and_the_rest_goes_on(tmp_path: Path, kind: str) -> None:
    bad, what = (5, 6, 25), job(format=kind)
    with pytest.raises(NumericalError, match=r"^seed 5, 6: the model gave NaN"):
        made(tmp_path / "stop", Numbers(bad), what)
    found = made(tmp_path / "o", Numbers(bad), what, on_error="skip")
    assert [each.failed for each in found] == [[5, 6], [], [], [25]]
    assert [each.images for each in found] == [6, 8, 8, 1]
    lines = [json.loads(line) for line in (tmp_path / "o" / MANIFEST).read_text().splitlines()]
    assert [line["seed"] for line in lines] == list(range(26))
    assert [line["seed"] for line in lines if "failed" in line] == list(bad)
    assert lines[5]["failed"] == "the model gave NaN" and "file" not in lines[5]
    if kind == "npz":
        kept = [seed for seed in range(26) if seed not in bad]
        archive = np.load(tmp_path / "o" / "samples.npz")
        assert archive["arr_1"].tolist() == [what.labels.of(seed) for seed in kept]
        assert len(archive["arr_0"]) == 23
        assert [line.get("index") for line in lines[4:9]] == [4, None, None, 5, 6]


def test_a_shard_of_nothing_but_nan(tmp_path: Path) -> None:
    (first, *_) = made(tmp_path / "o", Numbers(range(8)), on_error="skip")
    assert (first.images, first.files, first.failed) == (0, [], list(range(8)))
    assert len(made(tmp_path / "n", Numbers(range(8)), job(format="npz"), on_error="skip")) == 4
    assert len(np.load(tmp_path / "n" / "samples.npz")["arr_0"]) == 18


def test_a_full_disk_stops_with_one_error_and_goes_on(tmp_path: Path) -> None:
    what = job(format="npz")
    largest = 1 << 17
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Large(Numbers):
        def __call__(self, labels, seeds):  # type: ignore[no-untyped-def]
            return super().__call__(labels, seeds).repeat(1, 60, 60, 1)

    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
        with pytest.raises(InputError, match="Free space"):
            made(tmp_path / "o", Large(), what)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(tree(tmp_path / "o")) == ["job.json"]
    made(tmp_path / "o", Large(), what)
    made(tmp_path / "reference", Large(), what)
    assert tree(tmp_path / "o") == tree(tmp_path / "reference")


def test_it_stops_between_shards(tmp_path: Path) -> None:
    found: list[int] = []
    for shard in generate(Numbers(), job(), tmp_path / "o", stop=lambda: len(found) == 2):
        found.append(shard.number)
    assert found == [0, 1] and not (tmp_path / "o" / MANIFEST).exists()
    assert opened(tmp_path / "o").missing() == [2, 3]


def test_what_is_refused(tmp_path: Path) -> None:
    for part in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(InputError, match="part"):
            made(tmp_path / "o", part=part)
    with pytest.raises(InputError, match="on_error"):
        made(tmp_path / "o", on_error="ignore")
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_memory_is_flat_over_20000_images(tmp_path: Path) -> None:
    """What is kept grows by no image: the last 15,000 take no more than the first 5,000."""
    what = Job((range(20_000),), Cycle((1, 2, 3)), batch_size=50, shard_size=250)
    most: list[int] = []
    for _ in generate(Numbers(), what, tmp_path / "o"):
        most.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert len(most) == 80 and most[-1] - most[19] < 8_000  # KiB
    assert opened(tmp_path / "o", what).missing() == []
