"""The page: three tabs of controls over the pure functions beside it. All state is a visitor's own:
`build` runs once for each, and everything lives in what it makes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from functools import cache
from html import escape
from typing import Any

from nicegui import background_tasks, ui

from . import digits, mixture, models
from .digits import DigitChoices
from .live import Live
from .methods import METHODS
from .mixture import MixtureChoices
from .models import OFFERED, ModelChoices
from .view import View, Wanted

__all__ = ["build"]

STYLE = """
:root { --nicegui-default-padding: 0.75rem }
body { font-family: system-ui, sans-serif }
.said { color: #8a2b00; border-left: 4px solid #D55E00; padding: .4rem .8rem; background: #fff4ee }
.body--dark .said { color: #ffd9c2; background: #4a2510 }
.shots { display: flex; flex-wrap: wrap; gap: 1rem }
.shots img { flex: 1 1 19rem; min-width: 0; max-width: 34rem; height: auto; background: white }
.shots img { align-self: flex-start }
.costs { border-collapse: collapse; font-variant-numeric: tabular-nums }
.costs th, .costs td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #9996 }
.costs th:first-child, .costs td:first-child { text-align: left }
.costs td { white-space: nowrap }
.scrolls { overflow-x: auto; max-width: 100% }
.knobs { width: 17rem; flex: 0 0 auto }
input[type=range] { accent-color: var(--q-primary); height: 1.6rem }
.stage { flex: 1 1 20rem; min-width: 0 }
.stage .stage { flex: 0 0 auto; width: 100% }
h1 { font-size: 1.6rem; line-height: 1.3; font-weight: 600; margin: 0 }
@media (max-width: 700px) { .knobs { width: 100% } }
.waits { opacity: .45; transition: opacity .2s .25s }
:focus-visible { outline: 3px solid #56B4E9 !important; outline-offset: 2px }
"""


def build(paths: Sequence[str] = (), typed: bool = True) -> None:
    """The page of one visitor.

    Args:
        paths: models that are offered.
        typed: whether a path may be typed; else only `paths` are opened.
    """
    ui.add_head_html(f"<style>{STYLE}</style>")
    ui.colors(primary="#0B5C94")  # white on it has a contrast of 7
    with ui.column().classes("w-full max-w-6xl mx-auto"):
        ui.html("Guidance, to be tried", sanitize=False, tag="h1")
        ui.label(
            "Move a slider: the pictures follow. CFG is the usual guidance of diffusion models; "
            "REG corrects where it lands. Everything is computed on this machine."
        )
        with ui.tabs().props("align=left no-caps") as tabs:
            plane, images, own = (ui.tab(name) for name in ("Plane", "Digits", "Your model"))
        with ui.tab_panels(tabs, value=plane, animated=False).classes("w-full") as panels:
            with ui.tab_panel(plane):
                _plane()
            with ui.tab_panel(images):
                begin = cache(_images())
            with ui.tab_panel(own):
                _own(paths, typed)
        panels.on_value_change(lambda event: begin() if event.value == "Digits" else None)


class Stage:
    """Where a tab shows its pictures, its table, or its error."""

    def __init__(self, name: str) -> None:
        self.name = name
        with ui.column().classes("stage") as self.place:
            self.error = ui.label().classes("said").props("role=alert")
            self.error.set_visibility(False)
            self.content = ui.html("", sanitize=False).classes("w-full")
            self.content.props(f"data-stage={name} aria-live=polite")

    def show(self, view: View) -> None:
        """A view, in place of what was there."""
        self.error.set_visibility(False)
        self.content.set_content(html_of(view))

    def fail(self, text: str) -> None:
        """An error, above what was there last."""
        self.error.set_text(text)
        self.error.set_visibility(True)

    def busy(self, is_: bool) -> None:
        """Paler while something newer is computed."""
        self.content.classes(**{"add" if is_ else "remove": "waits"})

    def live(self, compute: Callable[[Any, Wanted], View], finish: bool = False) -> Live:
        """Computations whose results are shown here, until the visitor leaves."""
        live = Live(compute, self.show, self.fail, self.busy, finish)
        ui.context.client.on_delete(live.close)
        return live


def html_of(view: View) -> str:
    """A view as HTML. Every text in it is escaped."""
    shots = "".join(
        f'<img alt="{escape(each.alt)}" src="data:image/png;base64,'
        f'{base64.b64encode(each.data).decode()}">'
        for each in view.pictures
    )
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in view.head)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in view.rows
    )
    table = f'<div class="scrolls"><table class="costs"><thead><tr>{head}</tr></thead>'
    table += f"<tbody>{rows}</tbody></table></div>"
    notes = "".join(f"<p>{escape(text)}</p>" for text in view.notes)
    return f'<div class="shots">{shots}</div>{table if view.rows else ""}{notes}'


class Slider:
    """A slider under its label and its value: the browser's own, which keys and screen readers
    know. `then` is called when it moves."""

    def __init__(
        self,
        label: str,
        ends: tuple[float, float],
        step: float,
        value: float,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        self.value, self.then = value, then
        with ui.column().classes("w-full gap-0"):
            with ui.row().classes("w-full justify-between"):
                ui.label(label)
                self.shown = ui.label(f"{value:g}")
            knob = ui.element("input").classes("w-full")
            # The order counts, and `value` would put it back whenever the page is drawn again.
            own = {"type": "range", "min": ends[0], "max": ends[1], "step": step}
            knob.props.update({**own, "defaultValue": value, "aria-label": label})
        knob.on("input", self.moved, throttle=0.05, js_handler="e => emit(e.target.value)")

    def moved(self, event: Any) -> None:
        """The browser says where it stands, as a text."""
        try:
            self.value = float(event.args)
        except (TypeError, ValueError):  # no browser's doing
            return
        self.shown.set_text(f"{self.value:g}")
        self.then()


def select(label: str, options: Sequence[str], value: str, then: Any) -> Any:
    """A list to choose from."""
    made = ui.select(list(options), value=value, label=label, on_change=then).classes("w-full")
    return made.props("outlined dense options-dense")


def _start(live: Live, choices: Callable[[], Any]) -> None:
    background_tasks.create(live.ask(choices))


def _plane() -> None:
    with ui.row().classes("w-full items-start"):
        with ui.column().classes("knobs"):
            knobs: dict[str, Any] = {}

            def go() -> None:
                _start(
                    live,
                    lambda: MixtureChoices(
                        (knobs["left"].value, knobs["right"].value),
                        **{k: knobs[k].value for k in ("scale", "level", "steps", "seed")},
                    ),
                )

            knobs["left"] = select("Left method", METHODS, "CFG", go)
            knobs["right"] = select("Right method", METHODS, "REG (auto)", go)
            knobs["scale"] = Slider("Guidance scale, 1 + w", (1, 8), 0.25, 3, go)
            knobs["level"] = Slider("Noise level of the arrows", (0.1, 3), 0.1, 0.5, go)
            knobs["steps"] = Slider("Steps", (4, 40), 1, 18, go)
            knobs["seed"] = Slider("Seed", (0, 20), 1, 0, go)
            ui.label(
                "Dots: samples of one class of two (grey: both), with the exact model. Contours: "
                "what guidance at this scale is meant to produce. Below: what guidance adds to the "
                "estimate at noisy points, both methods in one unit."
            ).classes("text-sm")
        stage = Stage("plane")
    live = stage.live(mixture.compare, finish=True)
    go()


def _images() -> Callable[[], None]:
    """What begins to compute: digits take seconds, which those who look at them spend."""
    with ui.row().classes("w-full items-start"):
        with ui.column().classes("knobs"):
            knobs: dict[str, Any] = {}

            def chosen() -> DigitChoices:
                names = ("model", "scale", "steps", "each", "seed")
                methods = (knobs["left"].value, knobs["right"].value)
                return DigitChoices(methods=methods, **{k: knobs[k].value for k in names})

            def go() -> None:
                _start(live, chosen)

            def both() -> None:
                go()
                _start(curve, lambda: (knobs["model"].value, knobs["scale"].value))

            knobs["model"] = select("Model", ("mnist", "fashion"), "mnist", both)
            knobs["left"] = select("First method", METHODS, "CFG", go)
            knobs["right"] = select("Second method", METHODS, "REG (auto)", go)
            knobs["scale"] = Slider("Guidance scale", (1, 10), 0.5, 6, both)
            knobs["steps"] = Slider("Steps", (4, 24), 1, 8, go)
            knobs["each"] = Slider("Images of each label", (1, 5), 1, 2, go)
            knobs["seed"] = Slider("First seed", (0, 200), 1, 0, go)
            ui.label(
                "Both methods start from the same noise. A choice takes a few seconds."
            ).classes("text-sm")
        with ui.column().classes("stage"):
            stage, below = Stage("digits"), Stage("curve")
    live = stage.live(digits.compare)
    curve = below.live(lambda chosen, _: digits.curve(*chosen))
    return both


def _own(paths: Sequence[str], typed: bool) -> None:
    with ui.row().classes("w-full items-start"):
        with ui.column().classes("knobs"):
            knobs: dict[str, Any] = {}
            if typed:
                first = paths[0] if paths else ""
                knobs["path"] = ui.input("Path of a .safetensors file or a folder", value=first)
                knobs["path"].classes("w-full").props("outlined dense")
            elif paths:
                knobs["path"] = select("Model", paths, paths[0], None)
            else:
                ui.label("No model was given: start with --model PATH.")
                return
            names = ("path", "method", "scale", "steps", "count", "seed", "prompt")

            def go() -> None:
                _start(live, lambda: ModelChoices(**{k: knobs[k].value for k in names}))

            def ask() -> None:
                _start(about, lambda: knobs["path"].value)

            knobs["method"] = select("Method", OFFERED, "REG (auto)", None)
            knobs["scale"] = Slider("Guidance scale", (1, 10), 0.5, 4)
            knobs["steps"] = Slider("Steps", (1, 40), 1, 8)
            knobs["count"] = Slider("Images", (1, 16), 1, 4)
            knobs["seed"] = Slider("First seed", (0, 200), 1, 0)
            knobs["prompt"] = ui.input("Prompt, where the model takes one").classes("w-full")
            knobs["prompt"].props("outlined dense maxlength=512")
            with ui.row():
                ui.button("Sample", on_click=go).props("no-caps")
                ui.button("Describe", on_click=ask).props("no-caps outline")
        with ui.column().classes("stage"):
            stage, below = Stage("own"), Stage("about")
    live: Live = stage.live(models.show)
    about: Live = below.live(lambda path, _: models.describe(path))
    for knob in (knobs["path"], knobs["prompt"]):
        knob.on("keydown.enter", go)
