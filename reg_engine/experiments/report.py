"""What an experiment leaves behind: a Markdown page, its figures, and a JSON of every number.

A page comes from a template (`Report.page`) or piece by piece (`section`, `text`, `table`,
`figure`), in the order of the calls.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shlex
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import InputError
from ..storage.files import check_writable, clear, replacing, write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PAGE", "NUMBERS", "Report", "folder_of", "shown", "table"]

PAGE, NUMBERS = "README.md", "numbers.json"
WIDTH = 100  # columns of a paragraph
# What experiments keep in their work folders: batches, training runs, plans, the decoded CIFAR-10.
WORK = [
    "*/settings.json",
    "*/*.npz",
    "*/checkpoint.pt",
    "*/loss.csv",
    "*/*.safetensors",
    "*/*.plan.json",
    "cifar10.npz",
    "post_steps*.json",
    "seconds.json",
]
PACKAGES = ["torch", "numpy", "scipy", "scikit-learn", "matplotlib"]
PACKAGES += ["torchmetrics", "faiss-cpu", "torchdiffeq", "diffusers"]


def folder_of(out: Path | str, name: str, data_set: str) -> Path:
    """Where an experiment's page lies."""
    return Path(out) / (name if data_set == "mnist" else f"{name}-{data_set}")


class Report:
    """One experiment's page. Methods append to it in the order they are called.

    Arguments and errors are those of `run_experiment`; `title` heads the page.
    """

    def __init__(
        self,
        name: str,
        title: str,
        out: Path | str,
        *,
        quick: bool = False,
        seed: int = 0,
        data: str | None = None,
        data_set: str = "mnist",
        device: str | torch.device = "cpu",
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.quick, self.seed, self.data = name, quick, seed, data
        self.device, self.options = torch.device(device), dict(options or {})
        self.data_set = data_set
        self.folder = folder_of(out, name, data_set)
        check_writable(self.folder / NUMBERS, "--out")
        self.work = self.folder / "work" / f"{'quick' if quick else 'full'}-{seed}"
        check_writable(self.work / NUMBERS, "--out")
        self.numbers: dict[str, Any] = {"claims": {}}
        self.unfinished = False  # then `finish` keeps the work that the next run goes on with
        self._page = [f"# {title}"]
        self._clock = self.work / "seconds.json"
        self._began = time.monotonic() - _spent(self._clock)  # a run that was stopped goes on

    @property
    def command(self) -> str:
        """The command that makes this report again (of a data path only the last part)."""
        words = ["reg-engine", "experiment", self.name]
        words += ["--quick"] if self.quick else []
        words += ["--seed", str(self.seed)] if self.seed else []
        words += ["--device", self.device.type] if self.device.type != "cpu" else []
        words += ["--data-set", self.data_set] if self.data_set != "mnist" else []
        words += ["--data", Path(self.data).name] if self.data else []
        for key, value in self.options.items():
            words += ["--set", f"{key}={Path(value).name if os.sep in value else value}"]
        return shlex.join(words)

    def say(self, text: str) -> None:
        """One line about the progress on standard error."""
        seconds = time.monotonic() - self._began
        write_whole(self._clock, json.dumps(round(seconds, 1)).encode())
        print(f"[{self.name} {seconds:6.1f} s] {text}", file=sys.stderr, flush=True)

    def generator(self, stream: int = 0) -> torch.Generator:
        """A CPU generator of its own for every (seed, stream)."""
        state = np.random.SeedSequence([self.seed, stream]).generate_state(1)
        return torch.Generator().manual_seed(int(state[0]))

    def section(self, title: str, text: str = "") -> None:
        """A heading and a paragraph."""
        self._add(f"## {title}", text)

    def text(self, markdown: str) -> None:
        """A paragraph."""
        self._add(markdown)

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[object]], caption: str = ""
    ) -> None:
        """A table and what to know about it; see the function `table`."""
        self._add(table(columns, rows), caption)

    def figure(self, name: str, figure: Figure, caption: str) -> None:
        """A figure with its caption, which says what to see."""
        self.draw(name, figure)
        self._add(f"![{name.replace('_', ' ')}]({name}.png)", f"*{caption.strip()}*")

    def draw(self, name: str, figure: Figure) -> None:
        """Write `name`.png and `name`.svg, for a page whose template shows them."""
        import matplotlib

        layout = figure.get_layout_engine()
        if layout is not None:  # once for both files; `savefig` would draw each of them twice
            layout.execute(figure)
            figure.set_layout_engine(None)
        with matplotlib.rc_context({"svg.hashsalt": name}):
            for kind, metadata in (("png", None), ("svg", {"Date": None})):
                with replacing(self.folder / f"{name}.{kind}", "--out") as file:
                    figure.savefig(file, format=kind, metadata=metadata, dpi=120)

    def page(self, template: Path, **parts: object) -> None:
        """The page from a Markdown template: `{name}` and `{name[key]:.2f}` are parts and numbers.

        `{claims_held}` counts the claims that hold and names the others: make them before.
        Paragraphs and lists are wrapped again at 100 columns, after the numbers are in; tables and
        code stay as they are.

        Args:
            template: UTF-8, in the syntax of `str.format`.
            parts: such as tables, next to `self.numbers`.

        Raises:
            KeyError: a name in the template that is neither a part nor a number.
        """
        values = {**self.numbers, "claims_held": self._claims_held(), **parts}
        text = template.read_text(encoding="utf-8").format_map(values)
        for paragraph in re.split(r"\n{2,}", text.strip()):
            kept = paragraph.startswith(("|", "#", "```"))
            self._add(paragraph if kept else _wrapped(paragraph))

    def _add(self, *paragraphs: str) -> None:
        self._page += [paragraph.strip() for paragraph in paragraphs if paragraph]

    def _claims_held(self) -> str:
        claims = self.numbers["claims"].values()
        lost = [f'"{claim["text"]}"' for claim in claims if not claim["holds"]]
        held = f"{len(claims) - len(lost)} of {len(claims)} claims hold"
        return f"{held}; not: {'; '.join(lost)}" if lost else held

    def claim(self, key: str, text: str, holds: bool, found: str) -> None:
        """Something the experiment says, whether it held this time, and the figure behind it."""
        self.numbers["claims"][key] = {"text": text, "holds": bool(holds), "found": found}

    def finish(self) -> dict[str, Any]:
        """Write the page and the numbers, remove the work; return what the JSON holds."""
        content = {
            "experiment": self.name,
            "command": self.command,
            "quick": self.quick,
            "seed": self.seed,
            "device": _device(self.device),
            "versions": _versions(),
            "seconds": round(time.monotonic() - self._began, 1),
            "numbers": _plain(self.numbers),
        }
        claims = self.numbers["claims"]
        if claims:
            self.section("What this run says")
            rows = [
                [claim["text"], "yes" if claim["holds"] else "**NO**", claim["found"]]
                for claim in claims.values()
            ]
            self.table(["claim", "holds", "found"], rows)
        kind = "A quick run: small sizes, to see that it works. " if self.quick else ""
        self.section(
            "How this page was made",
            f"{kind}Every number is in [{NUMBERS}]({NUMBERS}); {content['seconds']:.0f} s on "
            f"{content['device']}, torch {content['versions']['torch']}.\n\n"
            f"```\n{self.command}\n```",
        )
        text = json.dumps(content, indent=1, allow_nan=False)
        write_whole(self.folder / NUMBERS, (_short_lists(text) + "\n").encode())
        write_whole(self.folder / PAGE, ("\n\n".join(self._page) + "\n").encode())
        if self.unfinished:
            return content
        clear(self.work, WORK)
        # `points/` and its like outlive the batches that each point removed when it was scored.
        for folder in (*self.work.glob("*/"), self.work, self.work.parent):
            with suppress(OSError):  # something else lies there, or it is no folder
                folder.rmdir()
        return content


