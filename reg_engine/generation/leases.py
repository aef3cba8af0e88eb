"""Who works on what: a file a shard, made by one, kept alive by touching it, given up with time.

A lease is abandoned if nothing has touched it for a while as its observer's own steady clock counts
(no clock of a machine or a file server is believed: they jump), or if its owner ran on this very
machine and is no more. Two may then take it at once, or its owner may have been asleep: double work
is harmless, because files are written whole and to the same bytes.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..storage.files import claim, discard, set_aside
from ..storage.readers import read_json
from ..values import as_float

__all__ = ["Leases"]


class Leases:
    """The leases of one worker.

    Args:
        folder: where all workers' leases are.
        expiry: seconds > 0 without a sign of life after which a lease is abandoned. A quarter of
            it passes between two touches.
    """

    def __init__(self, folder: Path, expiry: float = 60.0) -> None:
        remedy = "Give seconds > 0"
        self.expiry = as_float("expiry", expiry, remedy, lambda v: 0 < v < float("inf"))
        self.folder, self.token = folder, secrets.token_hex(8)
        self._note = {"token": self.token, "pid": os.getpid(), "place": _place()}
        self._seen: dict[str, tuple[Any, float]] = {}
        self._held: set[str] = set()
        self._over, self._beats = threading.Event(), threading.Thread(target=self._beat)
        self._beats.daemon = True
        folder.mkdir(parents=True, exist_ok=True)

    def take(self, name: str) -> bool:
        """Whether this worker has the lease now.

        Raises:
            InputError: a folder stands in its place; it cannot be written.
        """
        path = self.folder / name
        taken = self._claim(path)
        if not taken and self._abandoned(path):
            set_aside(path)
            taken = self._claim(path)
        if taken:
            self._held.add(name)
            if not self._beats.is_alive():
                self._beats.start()
        return taken

    def drop(self, name: str) -> None:
        """Give a lease back, unless another worker has taken it over."""
        self._held.discard(name)
        self.revoke(name, self.token)

    def revoke(self, name: str, token: str) -> None:
        """Take a lease from the worker of this token, which is known to be lost."""
        if _owner(self.folder / name).get("token") == token:
            discard(self.folder / name)

    def close(self) -> None:
        """Give back what is held, and touch nothing any more."""
        self._over.set()
        for name in list(self._held):
            self.drop(name)

    def _claim(self, path: Path) -> bool:
        return claim(path, json.dumps(self._note).encode())

    def _abandoned(self, path: Path) -> bool:
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return False  # given back just now
        if stat.S_ISDIR(status.st_mode):
            raise InputError("out", f"{path} is a folder", "Remove it: a lease is a file")
        mark, now = (status.st_mtime_ns, status.st_ino), time.monotonic()
        known, since = self._seen.get(path.name, (None, now))
        if known != mark:
            self._seen[path.name] = mark, now
            return _dead(_owner(path))
        return now - since >= self.expiry

    def _beat(self) -> None:
        while not self._over.wait(self.expiry / 4):
            for name in list(self._held):
                with suppress(OSError):
                    os.utime(self.folder / name)


def _owner(path: Path) -> dict[str, Any]:
    """What a lease says; {} of garbage, which is abandoned with time like any other."""
    try:
        found = read_json(path, "out", "It is taken over")
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}


def _dead(owner: dict[str, Any]) -> bool:
    """Whether a lease's owner ran here and is no more."""
    pid, place = owner.get("pid"), _place()
    if not place or owner.get("place") != place or type(pid) is not int or not 0 < pid < 2**31:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _place() -> str:
    """This start of this machine, and the processes that are seen from here; "" = unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
