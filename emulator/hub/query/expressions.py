"""The compiler: from the tree of an expression to a function that returns its value for a row.

The tree is compiled once, and the function is called for every row. So it knows before the first
row where each member is read, and which kind each constant has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from emulator.hub.core.json import UNDEFINED
from emulator.hub.query import tree, values
from emulator.hub.query.values import KINDS, Kind

R = TypeVar("R")
Reader = Callable[[R], Any]

# The readers of a row's root members, by name; a query can spell a name in any case. A member that
# a row lacks is `UNDEFINED`. A name with dots reads a part of a member without the whole:
# `properties.desired.$version`. A name that ends in `.*` reads the object which holds all other
# members at that place: `properties.desired.*`.
Members = Mapping[str, Reader[R]]


def member_name(path: tree.Path, members: Members[Any]) -> str:
    """Return the last name of a path; a root member has its usual spelling."""
    names = [part for part in path.parts if isinstance(part, str)]
    return _canonical(names, members)[-1]


def compile_expression(expression: tree.Expression, members: Members[R]) -> Reader[R]:
    """Return the function that returns the value of an expression for a row."""
    match expression:
        case tree.Constant(value):
            return lambda row: value
        case tree.Array(elements):
            return lambda row: list(elements)
        case tree.Path():
            return compile_path(expression, members)
        case tree.Not(operand):
            return _not(compile_expression(operand, members))
        case tree.And(operands):
            return _junction([compile_expression(each, members) for each in operands], False)
        case tree.Or(operands):
            return _junction([compile_expression(each, members) for each in operands], True)
        case tree.Comparison():
            return _comparison(expression, members)
        case tree.Membership():
            return _membership(expression, members)
        case tree.Arithmetic(first, steps):
            later = [(sign, compile_expression(operand, members)) for sign, operand in steps]
            return _arithmetic(compile_expression(first, members), later)
        case tree.Call(function, arguments):
            readers = [compile_expression(each, members) for each in arguments]
            return _call(values.FUNCTIONS[function].apply, readers)


# What the size of a row multiplies: a search in one of its arrays, and a copy of a section.
_SEARCH_STEPS, _SECTION_STEPS = 1_000, 50


def steps(expression: tree.Expression) -> int:
    """Return the cost of an expression for one row, in steps of about 0.3 µs."""
    found = 0
    for part in tree.walk(expression):
        match part:
            case tree.Path(parts):
                section = str(parts[0]).lower() == "properties" and len(parts) < 3
                found += len(parts) + section * _SECTION_STEPS
            case tree.Call("ARRAY_CONTAINS") | tree.Membership(_, tree.Path()):
                found += _SEARCH_STEPS
            case _:
                found += 1
    return found


def compile_condition(query: tree.Query, members: Members[R]) -> Callable[[R], bool]:
    """Return the function that decides whether a row matches; undefined does not match."""
    if query.where is None:
        return lambda row: True
    value = compile_expression(query.where, members)
    return lambda row: value(row) is True


# --- paths


def _canonical(names: list[str], members: Members[Any]) -> list[str]:
    root = names[0].lower()
    return [next((name for name in members if name.lower() == root), names[0]), *names[1:]]


def compile_path(path: tree.Path, members: Members[R]) -> Reader[R]:
    """Return the function that reads the value at a path; `UNDEFINED` if the path leads nowhere."""
    names = _canonical([str(part) for part in path.parts], members)
    known = []
    for name, read in members.items():
        *leading, last = name.split(".")
        through = leading if last == "*" else [*leading, last]
        length = len(through)
        if names[:length] == through and (last != "*" or len(names) > length):
            known.append((length, last == "*", read))
    if not known:
        return lambda row: UNDEFINED
    length, _, read = max(known, key=lambda each: each[:2])
    return _below(read, path.parts[length:])


def _below(read: Reader[R], parts: tuple[str | int, ...]) -> Reader[R]:
    if not parts:
        return read

    def below(row: R) -> Any:
        value = read(row)
        for part in parts:
            if type(value) is dict:
                value = value.get(part, UNDEFINED)
            elif type(value) is list and isinstance(part, int) and part < len(value):
                value = value[part]
            else:
                return UNDEFINED
        return value

    return below


# --- logic: any value except a boolean counts as `UNDEFINED`, neither true nor false


def _not(operand: Reader[R]) -> Reader[R]:
    def negation(row: R) -> Any:
        value = operand(row)
        return not value if isinstance(value, bool) else UNDEFINED

    return negation


def _junction(operands: list[Reader[R]], decisive: bool) -> Reader[R]:
    """Compile AND, which one false operand decides, or OR, which one true operand decides."""
    usual = not decisive

    def junction(row: R) -> Any:
        result: Any = usual
        for operand in operands:
            value = operand(row)
            if value is decisive:
                return decisive
            if value is not usual:
                result = UNDEFINED
        return result

    return junction


# --- comparisons


def _comparison(expression: tree.Comparison, members: Members[R]) -> Reader[R]:
    sign, compare = expression.operator, values.COMPARISONS[expression.operator]
    kinds = {type_: kind for type_, kind in KINDS.items() if values.compares(sign, kind)}
    left = compile_expression(expression.left, members)
    if isinstance(expression.right, tree.Constant):
        return _comparison_with_constant(left, compare, kinds, expression.right.value)
    right = compile_expression(expression.right, members)

    def comparison(row: R) -> Any:
        one, other = left(row), right(row)
        kind = kinds.get(type(one))
        if kind is None or kind is not kinds.get(type(other)):
            return UNDEFINED
        return compare(_comparable(kind, one), _comparable(kind, other))

    return comparison


def _comparison_with_constant(
    left: Reader[R], compare: Callable[[Any, Any], bool], kinds: Mapping[type, Kind], constant: Any
) -> Reader[R]:
    """Compile the usual form of a comparison, which is faster."""
    kind = kinds.get(type(constant))
    if kind is None:
        return lambda row: UNDEFINED
    constant = _comparable(kind, constant)

    def comparison(row: R) -> Any:
        value = left(row)
        return compare(value, constant) if kinds.get(type(value)) is kind else UNDEFINED

    def number_comparison(row: R) -> Any:
        value = left(row)
        return compare(float(value), constant) if kinds.get(type(value)) is kind else UNDEFINED

    return number_comparison if kind is Kind.NUMBER else comparison


def _comparable(kind: Kind | None, value: Any) -> Any:
    return float(value) if kind is Kind.NUMBER else value


def _membership(expression: tree.Membership, members: Members[R]) -> Reader[R]:
    value = compile_expression(expression.value, members)
    if isinstance(expression.array, tree.Array):
        search = _search(expression.array.elements)
        return lambda row: search(value(row))
    # The docs have constants on the right only; here an array of the row works too.
    array = compile_expression(expression.array, members)

    def membership(row: R) -> Any:
        elements = array(row)
        return _search(elements)(value(row)) if isinstance(elements, list) else UNDEFINED

    return membership


def _search(elements: Sequence[Any]) -> Callable[[Any], Any]:
    """Return the function that searches for a value among elements.

    Its result is true if an element is equal, else undefined if an element has another kind, else
    false.
    """
    pairs = [(values.kind(element), element) for element in elements]
    kinds = {kind for kind, _ in pairs}
    found = {(kind, _comparable(kind, element)) for kind, element in pairs if kind is not None}

    def search(value: Any) -> Any:
        kind = values.kind(value)
        if kind is None:
            return UNDEFINED if elements else False
        if (kind, _comparable(kind, value)) in found:
            return True
        return False if kinds <= {kind} else UNDEFINED

    return search


# --- arithmetic and functions


def _arithmetic(first: Reader[R], steps: list[tuple[str, Reader[R]]]) -> Reader[R]:
    def arithmetic(row: R) -> Any:
        result = first(row)
        for sign, operand in steps:
            result = values.calculate(sign, result, operand(row))
        return result

    return arithmetic


def _call(apply: Callable[..., Any], arguments: list[Reader[R]]) -> Reader[R]:
    if len(arguments) == 1:
        (only,) = arguments
        return lambda row: apply(only(row))
    return lambda row: apply(*[argument(row) for argument in arguments])
