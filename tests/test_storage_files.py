"""Files appear whole or not at all, and nothing of anyone else's is touched."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from reg_engine import InputError
from reg_engine.storage import files
from reg_engine.storage.files import (
    check_writable,
    claim,
    clear,
    discard,
    member,
    replacing,
    set_aside,
    sweep,
    write_whole,
)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    write_whole(target, b"old")
    with replacing(target) as file:
        file.write(b"new")
        file.flush()
        assert target.read_bytes() == b"old" and len(names(tmp_path)) == 2
    assert target.read_bytes() == b"new" and names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_fails_leaves_the_old_file_and_nothing_else(error: Any, tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"old")
    with pytest.raises(error), replacing(tmp_path / "a") as file:
        file.write(b"half")
        raise error
    assert (tmp_path / "a").read_bytes() == b"old" and names(tmp_path) == ["a"]


def test_it_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    replace, sync = os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda *a: (done.append("replace"), replace(*a)))
    monkeypatch.setattr(os, "fsync", lambda d: (done.append("sync"), sync(d)))
    write_whole(tmp_path / "a", b"x")
    assert done == ["sync", "replace", "sync"], "the file, its name, the folder"


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "out"
    victim.write_bytes(b"precious")
    folder.mkdir()
    for name in ("a", "dangling"):
        (folder / name).symlink_to(victim if name == "a" else tmp_path / "nothing")
        check_writable(folder / name)
        write_whole(folder / name, b"ours")
        assert (folder / name).read_bytes() == b"ours" and not (folder / name).is_symlink()
    assert victim.read_bytes() == b"precious" and names(tmp_path) == ["out", "victim"]


def test_other_names_of_a_file_keep_its_content(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"old")
    os.link(tmp_path / "a", tmp_path / "b")
    write_whole(tmp_path / "a", b"new")
    assert (tmp_path / "b").read_bytes() == b"old"


@pytest.mark.parametrize("name", [".a.probe", "a.part", ".a.tmp"])
def test_files_with_names_one_could_guess_stay(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / name)
    check_writable(tmp_path / "a")
    write_whole(tmp_path / "a", b"ours")
    assert (tmp_path / name).read_bytes() == b"mine"
    assert names(tmp_path) == sorted(["a", "link", name])


def test_permissions_are_those_of_the_umask_or_of_the_old_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    (tmp_path / "a").chmod(0o604)
    write_whole(tmp_path / "a", b"y")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o604


def test_what_is_no_file_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for call in (check_writable, lambda path: write_whole(path, b"x")):
        for path, problem in (
            (tmp_path / "folder", "is a folder"),
            (tmp_path / "pipe", "no regular file"),
            (Path("/dev/null"), "no regular file"),
            (tmp_path / "a\0b", "is no path"),
            (tmp_path / ("n" * 300), "cannot be written"),
        ):
            with pytest.raises(InputError, match=problem):
                call(path)
    assert names(tmp_path) == ["folder", "pipe"]


def test_unwritable_paths_are_said_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "x.png", Path("/proc/no/x.png")):
        with pytest.raises(InputError, match="--out: .* cannot be written"):
            check_writable(path, "--out")
    assert check_writable(tmp_path / "new" / "x.png") == tmp_path / "new" / "x.png"
    assert names(tmp_path / "new") == []


FULL = """
import resource, sys
from pathlib import Path
from reg_engine.storage.files import check_writable, write_whole
from reg_engine import InputError
target = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
for call in (check_writable, lambda path: write_whole(path, bytes(200_000))):
    try:
        call(target)
    except InputError as error:
        print(error)
    else:
        print("fine")
