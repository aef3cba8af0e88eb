"""How this package writes files: whole or not at all, and nothing of anyone else's is touched.

What is written gets a random name beside its target, is brought to the disk, and takes the target's
place. A link that stands there is replaced, never written through. What a killed run left half
written carries a name of this package and no lock; the next run that writes there removes it.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, BinaryIO

from ..errors import InputError

LOCKS = os.name == "posix"  # elsewhere leftovers stay
if LOCKS:
    import fcntl

__all__ = [
    "check_writable",
    "claim",
    "clear",
    "discard",
    "member",
    "replacing",
    "set_aside",
    "sweep",
    "write_whole",
]

_UNFINISHED = re.compile(r"\.reg_engine-[0-9a-f]{16}\.tmp")
_PROBE = bytes(1 << 16)  # what check_writable writes: a full disk shows before the work
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_whole(path: Path, data: bytes, argument: str = "out") -> None:
    """Write a file, or leave the old one as it was: never a half. See `replacing`."""
    with replacing(path, argument) as file:
        file.write(data)


@contextmanager
def replacing(path: Path, argument: str = "out") -> Iterator[BinaryIO]:
    """A new file, open for writing, that takes the place of `path` when the block ends well.

    A file that stands there keeps its permissions; a new one gets what the umask leaves. A link is
    replaced by the file; what it points at stays as it is.

    Args:
        path: the file to write; its folder exists.
        argument: what the caller calls it.

    Raises:
        InputError: the folder cannot be written, the disk is full, or a folder, a pipe or a device
            stands at `path`.
    """
    with _speaking(path, argument):
        mode = _mode(path, argument)
        file, temporary = _create(path.parent)
        try:
            with file:
                yield file
                file.flush()
                if mode is not None:
                    os.chmod(temporary, mode)
                os.fsync(file.fileno())
                if not LOCKS:
                    file.close()  # Windows renames no open file; elsewhere it keeps the lock
                os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(path.parent)


def check_writable(path: Path, argument: str = "out") -> Path:
    """Return `path` if a file can be written there, before any work is done; its folder is made.

    Raises:
        InputError: see `replacing`.
    """
    with _speaking(path, argument):
        _mode(path, argument)
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        file, temporary = _create(path.parent)
        try:
            with file:
                file.write(_PROBE)
                file.flush()
                os.fsync(file.fileno())
        finally:
            temporary.unlink(missing_ok=True)
    return path


def claim(path: Path, data: bytes, argument: str = "out") -> bool:
    """Make a file that must not be there yet; False: somebody else has it. Of several that try at
    once one succeeds. What it holds may be cut by a kill: only that it is there counts.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    with _speaking(path, argument):
        try:
            file = path.open("xb")
        except FileExistsError:
            return False
        with file:
            file.write(data)
    return True


def set_aside(path: Path) -> None:
    """Take a claim away: of several that try at once one moves it, to a name of nobody's."""
    aside = path.with_name(f".reg_engine-{secrets.token_hex(8)}.tmp")
    with suppress(FileNotFoundError):
        os.replace(path, aside)
        discard(aside)


def discard(path: Path) -> None:
    """Remove a file of ours, if it is still there."""
    path.unlink(missing_ok=True)


def member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """A new member of an archive that is written by `replacing`, of any size and without a date:
    equal content makes equal bytes."""
    return archive.open(zipfile.ZipInfo(name), "w", force_zip64=True)


def sweep(folder: Path) -> None:
    """Remove what killed runs left half written in `folder`: files of our names, locked by none."""
    for entry in folder.iterdir():
        if _UNFINISHED.fullmatch(entry.name) and not entry.is_symlink() and entry.is_file():
            with suppress(OSError), entry.open("rb") as file:
                if _lock(file):
                    entry.unlink()


def clear(folder: Path, names: Iterable[str]) -> None:
    """Remove our files in `folder`, and the folders, itself too, that are empty for that.

    Anything else stays: files of other names, links and what they point at.

    Args:
        folder: may be missing.
        names: patterns as in a shell, each of a path relative to `folder`; `*` stands for any
            number of characters, `/` too.
    """
    if folder.is_symlink():
        return
    patterns, touched = list(names), set()
    for place, _, files in os.walk(folder, topdown=False):
        for file in (Path(place, name) for name in files):
            relative = file.relative_to(folder).as_posix()
            ours = relative in patterns or any(fnmatch(relative, each) for each in patterns)
            if not file.is_symlink() and (ours or _UNFINISHED.fullmatch(file.name)):
                discard(file)
                touched.add(place)
        with suppress(FileNotFoundError):  # another process clears at the same time
            if place in touched and not os.listdir(place):
                os.rmdir(place)
                touched.add(os.path.dirname(place))


@contextmanager
def _speaking(path: Path, argument: str) -> Iterator[None]:
    """InputError for what the system says against writing `path`."""
    try:
        yield
    except OSError as error:
        remedy = "Free space, or give another path" if error.errno in _FULL else "Give another path"
        raise InputError(
            argument, f"{path} cannot be written ({error.strerror or error})", remedy
        ) from error


def _mode(path: Path, argument: str) -> int | None:
    """Permissions of the file at `path`; None: there is none, or a link, which is replaced."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    except ValueError as error:  # a NUL
        raise InputError(argument, f"{str(path)!r} is no path ({error})", "Give a path") from error
    if stat.S_ISLNK(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise InputError(argument, f"{path} is {kind}", "Give a file name")
    return stat.S_IMODE(status.st_mode) & 0o777


def _create(folder: Path) -> tuple[BinaryIO, Path]:
    """A new file that no one else has: exclusive, so never through a link; locked while open."""
    while True:
        path = folder / f".reg_engine-{secrets.token_hex(8)}.tmp"
        file = path.open("xb")
        # Another run may have taken it for a leftover before it was locked.
        if _lock(file) is not False and path.exists():
            return file, path
        file.close()


def _lock(file: BinaryIO) -> bool | None:
    """Whether the lock was free and is ours now; None where there are no locks."""
    if not LOCKS:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def _sync(folder: Path) -> None:
    """Bring the new name to the disk, where folders can be synchronised."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
