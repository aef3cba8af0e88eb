"""The newest choice wins, errors are told in words, and texts are escaped."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from reg_engine import InputError
from reg_engine.explorer import view
from reg_engine.explorer.live import Live, said
from reg_engine.explorer.mixture import MixtureChoices
from reg_engine.explorer.view import Stale, View


def test_the_newest_choice_wins() -> None:
    """Three choices at once: the first is given up, the second never begun, the third shown."""
    began, shown, failed, busy = [], [], [], []
    release = threading.Event()

    def compute(chosen: int, wanted: Any) -> View:
        began.append(chosen)
        if chosen == 1:
            assert release.wait(20)
            if not wanted():
                raise Stale
        return View((), notes=(str(chosen),))

    async def visit(finish: bool) -> None:
        live = Live(compute, shown.append, failed.append, busy.append, finish)
        tasks = [asyncio.create_task(live.ask(lambda: 1))]
        while not began:
            await asyncio.sleep(0.01)
        tasks += [asyncio.create_task(live.ask(lambda n=n: n)) for n in (2, 3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(*tasks)

    asyncio.run(visit(finish=False))
    assert (began, [s.notes[0] for s in shown], failed) == ([1, 3], ["3"], [])
    assert busy == [True, False]
    for each in (began, shown, busy):
        each.clear()
    release.clear()
    asyncio.run(visit(finish=True))  # what is quick is shown on the way
    assert (began, [s.notes[0] for s in shown]) == ([1, 3], ["1", "3"])


def test_an_error_is_told_and_the_next_choice_runs(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []

    def compute(chosen: str, _: Any) -> View:
        if chosen == "defect":
            raise ZeroDivisionError("oh\nno")
        return View(())

    async def visit() -> None:
        live = Live(compute, lambda _: told.append("shown"), told.append)
        await live.ask(lambda: MixtureChoices(scale=0.1))
        await live.ask(lambda: "defect")
        await live.ask(lambda: "fine")
        live.close()
        await live.ask(lambda: "fine")

    asyncio.run(visit())
    assert told[0].startswith("scale: is 0.1") and told[2:] == ["shown"]
    assert told[1] == "This is a defect of the explorer: ZeroDivisionError: oh no"
    assert "Traceback" in capsys.readouterr().err
    assert said(InputError("a", "is b", "Give c")) == "a: is b. Give c."


def test_texts_are_escaped() -> None:
    pytest.importorskip("nicegui", reason="nicegui is not installed")
    from reg_engine.explorer.page import html_of

    bad = '<script>"&'
    page = html_of(View((view.Picture(b"x", bad),), (bad,), ((bad,),), (bad,)))
    assert "<script" not in page and page.count("&lt;script&gt;&quot;&amp;") == 4
