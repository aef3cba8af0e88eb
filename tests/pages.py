"""The pages of the repository as tests see them: code blocks, commands, links."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "docs/api/README.md")),
        *(ROOT / "docs").glob("*.md"),
    ]
)
WRITTEN = sorted((ROOT / "docs" / "experiments").glob("*/README.md"))  # by experiments

_BLOCK = re.compile(
    r"(?:^<!-- test: (?P<note>.*?) -->\n+)?^```(?P<kind>\w*)\n(?P<text>.*?)^```", re.S | re.M
)
_SPAN = re.compile(r"(?<!`)`((?:reg-engine|python|pytest|make|bash) [^`]+)`(?!`)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NEEDS, NOT_RUN = "needs ", "not run: "


@dataclass(frozen=True)
class Block:
    """A fenced block: its language ("" = a shell's), text, line, and the note above it.

    `<!-- test: needs diffusers -->` leaves a block out where the package is missing;
    `<!-- test: not run: REASON -->` leaves it out always.
    """

    page: str
    line: int
    kind: str
    text: str
    note: str

    @property
    def needs(self) -> str:
        """The optional package it needs, or ""."""
        return self.note.removeprefix(NEEDS) if self.note.startswith(NEEDS) else ""

    @property
    def not_run(self) -> str:
        """Why it is never run, or ""."""
        return self.note.removeprefix(NOT_RUN) if self.note.startswith(NOT_RUN) else ""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name


def blocks(page: Path, kind: str) -> list[Block]:
    """The fenced blocks of one language."""
    text = page.read_text("utf-8")
    return [
        Block(
            name_of(page),
            text.count("\n", 0, match.start("text")) + 1,
            match["kind"],
            match["text"],
            match["note"] or "",
        )
        for match in _BLOCK.finditer(text)
        if match["kind"] == kind
    ]


def commands(page: Path) -> list[list[str]]:
    """The command lines that a page shows, in blocks without a language and in text, as words.

    Assignments before a command are left out; of several lines only those that begin with a program
    the tests know count, since blocks also show what was printed.
    """
    lines = [span.replace("\n", " ") for span in _SPAN.findall(_without_blocks(page))]
    for block in blocks(page, ""):
        lines += re.sub(r"\\\n\s*", "", block.text).splitlines()
    found = []
    for line in lines:
        line = re.sub(r"^\$ |^\s+|\s#.*$", "", line)
        line = re.sub(r"^(\w+=\S+\s+)+", "", line)
        if re.match(r"(reg-engine|python|pytest|make|bash) ", line):
            found.append(shlex.split(line))
    return found


def _without_blocks(page: Path) -> str:
    return _BLOCK.sub("", page.read_text("utf-8"))


def links(page: Path) -> list[str]:
    """Where the links and pictures of a page lead, those to other sites left out."""
    return [to for to in _LINK.findall(_without_blocks(page)) if not to.startswith("http")]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", _without_blocks(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def words(page: Path) -> int:
    """What a reader reads: words outside code blocks."""
    text = re.sub(r"<!--.*?-->", "", _without_blocks(page), flags=re.S)
    return len(re.findall(r"\w[\w'.\-/]*", text))
