"""One version, wherever it is written."""

from __future__ import annotations

import re
from pathlib import Path

import reg_engine

ROOT = Path(__file__).resolve().parent.parent


def test_one_version_everywhere() -> None:
    version = reg_engine.__version__
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^version = "(.+)"$', project, re.M)[1] == version  # type: ignore[index]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", citation, re.M)[1] == version  # type: ignore[index]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\]", changelog, re.M)
    assert headings[:2] == ["Unreleased", version]
