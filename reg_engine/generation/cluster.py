"""A job on a Ray cluster: actors with an engine each, as many as the cluster gives.

Ray only says where shards are made. What is done is known by the folder, as for any other worker,
so the bytes are the same, other workers may join in, and a run goes on where another one ended.
An actor that is lost is replaced, and its shard goes to whoever is free: Ray's own retries would
keep the shard waiting for a machine that may never come back.
"""

from __future__ import annotations

import os
import platform
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple

from ..errors import InputError, choice
from .job import Job
from .leases import Leases
from .making import Finished
from .ray_session import Resources, Session
from .records import Records, local_folder
from .sampling import Sampler
from .worker import Worker, end

__all__ = ["Actor", "Cluster", "Recipe"]

Recipe = Callable[[], tuple[Job, Sampler, Mapping[str, Any]]]
"""Makes the job, its sampler, and settings for people; called once by each actor, where it runs."""

_LOSSES = 3  # actors lost on one shard, or in a row as they begin, before the run gives up
_SHARED = 60.0  # seconds until what one machine wrote is seen by another, at most
_SAY = 30.0  # seconds between two lines about what is waited for


class Place(NamedTuple):
    """Where an actor is, and the mark of its leases."""

    machine: str
    pid: int
    token: str


class Actor:
    """What runs on the cluster: a worker whose engine lives as long as it does."""

    def __init__(self, recipe: Recipe, out: str, on_error: str, expiry: float) -> None:
        self.recipe, self.out, self.how = recipe, out, (on_error, expiry)
        self.worker: Worker | None = None
        self.settings: Mapping[str, Any] = {}

    def begin(self) -> Place:
        """Make the engine and enter the folder."""
        job, sampler, self.settings = self.recipe()
        records = Records(self.out, job, sampler.fingerprint(), self.settings)
        records.open()
        self.worker = Worker(sampler, records, *self.how)
        return Place(platform.node(), os.getpid(), self.worker.leases.token)

    def about(self) -> tuple[Job, str, Mapping[str, Any]]:
        """The job, the sampler's key and the settings: all that Records needs."""
        assert self.worker is not None  # begin came first
        return self.worker.records.job, self.worker.records.sampler_key, self.settings

    def make(self, number: int) -> Finished | None:
        """A shard; None: it is done already."""
        assert self.worker is not None
        return next(self.worker.passes([number]), None)