def _spent(clock: Path) -> float:
    """Seconds of the same run before it was stopped."""
    if not clock.exists():
        return 0.0
    problem = InputError("--out", f"holds {clock}, which is no number", "Remove it")
    try:
        seconds = float(json.loads(clock.read_bytes()))
    except (TypeError, ValueError) as error:
        raise problem from error
    if not math.isfinite(seconds):
        raise problem
    return seconds


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; floats are shown with three significant digits.

    Raises:
        ValueError: a row with another number of cells than there are columns.
    """
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"{len(row)} cells for {len(columns)} columns: {list(row)}")
    lines = [columns, ["---"] * len(columns), *([shown(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _wrapped(paragraph: str) -> str:
    """A paragraph, or the items of a list, in lines of WIDTH."""
    options: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    items = re.split(r"\n(?=\* )", paragraph)
    options["subsequent_indent"] = "  " if paragraph.startswith("* ") else ""
    return "\n".join(textwrap.fill(" ".join(item.split()), WIDTH, **options) for item in items)


def shown(cell: object) -> str:
    """A table's cell: floats with three significant digits, everything else as it is."""
    if not isinstance(cell, float) or not math.isfinite(cell):
        return str(cell)
    return f"{cell:.3g}" if cell == 0 or 1e-3 <= abs(cell) < 1000 else f"{cell:.2e}"


def _short_lists(text: str) -> str:
    """Indented JSON with lists of plain values on one line; no string holds a line break."""
    found = re.compile(r"\[\n\s+([^\[\]{}]*?)\n\s+\]")
    return found.sub(lambda m: "[" + re.sub(r",\n\s+", ", ", m.group(1)) + "]", text)


def _plain(value: Any) -> Any:
    """As JSON holds it; NaN and infinities become None, tensors and arrays lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        # Seven digits: what a float32 computation can mean, and files that can be compared.
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"CPU ({platform.machine()}, {threads} thread{'s' if threads > 1 else ''})"


def _versions() -> dict[str, str]:
    from ..version import __version__

    found = {"reg_engine": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        found[package] = "not installed"
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
