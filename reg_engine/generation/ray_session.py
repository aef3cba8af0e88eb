"""A connection to Ray: to a cluster that is there, or to one of this machine alone, begun and ended
here, which listens on the loopback interface only, without dashboard and usage reports."""

from __future__ import annotations

import importlib
import math
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import InputError
from ..values import as_float, as_int

__all__ = ["Resources", "Session", "remotely"]

T = TypeVar("T")
_SILENCE = 10.0  # seconds without the head until a cluster is given up
_STORE = 80 << 20  # bytes of a local cluster's object store: only numbers of shards go through it
# Read by Ray as it is imported. The second makes it stay on the loopback interface, as it does
# without being told on Windows and macOS.
_LOCAL = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@dataclass(frozen=True)
class Resources:
    """What a job gets of a Ray cluster.

    Args:
        workers: (least, most) actors, 1 <= least <= most. All of `most` are asked for, which is
            what makes a cluster grow; work begins when `least` are there.
        cpus, gpus: of each actor, as Ray counts them, >= 0; a part of a GPU is allowed.
        address: of a cluster ("auto": the one this machine is part of); None: RAY_ADDRESS, and
            where that is not set, or with "local", a cluster of this machine alone, as long as the
            run takes.
        patience: seconds > 0 that `least` actors may take to begin.
    """

    workers: tuple[int, int] = (1, 1)
    cpus: float = 1.0
    gpus: float = 0.0
    address: str | None = None
    patience: float = 1800.0

    def __post_init__(self) -> None:
        low, high = as_int("workers", self.workers[0]), as_int("workers", self.workers[1])
        if low > high:
            raise InputError("workers", f"are {low} to {high}", "Give the least, then the most")
        for name, value in (("cpus", self.cpus), ("gpus", self.gpus)):
            as_float(name, value, "Give a number >= 0", lambda v: 0 <= v < float("inf"))
        as_float("patience", self.patience, "Give seconds > 0", lambda v: 0 < v < float("inf"))

    def options(self) -> dict[str, float]:
        """What Ray is told of an actor or a task."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}


class Session:
    """A connection, from `open` to `close`; one that the program has made already is used as it is.

    Args:
        resources: says where, and how much a local cluster must have.
    """

    def __init__(self, resources: Resources) -> None:
        self.resources, self._ours, self.lost = resources, False, False
        self.ray: Any = None
        self.address = resources.address or os.environ.get("RAY_ADDRESS") or "local"
        if self.address.startswith("ray://"):
            problem = f"is {self.address!r}: a client's, whose program dies with its line"
            remedy = "Use `ray job submit`, or run it on a machine of the cluster with 'auto'"
            raise InputError("address", problem, remedy)

    def open(self) -> Any:
        """The module `ray`, connected.

        Raises:
            InputError: Ray is not there, or says no.
        """
        local = self.address == "local"
        if local and "ray" not in sys.modules:
            os.environ.update({k: v for k, v in _LOCAL.items() if k not in os.environ})
        try:
            ray = self.ray = importlib.import_module("ray")
        except ImportError as error:
            remedy = 'Run `pip install "reg-engine[ray]"`'
            raise InputError("engine", f"'ray' needs Ray ({error})", remedy) from error
        if not ray.is_initialized():
            self._init(local)
        host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
        self._head, self._reached = (host.strip("[]"), int(port)), time.monotonic()
        return ray

    def _init(self, local: bool) -> None:
        ray = self.ray
        given: dict[str, Any] = {"address": self.address}
        if local:
            cpus = max(
                os.cpu_count() or 1, math.ceil(self.resources.workers[1] * self.resources.cpus)
            )
            given |= {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _STORE}
            given |= {"_node_ip_address": "127.0.0.1"}
        try:
            ray.init(log_to_driver=False, logging_level="ERROR", **given)
        except (OSError, RuntimeError, ValueError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
            problem = f"{self.address!r} gives no cluster ({reason})"
            remedy = "Start one, or set RAY_AUTH_MODE=token if it asks for a token"
            raise InputError("address", problem, remedy) from error
        self._ours = True
        if local and not ray.get_runtime_context().gcs_address.startswith("127."):
            self.close()
            problem = "'local' would listen on the network: Ray was imported before"
            raise InputError("address", problem, "Call ray.init first, as you want it")

    def close(self) -> None:
        """Leave the cluster; one that was begun here ends."""
        if self._ours and not self.lost:
            self.ray.shutdown()
        self._ours = False

    def check(self) -> None:
        """Called while nothing comes: without its head a cluster answers never, and says nothing.

        Raises:
            InputError: the head has not been reached for a while.
        """
        try:
            socket.create_connection(self._head, timeout=2.0).close()
            self._reached = time.monotonic()
        except OSError as error:
            if time.monotonic() - self._reached > _SILENCE:
                problem = f"the cluster at {self.address!r} is gone ({error})"
                remedy = "Give the same command again: what is done stays"
                self.lost = True  # Ray would wait for it at every call
                raise InputError("address", problem, remedy) from error

    def result(self, reference: Any) -> Any:
        """What a task or an actor answered.

        Raises:
            Exception: the task's own, as it raised it; ray.exceptions.RayError: it was lost.
        """
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            raise (error.cause or error) from None


def remotely(function: Callable[[], T], resources: Resources) -> T:
    """What a function returns, called once on the cluster with what an actor would get.

    Raises:
        Exception: what the function raises. InputError: Ray says no, or the task was lost.
    """
    session = Session(resources)
    ray = session.open()
    try:
        task = ray.remote(function).options(max_retries=0, **resources.options())
        found: T = session.result(task.remote())
        return found
    except ray.exceptions.RayError as error:
        problem = f"the task was lost ({str(error).splitlines()[0][:300]})"
        raise InputError("engine", problem, "See Ray's logs") from error
    finally:
        session.close()
