"""Ray: the same bytes by actors of a cluster, whichever of them are lost, joined or left.

`make test-ray` installs Ray and runs these; without it they are skipped.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from generation_cases import Numbers, job, made, tree

from reg_engine import InputError, NumericalError
from reg_engine.generation import verify
from reg_engine.generation.cluster import Actor, Cluster
from reg_engine.generation.ray_session import Resources, Session, remotely

WHAT = job(98)
ONE, TWO = Resources(), Resources((2, 2))
ROOT = Path(__file__).parents[1]


class Recipe:
    """The job; its sampler lives where the actor does. `slow`: seconds a batch takes. `die`: a
    batch with this seed ends its process, as long as there is a file left to remove."""

    def __init__(self, slow: float = 0.0, die: int = -1, lives: Path | None = None) -> None:
        self.slow, self.die, self.lives = slow, die, lives

    def __call__(self) -> tuple[Any, Any, dict[str, Any]]:
        return WHAT, Numbers(before=self.before), {"by": "test"}

    def before(self, seeds: list[int]) -> None:
        time.sleep(self.slow)
        if self.die in seeds and (self.lives is None or any(self.lives.iterdir())):
            if self.lives is not None:
                next(self.lives.iterdir()).unlink()
            os.kill(os.getpid(), signal.SIGKILL)


class Broken(Recipe):
    """As one whose package is not installed there."""

    def __reduce__(self) -> Any:
        return _fail, ()


def _fail() -> None:
    raise ImportError("Broken: cannot be read there")


def on_ray(out: Path, recipe: Any = None, resources: Resources = TWO, **given: Any) -> list[Any]:
    with Cluster(recipe or Recipe(), out, resources, **given) as cluster:
        return list(cluster.shards())


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes."""
    out = tmp_path_factory.mktemp("one") / "o"
    made(out, what=WHAT, settings={"by": "test"})
    return out


@pytest.fixture(scope="module")
def local() -> Iterator[Any]:
    """One cluster of this machine for all tests that need no other."""
    if importlib.util.find_spec("ray") is None:  # imported by Session alone, which sets it up
        pytest.skip("Ray is not installed: make test-ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}")  # what recipes name, in the actors
        session = Session(Resources((2, 3)))
        yield session.open()
        session.close()


def test_what_is_refused(tmp_path: Path) -> None:
    for given, says in (
        ({"workers": (0, 1)}, "workers"),
        ({"workers": (3, 2)}, "are 3 to 2"),
        ({"cpus": -1}, "cpus"),
        ({"gpus": float("nan")}, "gpus"),
        ({"patience": 0}, "patience"),
    ):
        with pytest.raises(InputError, match=says):
            Resources(**given)
    with pytest.raises(InputError, match="ray job submit"):
        Session(Resources(address="ray://head:10001"))
    with pytest.raises(InputError, match="Mount it"):
        Cluster(Recipe(), "s3://bucket/x", TWO)
    with pytest.raises(InputError, match="on_error"):
        Cluster(Recipe(), tmp_path, TWO, on_error="ignore")


def test_an_actor_makes_shards_by_number(tmp_path: Path, wanted: Path) -> None:
    """Without Ray: what would run on the cluster."""
    actors = [Actor(Recipe(), str(tmp_path / "o"), "stop", 60.0) for _ in range(2)]
    places = [actor.begin() for actor in actors]
    assert places[0].token != places[1].token and places[0].pid == os.getpid()
    assert actors[0].about()[0] == WHAT
    for number in range(WHAT.shards):
        shard = actors[number % 2].make(number)
        assert shard is not None and (shard.number, shard.done) == (number, number + 1)
        assert actors[0].make(number) is None
    made(tmp_path / "o", what=WHAT, settings={"by": "test"})  # the manifest
    assert tree(tmp_path / "o") == tree(wanted)


def test_two_workers_make_the_same(tmp_path: Path, wanted: Path, local: Any) -> None:
    found = on_ray(tmp_path / "o", Recipe(slow=0.01))
    assert sorted(shard.number for shard in found) == list(range(13))
    assert tree(tmp_path / "o") == tree(wanted) and os.listdir(tmp_path / "o" / "leases") == []
    assert on_ray(tmp_path / "o") == []
    for number in (3, 7):
        (tmp_path / "o" / "shards" / f"{number:06d}.json").unlink()
    assert sorted(shard.number for shard in on_ray(tmp_path / "o")) == [3, 7]
    assert tree(tmp_path / "o") == tree(wanted)


