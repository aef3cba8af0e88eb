"""What is done: a record a shard, written last, which says of which job it is and names its files.

A shard is done if and only if its record is whole, is of this job, and its files are there with
their sizes, or are in the archive of a finished npz job. What a killed run left is therefore made
again, to the same bytes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..storage.files import check_writable, sweep, write_whole
from ..storage.readers import open_regular
from ..values import shown
from .job import Job

__all__ = ["File", "Records", "files_in", "local_folder", "sha256_of"]

DONE = "done"  # the record of the manifest, the last of all
ARCHIVE = "samples.npz"
_NAMES = ("adapter", "labels", "model", "plan")  # of files; what they hold is in the key
_LARGEST = 1 << 28  # bytes of a record
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # of s3://b, pathlib leaves s3:/b


class File(NamedTuple):
    """A file as its record tells of it."""

    path: str  # below the output folder
    sha256: str
    bytes: int


class Records:
    """The records of a job in its folder.

    Args:
        out: the folder.
        job: what is made.
        sampler_key: a digest of all that images depend on beside labels and seeds.
        settings: more of that for people: names of models, scales, numbers of steps. All of it is
            in the job's key but `model`, `plan`, `adapter` and `labels`, names of files
            that may be renamed.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        job: Job,
        sampler_key: str,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.out, self.job, self._note = local_folder(out), job, Path(out) / "job.json"
        self.sampler_key = sampler_key
        content = {"sampler": sampler_key, **job.settings(), **(settings or {})}
        self.settings = json.loads(json.dumps(content, sort_keys=True, default=str))
        labels = hashlib.sha256(repr(job.labels).encode()).hexdigest()
        counted = {name: value for name, value in self.settings.items() if name not in _NAMES}
        text = json.dumps(counted, sort_keys=True) + labels
        self.key = hashlib.sha256(text.encode()).hexdigest()
        self._held: tuple[Any, list[File], dict[int, Any]] = (None, [], {})

    def open(self) -> None:
        """Enter the folder: made if there is none, else of the same job.

        Raises:
            InputError: it holds something else, a job of other settings, or cannot be written.
        """
        if self._note.exists():
            self._compare()
            check_writable(self._note)
            return
        known = {"shards", "leases"}
        if self.out.is_dir():
            names = sorted(entry.name for entry in self.out.iterdir())
            foreign = [name for name in names if name not in known and not name.startswith(".reg_")]
            if foreign and not self._note.exists() and not self._begun():
                problem = f"{self.out} holds other things: {', '.join(foreign[:3])}"
                raise InputError("out", problem, "Give a folder of its own")
        check_writable(self._note)
        content = {"key": self.key, "settings": self.settings}
        write_whole(self._note, json.dumps(content, indent=1).encode())
        self._compare()  # somebody may have begun another job at the same time

    def names(self) -> Iterator[str]:
        """Of every shard, in order."""
        return (f"{number:06d}" for number in range(self.job.shards))

    def read(self, name: str) -> dict[str, Any] | None:
        """The record of this name; None: there is none that is whole and of this job."""
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            with open_regular(self._path(name)) as file:
                found = json.loads(file.read(_LARGEST))
            body = found["record"]
            if found["check"] == _check(self.key, name, body):
                return dict(body)
        return None

    def write(self, name: str, body: Mapping[str, Any]) -> None:
        """Say that something is done; its files are on the disk already."""
        content = {"key": self.key, "check": _check(self.key, name, body), "record": body}
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(content).encode())

    def done(self, name: str) -> dict[str, Any] | None:
        """The record, if all files that it names are there, with their sizes, or in the archive."""
        body = self.read(name)
        if body is None or all(map(self.there, files_in(body))):
            return body
        return body if name != DONE and self.held(int(name), body) is not None else None

    def held(self, number: int, body: Mapping[str, Any]) -> tuple[int, int] | None:
        """(first image, number of images) of a shard in the archive of a finished npz job; None:
        it is not there, or not as this record says."""
        if self.job.format != "npz":
            return None
        try:
            status = os.stat(self._path(DONE))
        except OSError:
            return None
        mark = status.st_mtime_ns, status.st_ino, status.st_size
        if self._held[0] != mark:  # ten thousands of shards ask
            last = self.read(DONE) or {"files": [], "held": []}
            files = [file for file in files_in(last) if file.path == ARCHIVE]
            ends = itertools.accumulate((row[0] for row in last["held"]), initial=0)
            rows = dict(enumerate(zip(last["held"], ends, strict=False)))
            self._held = mark, files, rows
        _, files, rows = self._held
        (count, *sums), start = rows.get(number, ([0], 0))
        if sums != [each.sha256 for each in files_in(body)] or not all(map(self.there, files)):
            return None
        return (start, count) if files else None

    def there(self, file: File) -> bool:
        """Whether a file is there, with its size; a link is none."""
        with suppress(OSError):
            status = os.lstat(self.out / file.path)
            return stat.S_ISREG(status.st_mode) and status.st_size == file.bytes
        return False

    def missing(self) -> list[int]:
        """Numbers of the shards that are not done."""
        try:
            there = set(os.listdir(self.out / "shards"))
        except OSError:
            there = set()
        return [
            number
            for number, name in enumerate(self.names())
            if f"{name}.json" not in there or self.done(name) is None
        ]

    def count(self) -> int:
        """How many records there are, of whoever wrote them: how far all workers are."""
        with suppress(OSError), os.scandir(self.out / "shards") as entries:
            return sum(entry.name[:-5].isdecimal() for entry in entries)
        return 0

    def tidy(self) -> None:
        """Remove what killed runs left half written, in every folder of the job."""
        for folder in (self.out, *(entry for entry in self.out.iterdir() if entry.is_dir())):
            if not folder.is_symlink():
                sweep(folder)

    def _path(self, name: str) -> Path:
        return self.out / "shards" / f"{name}.json"

    def _begun(self) -> bool:
        """Whether one shard of this job is done: then the folder is its, also without a note."""
        with suppress(OSError), os.scandir(self.out / "shards") as entries:
            return any(self.read(entry.name[:-5]) is not None for entry in entries)
        return False

    def _compare(self) -> None:
        """InputError where another job is in the folder."""
        try:
            with open_regular(self._note) as file:
                found = json.loads(file.read(_LARGEST))
            key, settings = found["key"], dict(found["settings"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            remedy = "Remove that file: finished shards are known by their records"
            raise InputError("out", f"{self._note} is damaged", remedy) from error
        if key == self.key:
            return
        names = sorted({*settings, *self.settings} - {"sampler"})
        others = [
            f"{name} is {shown(settings.get(name))} there, {shown(self.settings.get(name))} here"
            for name in names
            if settings.get(name) != self.settings.get(name)
        ]
        said = "; ".join(others[:5]) or "the networks, their numbers, or versions differ"
        remedy = "Give another folder, or the same settings"
        raise InputError("out", f"{self.out} holds a job of other settings: {said}", remedy)


def local_folder(out: str | os.PathLike[str]) -> Path:
    """The path, if it is none of another machine's.

    Raises:
        InputError: it is a URL.
    """
    if _REMOTE.match(os.fspath(out)):
        problem = f"{shown(os.fspath(out))} is no folder of this machine"
        raise InputError("out", problem, "Mount it, or give a folder")
    return Path(out)


def files_in(body: Mapping[str, Any]) -> list[File]:
    """The files that a record names."""
    return [File(*row) for row in body["files"]]


def sha256_of(path: Path) -> str:
    """Of a file's content, read piece by piece."""
    found = hashlib.sha256()
    with open_regular(path) as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()


def _check(key: str, name: str, body: Mapping[str, Any]) -> str:
    text = json.dumps([key, name, body], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