"""


@pytest.mark.parametrize(("limit", "fits"), [(1000, [False, False]), (100_000, [True, False])])
def test_a_full_disk_is_one_error_with_a_remedy(
    limit: int, fits: list[bool], tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    command = [sys.executable, "-c", FULL, str(tmp_path / "a"), str(limit)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line == "fine" for line in said] == fits
    assert all("Free space, or give another path" in line for line in said if line != "fine")
    assert (tmp_path / "a").read_bytes() == b"old" and names(tmp_path) == ["a"]


# What killed runs leave


def test_leftovers_of_a_dead_run_go_and_those_of_a_living_one_stay(tmp_path: Path) -> None:
    dead = tmp_path / ".reg_engine-0123456789abcdef.tmp"
    dead.write_bytes(b"half")
    (tmp_path / ".reg_engine-0123456789abcdef.tmp.mine").write_bytes(b"mine")
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / ".reg_engine-fedcba9876543210.tmp").symlink_to(tmp_path / "victim")
    with replacing(tmp_path / "a") as file:
        file.write(b"x")
        before = names(tmp_path)
        check_writable(tmp_path / "b")
        sweep(tmp_path)
        assert names(tmp_path) == [name for name in before if name != dead.name]
    assert (tmp_path / "a").read_bytes() == b"x"
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_a_file_that_was_taken_for_a_leftover_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run sweeps between making the file and locking it."""
    lock, swept = files._lock, []

    def late(file: Any) -> bool | None:
        if not swept:
            swept.append(file.name)
            sweep(tmp_path)
        return lock(file)

    monkeypatch.setattr(files, "_lock", late)
    write_whole(tmp_path / "a", b"x")
    assert swept and names(tmp_path) == ["a"]


# Removing


def test_clear_removes_what_is_ours_and_nothing_else(tmp_path: Path) -> None:
    work, victim = tmp_path / "work", tmp_path / "victim"
    for name in ("run/a.npz", "run/deep/a.npz", "mixed/a.npz", "mixed/mine.txt", "a.npz"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(b"x")
    (work / "run" / ".reg_engine-0123456789abcdef.tmp").write_bytes(b"half")
    (work / "empty").mkdir()
    victim.mkdir()
    (victim / "b.npz").write_bytes(b"precious")
    (work / "link").symlink_to(victim)
    (work / "mixed" / "b.npz").symlink_to(victim / "b.npz")
    clear(work, ["*/*.npz"])
    kept = sorted(path.relative_to(work).as_posix() for path in work.rglob("*"))
    assert kept == ["a.npz", "empty", "link", "mixed", "mixed/b.npz", "mixed/mine.txt"]
    assert (victim / "b.npz").read_bytes() == b"precious"
    clear(work / "link", ["*.npz"])
    clear(tmp_path / "missing", ["*"])
    assert (victim / "b.npz").exists()


def test_clear_removes_a_folder_that_held_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "x.parts").mkdir()
    clear(tmp_path / "x.parts", ["a[1].npz"])
    assert (tmp_path / "x.parts").exists(), "nothing in it was ours"
    (tmp_path / "x.parts" / "a[1].npz").write_bytes(b"x")
    clear(tmp_path / "x.parts", ["a[1].npz"])
    assert names(tmp_path) == []


def test_a_claim_is_made_once(tmp_path: Path) -> None:
    assert claim(tmp_path / "a", b"one") and not claim(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"one"
    set_aside(tmp_path / "a")
    set_aside(tmp_path / "a")  # somebody else was faster
    assert names(tmp_path) == [] and claim(tmp_path / "a", b"two")
    discard(tmp_path / "a")
    discard(tmp_path / "a")
    assert names(tmp_path) == []
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert not claim(tmp_path / "link", b"x") and names(tmp_path) == ["link"]
    with pytest.raises(InputError, match="cannot be written"):
        claim(tmp_path / "missing" / "a", b"x")


def test_members_of_equal_content_make_equal_archives(tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        with (
            replacing(tmp_path / name) as file,
            zipfile.ZipFile(file, "w") as archive,
            member(archive, "x") as part,
        ):
            part.write(b"content")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.read("x") == b"content"
        assert archive.getinfo("x").date_time == (1980, 1, 1, 0, 0, 0)
