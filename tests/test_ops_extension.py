"""The loader of the compiled ops: what it reports, REG_ENGINE_EXT, schemas, and the columns.

These run without a build too; tests/test_csrc_<op>.py need one.
"""

from __future__ import annotations

import ctypes
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reg_engine.errors import BackendError, InputError
from reg_engine.ops import extension, formulas
from reg_engine.ops.coefficients import COLUMNS

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A loader that has loaded nothing yet, without REG_ENGINE_EXT."""
    monkeypatch.delenv("REG_ENGINE_EXT", raising=False)
    extension._load.cache_clear()
    extension.op.cache_clear()
    yield monkeypatch
    extension._load.cache_clear()
    extension.op.cache_clear()


def test_the_header_has_the_columns_in_their_order() -> None:
    header = (ROOT / "csrc" / "coefficients.h").read_text(encoding="utf-8")
    names = re.search(r"enum Column \{([^}]*)\}", header)[1]  # type: ignore[index]
    camel = ["k" + "".join(word.capitalize() for word in name.split("_")) for name in COLUMNS]
    assert [name.strip() for name in names.split(",")] == [*camel, "kFirstB"]


def test_importing_loads_nothing() -> None:
    code = "import torch, reg_engine; print(len(torch.ops.loaded_libraries))"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "0\n"


@pytest.mark.parametrize("name", extension.SCHEMAS)
def test_arguments_are_those_of_the_twin_and_out(name: str) -> None:
    schema = getattr(torch.ops.reg_engine_csrc, name).default._schema
    twin = [p for p in inspect.signature(getattr(formulas, name)).parameters if p != "dtype"]
    assert [argument.name for argument in schema.arguments] == [*twin, "out"]
    written = {a.name for a in schema.arguments if a.alias_info and a.alias_info.is_write}
    assert written == ({"history", "nonfinite", "out"} if name == "guided_step" else {"out"})
    assert schema.returns == []


def test_what_is_built_is_loaded(fresh: pytest.MonkeyPatch) -> None:
    """And what is not built says so; REG_ENGINE_EXT=1 makes an error of it."""
    report = extension.load()
    assert set(report) == {"cpu", "cuda"}
    built = (extension.FOLDER / "_C_cpu.so").exists()
    assert report["cpu"] == ("loaded" if built else "not built (_C_cpu.so is missing)")
    if torch.version.cuda is None:
        assert report["cuda"] == "this torch is built without CUDA"
    report["cpu"] = "changed"
    assert extension.load()["cpu"] != "changed"


def test_zero_ignores_what_is_built(fresh: pytest.MonkeyPatch) -> None:
    fresh.setenv("REG_ENGINE_EXT", "0")
    fresh.setattr(torch.ops, "load_library", lambda path: pytest.fail("it was loaded"))
    assert extension.load() == dict.fromkeys(("cpu", "cuda"), "switched off by REG_ENGINE_EXT=0")


def test_a_missing_build_is_said_or_an_error(fresh: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fresh.setattr(extension, "FOLDER", tmp_path)
    assert extension.load()["cpu"] == "not built (_C_cpu.so is missing)"
    fresh.setenv("REG_ENGINE_EXT", "1")
    with pytest.raises(BackendError, match=r"REG_ENGINE_EXT=1, but the cpu ops are not built"):
        extension.load()
    with pytest.raises(BackendError, match="REG_ENGINE_EXT=1"):
        extension.op("combine")


def test_a_broken_library_is_said_or_an_error(fresh: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the reason of the system's loader."""
    (tmp_path / "_C_cpu.so").write_bytes(b"not a library")
    with pytest.raises(OSError) as cause:
        ctypes.CDLL(str(tmp_path / "_C_cpu.so"))
    fresh.setattr(extension, "FOLDER", tmp_path)
    assert extension.load()["cpu"] == f"not loadable: {cause.value}"
    fresh.setenv("REG_ENGINE_EXT", "1")
    with pytest.raises(BackendError, match="not loadable"):
        extension.load()


def test_cuda_is_loaded_where_torch_has_it(fresh: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And must be there with REG_ENGINE_EXT=1."""
    for name in ("_C_cpu.so", "_C_cuda.so"):
        (tmp_path / name).touch()
    asked: list[str] = []
    fresh.setattr(extension, "FOLDER", tmp_path)
    fresh.setattr(torch.ops, "load_library", lambda path: asked.append(os.path.basename(path)))
    fresh.setattr(torch.version, "cuda", "13.0")
    assert extension.load() == {"cpu": "loaded", "cuda": "loaded"}
    assert asked == ["_C_cpu.so", "_C_cuda.so"]
    (tmp_path / "_C_cuda.so").unlink()
    fresh.setenv("REG_ENGINE_EXT", "1")
    with pytest.raises(BackendError, match="the cuda ops are not built"):
        extension.load()


def test_other_values_of_the_switch_are_refused(fresh: pytest.MonkeyPatch) -> None:
    fresh.setenv("REG_ENGINE_EXT", "yes")
    with pytest.raises(InputError, match="REG_ENGINE_EXT: is 'yes'. Set it to 0 or 1"):
        extension.load()


def test_ops_are_bound_by_name(fresh: pytest.MonkeyPatch) -> None:
    assert extension.op("reduce") is torch.ops.reg_engine_csrc.reduce.default
    with pytest.raises(InputError, match="Did you mean 'combine'"):
        extension.op("combin")
