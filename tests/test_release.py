"""What a release is made of: one version, a container, workflows, links on a package index."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import reg_engine

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_one_version_everywhere() -> None:
    from importlib.metadata import version

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    wanted = PROJECT["project"]["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", wanted)
    assert reg_engine.__version__ == citation["version"] == version("reg-engine") == wanted
    released = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert not released or released[0] == wanted


def test_the_citation_says_what_must_be_said() -> None:
    """As the schema of CFF 1.2.0 asks; `cffconvert --validate` knows the rest."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == PROJECT["project"]["license"]
    for work in citation["references"]:
        assert {"type", "title", "authors", "year"} <= set(work)
        assert all("family-names" in author for author in work["authors"])
    urls = {work["url"] for work in citation["references"]}
    assert {"https://arxiv.org/abs/2501.18865", "https://arxiv.org/abs/2503.10638"} <= urls


def steps(text: str) -> list[tuple[str, str]]:
    """Instruction and argument of every line of a Dockerfile, continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.M))
    return [tuple(line.split(" ", 1)) for line in joined.splitlines() if line]  # type: ignore[misc]


def test_the_container_is_plain_and_has_no_root() -> None:
    found = steps(DOCKERFILE)
    kinds = [kind for kind, _ in found]
    assert kinds[0] == "ARG" and kinds.count("FROM") == 2 and "ADD" not in kinds
    last = found[len(kinds) - 1 - kinds[::-1].index("FROM") :]
    users = [value for kind, value in last if kind == "USER"]
    assert users == ["10001"] and last[-2:] == [
        ("ENTRYPOINT", '["reg-engine"]'),
        ("CMD", '["--help"]'),
    ]
    assert not re.search(r"curl|wget|\| *(ba)?sh|sudo|trusted-host", DOCKERFILE)
    given = " ".join(value for kind, value in found if kind in ("ARG", "ENV"))
    assert not re.search(r"(?i)token|secret|password|key", given)


def test_the_container_gets_the_files_that_it_copies() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    copied = set()
    for kind, value in steps(DOCKERFILE):
        if kind == "COPY" and not value.startswith("--from"):
            copied |= set(shlex.split(value)[:-1])
    assert "*" in ignored and copied == let_in
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_read_and_no_more(path: Path) -> None:
    flow = yaml.safe_load(path.read_text("utf-8"))
    assert flow["permissions"] == {"contents": "read"}
    for name, job in flow["jobs"].items():
        assert job["timeout-minutes"] <= 60, name
        allowed = {"id-token": "write"} if (path.stem, name) == ("release", "publish") else None
        assert job.get("permissions") == allowed, name
    assert "secrets." not in path.read_text("utf-8")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit(path: Path) -> None:
    used = re.findall(r"uses: (\S+)(.*)", path.read_text("utf-8"))
    assert used
    for action, note in used:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r"  # v\d+\.\d+\.\d+", note), action


def test_only_what_was_tried_is_published() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text("utf-8"))["jobs"]
    assert jobs["publish"]["needs"] == ["build", "try"] and jobs["try"]["needs"] == "build"
    assert jobs["publish"]["if"] == "github.ref_type == 'tag'"
    tried = jobs["try"]["strategy"]["matrix"]["python"]
    listed = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["project"]["classifiers"]))
    assert tried == listed
    check = next(
        s["run"] for s in jobs["build"]["steps"] if s.get("name") == "The tag is the version"
    )
    for tag, code in ((f"v{reg_engine.__version__}", 0), ("v9.9.9", 1)):
        environment = {**os.environ, "GITHUB_REF_NAME": tag}
        assert subprocess.run(["bash", "-c", check], cwd=ROOT, env=environment).returncode == code


def setup(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What setup.py hands over under that name."""
    import runpy

    import setuptools

    taken: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", taken.update)
    runpy.run_path(str(ROOT / "setup.py"))
    return taken[name]


def test_an_index_links_to_the_repository_where_it_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://example.org")
    monkeypatch.setenv("GITHUB_REPOSITORY", "us/it")
    urls = setup("project_urls", monkeypatch)
    assert urls["Source"] == "https://example.org/us/it" and urls["Issues"].endswith("/it/issues")
    text = setup("long_description", monkeypatch)
    assert "](https://example.org/us/it/raw/main/docs/images/guidance.png)" in text
    assert "](https://example.org/us/it/blob/main/docs/choosing.md#on-a-gpu)" in text
    assert not re.findall(r"\]\((?!https://|#)", text)


@pytest.mark.parametrize("server", ["", "http://example.org"])
def test_elsewhere_it_links_to_the_papers(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_SERVER_URL", server)
    monkeypatch.setenv("GITHUB_REPOSITORY", "us/it")
    urls = setup("project_urls", monkeypatch)
    assert len(urls) == 2 and all("arxiv.org" in url for url in urls.values())
    text = setup("long_description", monkeypatch)
    assert "![" not in text and not re.findall(r"\]\((?!https://|#)", text)
