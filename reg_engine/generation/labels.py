"""Which label or prompt a seed has: rules as values, each a function of the seed alone.

So image k does not depend on the range it was asked for in, nor on the machine that made it, and
two halves of a range are the whole.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import InputError
from ..storage.readers import open_regular, refusing
from ..values import as_int, as_tuple, store

__all__ = ["Blocks", "Cycle", "Label", "Rule", "Uniform", "lines_of", "rule_of", "splitmix64"]

Label = int | str
LONGEST = 1 << 30  # bytes of a file of labels or prompts
_WORD = (1 << 64) - 1


class Rule(Protocol):
    """Gives a seed its label."""

    def of(self, seed: int) -> Label:
        """The label of the image of a seed."""
        ...

    def __str__(self) -> str:
        """How people write it."""
        ...


@dataclass(frozen=True)
class Cycle:
    """Labels or prompts in turn: seed k has values[k mod n].

    Args:
        values: at least one; integers, or texts.
        name: what people call them; "" = the values themselves.
    """

    values: tuple[Label, ...]
    name: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        remedy = "Give at least one, in a list"
        store(self, values=as_tuple("labels", self.values, remedy))
        if not self.values:
            raise InputError("labels", "are none", remedy)

    def of(self, seed: int) -> Label:
        """See Rule."""
        return self.values[seed % len(self.values)]

    def __str__(self) -> str:
        return self.name or ",".join(map(str, self.values))


@dataclass(frozen=True)
class Blocks:
    """`each` seeds of class 0, as many of class 1, and so on, from the first again after the last:
    50,000 consecutive seeds hold 50 of each of ImageNet's 1000 classes, wherever they begin.

    Args:
        each: images of a class in a row, >= 1.
        classes: how many classes there are, >= 1.
    """

    each: int
    classes: int

    def __post_init__(self) -> None:
        store(self, each=as_int("each", self.each), classes=as_int("classes", self.classes))

    def of(self, seed: int) -> int:
        """See Rule."""
        return seed // self.each % self.classes

    def __str__(self) -> str:
        return f"each:{self.each}"


@dataclass(frozen=True)
class Uniform:
    """Every class with the same chance, by a hash of the seed: floor(h C / 2^64) of C classes, with
    h the first number of SplitMix64 (Steele, Lea and Flood 2014) started at the seed.

    Args:
        classes: how many classes there are, >= 1.
    """

    classes: int

    def __post_init__(self) -> None:
        store(self, classes=as_int("classes", self.classes))

    def of(self, seed: int) -> int:
        """See Rule."""
        return splitmix64(seed) * self.classes >> 64

    def __str__(self) -> str:
        return "uniform"


def splitmix64(state: int) -> int:
    """The number that SplitMix64 gives first when it is started at `state`; in [0, 2^64)."""
    z = state + 0x9E3779B97F4A7C15 & _WORD
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _WORD
    return z ^ z >> 31


def rule_of(text: str, classes: int | None, values: Sequence[int] | None = None) -> Rule:
    """`uniform`, `each:50`, `file:PATH` (a label a line), or the list that the text stands for.

    Args:
        text: how it was written.
        classes: of the model; None: it does not say, and only lists serve.
        values: the list, where `text` is one.

    Raises:
        InputError: no rule; a label that is no class of the model's.
    """
    kind, colon, rest = text.partition(":")
    if kind in ("uniform", "each"):
        if classes is None:
            raise InputError("labels", f"{text!r} needs a number of classes", "Give a list")
        if kind == "uniform" and not colon:
            return Uniform(classes)
        if kind == "each" and rest.isdecimal():
            return Blocks(int(rest), classes)
        raise InputError("labels", f"is {text!r}", "Write uniform, each:50, file:PATH or 0-9")
    found = list(values or ())
    if kind == "file" and colon:
        remedy = "Give a file with one whole number a line"
        with refusing("labels", f"{rest!r} holds no labels", remedy):
            found = [int(line) for line in lines_of(rest, "labels")]
    bad = sorted({each for each in found if each < 0 or (classes is not None and each >= classes)})
    if bad:
        remedy = "Write labels >= 0" if classes is None else f"Write labels from 0 to {classes - 1}"
        raise InputError("labels", f"{bad[:5]} are out of range", remedy)
    return Cycle(tuple(found), text if kind != "file" else f"file:{os.path.basename(rest)}")


def lines_of(path: str | os.PathLike[str], argument: str = "prompts") -> list[str]:
    """The lines of a UTF-8 text: line k (from 0) is the label or prompt of seed k.

    Raises:
        InputError: it cannot be read, or holds nothing.
    """
    remedy = "Give a text file with one a line"
    with refusing(argument, f"{str(path)!r} cannot be read", remedy), open_regular(path) as file:
        data = file.read(LONGEST + 1)
        if len(data) > LONGEST:
            raise ValueError(f"it is larger than {LONGEST >> 30} GiB")
        text = data.decode("utf-8")
    if not text.strip():
        raise InputError(argument, f"{str(path)!r} is empty", remedy)
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
