"""`reg-engine explore`: guidance to be tried on a page in the browser, on this machine alone."""

from __future__ import annotations

from pathlib import Path

import click

from ..explorer.serve import check_place, is_loopback, serve

__all__ = ["explore"]


@click.command(epilog="Example: reg-engine explore --model checkpoints/mine.safetensors --open")
@click.option(
    "--model", "models", multiple=True, help="A .safetensors file or a folder that a tab offers."
)
@click.option("--port", default=8765, show_default=True, type=int, help="Where the page stands.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address it listens on.")
@click.option(
    "--anyone",
    is_flag=True,
    help="Allow a --host that others reach. There is no password: whoever reaches the page may use "
    "this machine's processor, and sample the models that --model names.",
)
@click.option("--open", "show", is_flag=True, help="Open the page in the browser.")
def explore(models: tuple[str, ...], port: int, host: str, anyone: bool, show: bool) -> None:
    """Serve one page where guidance can be tried: two methods on a mixture in the plane, CFG
    against REG on digits, any model of yours. Nothing is fetched from elsewhere or sent there.
    """
    check_place(host, port, anyone)
    address = f"[{host}]" if ":" in host else host
    click.echo(f"http://{address}:{port}  (Ctrl-C ends it)")
    if not is_loopback(host):
        click.echo("Others can reach this page, and there is no password.", err=True)
    serve(host, port, [str(Path(path).absolute()) for path in models], anyone, show)
