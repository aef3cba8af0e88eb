"""What a picture says of itself: written into the PNG by `sample`, read by `show`."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch
from PIL import Image

from ..errors import InputError
from ..version import __version__
from .options import arguments_of, emit

__all__ = ["notes_of", "picture_notes", "settings_text", "show"]


def picture_notes(context: click.Context, settings: dict[str, Any]) -> dict[str, str]:
    """What a picture carries along: the command that makes it again, and every setting. Of paths
    only the last part: pictures are shown around."""
    texts = {*context.params.get("prompt", ()), context.params.get("negative")}
    words = [
        word if word in texts or os.sep not in word else Path(word).name
        for word in arguments_of(context)
    ]
    return {
        "Software": f"reg_engine {__version__}, torch {torch.__version__}",
        "Command": shlex.join(["reg-engine", *words]),
        "reg_engine": settings_text(settings),
    }


def settings_text(settings: dict[str, Any]) -> str:
    """The settings as they stand in a picture."""
    return json.dumps(settings, default=asdict)


def notes_of(path: Path) -> dict[str, str]:
    """The texts that a PNG carries.

    Raises:
        InputError: it is no picture.
    """
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            texts: dict[str, str] = dict(getattr(picture, "text", {}))
            return texts
    except OSError as error:
        raise InputError("FILE", f"{str(path)!r} is no PNG", "Give one of `sample`") from error


@click.command(epilog="Example: reg-engine show out/demo.png")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def show(file: Path, as_json: bool) -> None:
    """Say how a picture of `reg-engine sample` was made."""
    notes = notes_of(file)
    if "reg_engine" not in notes:
        raise InputError("FILE", f"{str(file)!r} says nothing of itself", "Give one of `sample`")
    settings = json.loads(notes["reg_engine"])
    found = {"software": notes.get("Software"), "command": notes.get("Command"), **settings}
    width = max(map(len, found))
    emit(found, as_json, "\n".join(f"{key:{width}}  {value}" for key, value in found.items()))
