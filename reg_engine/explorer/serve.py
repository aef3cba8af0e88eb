"""The page's server: on this machine alone unless asked, and nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import ipaddress
import socket
from collections.abc import Sequence
from typing import Any

import torch

from ..errors import InputError
from ..pictures.plots import check_matplotlib

__all__ = ["HEADERS", "check_place", "is_loopback", "serve"]

# What a browser may fetch: from here alone. Vue compiles templates in the page ('unsafe-eval').
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
        "connect-src 'self'; frame-ancestors 'none'; form-action 'none'; base-uri 'self'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_place(host: str, port: int, anyone: bool) -> None:
    """That the page may stand there.

    Raises:
        InputError: NiceGUI or matplotlib is missing; an address that others reach, not asked for;
            a port that is taken, out of range, or not allowed.
    """
    check_matplotlib()
    if importlib.util.find_spec("nicegui") is None:
        remedy = "pip install 'reg-engine[ui]', on Python 3.11 or newer"
        raise InputError("explore", "NiceGUI is not installed", remedy)
    if not is_loopback(host) and not anyone:
        problem = f"{host} can be reached by others, who may then run computations here"
        raise InputError("--host", problem, "Add --anyone if that is wanted, or leave it out")
    if not 1 <= port <= 65535:
        raise InputError("--port", f"is {port}", "Give a number from 1 to 65535")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        problem = f"{host}:{port} cannot be used ({error.strerror or error})"
        raise InputError("--port", problem, "Give another --port or --host") from error


def serve(
    host: str = "127.0.0.1",
    port: int = 8765,
    models: Sequence[str] = (),
    anyone: bool = False,
    show: bool = False,
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        host, port: where.
        models: paths that the tab of models offers.
        anyone: others may reach it. Then no path may be typed, and only `models` are opened.
        show: open a browser.

    Raises:
        InputError: as `check_place`.
    """
    check_place(host, port, anyone)
    torch.set_num_threads(1)
    from nicegui import app, ui
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from .page import build

    app.add_middleware(_Guard)
    if is_loopback(host):
        # A name that somebody makes point here must not read the page (DNS rebinding).
        names = ["127.0.0.1", "localhost", "[::1]", host]
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=names)
    ui.run(
        lambda: build(models, typed=is_loopback(host)),
        host=host,
        port=port,
        title="reg_engine explorer",
        language="en-US",
        dark=None,
        show=show,
        reload=False,
        show_welcome_message=False,
        fastapi_docs=False,
        favicon=FAVICON,
    )


# Two crossing clouds, drawn here, so that no icon of somebody else's is fetched.
FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
    '<circle cx="6" cy="8" r="5" fill="#0072B2"/>'
    '<circle cx="11" cy="8" r="4" fill="#D55E00" fill-opacity=".8"/></svg>'
)


class _Guard:
    """Adds HEADERS to every answer, and refuses what another site's page asks for: a browser lets
    any page open a socket to this machine, and says in `Origin` whose it is. (Plain ASGI: answers
    are not held back.)"""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        told = dict(scope.get("headers", ()))
        origin, host = told.get(b"origin"), told.get(b"host", b"")
        if origin is not None and origin.partition(b"://")[2] != host:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await send({"type": "http.response.start", "status": 403, "headers": []})
                await send({"type": "http.response.body", "body": b"from another site"})
            return
        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)
