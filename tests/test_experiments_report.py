"""Pages: tables, figures, claims, and numbers as JSON can hold them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

from reg_engine.errors import InputError
from reg_engine.experiments.figures import COLOURS, figure, style
from reg_engine.experiments.report import Report, shown, table


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (0.12345, "0.123"),
        (-1.5, "-1.5"),
        (0.0, "0"),
        (1234.5, "1.23e+03"),
        (0.00012345, "1.23e-04"),
        (math.nan, "nan"),
        (1234, "1234"),
        (True, "True"),
        ("0.123456", "0.123456"),
    ],
)
def test_cells(cell: object, text: str) -> None:
    assert shown(cell) == text


def test_the_page_keeps_the_order(tmp_path: Path) -> None:
    report = Report("one", "Title", tmp_path)
    report.section("First", "words")
    report.table(["a", "b"], [[1, 0.5]], "what it says")
    report.text("more words")
    report.finish()
    page = (tmp_path / "one" / "README.md").read_text(encoding="utf-8")
    expected = (
        "# Title\n\n## First\n\nwords\n\n| a | b |\n| --- | --- |\n| 1 | 0.5 |\n\n"
        "what it says\n\nmore words\n\n## How this page was made\n"
    )
    assert page.startswith(expected)


def test_a_page_from_a_template_holds_numbers_parts_and_claims(tmp_path: Path) -> None:
    template = tmp_path / "page.md"
    template.write_text(
        "**Asked**: {question} {score[reg]:.2f}.\n\n{rows}\n\n* {claims_held}.\n* "
        + "word\n  " * 30
        + "\n\n## Next\n\n"
        + "more-words " * 20
        + "{{1+w}}\n",
        encoding="utf-8",
    )
    report = Report("one", "Title", tmp_path)
    report.numbers["score"] = {"reg": 0.1234}
    report.claim("sure", "one is one", True, "1")
    report.claim("not", "one is two", False, "1")
    report.page(template, question="who?", rows=table(["a" * 60, "b" * 60], [[1, 0.5]]))
    report.finish()
    page = (tmp_path / "one" / "README.md").read_text(encoding="utf-8")
    assert page.startswith("# Title\n\n**Asked**: who? 0.12.\n\n| aaa")
    assert '* 1 of 2 claims hold; not: "one is two".\n* word word' in page
    assert "\n  word word" in page and "{1+w}" in page  # a list's lines are indented
    prose = [line for line in page.splitlines() if not line.startswith("|")]
    assert max(map(len, prose)) <= 100 and page.count("more-words") == 20
    with pytest.raises(KeyError, match="rows"):
        report.page(template, question="who?")


def test_a_table_with_a_missing_cell_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        Report("one", "Title", tmp_path).table(["a", "b"], [[1]])


def test_numbers_are_plain(tmp_path: Path) -> None:
    report = Report("one", "Title", tmp_path)
    report.numbers |= {
        "tensor": torch.tensor([[1.0, math.nan]]),
        "array": np.arange(2),
        "scalar": np.float64(1 / 3),
        "deep": {1: [(2.0, math.inf)]},
    }
    report.finish()
    numbers = json.loads((tmp_path / "one" / "numbers.json").read_text(encoding="utf-8"))["numbers"]
    assert numbers["tensor"] == [[1.0, None]]
    assert numbers["array"] == [0, 1]
    assert numbers["scalar"] == 0.3333333
    assert numbers["deep"] == {"1": [[2.0, None]]}


def test_lists_of_values_take_one_line(tmp_path: Path) -> None:
    report = Report("one", "Title", tmp_path)
    report.numbers["list"] = [1.5, None, "a, [b]"]
    report.numbers["rows"] = [[1, 2], [3, 4]]
    content = report.finish()
    text = (tmp_path / "one" / "numbers.json").read_text(encoding="utf-8")
    assert json.loads(text) == content
    assert "[1, 2]" in text and "[3, 4]" in text


def test_only_the_last_part_of_a_path_is_told(tmp_path: Path) -> None:
    report = Report(
        "one", "Title", tmp_path, data="/home/someone/mnist.npz", options={"net": "/a/b.npz"}
    )
    assert report.command == "reg-engine experiment one --data mnist.npz --set net=b.npz"


def test_streams_of_a_seed_are_independent(tmp_path: Path) -> None:
    report = Report("one", "Title", tmp_path, seed=7)
    first, again, other = (torch.rand(4, generator=report.generator(k)) for k in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_figures_are_written_twice_and_repeat(tmp_path: Path) -> None:
    contents = []
    for run in ("a", "b"):
        report = Report("one", "Title", tmp_path / run)
        made, axes = figure(3, 2)
        axes[0, 0].plot([0, 1], [0, 1], **style("reg"))
        report.figure("line", made, "One line.")
        report.finish()
        folder = tmp_path / run / "one"
        contents.append((folder / "line.svg").read_bytes())
        assert (folder / "line.png").read_bytes().startswith(b"\x89PNG")
        assert "![line](line.png)\n\n*One line.*" in (folder / "README.md").read_text()
    assert contents[0] == contents[1]
    assert b"<svg" in contents[0]


def test_methods_that_are_compared_look_different() -> None:
    compared = ("cfg", "reg", "golden", "unguided", "interval", "linear", "cosine", "autoguidance")
    assert len({COLOURS[name] for name in compared}) == len(compared)
    assert len({style(name)["marker"] for name in compared}) == len(compared)


def test_a_figure_is_laid_out_once_and_drawn_once_for_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both files are those that matplotlib itself writes of a figure with a layout, the png's."""

    def made() -> Figure:
        drawn, axes = figure(4, 3, 1, 2)
        axes[0, 0].plot([0, 1], [0, 1000])
        axes[0, 1].set(ylabel="two\nlines", aspect="equal")
        return drawn

    with rc_context({"svg.hashsalt": "one"}):
        wanted = made()
        wanted.savefig(tmp_path / "one.png", dpi=120)
        wanted.set_layout_engine("none")
        wanted.savefig(tmp_path / "one.svg", dpi=120, metadata={"Date": None})
    drawings: list[Figure] = []
    draw = Figure.draw

    def counted(self: Figure, renderer: Any) -> None:
        drawings.append(self)
        draw(self, renderer)

    monkeypatch.setattr(Figure, "draw", counted)
    report = Report("own", "Title", tmp_path)
    report.draw("one", made())
    assert len(drawings) == 2
    for name in ("one.png", "one.svg"):
        assert (report.folder / name).read_bytes() == (tmp_path / name).read_bytes()


def test_a_run_that_was_stopped_counts_its_seconds_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr("reg_engine.experiments.report.time.monotonic", lambda: now)
    stopped = Report("one", "Title", tmp_path)
    now = 130.0
    stopped.say("half")
    now = 500.0
    again = Report("one", "Title", tmp_path)
    now = 512.0
    again.say("the rest")
    assert again.finish()["seconds"] == 42.0 and not again.work.exists()
    assert "[one   42.0 s] the rest" in capsys.readouterr().err
    assert Report("one", "Title", tmp_path).finish()["seconds"] == 0.0


@pytest.mark.parametrize("content", ["", "[1]", "soon", "NaN"])
def test_a_clock_that_is_none_is_refused(content: str, tmp_path: Path) -> None:
    work = tmp_path / "one" / "work" / "full-0"
    work.mkdir(parents=True)
    (work / "seconds.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="seconds.json, which is no number. Remove it"):
        Report("one", "Title", tmp_path)
