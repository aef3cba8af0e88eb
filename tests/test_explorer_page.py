"""The explorer's page in headless Chromium, driven as a visitor would, and where it listens."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from reg_engine.cli import cli
from reg_engine.explorer.serve import is_loopback

pytest.importorskip("nicegui", reason="nicegui is not installed (the extra `ui`)")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
PLANE, DIGITS, OWN = (f"[data-stage={name}] img" for name in ("plane", "digits", "own"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a running explorer."""
    number = free_port()
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "NICEGUI"))}
    command = [sys.executable, "-m", "reg_engine.cli", "explore", "--port", str(number)]
    with subprocess.Popen(command, env=inherited, stderr=subprocess.PIPE, text=True) as server:
        try:
            for _ in range(400):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", number)) == 0:
                        break
                assert server.poll() is None, server.stderr and server.stderr.read()
                time.sleep(0.1)
            yield number
        finally:
            server.terminate()
            server.wait(20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    pytest.importorskip("playwright", reason="playwright is not installed")
    from playwright.sync_api import sync_playwright

    root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium's sandbox refuses root
    with sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"] if root else []
        )
        yield started
        started.close()


@pytest.fixture
def visit(browser: Any, port: int) -> Iterator[Any]:
    """A visitor's page: visit(width=...); every request and complaint of it is in `.seen`, what
    the server told it in `.heard`."""
    contexts = []

    def come(width: int = 1200) -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}))
        page = contexts[-1].new_page()
        page.set_default_timeout(40_000)
        page.seen, page.heard = [], []
        page.on("request", lambda request: page.seen.append(request.url))
        page.on("websocket", lambda ws: page.seen.append(ws.url))
        page.on("websocket", lambda ws: ws.on("framereceived", lambda f: page.heard.append(str(f))))
        page.on("pageerror", lambda error: page.seen.append(f"error {error}"))
        page.on("console", lambda m: m.type == "error" and page.seen.append(f"error {m.text}"))
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector(PLANE)
        return page

    yield come
    for context in contexts:
        context.close()


def alts(page: Any, where: str) -> list[str]:
    return [image.get_attribute("alt") for image in page.query_selector_all(where)]


def until(page: Any, where: str, words: str) -> None:
    """Wait for a picture whose text has the words."""
    page.wait_for_selector(f'{where}[alt*="{words}"]')


def test_a_slider_moves_the_pictures_of_one_visitor_alone(visit: Any) -> None:
    first, second = visit(), visit()
    before = [image.get_attribute("src") for image in first.query_selector_all(PLANE)]
    assert len(before) == 2 and "scale 3 " in alts(first, PLANE)[0]
    knob = first.get_by_role("slider", name="Guidance scale, 1 + w")
    knob.focus()
    for _ in range(4):
        first.keyboard.press("ArrowRight")
    until(first, PLANE, "CFG: 400 samples at scale 4 ")
    after = [image.get_attribute("src") for image in first.query_selector_all(PLANE)]
    assert not set(before) & set(after)
    other = second.get_by_role("slider", name="Noise level of the arrows")
    other.focus()
    second.keyboard.press("ArrowRight")
    until(second, PLANE, "at noise level 0.6")
    assert all("scale 3 " in alt for alt in alts(second, PLANE))
    assert all("scale 4 " in alt and "level 0.5." in alt for alt in alts(first, PLANE))
    first.get_by_label("Right method").click()
    first.get_by_role("option", name="damping").click()
    until(first, PLANE, "damping: 400 samples at scale 4 ")
    assert first.locator("[data-stage=plane] td", has_text="damping").count() == 1


def test_digits_follow_their_slider(visit: Any) -> None:
    page = visit()
    page.get_by_role("tab", name="Digits").click()
    page.wait_for_selector(DIGITS)
    page.wait_for_selector("[data-stage=curve] img")
    page.get_by_role("slider", name="Images of each label").focus()
    page.keyboard.press("ArrowLeft")
    until(page, DIGITS, "REG (auto) at scale 6: 10 images")
    page.get_by_role("slider", name="Guidance scale").focus()
    page.keyboard.press("ArrowLeft")
    until(page, DIGITS, "CFG at scale 5.5: 10 images")
    page.get_by_text("At scale 5.5 the weight is 4.5 F.").wait_for()


