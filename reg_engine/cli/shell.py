"""What the shell sees: one paragraph on standard error and an exit code, whatever goes wrong.

0 done; 2 something that the caller can mend; 130 stopped by Ctrl-C. A traceback is a defect.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
import torch

from ..errors import InputError, RegEngineError

__all__ = ["Commands", "run", "stopped"]

_FULL = "Free some, or choose another place; finished work is kept, and the same command goes on"


class Commands(click.Group):
    """A group whose commands fail with a named error where their output cannot be written."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command and flush what it printed."""
        try:
            done = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:  # click would end silently, as if all were well
            raise InputError(
                "standard output",
                "its reader has closed it",
                "Let it read to the end, or write to a file",
            ) from error
        return done


@contextmanager
def stopped(folder: Path, anything: str = "**/*") -> Iterator[None]:
    """Say at Ctrl-C what of the work is kept in `folder`, if anything is."""
    try:
        yield
    except KeyboardInterrupt:
        kept = any(path.is_file() for path in folder.glob(anything))
        said = f"kept in {folder}; the same command goes on from there" if kept else "not kept"
        click.echo(f"stopped: finished work is {said}", err=True)
        raise


def run(command: click.Command) -> int:
    """Run a command with this process's arguments; return the exit code."""
    try:
        if sys.stdout is None:
            raise InputError("standard output", "is closed", "Send it to a file or to /dev/null")
        code = command.main(prog_name="reg-engine", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except (click.Abort, KeyboardInterrupt):
        return 130
    except click.ClickException as error:
        error.show()
        return 2
    except RegEngineError as error:
        return _failed(str(error))
    except OSError as error:
        name = "" if error.filename is None else f"{os.fspath(error.filename)}: "
        return _failed(f"{name}{error.strerror or error}. {_FULL}.")
    except (MemoryError, RuntimeError) as error:
        if not _memory(error):
            raise
        return _failed("out of memory. Ask for fewer samples, or a smaller --batch-size.")


def _memory(error: BaseException) -> bool:
    words = ("can't allocate memory", "out of memory")
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or any(word in str(error) for word in words)


def _failed(text: str) -> int:
    """Say it, and let go of output that cannot be written: Python would try again at its end."""
    with suppress(OSError):
        click.echo(f"error: {text}", err=True)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    return 2
