"""Checkers of the house's rules, for test_layout.py: each returns what it found, [] if nothing."""

from __future__ import annotations

import ast
import inspect
import subprocess
import types
from collections.abc import Iterator, Mapping
from pathlib import Path

FILE_LINES, FUNCTION_LINES, COLUMNS = 300, 60, 100

# What writes a file in place, or removes one: reg_engine/storage/files.py alone may.
WRITES = {"write_text", "write_bytes", "rename", "unlink", "touch", "hardlink_to", "symlink_to"}
REMOVES = {"shutil.rmtree", "shutil.move", "shutil.copy", "shutil.copyfile", "shutil.copytree"}
REMOVES |= {"os.replace", "os.rename", "os.remove", "os.unlink"}

# Modules that run code while they read data.
UNPICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}


def python_files(root: Path) -> list[Path]:
    """Every .py file that git tracks or would track; without git, those of the source folders."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.py"]
    if (root / ".git").exists():
        listed = subprocess.run(
            command, cwd=root, capture_output=True, text=True, check=True
        ).stdout
        names = [name for name in listed.split("\0") if name]
        return sorted({root / name for name in names if (root / name).exists()})
    folders = [path.parent for path in root.glob("*/__init__.py")] + [root / "tests"]
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def over_budget(source: str) -> list[str]:
    """Files, functions and lines that are too long. A function counts from its `def` on."""
    lines = source.splitlines()
    found = []
    if len(lines) > FILE_LINES:
        found.append(f"{len(lines)} lines in the file, {FILE_LINES} allowed")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                where = f"{node.name} (line {node.lineno})"
                found.append(f"{length} lines in {where}, {FUNCTION_LINES} allowed")
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS:
            found.append(f"{len(line)} columns in line {number}, {COLUMNS} allowed")
    return found


def without_test(root: Path) -> list[str]:
    """Modules of reg_engine without a test file that mirrors them.

    reg_engine/plan.py needs tests/test_plan.py; the package reg_engine/cli needs tests/test_cli.py,
    or tests/test_cli_<module>.py for each of its modules.
    """
    found = []
    for path in sorted((root / "reg_engine").rglob("*.py")):
        if path.name in ("__init__.py", "__main__.py"):
            continue
        folders = path.relative_to(root / "reg_engine").parent.parts
        words = [word.lstrip("_") for word in (*folders, path.stem)]
        accepted = ["test_" + "_".join(words[: n + 1]) + ".py" for n in range(len(words))]
        if not any((root / "tests" / name).exists() for name in accepted):
            wanted = " and ".join(f"no tests/{name}" for name in accepted)
            found.append(f"{path.relative_to(root).as_posix()}: {wanted}")
    return found


def unsafe(source: str) -> list[str]:
    """Uses of pickle, of torch.load on untrusted content, of shells, of eval."""
    tree = ast.parse(source)
    names = dict(_imports(tree))
    found = [f"line {line}: imports {name}" for name, line in _unpicklers(tree)]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = _dotted(node.func, names)
        options = {option.arg: option.value for option in node.keywords}
        problem = None
        if called == "torch.load" and not _is(options.get("weights_only"), True):
            problem = "torch.load without weights_only=True"
        elif "allow_pickle" in options and not _is(options["allow_pickle"], False):
            problem = "allow_pickle"
        elif "shell" in options and not _is(options["shell"], False):
            problem = "a shell"
        elif called in SHELLS or called in ("eval", "exec"):
            problem = called
        if problem:
            found.append(f"line {node.lineno}: {problem}")
    return found


def writes(source: str) -> list[str]:
    """Calls that write a file in place, or remove one."""
    tree = ast.parse(source)
    names = dict(_imports(tree))
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = _dotted(node.func, names)
        last = node.func.attr if isinstance(node.func, ast.Attribute) else called
        modes = [*node.args[:2], *(o.value for o in node.keywords if o.arg == "mode")]
        written = last == "open" and any(
            isinstance(m, ast.Constant) and isinstance(m.value, str) and set(m.value) & set("wax+")
            for m in modes
            if not (isinstance(m, ast.Constant) and len(str(m.value)) > 3)  # a path
        )
        if called in REMOVES or last in WRITES or written:
            found.append(f"line {node.lineno}: {called or last}")
    return found


def undocumented(public: Mapping[str, object]) -> list[str]:
    """Public functions, classes and modules without a docstring of their own.

    Values such as strings and tables have no place for a docstring and pass.
    """
    found = []
    for name, value in public.items():
        if inspect.isclass(value):
            own = value.__dict__.get("__doc__")
            if not own or own.startswith(f"{value.__name__}("):  # what a dataclass generates
                found.append(name)
        elif (
            inspect.isroutine(value) or isinstance(value, types.ModuleType)
        ) and not value.__doc__:
            found.append(name)
    return found


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(local name, what it stands for) of every absolute import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (top, top)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _unpicklers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            # The exception that a refused checkpoint raises can be named without its module.
            harmless = {alias.name for alias in node.names} == {"UnpicklingError"}
            modules = [] if harmless else [node.module or ""]
        for module in modules:
            if module.partition(".")[0] in UNPICKLERS:
                yield module, node.lineno


def _dotted(node: ast.expr, names: Mapping[str, str]) -> str | None:
    """The full name of what is called, imports resolved; None for anything but names and dots."""
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value, names)
        return f"{before}.{node.attr}" if before else None
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else None


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value
