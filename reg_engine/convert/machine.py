"""A pickle machine that runs nothing: what a file names is looked up in a table, never imported.

Its opcodes make plain values and `Record`s. A name in the file is a text that must stand in a
table of the caller's. REDUCE and NEWOBJ hand it to the caller, who has a function of his own for
it; BUILD writes down what it was given. All other names and opcodes are refused. Long bytes stay
where they are, as views of the file. What a file costs is bounded by a `Budget`, which the streams
inside it share.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from .records import NAMED, Budget, Name, Record

__all__ = ["Machine"]

_NAME = 256  # characters of a module's or class's name
_OPEN = 1000  # values that have begun and not ended
_KEY = 1 << 64  # of integers in dicts


class Machine:
    """One stream.

    Args:
        data: the bytes; places are counted from their start.
        start: of the stream.
        budget: reduced by what is read.
        call: (name, arguments) -> value, for REDUCE and NEWOBJ.
        named: (module, name) -> Name, or ValueError for one that is not in the table.
        persistent: the value of a persistent id; ValueError where there can be none.
    """

    def __init__(
        self,
        data: memoryview,
        start: int,
        budget: Budget,
        *,
        call: Callable[[Name, tuple[Any, ...]], Any],
        named: Callable[[str, str], Name],
        persistent: Callable[[Any], Any],
    ) -> None:
        self.data, self.place, self.budget = data, start, budget
        self.call, self.named, self.persistent = call, named, persistent
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.frame = start  # where the last frame ends

    def run(self) -> tuple[Any, int]:
        """(the value, where the stream ends).

        Raises:
            ValueError: the stream is damaged, asks for what is not in the tables, or is too long.
        """
        while True:
            self.budget.spend(1)
            inside = self.place < self.frame
            code = self.take(1)[0]
            if code == 0x2E:  # STOP
                break
            step = _STEPS.get(code)
            if step is None:
                raise ValueError(f"opcode {_code(code)} is not read here")
            step(self)
            if inside and self.place > self.frame:
                raise ValueError("an opcode crosses the end of its frame")
        if len(self.stack) != 1 or self.marks:
            raise ValueError("the stream ends with values left over, or with none")
        return self.stack[0], self.place

    def take(self, size: int) -> memoryview:
        """The next bytes, in place."""
        found = self.data[self.place : self.place + size]
        if len(found) < size:
            raise ValueError(f"truncated: {size} bytes at {self.place}, {len(found)} are there")
        self.place += size
        return found

    def number(self, size: int) -> int:
        """An unsigned integer."""
        return int.from_bytes(self.take(size), "little")

    def text(self, size: int) -> str:
        """A string."""
        self.budget.spend(text=size)
        return str(self.take(size), "utf-8")

    def line(self) -> str:
        """Text to the end of the line, for names."""
        found = bytes(self.data[self.place : self.place + _NAME])
        size = found.find(b"\n")
        if size < 0:
            raise ValueError("a name without end")
        self.place += size + 1
        return found[:size].decode("utf-8")

    def pop(self) -> Any:
        """The value on top."""
        if not self.stack:
            raise ValueError("a value is missing on the stack")
        return self.stack.pop()

    def push(self, value: Any) -> None:
        """Lay a value on top."""
        self.stack.append(value)

    def marked(self) -> list[Any]:
        """The values since the last mark, which goes."""
        if not self.marks:
            raise ValueError("a mark is missing")
        found, self.stack = self.stack, self.marks.pop()
        return found


_STEPS: dict[int, Callable[[Machine], Any]] = {}


def _opcode(code: bytes) -> Callable[[Callable[[Machine], Any]], Callable[[Machine], Any]]:
    def entered(step: Callable[[Machine], Any]) -> Callable[[Machine], Any]:
        _STEPS[code[0]] = step
        return step

    return entered


def _code(code: int) -> str:
    return f"{chr(code)!r} (0x{code:02x})" if 32 < code < 127 else f"0x{code:02x}"


for _byte, _value in ((b"N", None), (b"\x88", True), (b"\x89", False), (b")", ())):
    _opcode(_byte)(lambda m, value=_value: m.push(value))  # type: ignore[misc]
for _byte, _type in ((b"]", list), (b"}", dict), (b"\x8f", list)):  # a set is kept as a list
    _opcode(_byte)(lambda m, kind=_type: m.push(kind()))  # type: ignore[misc]
for _byte, _size in ((b"K", 1), (b"M", 2)):
    _opcode(_byte)(lambda m, size=_size: m.push(m.number(size)))  # type: ignore[misc]
for _byte, _size in ((b"\x8c", 1), (b"X", 4), (b"\x8d", 8)):
    _opcode(_byte)(lambda m, size=_size: m.push(m.text(m.number(size))))  # type: ignore[misc]
for _byte, _size in ((b"C", 1), (b"B", 4), (b"\x8e", 8), (b"\x96", 8)):
    _opcode(_byte)(lambda m, size=_size: m.push(m.take(m.number(size))))  # type: ignore[misc]
for _byte, _size in ((b"q", 1), (b"r", 4)):
    _opcode(_byte)(lambda m, size=_size: _remember(m, m.number(size)))  # type: ignore[misc]
for _byte, _size in ((b"h", 1), (b"j", 4)):
    _opcode(_byte)(lambda m, size=_size: _recall(m, m.number(size)))  # type: ignore[misc]


@_opcode(b"\x80")
def _protocol(m: Machine) -> None:
    version = m.number(1)
    if not 2 <= version <= 5:
        raise ValueError(f"pickle protocol {version}; 2 to 5 are read here")


@_opcode(b"\x95")
def _frame(m: Machine) -> None:
    size = m.number(8)
    if m.place < m.frame or size > len(m.data) - m.place:
        raise ValueError(f"truncated, or a frame of {size} bytes that does not fit")
    m.frame = m.place + size


def _signed(m: Machine, size: int) -> None:
    m.push(int.from_bytes(m.take(size), "little", signed=True))


_opcode(b"J")(lambda m: _signed(m, 4))
_opcode(b"\x8a")(lambda m: _signed(m, m.number(1)))


@_opcode(b"G")
def _float(m: Machine) -> None:
    m.push(struct.unpack(">d", m.take(8))[0])


@_opcode(b"\x94")
def _memoize(m: Machine) -> None:
    _remember(m, len(m.memo))


def _remember(m: Machine, index: int) -> None:
    m.memo[index] = m.pop()
    m.push(m.memo[index])


def _recall(m: Machine, index: int) -> None:
    if index not in m.memo:
        raise ValueError(f"value {index} is recalled and was never stored")
    m.push(m.memo[index])


@_opcode(b"(")
def _mark(m: Machine) -> None:
    if len(m.marks) == _OPEN:
        raise ValueError(f"more than {_OPEN} values within one another")
    m.marks.append(m.stack)
    m.stack = []


_opcode(b"0")(lambda m: m.pop())
_opcode(b"t")(lambda m: m.push(tuple(m.marked())))


def _short(m: Machine, size: int) -> None:
    m.push(tuple(m.pop() for _ in range(size))[::-1])


for _byte, _size in ((b"\x85", 1), (b"\x86", 2), (b"\x87", 3)):
    _opcode(_byte)(lambda m, size=_size: _short(m, size))  # type: ignore[misc]


_opcode(b"a")(lambda m: _extend(m, [m.pop()]))
for _byte in (b"e", b"\x90"):
    _opcode(_byte)(lambda m: _extend(m, m.marked()))


def _extend(m: Machine, values: list[Any]) -> None:
    if not m.stack or type(m.stack[-1]) is not list:
        raise ValueError("values are appended to what is no list")
    m.stack[-1].extend(values)


@_opcode(b"s")
def _item(m: Machine) -> None:
    value, key = m.pop(), m.pop()
    _set(m, [key, value])


@_opcode(b"u")
def _items(m: Machine) -> None:
    _set(m, m.marked())


def _set(m: Machine, pairs: list[Any]) -> None:
    target = m.stack[-1] if m.stack else None
    target = target.items if isinstance(target, Record) else target
    if type(target) is not dict or len(pairs) % 2:
        raise ValueError("items are set in what is no dict")
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        # Others may be nested without end, or, long ints, be made to have all the same hash.
        if not (type(key) in (str, bool) or key is None or (type(key) is int and abs(key) < _KEY)):
            raise ValueError(f"a {type(key).__name__} as the key of a dict")
        target[key] = value


@_opcode(b"c")
def _global(m: Machine) -> None:
    module = m.line()
    _name(m, module, m.line())


@_opcode(b"\x93")
def _stack_global(m: Machine) -> None:
    name, module = m.pop(), m.pop()
    if type(name) is not str or type(module) is not str:
        raise ValueError("a name that is no text")
    _name(m, module, name)


def _name(m: Machine, module: str, name: str) -> None:
    m.budget.spend(NAMED)
    m.push(m.named(module, name))


@_opcode(b"R")
@_opcode(b"\x81")
def _reduce(m: Machine) -> None:
    args, name = m.pop(), m.pop()
    if type(name) is not Name or type(args) is not tuple:
        raise ValueError("something is called that has no name, or without arguments")
    m.push(m.call(name, args))


@_opcode(b"b")
def _build(m: Machine) -> None:
    state = m.pop()
    target = m.stack[-1] if m.stack else None
    if isinstance(target, Record):
        target.state = state
    elif type(target) is not dict:  # an OrderedDict's attributes say nothing of its items
        raise ValueError(f"state is given to a {type(target).__name__}")


@_opcode(b"Q")
def _persistent(m: Machine) -> None:
    m.push(m.persistent(m.pop()))
