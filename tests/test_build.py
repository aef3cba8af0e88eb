"""The build: one list of sources for setup.py and CMake, and a wheel whatever is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LISTED = (ROOT / "csrc" / "sources.txt").read_text(encoding="utf-8").split()
STALE = "reg_engine/_C_cpu.so"  # as a build in place leaves it in the checkout


def test_every_source_is_listed() -> None:
    found = {
        path.relative_to(ROOT / "csrc").as_posix()
        for kind in ("*.cpp", "*.cu")
        for path in (ROOT / "csrc").rglob(kind)
    }
    assert sorted(LISTED) == sorted(found)
    assert all(re.match(r"(cpu/\w+\.cpp|cuda/\w+\.cu)$", name) for name in LISTED)


def test_both_builds_read_the_list() -> None:
    """And name no source of their own."""
    for name in ("setup.py", "CMakeLists.txt"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "csrc/sources.txt" in text
        assert not [source for source in LISTED if Path(source).name in text]


def test_every_header_is_used() -> None:
    headers = {path for kind in ("*.h", "*.cuh") for path in (ROOT / "csrc").rglob(kind)}
    text = "".join((ROOT / "csrc" / name).read_text(encoding="utf-8") for name in LISTED)
    text += "".join(path.read_text(encoding="utf-8") for path in headers)
    included = {Path(name).name for name in re.findall(r'#include "(.+?)"', text)}
    assert included == {path.name for path in headers}


def test_sources_keep_to_the_budget() -> None:
    paths = [path for path in (ROOT / "csrc").rglob("*") if path.is_file()]
    for path in (*paths, ROOT / "CMakeLists.txt"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 300, path
        assert max(map(len, lines)) <= 100, path


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A source tree of what the build needs, with a library of an earlier build lying about."""
    for name in ("setup.py", "pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    ignore = shutil.ignore_patterns("__pycache__", "*.so", "*.safetensors")
    for name in ("reg_engine", "kernels"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    (tmp_path / STALE).write_bytes(b"")
    return tmp_path


def wheel_of(copy: Path, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Build a wheel by setup.py; also the wheels that came of it."""
    command = [sys.executable, "setup.py", "-q", "bdist_wheel"]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("REG_ENGINE_")}
    done = subprocess.run(
        command,
        cwd=copy,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, [path.name for path in (copy / "dist").glob("*.whl")]


def libraries(wheel: Path) -> list[str]:
    listing = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", str(wheel)],
        capture_output=True,
        text=True,
        check=True,
    )
    return re.findall(r"\S+\.so", listing.stdout)


def fake_tools(folder: Path, **scripts: str) -> str:
    """A PATH with nothing but these programs."""
    folder.mkdir()
    for name, script in scripts.items():
        program = folder / name.replace("cxx", "c++")
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
    return str(folder)


@pytest.mark.parametrize("missing", ["cmake", "C++ compiler", "nothing, but it fails"])
def test_without_tools_the_wheel_is_pure_and_says_why(copy: Path, missing: str) -> None:
    """One line with the reason; with REG_ENGINE_BUILD=1 the same reason is the error."""
    scripts = {} if missing == "cmake" else {"cmake": "echo broken >&2; exit 3"}
    if missing.startswith("nothing"):
        scripts["cxx"] = "exit 0"
    path = fake_tools(copy / "bin", **scripts)
    reason = r"`cmake -S .*` failed, see above" if "cxx" in scripts else f"no {re.escape(missing)}"
    done, wheels = wheel_of(copy, PATH=path, CXX="c++")
    said = f"^reg_engine: the compiled ops are left out: {reason}$"
    assert len(re.findall(said, done.stderr, re.M)) == 1, done.stderr
    assert done.returncode == 0 and len(wheels) == 1 and wheels[0].endswith("-py3-none-any.whl")
    assert libraries(copy / "dist" / wheels[0]) == []

    shutil.rmtree(copy / "dist")
    done, wheels = wheel_of(copy, PATH=path, CXX="c++", REG_ENGINE_BUILD="1")
    assert done.returncode != 0 and wheels == []
    assert re.search(f"the compiled ops cannot be built: {reason}$", done.stderr, re.M)


def test_zero_builds_nothing(copy: Path) -> None:
    done, wheels = wheel_of(copy, REG_ENGINE_BUILD="0")
    assert "left out: REG_ENGINE_BUILD=0" in done.stderr
    assert len(wheels) == 1 and wheels[0].endswith("-py3-none-any.whl")
    assert libraries(copy / "dist" / wheels[0]) == []


def test_with_tools_the_wheel_has_the_library_and_the_platform(copy: Path) -> None:
    """One wheel for every Python 3. What is compiled is a stand-in; the rest is the real build."""
    install = 'for last; do :; done; mkdir -p "$last/reg_engine"; : > "$last/reg_engine/_C_cpu.so"'
    script = f'PATH=/usr/bin:/bin; case "$1" in --install) {install};; esac'
    path = fake_tools(copy / "bin", cmake=script, cxx="exit 0")
    done, wheels = wheel_of(copy, PATH=path, CXX="c++")
    assert done.returncode == 0, done.stderr
    assert len(wheels) == 1 and re.search(r"-py3-none-linux_\w+\.whl$", wheels[0])
    assert libraries(copy / "dist" / wheels[0]) == [STALE]


def test_a_build_in_place_leaves_nothing_old(copy: Path) -> None:
    path = fake_tools(copy / "bin")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("REG_ENGINE_")}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=copy, env={**kept, "PATH": path}, check=True, capture_output=True)
    assert not (copy / STALE).exists()


def test_cuda_that_is_asked_for_needs_nvcc(copy: Path) -> None:
    path = fake_tools(copy / "bin", cmake="exit 0", cxx="exit 0")
    asked = {"REG_ENGINE_BUILD": "1", "REG_ENGINE_CUDA": "1", "CUDA_HOME": str(copy), "CUDACXX": ""}
    done, wheels = wheel_of(copy, PATH=path, CXX="c++", **asked)
    assert done.returncode != 0 and wheels == []
    assert "cannot be built: no nvcc, and REG_ENGINE_CUDA=1" in done.stderr
