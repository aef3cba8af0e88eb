"""What is installed: packages, versions, pins, the mapping of kernels/, and a light import."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import house
import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
VERSION = PROJECT["project"]["version"]
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def python(code: str, where: Path) -> subprocess.CompletedProcess[str]:
    """Run `python -c code` with `where` as its current folder, which `-c` puts on the path."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=where, capture_output=True, text=True, check=False
    )


def test_every_package_is_listed() -> None:
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "reg_engine").rglob("__init__.py")
    }
    assert sorted(SETUPTOOLS["packages"]) == sorted(folders | {"reg_engine.kernels"})
    assert SETUPTOOLS["package-dir"] == {"reg_engine.kernels": "kernels"}


def pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_every_dependency_is_pinned_once(version: str) -> None:
    extras, environment = PROJECT["project"]["optional-dependencies"], {"python_version": version}
    wanted = [
        requirement
        for text in (
            *PROJECT["project"]["dependencies"],
            *(text for name in ("eval", "bench", "diffusers", "dev") for text in extras[name]),
        )
        if (requirement := Requirement(text)).name != "reg-engine"
        and (requirement.marker is None or requirement.marker.evaluate(environment))
    ]
    pinned: dict[str, str] = {}
    for pin in pins():
        if pin.marker is None or pin.marker.evaluate(environment):
            (specifier,) = pin.specifier
            assert specifier.operator == "=="
            assert pin.name not in pinned
            pinned[pin.name] = specifier.version
    assert pinned["torch"] == "2.13.0"
    for requirement in wanted:
        assert requirement.specifier.contains(pinned[requirement.name]), requirement


def test_a_heavy_import_is_left_to_who_needs_it() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import reg_engine; "
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    done = python(code, ROOT)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "reg_engine" in loaded
    heavy = {"triton", "matplotlib", "diffusers", "torchmetrics", "sklearn", "scipy", "faiss"}
    heavy |= {"torchdiffeq", "transformers"}
    assert loaded & heavy == set()


def test_kernels_has_one_name() -> None:
    done = python("import reg_engine.kernels as k; print(k.__name__)", ROOT)
    assert done.stdout.strip() == "reg_engine.kernels", done.stderr
    for code, says in (
        ("import kernels.probe", "No module named 'kernels.probe'"),
        ("from kernels import probe", "cannot import name 'probe' from 'kernels'"),
        ("import kernels as k; k.ops", "this folder is imported as reg_engine.kernels"),
    ):
        done = python(code, ROOT)
        assert done.returncode != 0 and says in done.stderr, done.stderr


def test_who_looks_for_another_kernels_goes_on_without(tmp_path: Path) -> None:
    # As transformers 5 does: a spec, a version of the distribution or of the module, the names.
    (tmp_path / "looks.py").write_text(
        "import importlib.util, importlib.metadata\n"
        "from packaging import version\n"
        "assert importlib.util.find_spec('kernels') is not None\n"
        "try:\n"
        "    found = importlib.metadata.version('kernels')\n"
        "except importlib.metadata.PackageNotFoundError:\n"
        "    found = getattr(importlib.import_module('kernels'), '__version__', 'N/A')\n"
        "available = version.parse(found) >= version.parse('0.9.0')\n"
        "try:\n"
        "    from kernels import Device, get_kernel\n"
        "    available = True\n"
        "except ImportError:\n"
        "    pass\n"
    )
    code = (
        f"import sys; sys.path.append({str(tmp_path)!r}); import looks; print(looks.available); "
        "import reg_engine.kernels.probe"
    )
    done = python(code, ROOT)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("module", ["reg_engine", "reg_engine.cli"])
def test_the_command_is_a_module_too(module: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"reg-engine, version {VERSION}\n", done.stderr


def test_the_command_is_installed() -> None:
    done = python(
        "from importlib.metadata import entry_points;"
        "(found,) = entry_points(group='console_scripts', name='reg-engine');"
        "print(found.value, found.load())",
        ROOT.parent,
    )
    assert done.stdout.startswith("reg_engine.cli:main <function main"), done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy so that nothing is left in the checkout."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("reg_engine", "kernels", "csrc"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, copy / name)
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "-w", str(out), str(copy)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "REG_ENGINE_BUILD": "0"},
    )
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("reg_engine-*.whl")
    return path


@pytest.fixture(scope="module")
def wheel(built: Path) -> list[str]:
    """Names in the wheel."""
    with zipfile.ZipFile(built) as archive:
        return archive.namelist()


def test_the_wheel_holds_every_module(wheel: list[str]) -> None:
    modules = {
        path.relative_to(ROOT).as_posix()
        for path in house.python_files(ROOT)
        if path.is_relative_to(ROOT / "reg_engine")
    }
    assert modules <= set(wheel)
    assert {"reg_engine/kernels/__init__.py", "reg_engine/py.typed"} <= set(wheel)


def test_the_wheel_holds_the_weights(wheel: list[str]) -> None:
    folder = ROOT / "reg_engine" / "models" / "weights"
    weights = {path.relative_to(ROOT).as_posix() for path in folder.glob("*.safetensors")}
    assert weights, "the packaged models are missing from reg_engine/models/weights"
    assert weights <= set(wheel)


def test_the_wheel_holds_the_experiments_pages(wheel: list[str]) -> None:
    pages = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "reg_engine" / "experiments").rglob("*.md")
    }
    assert pages and pages <= set(wheel)


def test_the_wheel_holds_nothing_else(wheel: list[str]) -> None:
    assert {name.partition("/")[0] for name in wheel} == {
        "reg_engine",
        f"reg_engine-{VERSION}.dist-info",
    }
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel)


def test_what_an_index_shows_has_no_link_that_leads_nowhere(built: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        text = archive.read(f"reg_engine-{VERSION}.dist-info/METADATA").decode()
    metadata = email.message_from_string(text)
    assert len(metadata.get_all("Project-URL")) >= 2
    assert {"diffusers", "bench", "eval"} <= set(metadata.get_all("Provides-Extra"))
    assert metadata["Description-Content-Type"] == "text/markdown"
    page = metadata.get_payload()
    targets = re.findall(r"\]\(([^)]*)\)", page)
    assert targets and all(target.startswith(("https://", "#")) for target in targets)
    assert "reg-engine sample" in page and "docs/performance.md" in page