def test_nothing_is_fetched_from_elsewhere(visit: Any, port: int) -> None:
    page = visit()
    for name in ("Digits", "Your model", "Plane"):
        page.get_by_role("tab", name=name).click()
    page.wait_for_timeout(300)
    assert len(page.seen) > 5 and any(url.startswith("ws:") for url in page.seen)
    places = (f"http://127.0.0.1:{port}/", f"ws://127.0.0.1:{port}/", "data:", "blob:")
    assert [url for url in page.seen if not url.startswith(places)] == []
    fonts = page.evaluate("getComputedStyle(document.body).fontFamily")
    assert fonts.startswith("system-ui")


def test_a_refused_file_is_told_in_words(visit: Any, tmp_path: Path) -> None:
    pickled = tmp_path / "model.pt"
    torch.save({"a": torch.zeros(2)}, pickled)
    page = visit()
    page.get_by_role("tab", name="Your model").click()
    field = page.get_by_label("Path of a .safetensors file or a folder")
    for text, words in ((str(pickled), "safetensors"), ("owner/name", "nothing is at")):
        field.fill(text)
        field.press("Enter")
        alert = page.get_by_role("alert").filter(has_text=words)
        alert.wait_for()
        assert "Traceback" not in page.content() and "defect" not in alert.inner_text()
    from reg_engine.models import WEIGHTS

    field.fill(str(WEIGHTS / "mnist.safetensors"))
    page.get_by_role("button", name="Describe").click()
    page.get_by_text("0 to 9").wait_for()
    page.get_by_role("button", name="Sample").click()
    until(page, OWN, "4 images of labels 0 to 3: REG (auto), scale 4.")
    assert page.get_by_role("alert").filter(has_text="nothing").count() == 0
    told = "".join(page.heard)  # nobody looked at digits: none were made meanwhile
    assert "REG (auto), scale 4." in told and "REG (auto) at scale 6" not in told


def test_controls_have_names_and_a_phone_needs_no_sideways_scroll(visit: Any) -> None:
    page = visit(width=390)
    for tab in ("Plane", "Digits", "Your model"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(300)
        knobs = page.query_selector_all("input[type=range]:visible")
        named = [knob.get_attribute("aria-label") for knob in knobs]
        assert len(named) >= 4 and all(named) and len(set(named)) == len(named)
        unnamed = page.evaluate(
            "[...document.querySelectorAll('input:not([type=hidden])')]"
            ".filter(e => !e.ariaLabel && !e.labels?.length).length"
        )
        assert unnamed == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.documentElement.lang") == "en-US"


def test_it_listens_on_this_machine_alone(port: int) -> None:
    table = Path("/proc/net/tcp")
    if not table.exists():
        pytest.skip("no /proc/net/tcp here")
    ours = f":{port:04X}"
    rows = [line.split() for path in (table, Path("/proc/net/tcp6")) if path.exists()
            for line in path.read_text().splitlines()[1:]]  # fmt: skip
    listening = {row[1] for row in rows if row[1].endswith(ours) and row[3] == "0A"}
    assert listening == {f"0100007F{ours}"}


def answer(port: int, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/", headers={k.title(): v for k, v in headers.items()})
    return connection.getresponse()


def test_other_names_and_other_sites_are_refused(port: int) -> None:
    """A name that somebody points at this machine, and another site's page."""
    own = answer(port)
    assert own.status == 200 and "default-src 'self'" in str(own.headers)
    assert answer(port, host="evil.example").status == 400
    assert answer(port, origin="https://evil.example").status == 403
    assert answer(port, origin=f"http://127.0.0.1:{port}").status == 200
    with socket.create_connection(("127.0.0.1", port), 20) as raw:
        raw.sendall(
            b"GET /_nicegui_ws/socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n"
            b"Host: 127.0.0.1:%d\r\nOrigin: https://evil.example\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n" % port
        )
        assert raw.recv(64).startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "--host: 0.0.0.0 can be reached by others"),
        (["--host", "192.0.2.1"], "--host: 192.0.2.1 can be reached by others"),
        (["--port", "0"], "--port: is 0"),
        (["--host", "192.0.2.1", "--anyone"], "--port: 192.0.2.1:8765 cannot be used"),
    ],
)
def test_an_address_that_it_does_not_take(words: list[str], said: str) -> None:
    assert said in str(CliRunner().invoke(cli, ["explore", *words]).exception)


def test_a_port_that_is_taken(port: int) -> None:
    found = CliRunner().invoke(cli, ["explore", "--port", str(port)])
    assert f"127.0.0.1:{port} cannot be used" in str(found.exception)


def test_what_is_loopback() -> None:
    yes, no = ("127.0.0.1", "127.8.8.8", "::1", "localhost"), ("0.0.0.0", "::", "10.0.0.1", "host")
    assert all(map(is_loopback, yes)) and not any(map(is_loopback, no))