def test_one_killed_is_replaced(tmp_path: Path, wanted: Path, local: Any) -> None:
    """kill -9 of one of two in the middle of a shard; the lease would expire in an hour."""
    told: list[str] = []
    recipe = Recipe(slow=0.05)
    with Cluster(recipe, tmp_path / "o", TWO, tell=told.append, expiry=3600) as cluster:
        shards = cluster.shards()
        found = [next(shards), next(shards)]
        victim = next(iter(cluster.places.values()))
        os.kill(victim.pid, signal.SIGKILL)
        found += shards
        assert victim not in cluster.places.values()
    assert sorted(shard.number for shard in found) == list(range(13))
    assert len(told) == 1 and f"process {victim.pid}, was lost with shard" in told[0]
    assert tree(tmp_path / "o") == tree(wanted)
    assert verify(Numbers(), opened_as_there(tmp_path / "o"), 99).whole


def opened_as_there(out: Path) -> Any:
    from reg_engine.generation import Records

    records = Records(out, WHAT, Numbers().fingerprint(), {"by": "test"})
    records.open()
    return records


def test_a_shard_that_kills_two_is_made_by_the_third(
    tmp_path: Path, wanted: Path, local: Any
) -> None:
    lives = tmp_path / "lives"
    lives.mkdir()
    for n in range(2):
        (lives / str(n)).touch()
    told: list[str] = []
    on_ray(tmp_path / "o", Recipe(die=42, lives=lives), tell=told.append)
    assert [text.rpartition(" was lost ")[2] for text in told] == [
        "with shard 5; another one is asked for"
    ] * 2
    assert tree(tmp_path / "o") == tree(wanted)


def test_a_shard_that_kills_three_ends_the_run(tmp_path: Path, local: Any) -> None:
    with pytest.raises(InputError, match=r"3 were lost, the last one on .* with shard 5"):
        on_ray(tmp_path / "o", Recipe(die=42))
    assert not list((tmp_path / "o" / "leases").iterdir())


def test_workers_that_die_as_they_begin_end_the_run(tmp_path: Path, local: Any) -> None:
    def recipe() -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(InputError, match="3 were lost, the last one as it began"):
        on_ray(tmp_path / "o", recipe)


def test_errors_are_the_workers_own(tmp_path: Path, local: Any) -> None:
    def recipe() -> Any:
        raise InputError("--model", "is 'x'", "Give another")

    with pytest.raises(InputError, match="--model: is 'x'. Give another") as error:
        on_ray(tmp_path / "a", recipe, ONE)
    assert error.value.argument == "--model"
    with pytest.raises(NumericalError, match="seed 9: the model gave NaN"):
        on_ray(tmp_path / "b", lambda: (WHAT, Numbers([9]), {}), ONE)
    found = on_ray(tmp_path / "b", lambda: (WHAT, Numbers([9]), {}), ONE, on_error="skip")
    assert [seed for shard in found for seed in shard.failed] == [9]
    made(tmp_path / "c", what=job(), settings={})
    with pytest.raises(InputError, match="seeds is '0-25' there, '0-97' here"):
        on_ray(tmp_path / "c", Recipe(), ONE)
    with pytest.raises(InputError, match=r"cannot begin .*\(.*Broken: cannot be read there\)"):
        on_ray(tmp_path / "d", Broken(), ONE)
    with pytest.raises(ZeroDivisionError):
        remotely(lambda: 1 // 0, ONE)
    assert remotely(lambda: os.getpid(), ONE) != os.getpid()


def test_it_stops_when_asked_and_gives_everything_back(tmp_path: Path, local: Any) -> None:
    found: list[int] = []
    with Cluster(Recipe(slow=0.02), tmp_path / "o", TWO) as cluster:
        for shard in cluster.shards(lambda: len(found) >= 3):
            found.append(shard.number)
    assert 3 <= len(found) <= 4 and os.listdir(tmp_path / "o" / "leases") == []
    assert not (tmp_path / "o" / "manifest.jsonl").exists()
    with (
        pytest.raises(KeyboardInterrupt),
        Cluster(Recipe(slow=0.2), tmp_path / "o", TWO, expiry=3600) as cluster,
    ):
        for _ in cluster.shards():
            raise KeyboardInterrupt
    assert os.listdir(tmp_path / "o" / "leases") == []  # those in hand were taken back


def test_too_few_workers_are_waited_for_and_then_said(tmp_path: Path, local: Any) -> None:
    with pytest.raises(InputError, match=r"0 of at least 2 workers have begun; the cluster has .*"):
        on_ray(tmp_path / "o", resources=Resources((2, 2), gpus=4, patience=0.5))


def test_a_folder_that_is_not_shared_is_said(
    tmp_path: Path, local: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reg_engine.generation import cluster as module

    monkeypatch.setattr(module, "_SHARED", 0.1)
    out = tmp_path / "o"

    class Elsewhere(Actor):
        def __init__(self, recipe: Any, out: str, *rest: Any) -> None:
            super().__init__(recipe, f"{out}-of-another-machine", *rest)

    monkeypatch.setattr(module, "Actor", Elsewhere)
    with pytest.raises(InputError, match=r"lacks job\.json, which a worker wrote on another"):
        on_ray(out)
