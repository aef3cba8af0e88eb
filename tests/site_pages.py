"""The built documentation site as tests see it: what its pages load, link to, and hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}
COUNTED = ("h1", "h2", "h3", "li", "tr", "td", "pre", "img", "em", "strong", "code")


@dataclass
class Read(HTMLParser):
    """One page: ids, links, what the browser loads by itself, and how many tags of each kind."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    images: list[dict[str, str | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if found := given.get("id"):
            self.ids.add(found)
        if tag == "a" and (to := given.get("href")):
            self.links.append(to)
        if tag == "img":
            self.images.append(given)
        if tag in LOADED and (to := given.get(LOADED[tag])):
            self.loads.append(to)
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(given.get("href") or "")


def read(path: Path) -> Read:
    page = Read()
    page.feed(path.read_text("utf-8"))
    return page


def is_external(link: str) -> bool:
    return bool(urlsplit(link).scheme) or link.startswith("//")


def dead(site: Path, pages: dict[str, Read]) -> list[str]:
    """Links between pages that lead to no file, or to no id in it."""
    found = []
    for name, page in pages.items():
        for link in page.links:
            if is_external(link):
                continue
            parts = urlsplit(urljoin(f"/{name}", link))
            target, anchor = unquote(parts.path).lstrip("/"), unquote(parts.fragment)
            if not (site / target).is_file() or (
                anchor and target in pages and anchor not in pages[target].ids
            ):
                found.append(f"{name}: {link}")
    return found


def luminance(colour: tuple[float, float, float]) -> float:
    """WCAG 2.2's relative luminance of sRGB in 0..255."""
    low = [c / 255 for c in colour]
    lin = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in low]
    return 0.2126 * lin[0] + 0.7152 * lin[1] + 0.0722 * lin[2]


def contrast(a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    """WCAG 2.2's contrast ratio, 1 to 21; 4.5 is AA for text."""
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
