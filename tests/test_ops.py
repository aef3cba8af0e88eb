"""The one door: which backend serves, what it says, and that nothing else imports the kernels."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from op_cases import OPS, arguments, door, twin

from reg_engine import BackendError, Engine, InputError
from reg_engine.ops import door as ops

PACKAGE = Path(ops.__file__).parent


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Nothing chosen, proven or failed before and after."""

    def forget() -> None:
        ops._automatic.cache_clear()
        ops._launcher.cache_clear()
        ops._proven.clear()
        ops._failed.clear()

    forget()
    yield
    forget()


def give(monkeypatch: pytest.MonkeyPatch, op: Callable[[str], Callable[..., None]]) -> None:
    """A csrc for the CPU made of `op`."""
    monkeypatch.setattr(ops.extension, "load", lambda: {"cpu": "loaded"})
    monkeypatch.setattr(ops.extension, "op", op)


@pytest.mark.parametrize("name", OPS)
def test_the_reference_serves_where_nothing_else_does(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops.extension, "load", lambda: {"cpu": "not built"})
    assert ops.resolve("cpu") == "reference"
    assert torch.equal(door(name)(**arguments(name)), twin(name)(**arguments(name)))


def test_out_may_be_the_state_itself() -> None:
    given = arguments("guided_step")
    wanted = twin("guided_step")(**arguments("guided_step"))
    assert ops.guided_step(**given, out=given["x"]) is given["x"]
    assert torch.allclose(given["x"], wanted)


def test_the_choice_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ops.extension, "load", lambda: {"cpu": "not built"})
    with caplog.at_level(logging.INFO, "reg_engine"):
        for _ in range(3):
            ops.combine(**arguments("combine"))
    assert [r.getMessage() for r in caplog.records] == [
        "ops on cpu: reference (no csrc: not built)"
    ]


def test_a_named_backend_that_is_missing_raises_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ops.extension, "load", lambda: {"cpu": "not built"})
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(BackendError, match="csrc.*cpu.*not built"):
        ops.combine(**arguments("combine"), backend="csrc")
    with pytest.raises(BackendError, match="TRITON_INTERPRET"):
        ops.reduce(torch.ones(1, 2), backend="triton")
    with pytest.raises(InputError, match="Did you mean 'triton'"):
        ops.reduce(torch.ones(1, 2), backend="trition")
    with pytest.raises(BackendError, match="not built"):
        Engine(_model(), backend="csrc")
    found = ops.available("cpu")
    assert found["reference"] == "works" and found["csrc"] == "not built"
    assert "no ops for meta" in ops.available("meta")["csrc"]


def _model() -> Any:
    from nets import tiny

    return tiny()


def test_a_missing_triton_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setitem(sys.modules, "triton", None)
    assert "not installed" in ops.available("cpu")["triton"]


def test_a_backend_that_fails_at_its_first_run_is_left_with_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = []

    def op(name: str) -> Callable[..., None]:
        def run(*args: object) -> None:
            runs.append(name)
            raise RuntimeError("no compiler\nlong trace")

        return run

    give(monkeypatch, op)
    assert ops.resolve("cpu") == "csrc"
    wanted = twin("combine")(**arguments("combine"))
    with pytest.warns(UserWarning, match="leaves backend 'csrc': combine failed.*no compiler"):
        assert torch.equal(ops.combine(**arguments("combine")), wanted)
    assert torch.equal(ops.combine(**arguments("combine")), wanted)
    assert runs == ["combine"] and ops.resolve("cpu") == "reference"
    with pytest.raises(BackendError, match="no compiler"):
        ops.combine(**arguments("combine"), backend="csrc")


def test_a_backend_asked_for_by_name_never_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def op(name: str) -> Callable[..., None]:
        def run(*args: object) -> None:
            raise RuntimeError("out of registers")

        return run

    give(monkeypatch, op)
    with pytest.raises(RuntimeError, match="out of registers"):
        ops.combine(**arguments("combine"), backend="csrc")


def test_a_backend_that_ran_before_fails_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    good = [True]

    def op(name: str) -> Callable[..., None]:
        def run(*args: Any) -> None:
            if not good[0]:
                raise RuntimeError("an error of the device")
            args[-1].zero_()

        return run

    give(monkeypatch, op)
    ops.combine(**arguments("combine"))
    good[0] = False
    with pytest.raises(RuntimeError, match="error of the device"):
        ops.combine(**arguments("combine"))


def test_only_the_door_may_import_kernels() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            assert path.name == "door.py" or not any("kernels" in n.split(".") for n in names), path


def test_importing_the_package_imports_no_backend() -> None:
    code = (
        "import sys, reg_engine;"
        "print([m for m in ('triton', 'diffusers', 'xformers', 'reg_engine.kernels') "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
