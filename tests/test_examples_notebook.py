"""examples/first_steps.ipynb from top to bottom in a kernel of its own, and what it shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs Python 3.11")
pytest.importorskip("ipykernel", reason="needs Python 3.11")

PATH = Path(__file__).resolve().parent.parent / "examples" / "first_steps.ipynb"
SHOWN = re.compile(r"^(\w+) +distance ([\d.]+) +evaluations ([\d.]+)$", re.M)


def texts(notebook: Any) -> list[str]:
    """What each code cell prints."""
    return [
        "".join(out["text"] for out in cell.outputs if out.get("name") == "stdout")
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def figures(notebook: Any) -> list[int]:
    """How many pictures each code cell shows."""
    return [
        sum("image/png" in out.get("data", {}) for out in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def table(text: str) -> dict[str, tuple[float, float]]:
    """Name -> distance, evaluations."""
    return {name: (float(near), float(nfe)) for name, near, nfe in SHOWN.findall(text)}


@pytest.fixture(scope="module")
def stored() -> Any:
    return nbformat.read(PATH, as_version=4)


@pytest.fixture(scope="module")
def executed(stored: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from nbclient import NotebookClient

    fresh = nbformat.from_dict(stored)
    for cell in fresh.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    NotebookClient(
        fresh,
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}},
    ).execute()
    return fresh


def check(notebook: Any) -> None:
    """REG nears the target that CFG leaves, with the exact model and with the learned one."""
    shown = [table(text) for text in texts(notebook)]
    assert [len(each) for each in shown] == [0, 0, 3, 0, 0, 0, 3, 0, 1, 1]
    assert figures(notebook) == [0, 0, 0, 1, 0, 0, 0, 1, 0, 0]
    for each in (shown[2], shown[6]):
        assert each["REG"][0] < each["none"][0] / 2 and each["REG"][0] < each["CFG"][0] / 5
        assert each["none"][1] < each["REG"][1] < each["CFG"][1]
    learned = shown[6]
    for name, (distance, evaluations) in {**shown[8], **shown[9]}.items():
        assert distance < learned["CFG"][0] / 2, name
        assert evaluations < learned["CFG"][1], name


def test_it_shows_what_it_says(executed: Any) -> None:
    check(executed)


def test_what_is_stored_renders_and_is_small(stored: Any) -> None:
    nbformat.validate(stored)
    check(stored)
    assert PATH.stat().st_size < 150_000
    outputs = [out for cell in stored.cells for out in cell.get("outputs", ())]
    kinds = {key for out in outputs for key in out.get("data", {})}
    assert kinds == {"text/plain", "image/png"}  # nothing that runs in a reader's browser
