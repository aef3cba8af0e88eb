"""A command's options as TOML: `--config run.toml` reads them, `--save-config` writes them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import tomli_w
from click.core import ParameterSource

from ..errors import InputError
from ..storage.files import check_writable, write_whole
from ..values import shown

if sys.version_info >= (3, 11):
    import tomllib
else:  # the same, before it was part of Python
    import tomli as tomllib

__all__ = ["CONFIG_OPTIONS", "said", "save_config"]

OWN = ("config", "save_config")
GIVEN = (ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP)


def said(context: click.Context, name: str) -> bool:
    """Whether somebody chose the option, on the command line or in a file."""
    return context.get_parameter_source(name) in GIVEN


def save_config(context: click.Context, path: str | None) -> None:
    """Write the options that somebody chose; None: nowhere."""
    if path is None:
        return
    chosen = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in context.params.items()
        if name not in OWN and said(context, name)
    }
    target = check_writable(Path(path), "--save-config")
    write_whole(target, tomli_w.dumps(chosen).encode())


def _read(context: click.Context, parameter: click.Parameter, path: str | None) -> str | None:
    if path is None:
        return None
    try:
        found = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        problem = f"{path!r} cannot be read as TOML ({error})"
        raise InputError("--config", problem, "Give a file of --save-config") from error
    names = {str(option.name) for option in context.command.params} - {*OWN, "help"}
    values: dict[str, Any] = {}
    for key, value in found.items():
        name = key.replace("-", "_")
        if name not in names or isinstance(value, dict):
            known = ", ".join(sorted(names))
            raise InputError("--config", f"{key} = {shown(value)} is no option", f"Known: {known}")
        values[name] = value
    context.default_map = values
    return path


CONFIG_OPTIONS = [
    click.option(
        "--config",
        default=None,
        is_eager=True,
        callback=_read,
        help="A TOML file with options; those of the command line go before.",
    ),
    click.option("--save-config", default=None, help="Write the options that are given to a file."),
]
