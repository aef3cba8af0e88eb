"""The errors a caller can meet: each names the argument, what is wrong with it, and the remedy."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Mapping

import torch

__all__ = [
    "BackendError",
    "EstimatorError",
    "InputError",
    "NumericalError",
    "RegEngineError",
    "choice",
    "out_of_memory",
]


class RegEngineError(Exception):
    """Base of every error that reg_engine raises on purpose."""


class InputError(RegEngineError, ValueError):
    """An argument that cannot be used.

    Args:
        argument: name of the argument, as the caller wrote it.
        problem: what is wrong, with the offending value.
        remedy: what to do instead.
    """

    def __init__(self, argument: str, problem: str, remedy: str) -> None:
        self.argument, self.problem, self.remedy = argument, problem, remedy
        super().__init__(f"{argument}: {problem}. {remedy}.")

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str]]:
        """Between processes: Exception would call the class with the one text."""
        return type(self), (self.argument, self.problem, self.remedy)


class NumericalError(RegEngineError, ArithmeticError):
    """A NaN or Inf met while sampling: says where (step, t) and in which samples."""


class EstimatorError(RegEngineError, RuntimeError):
    """An estimator that this network cannot serve: says why and which one to use instead."""


class BackendError(RegEngineError, RuntimeError):
    """A backend of the ops, asked for by name, that cannot serve here: says why."""


class CaptureError(RegEngineError, RuntimeError):
    """A step that cannot be captured into a CUDA graph: says why."""


def choice(
    argument: str, value: str, known: Iterable[str], meant: Mapping[str, str] | None = None
) -> str:
    """Return `value` if it is one of `known`, else raise InputError proposing what was meant.

    That is the closest known name, or what `meant` has for a name used elsewhere.
    """
    names = sorted(known)
    if isinstance(value, str) and value in names:
        return value
    text = str(value)[:80]
    proposal = (meant or {}).get(text.lower())
    if proposal is None:
        proposal = " ".join(map(repr, difflib.get_close_matches(text, names, n=1)))
    hint = f"Did you mean {proposal}? Known" if proposal else "Known"
    raise InputError(argument, f"unknown name {reprlib.repr(value)}", f"{hint}: {', '.join(names)}")


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: on a device, or on the host, where PyTorch has no type for it."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
