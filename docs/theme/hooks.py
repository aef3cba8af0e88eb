"""What MkDocs does for the pages beyond rendering them; `mkdocs.yml` names this file.

Pages are written for a reader of the repository. For the site,

* links out of docs/ lead to a page of that file (source/PATH), or of the repository's own pages;
* `<!-- api: reg_engine.plan.Plan -->` becomes that name's documentation, and the name of a module
  becomes the module's docstring and every name of its `__all__`.
"""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent.parent
OWN = ("CONTRIBUTING.md", "CHANGELOG.md")  # pages of the repository that the site has, too
HOME = {"README.md": "README.md"} | {name: name for name in OWN}
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
API = re.compile(r"^<!-- api: ([\w.]+) -->$", re.M)
LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml", ".cpp": "cpp", ".cu": "cpp"}


def on_files(files: Files, config: Any) -> Files:
    """The repository's own pages, and a page of every file outside docs/ that a page links to."""
    for name in OWN:
        files.append(File.generated(config, name, content=(ROOT / name).read_text("utf-8")))
    for file in list(files.documentation_pages()):
        for match in LINK.finditer(file.content_string):
            path = outside(file.src_uri, match[2])
            uri = f"source/{path}.md"
            if path and path not in HOME and uri not in files.src_uris:
                files.append(File.generated(config, uri, content=source_page(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links and API marks as the site has them."""
    here = page.file.src_uri

    def link(match: re.Match[str]) -> str:
        target, path = match[2], outside(here, match[2])
        if path:
            target = HOME.get(path, f"source/{path}.md")
            target = posixpath.relpath(target, posixpath.dirname(here) or ".")
        elif here in OWN and target.startswith("docs/"):
            target = target.removeprefix("docs/")
        return f"{match[1]}{target}{match[3] or ''}{match[4]}"

    return API.sub(lambda match: directives(match[1]), LINK.sub(link, markdown))


def outside(page: str, target: str) -> str:
    """The path in the repository of what a link of `page` leads to, "" where docs/ has it."""
    if "://" in target or target.startswith("mailto:"):
        return ""
    folder = "" if page in OWN else posixpath.join("docs", posixpath.dirname(page))
    path = posixpath.normpath(posixpath.join(folder, target))
    within = path.startswith("docs/") and not path.endswith(".py")
    return path if not within and (ROOT / path).is_file() else ""


def source_page(path: str) -> str:
    """A page with the text of a file."""
    text = (ROOT / path).read_text("utf-8")
    fence = "`" * max(4, *(len(run) + 1 for run in re.findall(r"`+", text) or [""]))
    return f"# {path}\n\n{fence}{LANGUAGES.get(Path(path).suffix, 'text')}\n{text}\n{fence}\n"


def directives(name: str) -> str:
    """mkdocstrings' lines for a name; for a module, its docstring and one for each public name."""
    path = ROOT / name.replace(".", "/")
    module = next((p for p in (path / "__init__.py", path.with_suffix(".py")) if p.is_file()), None)
    if module is None:
        return f"::: {name}\n"
    names = public(ast.parse(module.read_text("utf-8")))
    if not names:
        raise PluginError(f"{module} has no __all__: nothing to document")
    head = f"::: {name}\n    options:\n      members: false\n      heading_level: 2\n"
    options = "\n    options:\n      heading_level: 3\n"
    return head + "".join(f"\n::: {name}.{each}{options}" for each in names)


def public(tree: ast.Module) -> list[str]:
    """The names of `__all__`, in order."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [ast.literal_eval(item) for item in getattr(node.value, "elts", ())]
    return []
