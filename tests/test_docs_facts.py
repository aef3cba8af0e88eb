"""Pages that repeat what stands elsewhere: variables, files, layers, figures, a picture."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import house
import pytest
from pages import ROOT

import reg_engine.cli
from reg_engine import guidance
from reg_engine.guidance import (
    adjustments,
    damped,
    directions,
    feedback,
    frequency,
    independent,
    perturbed,
    references,
    sample_weights,
    weights,
)
from reg_engine.networks.preconditioning import PREDICTIONS
from reg_engine.scoring import Conventions, Network
from reg_engine.scoring.known import KNOWN
from reg_engine.scoring.prompts import PROMPT_SCORES
from reg_engine.scoring.scores import METRICS

CFG = {"cfg-eager"}
NAMES = {
    "choosing.md": reg_engine.RECTIFIERS,
    "schedules.md": [*reg_engine.SOLVERS, *reg_engine.schedules.__all__],
    "guidance.md": [
        name
        for module in (
            weights,
            sample_weights,
            feedback,
            damped,
            references,
            independent,
            perturbed,
            directions,
            frequency,
            adjustments,
        )
        for name in module.__all__
        if isinstance(getattr(module, name), type) and name in guidance.__all__
    ],
    "methods.md": [],
    "cli.md": reg_engine.cli.cli.commands,
    "words.md": PREDICTIONS,
    "evaluation.md": [*METRICS, *KNOWN, *PROMPT_SCORES, *Conventions.__dataclass_fields__],
}
NAMES["methods.md"] = [
    name
    for name in NAMES["guidance.md"]
    if name not in ("Guidance", "Term") and not getattr(getattr(guidance, name), "_is_protocol", 0)
]


def test_every_environment_variable_is_listed_and_read() -> None:
    read = set()
    for path in (*house.python_files(ROOT), ROOT / "Makefile", ROOT / "bench" / "gpu_check.sh"):
        text = path.read_text("utf-8")
        read |= set(re.findall(r"\bREG_ENGINE_[A-Z_]+", text))
        read |= set(re.findall(r"environ(?:\.get\(|\.setdefault\(|\[)\s*\"(\w+)\"", text))
        read |= set(re.findall(r"\"(\w+)\" (?:not )?in os\.environ", text))
    page = (ROOT / "docs" / "environment.md").read_text("utf-8")
    listed = set(re.findall(r"`([A-Z][A-Z0-9]*_[A-Z0-9_]+|CXX|CUDACXX|PYTHON|RANK)`", page))
    assert read - listed == {"PYTHONPATH"}  # the mutants' own
    known = "".join(path.read_text("utf-8") for path in house.python_files(ROOT))
    known += (ROOT / "Makefile").read_text() + (ROOT / "bench" / "gpu_check.sh").read_text()
    assert {name for name in listed if name not in known} <= {"MALLOC_MMAP_THRESHOLD_"}


def test_the_layout_names_what_is_there() -> None:
    page = (ROOT / "docs" / "layout.md").read_text("utf-8")
    rooms, _, places = page.partition("## Where is")
    for folder in (ROOT / "reg_engine").iterdir():
        if (folder / "__init__.py").exists():
            assert re.search(rf"`(reg_engine/)?{folder.name}/`", rooms), folder.name
    for path in (ROOT / "reg_engine").glob("[a-z]*.py"):
        assert re.search(rf"`(reg_engine/)?{path.name}`", rooms), path.name
    for line in re.findall(r"^\| .*", places, re.M)[1:]:
        spans = re.findall(r"`([^`]+)`", line.split("|")[2])
        files = [span for span in spans if "/" in span or span.endswith(".py")]
        found = [next((r / f for r in _rooms(files) if (r / f).is_file()), None) for f in files]
        assert found and all(found), line
        text = "".join(path.read_text("utf-8") for path in found if path)
        names = [span.rpartition(".")[2] for span in spans if span not in files]
        assert all(name in text for name in names), line


def _rooms(files: list[str]) -> list[Path]:
    return [ROOT, ROOT / "reg_engine", ROOT / "reg_engine" / "rectifiers"]


def test_the_layers_are_those_of_the_project() -> None:
    page = (ROOT / "docs" / "layout.md").read_text("utf-8")
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    layers = re.search(r"^layers = \[(.*?)^\]", text, re.S | re.M)
    shown = re.search(r"^```\n(cli\n.*?)```", page, re.S | re.M)
    assert layers and shown
    expected = [re.findall(r"reg_engine\.(\w+)", line) for line in layers[1].strip().splitlines()]
    assert [line.split(", ") for line in shown[1].splitlines()] == expected


def test_what_estimators_cost_is_what_was_measured() -> None:
    """docs/choosing.md and the README against docs/performance.md."""
    measured: dict[str, list[tuple[str, str, float, float]]] = {}
    text = (ROOT / "docs" / "performance.md").read_text("utf-8")
    for part in re.split(r"^### ", text, flags=re.M)[1:]:
        size = re.search(r"^Size `(\w+)`", part, re.M)
        for name, time, memory in re.findall(
            r"^\| `([\w-]+)` \|[^|]*\|[^|]*\| ([\d.]+) \|[^|]*\|[^|]*\| ([\d.]+) \|$", part, re.M
        ):
            assert size
            case = part.partition(",")[0]
            measured.setdefault(name, []).append((size[1], case, float(time), float(memory)))
    page = (ROOT / "docs" / "choosing.md").read_text("utf-8")
    rows = re.findall(
        r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \| (\S+ to \S+) \| (.*) \|$", page, re.M
    )
    assert {f"{name}-eager" for name, *_ in rows} == {n for n in measured if "-eager" in n} - CFG
    for name, time, memory, times, memories in rows:
        found = measured[f"{name}-eager"]
        ((_, _, own_time, own_memory),) = (row for row in found if row[1] == "MNIST U-Net")
        shrunk = [row for row in found if row[0] == "shrunk"]
        assert (float(time), float(memory)) == (own_time, own_memory) and len(shrunk) == 7
        for index, said in ((2, times), (3, memories)):
            values = [float(row[index]) for row in shrunk]
            assert said == f"{min(values):.2f} to {max(values):.2f}"
    readme = (ROOT / "README.md").read_text("utf-8")
    for name in ("vjp", "fd_batched", "fd"):
        ((_, _, time, memory), *_) = measured[f"{name}-eager"]
        assert re.search(
            rf'^\|[^|]*\| `"{name}"`[^|]*\| {time:.2f} \| {memory:.2f} \|$', readme, re.M
        )
        assert f"{measured[f'{name}-planned'][0][2]:.2f}" in readme


def test_the_first_picture_is_drawn_by_its_script(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("picture", ROOT / "docs/guidance_picture.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    found = script.picture(tmp_path / "guidance.png", count=256)
    assert (tmp_path / "guidance.png").stat().st_size > 20_000
    for cfg, reg, floor in zip(found["CFG"], found["REG"], found["floor"], strict=True):
        assert floor / 3 < reg < cfg


def test_the_pictures_of_methods_show_every_method(tmp_path: Path) -> None:
    """A panel each, at a small size; where REG stands is known."""
    import sys

    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import methods_picture as script
    finally:
        sys.path.pop(0)
    drawn = script.methods()
    titles = " ".join([title for kind in drawn.values() for title in kind] + [*script.ON_DIGITS])
    known = set(re.findall(r"\w+", titles + " none CFG"))
    assert not [name for name in NAMES["methods.md"] if name not in known]
    chosen = {
        name: drawn["weights"][name] for name in ("Constant(3): CFG", "REG: Constant(3), vjp")
    }
    found = script.clouds(tmp_path / "two.png", chosen, 256)
    cfg, reg = found.values()
    assert reg < cfg / 5 and (tmp_path / "two.png").stat().st_size > 10_000
    page = (ROOT / "docs" / "methods.md").read_text("utf-8")
    assert all(f"images/methods_{kind}.png" in page for kind in [*drawn, "digits"])


def speed_script() -> Any:
    """docs/scoring_speed.py, whose figures docs/evaluation.md has."""
    spec = importlib.util.spec_from_file_location("speed", ROOT / "docs/scoring_speed.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_speed_script_compares_equals(tmp_path: Path) -> None:
    pytest.importorskip("torchmetrics")
    script = speed_script()
    script.write(tmp_path / "a.npz", 6000, 256)
    script.write(tmp_path / "b.npz", 600, 200)
    net = script.Small()
    ours, _ = script.ours(tmp_path / "a.npz", tmp_path / "b.npz", Network("s", net, "s"), 1)
    theirs, _ = script.theirs(tmp_path / "a.npz", tmp_path / "b.npz", net)
    assert ours == pytest.approx(theirs, rel=1e-6)
    start, most = script.growth(tmp_path / "a.npz", Network("s", net, "s"), 1)
    assert most - start < 18_000_000  # all images


@pytest.mark.slow
def test_50000_images_in_flat_memory(tmp_path: Path) -> None:
    """Their speed beside torchmetrics is the script's to print: no test is timed."""
    script = speed_script()
    script.write(tmp_path / "a.npz", 50_000, 256)  # 154 MB
    start, most = script.growth(tmp_path / "a.npz", Network("s", script.Small(), "s"), 1)
    assert most - start < 20_000_000


def test_the_optional_packages_are_listed() -> None:
    page = (ROOT / "docs" / "start.md").read_text("utf-8")
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    extras = text.partition("[project.optional-dependencies]")[2].partition("\n[project.")[0]
    named = re.findall(r"^\| `(\w+)` \|", page, re.M)
    assert sorted(named) == sorted(re.findall(r"^(\w+) = \[", extras, re.M))


@pytest.mark.parametrize("page", NAMES)
def test_a_page_names_everything_of_its_kind(page: str) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    known = set(re.findall(r"\w+", text))
    assert len(NAMES[page]) > 4
    assert not [name for name in NAMES[page] if name not in known]
