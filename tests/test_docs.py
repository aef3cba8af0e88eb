"""Pages whose code runs as it stands, whose commands exist, and whose links lead somewhere."""

from __future__ import annotations

import importlib
import io
import re
import runpy
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import click
import pages
import pytest
from pages import PAGES, ROOT, WRITTEN, Block

import reg_engine.cli

BLOCKS = {page: pages.blocks(page, "python") for page in PAGES}
CASES = [
    pytest.param(page, number, id=f"{pages.name_of(page)}:{block.line}")
    for page, own in BLOCKS.items()
    for number, block in enumerate(own)
]


class Reader:
    """Runs a page's blocks in order, each once, with the names of those before it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.names, self.done = folder, {}, 0  # type: ignore[var-annotated]

    def read(self, own: list[Block], upto: int) -> None:
        for block in own[self.done : upto + 1]:
            self.done += 1
            missing = block.needs and not _there(block.needs)
            if not (block.not_run or missing):
                # Lines are those of the page in a traceback.
                code = "\n" * (block.line - 1) + block.text
                exec(compile(code, block.page, "exec"), self.names)


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Reader]:
    return {page: Reader(tmp_path_factory.mktemp(page.stem)) for page in PAGES}


@pytest.mark.parametrize(("page", "number"), CASES)
def test_a_block_runs(
    page: Path, number: int, readers: dict[Path, Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder of the page's own, where it may write."""
    reader, block = readers[page], BLOCKS[page][number]
    monkeypatch.chdir(reader.folder)
    reader.read(BLOCKS[page], number)
    if block.needs:
        pytest.importorskip(block.needs)


def _there(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def test_notes_are_known_and_blocks_left_out_are_few() -> None:
    every = [block for page in PAGES for block in BLOCKS[page]]
    assert all(block.needs or block.not_run for block in every if block.note)
    assert all(len(block.not_run) > 20 for block in every if block.not_run)  # a reason
    assert sum(bool(block.not_run) for block in every) <= 3


# Commands

COMMANDS = {
    " ".join(words): words for page in PAGES for words in pages.commands(page) if "..." not in words
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=list(COMMANDS))
def test_a_command_exists(words: list[str]) -> None:
    """Subcommands, options, modules, files and targets; nothing is run but `--help`."""
    program, *rest = words
    rest = [word for word in rest if not re.match(r"[A-Z_]+=", word)]
    if program == "make":
        known = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
        assert set(rest) <= set(known)
    elif program == "reg-engine":
        _parse(rest)
    elif program == "pytest":
        _check_pytest(rest)
    elif rest[0] == "-m":
        _check_module(rest[1], rest[2:])
    else:
        assert (ROOT / rest[0]).is_file()


def _parse(words: list[str]) -> None:
    """As the program does, without running the command."""
    name, *arguments = words or ["--help"]
    if name not in ("-h", "--help", "--version"):
        command: Any = reg_engine.cli.cli.commands[name]
        command.make_context(name, arguments, resilient_parsing="--help" in arguments)


def _check_pytest(words: list[str]) -> None:
    text = "".join((ROOT / f"{name}/conftest.py").read_text("utf-8") for name in ("bench", "tests"))
    for word in words:
        if word.startswith("--bench"):
            assert word == "--benchmark" or f'"{word}"' in text
        elif "/" in word:
            assert list(ROOT.glob(word)) or (ROOT / word).exists()


def _check_module(module: str, words: list[str]) -> None:
    if module in ("reg_engine", "reg_engine.cli"):
        _parse(words)
    elif module.startswith("bench"):
        assert (ROOT / (module.replace(".", "/") + ".py")).is_file()
        said = io.StringIO()
        with (
            mock.patch.object(sys, "argv", [module, "--help"]),
            redirect_stdout(said),
            suppress(SystemExit),
        ):
            runpy.run_module(module, run_name="__main__")
        assert all(word in said.getvalue() for word in words if word.startswith("--"))
    else:
        assert module in ("pip", "pydoc", "pytest", "timeit", "venv")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("reg-engine smaple", KeyError),
        ("reg-engine sample --lables 3", click.ClickException),
        ("make demos", AssertionError),
        ("python docs/no_table.py", AssertionError),
        ("python -m bench.report --figure", AssertionError),
        ("pytest bench/ --bench-speed", AssertionError),
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        test_a_command_exists(line.split())


def test_commands_are_found_in_blocks_and_in_text(tmp_path: Path) -> None:
    assert len(COMMANDS) > 30
    page = tmp_path / "page.md"
    page.write_text(
        "Run `make test` and\n\n"
        "```\n$ A=1 reg-engine sample \\\n    --scale 4  # so\n1 sample\n```\n"
    )
    assert pages.commands(page) == [["make", "test"], ["reg-engine", "sample", "--scale", "4"]]


# Links and words


@pytest.mark.parametrize("page", [*PAGES, *WRITTEN], ids=pages.name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in pages.links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in pages.anchors(target), link


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in pages.links(index)}
    assert {page for page in PAGES if page.parent == ROOT / "docs"} - {index} <= linked
    assert "docs/README.md" in pages.links(ROOT / "README.md")
    assert (
        not {page.name for page in (ROOT / "docs" / "api").glob("*.md")}
        - {"README.md"}
        - {link for link in pages.links(ROOT / "docs" / "api" / "README.md")}
    )


@pytest.mark.parametrize("page", PAGES, ids=pages.name_of)
def test_lines_fit(page: Path) -> None:
    """100 columns, but for tables."""
    lines = page.read_text("utf-8").splitlines()
    long = [n for n, line in enumerate(lines, 1) if len(line) > 100 and line[:1] != "|"]
    assert page.name == "oracle.md" or not long, long


def test_the_first_page_is_short() -> None:
    assert pages.words(ROOT / "README.md") <= 1000
