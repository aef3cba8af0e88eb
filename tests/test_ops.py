"""The one door: what it hands out, and that nothing else imports the kernels."""

from __future__ import annotations

import ast
from pathlib import Path

from reg_engine import ops, reference

PACKAGE = Path(ops.__file__).parent


def test_the_door_names_its_backend_and_hands_out_its_functions() -> None:
    assert ops.BACKEND == "reference"
    for name in ("combine", "guided_step", "lagged_product", "solver_step"):
        assert getattr(ops, name) is getattr(reference, name)


def test_only_the_door_may_import_kernels() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            assert path.name == "ops.py" or not any("kernels" in n.split(".") for n in names), path