class Cluster:
    """Actors at work on a job; as a context manager. Entering it waits for the first ones, of which
    one says what the job is.

    Args:
        recipe: makes job and sampler, on the actors; this process needs neither model nor GPU.
        out: the folder, the same one on all machines.
        resources: how many actors, and of what.
        on_error, expiry: see generate.
        tell: called with what people should know: what is waited for, who was lost.

    Attributes:
        records: of the job (`records.job`), once it is entered.
        places: of the actors that have begun and are not lost.

    Raises:
        InputError: Ray is not there or says no; too few actors begin; the folder is not shared; an
            actor's own; actors are lost again and again.
    """

    records: Records

    def __init__(
        self,
        recipe: Recipe,
        out: str | os.PathLike[str],
        resources: Resources,
        *,
        on_error: str = "stop",
        expiry: float = 60.0,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        choice("on_error", on_error, ("skip", "stop"))
        self.resources, self.tell, self.expiry = resources, tell, expiry
        self.out = os.path.abspath(local_folder(out))
        self.places: dict[Any, Place] = {}
        self._arguments = (recipe, self.out, on_error, expiry)
        self._session = Session(resources)
        self._beginning: dict[Any, Any] = {}  # answer awaited -> actor
        self._busy: dict[Any, tuple[Any, int]] = {}  # answer awaited -> actor and its shard
        self._idle: list[Any] = []
        self._todo: deque[int] = deque()
        self._lost: Counter[int | None] = Counter()  # by shard; None: as they began, in a row
        self._said = time.monotonic()

    def __enter__(self) -> Cluster:
        self.ray = self._session.open()
        try:
            for _ in range(self.resources.workers[1]):
                self._start()
            self._wait_for_least()
            self._learn()
            self.leases = Leases(self.records.out / "leases", self.expiry)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for actor, number in self._busy.values():
            self.leases.revoke(f"{number:06d}", self.places[actor].token)
        self.leases.close()
        self._leave()

    def shards(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Finished]:
        """Make what is missing, and yield each shard that is finished; write the manifest.

        Args:
            stop: asked before each shard: True = begin no other.
        """
        self._todo = deque(self.records.missing())
        while self._busy or (self._todo and not stop()):
            while self._idle and self._todo and not stop():
                actor, number = self._idle.pop(), self._todo.popleft()
                self._busy[actor.make.remote(number)] = actor, number
            if not self._todo:
                self._release()
            yield from self._answers()
        if not stop():
            self._see(lambda: not self.records.missing(), "finished shards")
            end(self.records, self.leases, wait=True)

    def _start(self) -> None:
        kind = self.ray.remote(Actor).options(max_restarts=0, **self.resources.options())
        actor = kind.remote(*self._arguments)
        self._beginning[actor.begin.remote()] = actor

    def _release(self) -> None:
        """Nothing is left for those who wait, but for one, should another be lost."""
        some, self._idle = [*self._beginning.values(), *self._idle[1:]], self._idle[:1]
        self._beginning.clear()
        for actor in some:
            self.places.pop(actor, None)
            self.ray.kill(actor)

    def _answers(self) -> list[Finished]:
        """What was made, of the answers that are there within a second; who began is idle now."""
        found: list[Finished] = []
        waited = [*self._beginning, *self._busy]
        there, _ = self.ray.wait(waited, num_returns=1, timeout=1.0)
        for answer in there:
            actor, number = self._busy.pop(answer, (None, None))
            actor = self._beginning.pop(answer) if actor is None else actor
            try:
                made = self._session.result(answer)
            except self.ray.exceptions.RayError as error:
                self._replace(actor, number, error)
                continue
            self._idle.append(actor)
            self._lost[number] = 0
            if number is None:
                self.places[actor] = made
            elif made is not None:
                found.append(made)
        if not there:
            self._session.check()
        if not self._idle and not self._busy:
            self._say(f"waiting for workers: {len(self._beginning)} asked for, none there")
        return found

    def _replace(self, actor: Any, number: int | None, error: Exception) -> None:
        """Of an actor that is lost: its shard is another's, and another actor is asked for."""
        with suppress(Exception):
            self.ray.kill(actor)  # out of reach is not yet dead
        place = self.places.pop(actor, None)
        if number is not None and place is not None:
            self.leases.revoke(f"{number:06d}", place.token)
            self._todo.appendleft(number)
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        if getattr(error, "actor_init_failed", False):  # it would fail the next time, too
            problem = f"cannot begin on the cluster ({lines[-1][:300]})"
            raise InputError("workers", problem, "Install the same packages on all its machines")
        if not getattr(error, "preempted", False):
            self._lost[number] += 1
        what = "as it began" if number is None else f"with shard {number}"
        where = "" if place is None else f" on {place.machine}, process {place.pid},"
        if self._lost[number] >= _LOSSES:
            problem = f"{_LOSSES} were lost, the last one{where} {what} ({lines[0][:300]})"
            raise InputError("workers", problem, "Give them more memory, or see Ray's logs")
        self.tell(f"a worker{where} was lost {what}; another one is asked for")
        self._start()

    def _wait_for_least(self) -> None:
        least, most = self.resources.workers
        until = time.monotonic() + self.resources.patience
        while len(self._idle) < least:
            self._answers()
            said = f"{len(self._idle)} of at least {least} workers have begun; the cluster has "
            has = self.ray.cluster_resources()
            said += ", ".join(f"{has.get(name, 0):g} {name}" for name in ("CPU", "GPU"))
            if time.monotonic() > until:
                raise InputError("workers", said, "Ask for fewer, or for less of each")
            self._say(f"{said}; {most} are asked for")

    def _learn(self) -> None:
        """What the job is, and whether its folder is seen here."""
        self.records = Records(self.out, *self._session.result(self._idle[0].about.remote()))
        self._see((self.records.out / "job.json").exists, "job.json")
        self.records.open()

    def _see(self, there: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + _SHARED
        while not there():
            if time.monotonic() > until:
                problem = f"{self.out} lacks {what}, which a worker wrote on another machine"
                raise InputError("out", problem, "Give a folder that all machines share")
            time.sleep(0.5)

    def _say(self, text: str) -> None:
        if time.monotonic() - self._said > _SAY:
            self._said = time.monotonic()
            self.tell(text)

    def _leave(self) -> None:
        if self._session.lost:
            return
        busy = (actor for actor, _ in self._busy.values())
        for actor in (*self._beginning.values(), *busy, *self._idle):
            with suppress(Exception):  # the cluster may be gone
                self.ray.kill(actor)
        self._session.close()
