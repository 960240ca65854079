"""The parser: from the text of a query to its tree.

Only this module needs lark. The package imports it with the first query.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Generator
from typing import Any, NoReturn

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedToken

from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid, PreconditionFailed
from emulator.hub.core.json import UNDEFINED
from emulator.hub.query import tree
from emulator.hub.query.values import FUNCTIONS, Kind, kind, plain

_AGGREGATES = ("COUNT", "AVG", "SUM", "MIN", "MAX")
# Words of other dialects after SELECT. The grammar alone would parse `SELECT DISTINCT deviceId` as
# a member DISTINCT with the alias deviceId.
_FOREIGN_WORDS = ("DISTINCT", "VALUE")
# A tree of lark: its children are trees and tokens, in the form of the grammar.
_Node = Any

_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_WORD = re.compile(r"[\w$]+|.", re.DOTALL)


def steps(text: str, *, condition: bool) -> Generator[None, None, tree.Query]:
    """Parse a query, or the condition of a job or a configuration, word by word.

    Returns:
        The query, or the query that the condition stands for.

    Raises:
        ArgumentInvalid: the text is invalid; the error names the place.
        PreconditionFailed: it is longer than `limits.QUERY_TEXT_LENGTH`.
    """
    node = yield from _read(text, "condition" if condition else "query")
    yield
    query = _condition(node) if condition else _query(node)
    yield  # the next step can be long too
    return query


def _query(node: _Node) -> tree.Query:
    top, selection, source_node, where, group_by = node.children
    source = _source(source_node)
    build = _Builder(source)
    query = tree.Query(
        source,
        items=build.items(selection),
        top=None if top is None else _whole(top.children[0]),
        where=None if where is None else build.expression(where),
        group_by=() if group_by is None else tuple(map(build.path, group_by.children)),
    )
    if source is tree.Source.JOBS and query.items is not None:
        _refuse(selection, "devices.jobs allows SELECT * only")
    if query.group_by and source is not tree.Source.DEVICES:
        _refuse(group_by, "GROUP BY is allowed for devices only")
    _check_grouping(query, selection)
    return query


def _condition(node: _Node) -> tree.Query:
    match node:
        case Tree("every_device"):
            return tree.Query(tree.Source.DEVICES)
        case Tree("devices_where", [where]):
            source = tree.Source.DEVICES
        case Tree(_, [source_node, where]):
            source = _source(source_node)
    return tree.Query(source, where=None if where is None else _Builder(source).expression(where))


# --- text to lark's tree


@functools.cache
def _parser() -> Lark:
    return Lark.open(
        "query.lark",
        rel_to=__file__,
        parser="lalr",
        start=["query", "condition"],
        propagate_positions=True,
        maybe_placeholders=True,
    )


def _read(text: str, start: str) -> Generator[None, None, _Node]:
    if len(text) > limits.QUERY_TEXT_LENGTH:
        # The code was seen on a real hub.
        raise PreconditionFailed(
            f"The query has {len(text)} characters. {limits.QUERY_TEXT_LENGTH} are allowed"
        )
    try:
        parsing = _parser().parse_interactive(text, start=start)
        for _ in parsing.iter_parse():
            yield
        return parsing.feed_eof()  # type: ignore[no-untyped-call]
    except UnexpectedToken as error:
        at, found = error.token.start_pos, f"{tree.quoted(error.token)} is unexpected"
        if error.token.type == "$END":  # lark gives it the place of the last token
            at, found = len(text), "the query ends too early"
    except UnexpectedCharacters as error:
        at = error.pos_in_stream or 0
        word = _WORD.match(text, at)
        found = f"{tree.quoted(word.group() if word else '')} is unexpected"
        if text[at] in "'\"":  # the quote is a part of the token
            found = "the string has no end"
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    raise ArgumentInvalid(f"BadRequest: line {line}, column {column}: {found}")


def _refuse(node: _Node, why: str) -> NoReturn:
    """Refuse a query whose form is right and whose content is not."""
    at = node if isinstance(node, Token) else node.meta
    raise ArgumentInvalid(f"BadRequest: line {at.line}, column {at.column}: {why}")


# --- lark's tree to the query's


def _source(node: _Node) -> tree.Source:
    name = ".".join(node.children)
    try:
        return tree.Source(name.lower())
    except ValueError:
        known = ", ".join(each.value for each in tree.Source)
        _refuse(node, f"unknown collection {tree.quoted(name)}: use {known}")


def _name(token: Token) -> str:
    return token[2:-2] if token.type == "ESCAPED" else str(token)


def _whole(token: Token) -> int:
    if not isinstance(number := _number(token), int):
        _refuse(token, f"{tree.quoted(token)} is not a whole number")
    return number


def _number(token: Token) -> float:
    digits = token.lower()
    try:
        value = float(int(digits, 16)) if digits.startswith("0x") else float(digits)
    except OverflowError:
        value = math.inf
    if math.isinf(value):
        _refuse(token, f"{tree.quoted(token)} is beyond a double")
    return plain(value)


def _string(token: Token) -> str:
    def character(escape: re.Match[str]) -> str:
        code, other = escape.groups()
        if code is None and other not in "'\"\\":
            _refuse(token, f"{tree.quoted(escape.group())} is not an escape")
        return chr(int(code, 16)) if code else str(other)

    text = _ESCAPE.sub(character, token[1:-1])
    try:
        # Two escapes may be the halves of one character.
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        _refuse(token, "the string holds half of a surrogate pair")


class _Builder:
    """Builds the tree of a query over one source."""

    def __init__(self, source: tree.Source) -> None:
        self._prefix = source.value.split(".")

    def items(self, selection: _Node) -> tuple[tree.Item, ...] | None:
        """Build the projection; None for `*`."""
        return None if isinstance(selection, Token) else tuple(map(self._item, selection.children))

    def _item(self, node: _Node) -> tree.Item:
        value, alias = node.children
        name = None if alias is None else _name(alias.children[0])
        if value.data == "call" and value.children[0].upper() in _AGGREGATES:
            return tree.Item(self._aggregate(value), name)
        expression = self.expression(value)
        if not isinstance(expression, tree.Path):
            if name is None:
                _refuse(value, "an expression needs an alias")
        elif str(expression.parts[0]).upper() in _FOREIGN_WORDS:
            _refuse(value, f"{tree.quoted(str(expression.parts[0]))} is unexpected")
        return tree.Item(expression, name)

    def _aggregate(self, node: _Node) -> tree.Aggregate:
        function, *arguments = node.children
        name = function.upper()
        match name, arguments:
            # COUNT(*) is in samples of the docs, not in their grammar.
            case "COUNT", [None] | [Token()]:
                return tree.Aggregate(name, None)
            case "AVG" | "SUM" | "MIN" | "MAX", [Tree("path") as path]:
                return tree.Aggregate(name, self.path(path))
        _refuse(node, f"{name} takes {'no argument' if name == 'COUNT' else 'a path'}")

    def path(self, node: _Node) -> tree.Path:
        """Build a path, without the name of the source before it."""
        parts = [self._part(part) for part in node.children]
        for prefix in (self._prefix, self._prefix[:1]):
            leading = [str(part).lower() for part in parts[: len(prefix)]]
            if leading == prefix and len(parts) > len(prefix):
                return tree.Path(tuple(parts[len(prefix) :]))
        return tree.Path(tuple(parts))

    def _part(self, node: _Node) -> str | int:
        if isinstance(node, Token):
            return _whole(node) if node.type == "NUMBER" else _string(node)
        return _name(node.children[0])

    def expression(self, node: _Node, depth: int = 0) -> tree.Expression:
        """Build an expression.

        Raises:
            ArgumentInvalid: it nests too deep, or has an invalid call.
        """
        if depth > limits.QUERY_DEPTH:
            _refuse(node, f"the query nests deeper than {limits.QUERY_DEPTH} levels")
        parts = node.children
        match node.data:
            case "path":
                return self.path(node)
            case "array":
                return tree.Array(tuple(_constant(part) for part in parts if part is not None))
            case "call":
                return self._call(node, depth)
            case "number" | "string" | "true" | "false" | "null" | "undefined":
                return tree.Constant(_constant(node))
        operands = [self.expression(part, depth + 1) for part in parts if isinstance(part, Tree)]
        match node.data:
            case "disjunction":
                return tree.Or(tuple(operands))
            case "conjunction":
                return tree.And(tuple(operands))
            case "inversion":
                return tree.Not(operands[0])
            case "comparison":
                return tree.Comparison(operands[0], parts[1].replace("<>", "!="), operands[1])
            case "membership":
                found = tree.Membership(*operands)
                return found if parts[1].type == "IN" else tree.Not(found)
            case "arithmetic":
                steps = zip(map(str, parts[1::2]), operands[1:], strict=True)
                return tree.Arithmetic(operands[0], tuple(steps))
            case "negative":
                match operands[0]:
                    case tree.Constant(value) if kind(value) is Kind.NUMBER:
                        return tree.Constant(plain(-value))
                return tree.Arithmetic(tree.Constant(0), (("-", operands[0]),))
        return operands[0]  # a group

    def _call(self, node: _Node, depth: int) -> tree.Expression:
        token, *given = node.children
        function = token.upper()
        if function in _AGGREGATES:
            _refuse(node, f"{function} is allowed in SELECT only")
        if function not in FUNCTIONS:
            _refuse(node, f"unknown function {tree.quoted(token)}")
        arguments = [part for part in given if isinstance(part, Tree)]
        wanted = FUNCTIONS[function].arguments
        if len(arguments) != wanted:
            _refuse(node, f"{function} takes {wanted} argument(s)")
        return tree.Call(function, tuple(self.expression(part, depth + 1) for part in arguments))


def _constant(node: _Node) -> Any:
    match node.data:
        case "number":
            return _number(node.children[0])
        case "string":
            return _string(node.children[0])
        case "negative":
            return plain(-_number(node.children[1].children[0]))
    return {"true": True, "false": False, "null": None, "undefined": UNDEFINED}[node.data]


def _check_grouping(query: tree.Query, selection: _Node) -> None:
    """Refuse a member that a row of several rows cannot have."""
    if not query.aggregates:
        return
    if query.items is None:
        _refuse(selection, "SELECT * is not allowed with GROUP BY")
    for item, node in zip(query.items, selection.children, strict=True):
        if not (isinstance(item.value, tree.Aggregate) or item.value in query.group_by):
            _refuse(node, "with aggregates, SELECT can have only what GROUP BY has")
