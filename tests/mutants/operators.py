"""Small wrong edits of a Python source: what a test should notice.

A mutant changes one place: a comparison, an operator, a constant, a branch, the order of two
arguments, a keyword left out, a statement dropped. Messages, annotations, imports, assertions and
decorators are left alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Mutant", "mutants"]

_COMPARE = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
_BINARY = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.Div: "*",
    ast.FloorDiv: "/",
    ast.Mod: "*",
    ast.Pow: "*",
}
_DROPPED = (ast.AugAssign, ast.Raise, ast.Break, ast.Continue, ast.Delete)


@dataclass(frozen=True)
class Mutant:
    """One edit of a file; `source` is the whole text after it, the others the line it begins on."""

    path: str
    line: int
    before: str
    after: str
    source: str

    @property
    def key(self) -> str:
        """What names the mutant whatever stands above it in the file."""
        return f"{self.path}: {self.before} => {self.after}"

    @property
    def place(self) -> str:
        """Where it is, for a reader of this version of the file."""
        return f"{self.path}:{self.line}: {self.before} => {self.after}"


def mutants(path: str, source: str) -> list[Mutant]:
    """Every mutant of `source`, in the order of the text."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    out = []
    for node, text in _edits(ast.parse(source)):
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        raw = source.encode()
        changed = (raw[:begin] + text.encode() + raw[end:]).decode()
        before, after = (s.splitlines()[node.lineno - 1].strip() for s in (source, changed))
        out.append(Mutant(path, node.lineno, before, after, changed))
    return out


def _edits(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """(place, its new text) below `node`."""
    yield from _edits_of(node)
    for child in _children(node):
        yield from _edits(child)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Where there may be something to change."""
    if isinstance(node, (ast.Raise, ast.Assert, ast.Import, ast.ImportFrom, ast.JoinedStr)):
        return
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
        return
    left_out = {"annotation", "returns", "decorator_list", "bases"}
    for name, value in ast.iter_fields(node):
        if name not in left_out:
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, ast.AST):
                    yield item


def _edits_of(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """(place, its new text) of one node; expressions stand in parentheses."""
    if isinstance(node, ast.Compare):
        names = [f"({ast.unparse(v)})" for v in (node.left, *node.comparators)]
        for index in range(len(node.ops)):
            yield node, _compared(names, node.ops, index)
    elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY and not _text(node):
        left, right = ast.unparse(node.left), ast.unparse(node.right)
        yield node, f"(({left}) {_BINARY[type(node.op)]} ({right}))"
    elif isinstance(node, ast.BoolOp):
        other = " or " if isinstance(node.op, ast.And) else " and "
        yield node, f"({other.join(f'({ast.unparse(v)})' for v in node.values)})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield node, f"({ast.unparse(node.operand)})"
    elif isinstance(node, (ast.If, ast.IfExp, ast.While)) and not _turned(node.test):
        yield node.test, f"(not ({ast.unparse(node.test)}))"
    elif isinstance(node, ast.Constant):
        yield from ((node, text) for text in _constants(node.value))
    elif isinstance(node, ast.Call):
        yield from _calls(node)
    elif isinstance(node, _DROPPED) or _is_effect(node):
        yield node, "pass"


def _compared(names: list[str], operators: list[ast.cmpop], changed: int) -> str:
    """The chain of comparisons with the one at `changed` turned."""
    text = names[0]
    for index, (operator, name) in enumerate(zip(operators, names[1:], strict=True)):
        sign = _COMPARE[type(operator)] if index == changed else _sign(operator)
        text += f" {sign} {name}"
    return f"({text})"


def _sign(operator: ast.cmpop) -> str:
    one = ast.Constant(1)
    return ast.unparse(ast.Compare(one, [operator], [one]))[2:-2]


def _constants(value: object) -> Iterator[str]:
    if isinstance(value, bool):
        yield repr(not value)
    elif isinstance(value, int):
        yield repr(value + 1)
    elif isinstance(value, float):
        yield repr(2 * value if value else 1.0)


def _calls(node: ast.Call) -> Iterator[tuple[ast.AST, str]]:
    """Two arguments swapped, and each keyword left out."""
    if len(node.args) > 1 and not any(isinstance(a, ast.Starred) for a in node.args[:2]):
        swapped = [node.args[1], node.args[0], *node.args[2:]]
        text = ast.unparse(ast.Call(node.func, swapped, node.keywords))
        if text != ast.unparse(node):
            yield node, text
    for keyword in node.keywords:
        if keyword.arg not in (None, "strict"):  # zip's strict asserts, and assertions stay
            rest = [k for k in node.keywords if k is not keyword]
            yield node, ast.unparse(ast.Call(node.func, node.args, rest))


def _turned(test: ast.expr) -> bool:
    """A condition whose own edits hold its negation already."""
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        return not isinstance(test.ops[0], (ast.Lt, ast.LtE, ast.Gt, ast.GtE))
    return isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)


def _is_effect(node: ast.AST) -> bool:
    """A call for its effect, or a write to an attribute or an element."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call)
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], (ast.Attribute, ast.Subscript))
    return False


def _text(node: ast.BinOp) -> bool:
    """A sum of strings."""
    return any(
        isinstance(side, ast.JoinedStr)
        or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in (node.left, node.right)
    )
