"""The documentation site: built strictly, whole, without anything from elsewhere, readable."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import site_pages
from pages import ROOT, WRITTEN
from site_pages import Read

pytest.importorskip("material", reason="needs Python 3.11")

STYLE = (ROOT / "docs" / "theme" / "style.css").read_text("utf-8")
SCHEMES = {  # the theme's own: paper, paper of code
    "default": ((255, 255, 255), (245, 245, 245)),
    "slate": ((30, 33, 41), (39, 42, 53)),
}
MARK = re.compile(r"^<!-- api: ([\w.]+) -->$", re.M)


def build(out: Path, config: Path = ROOT / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "-f",
        str(config),
        "-d",
        str(out),
    ]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(out)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return out


@pytest.fixture(scope="module")
def read(site: Path) -> dict[str, Read]:
    return {p.relative_to(site).as_posix(): site_pages.read(p) for p in site.rglob("*.html")}


@pytest.fixture(scope="module")
def config() -> Any:
    from mkdocs.config import load_config

    return load_config(str(ROOT / "mkdocs.yml"))


def test_every_page_is_in_the_navigation(config: Any, site: Path) -> None:
    listed = set(re.findall(r"'([^']+\.md)'", str(config.nav)))
    written = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "api").glob("*.md"), *WRITTEN]
    own = {path.relative_to(ROOT / "docs").as_posix() for path in written}
    assert listed == own | {"CONTRIBUTING.md", "CHANGELOG.md"}
    assert str(config.validation.nav.omitted_files) == "30"  # a warning, which strict refuses
    assert set(config.validation.links.values()) == {30}


def test_nothing_is_loaded_from_elsewhere(site: Path, read: dict[str, Read]) -> None:
    assert len(read) > 45
    loaded = [load for page in read.values() for load in page.loads]
    assert len(loaded) > 300 and not [load for load in loaded if site_pages.is_external(load)]
    for sheet in site.rglob("*.css"):
        text = sheet.read_text("utf-8")
        assert not re.findall(r"@import|url\([\"']?(?:https?:)?//", text), sheet
    assert "analytics" not in (site / "index.html").read_text("utf-8")


def test_no_link_is_dead(site: Path, read: dict[str, Read]) -> None:
    assert sum(len(page.links) for page in read.values()) > 5000
    assert site_pages.dead(site, read) == []


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<p id="x"><a href="b.html">1</a><a href="#y">2</a>')
    found = site_pages.dead(tmp_path, {"a.html": site_pages.read(tmp_path / "a.html")})
    assert found == ["a.html: b.html", "a.html: #y"]


def test_every_picture_has_words(read: dict[str, Read]) -> None:
    pictures = [image for page in read.values() for image in page.images]
    assert len(pictures) > 40 and all(len(image.get("alt") or "") > 3 for image in pictures)


def documented(read: dict[str, Read]) -> set[int]:
    """The objects, by identity, that the API pages have an anchor for."""
    found = set()
    for name, page in read.items():
        for anchor in page.ids if name.startswith("api/") else ():
            owner, _, last = anchor.rpartition(".")
            if owner.startswith("reg_engine"):
                try:
                    found.add(id(getattr(importlib.import_module(owner), last)))
                except (ImportError, AttributeError):
                    continue  # a method, or a mark for a reader
    return found


def test_every_public_name_is_documented(read: dict[str, Read]) -> None:
    """Those of reg_engine.__all__, and of every module that an API page promises."""
    there = documented(read)
    text = "".join(path.read_text("utf-8") for path in (ROOT / "docs" / "api").glob("*.md"))
    marks = [name for name in MARK.findall(text) if name != "reg_engine"]
    promised = {"reg_engine"}
    for mark in marks:
        try:
            promised.add(importlib.import_module(mark).__name__)
        except ImportError:
            continue  # a name, not a module
    rooms = {f"reg_engine.{name}" for name in ("guidance", "schedules", "oracles", "forward")}
    assert rooms <= promised and len(marks) > 30
    missing = [
        f"{module}.{name}"
        for module in sorted(promised)
        for name in importlib.import_module(module).__all__
        if not isinstance(value := getattr(importlib.import_module(module), name), type(sys))
        and id(value) not in there
    ]
    assert missing == []


def test_the_table_of_names_is_that_of_the_pages() -> None:
    index = (ROOT / "docs" / "api" / "README.md").read_text("utf-8")
    for names, page in re.findall(r"^\| (`.*`) \| \[.*\]\((\w+\.md)\) \|$", index, re.M):
        marks = MARK.findall((ROOT / "docs" / "api" / page).read_text("utf-8"))
        assert re.findall(r"`([\w.]+)`", names) == marks, page
    assert len(re.findall(r"^\| `", index, re.M)) == len(list((ROOT / "docs/api").glob("*.md"))) - 1


def test_pages_read_alike_here_and_on_the_site() -> None:
    """Python-Markdown, which makes the site, against CommonMark with tables, as forges have it."""
    import markdown
    from markdown_it import MarkdownIt

    forge = MarkdownIt("commonmark", {"html": True}).enable("table")
    ours = ["tables", "attr_list", "md_in_html", "sane_lists", "pymdownx.superfences"]
    for path in [*(ROOT / "docs").glob("*.md"), *WRITTEN]:
        text = path.read_text("utf-8")
        tags = [
            sorted(re.findall(r"<(h\d|li|tr|td|pre|img|em|strong|table)\b", html))
            for html in (forge.render(text), markdown.markdown(text, extensions=ours))
        ]
        assert tags[0] == tags[1] and tags[0], path


@pytest.mark.parametrize("scheme", SCHEMES)
def test_our_colours_are_readable(scheme: str) -> None:
    """WCAG AA, 4.5 to 1, of every colour that style.css sets, on both papers of its scheme."""
    (block,) = re.findall(rf'^[^@]*?"{scheme}"\][^{{}}]*{{(\s*--md-[^}}]*)}}', STYLE, re.M)
    colours = re.findall(r"(--md-[\w-]+): #(\w{6});", block)
    assert len(colours) >= 3
    for name, value in colours:
        text = tuple(int(value[i : i + 2], 16) for i in (0, 2, 4))
        for paper in SCHEMES[scheme]:
            assert site_pages.contrast(text, paper) >= 4.5, (name, paper)  # type: ignore[arg-type]


def test_contrast_is_that_of_the_standard() -> None:
    assert site_pages.contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert site_pages.contrast((118, 118, 118), (255, 255, 255)) == pytest.approx(4.54, abs=0.005)
