"""Random expressions and rows, against a second evaluator that is slow and simple.

It computes three-valued logic as arithmetic: true is 1, false is 0, undefined is 0.5; AND is the
minimum, OR the maximum, NOT the difference to 1. It computes with exact fractions.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from operator import eq, ge, gt, le, lt, ne
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import UNDEFINED, Undefined, dumps, loads
from emulator.hub.query import Members, parse, parse_condition
from emulator.hub.query.expressions import compile_condition
from emulator.hub.query.projections import compile_projection

ROOTS = ("a", "b", "c")
# A query must escape some: words of the language, and texts that are not names.
NAMES = ("a", "b", "group", "in", "x-y", "$v", "é", "0", "")
STRINGS = ("", "a", "b", "ab", "1", "it's", '"', "\\", "é", "😀", ";", "\n")
NUMBERS = ("0", "1", "-1", "1.0", "2", "0.5", "-0", "1e2", "3", "1e308", "9007199254740993")
MEMBERS: Members[Any] = {name: lambda row, name=name: row.get(name, UNDEFINED) for name in ROOTS}

# --- rows: numbers in `a`, strings in `b`, anything in `c`

A_NUMBER = st.sampled_from([loads(text) for text in NUMBERS])
A_STRING = st.sampled_from(STRINGS)
PRIMITIVE = st.sampled_from([True, False, None, *STRINGS, *map(loads, NUMBERS)])
ANYTHING = st.recursive(
    PRIMITIVE,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=8,
)
ROWS = st.fixed_dictionaries(
    {
        root: st.dictionaries(st.sampled_from(NAMES), value, min_size=least)
        for root, value, least in [("a", A_NUMBER, 6), ("b", A_STRING, 6), ("c", ANYTHING, 4)]
    }
)

# --- expressions, as ("kind of node", its parts)

Node = tuple[Any, ...]
Nodes = st.SearchStrategy[Node]


def node(*parts: Any) -> Nodes:
    return st.tuples(
        *(part if isinstance(part, st.SearchStrategy) else st.just(part) for part in parts)
    )


def one_of(*words: str) -> st.SearchStrategy[str]:
    return st.sampled_from(words)


def path(root: str, *steps: Any) -> Nodes:
    return node("path", node(root, *steps))


def constant(value: st.SearchStrategy[Any]) -> Nodes:
    return node("constant", value)


NAME = st.sampled_from(NAMES)
COMPARE = one_of("=", "!=", "<>", "<", "<=", ">", ">=")
# A minus before a number is an operator.
NOT_NEGATIVE = st.sampled_from([loads(text) for text in NUMBERS if text[0] != "-"])
OF_C = path("c", NAME) | path("c", NAME, NAME | st.integers(0, 2))
ARRAYS = node("array", st.lists(PRIMITIVE, max_size=4).map(tuple))

NUMERIC = st.recursive(
    path("a", NAME) | constant(NOT_NEGATIVE) | OF_C,
    lambda inner: (
        node("calculate", st.sampled_from("+-*/%"), inner, inner) | node("negative", inner)
    ),
    max_leaves=4,
)
TEXTUAL = path("b", NAME) | constant(A_STRING) | OF_C
ANY = NUMERIC | TEXTUAL | constant(st.sampled_from([True, False, None, UNDEFINED])) | path("c")
PRIMITIVES = {"boolean", "number", "string", "null"}
TESTS = {
    "is_defined": {*PRIMITIVES, "object", "array"},
    "is_primitive": PRIMITIVES,
    "is_bool": {"boolean"},
    **{f"is_{name}": {name} for name in ("null", "number", "string", "object", "array")},
}
TESTED = one_of(*TESTS)
BOOLEAN = st.one_of(
    node("compare", COMPARE, NUMERIC, NUMERIC),
    node("compare", COMPARE, TEXTUAL, TEXTUAL),
    node("compare", COMPARE, ANY, ANY),
    node("in", st.booleans(), ANY, ARRAYS | OF_C),
    node("in", st.booleans(), TEXTUAL, node("array", st.lists(A_STRING, max_size=4).map(tuple))),
    node(TESTED, ANY),
    node(one_of("startswith", "endswith"), TEXTUAL, TEXTUAL),
    constant(st.booleans()),
    ANY,
)
EXPRESSIONS = st.recursive(
    BOOLEAN,
    lambda inner: st.one_of(
        node(one_of("and", "or"), st.lists(inner, min_size=2, max_size=3).map(tuple)),
        node("not", inner),
        node("compare", one_of("=", "!="), inner, inner),
        node(TESTED, inner),
    ),
    max_leaves=6,
)


# --- expressions as text


def bind(node: Node) -> int:
    """Return how tightly the outermost operator of a node binds."""
    tightness = {"or": 1, "and": 2, "not": 3, "compare": 4, "in": 4, "negative": 7}
    if node[0] == "calculate":
        return 5 if node[1] in "+-" else 6
    return tightness.get(node[0], 8)


def inside(node: Node, least: int) -> str:
    """Write an operand, in brackets only where it needs them."""
    return write(node) if bind(node) >= least else f"({write(node)})"


def write(node: Node) -> str:
    match node:
        case ("path", (root, *steps)):
            return root + "".join(write_step(step) for step in steps)
        case ("constant", value):
            return write_constant(value)
        case ("array", elements):
            return f"[{', '.join(map(write_constant, elements))}]"
        case (("and" | "or") as word, operands):
            least = bind(node) + 1
            return f" {word} ".join(inside(operand, least) for operand in operands)
        case ("not", operand):
            return f"NOT {inside(operand, 3)}"
        case ("compare", sign, left, right):
            return f"{inside(left, 5)}{sign}{inside(right, 5)}"
        case ("in", positive, value, array):
            return f"{inside(value, 5)} {'IN' if positive else 'nin'} {write(array)}"
        case ("calculate", sign, left, right):
            return f"{inside(left, bind(node))} {sign} {inside(right, bind(node) + 1)}"
        case ("negative", operand):
            return f"-{inside(operand, 7)}"
        case (function, *operands):
            return f"{function}({', '.join(map(write, operands))})"
    raise AssertionError(node)


def write_step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    if step in ("a", "b", "$v", "é"):
        return f".{step}"
    return f".[[{step}]]" if step else "['']"


def write_constant(value: Any) -> str:
    if value is UNDEFINED:
        return "undefined"
    if isinstance(value, str):
        quote = "'" if "'" not in value else '"'
        return quote + value.replace("\\", "\\\\").replace(quote, f"\\{quote}") + quote
    return dumps(value).decode()


# --- what they mean

SIGNS: dict[str, Callable[[Any, Any], bool]] = dict(
    zip(["=", "!=", "<>", "<", "<=", ">", ">="], [eq, ne, ne, lt, le, gt, ge], strict=True)
)
KINDS = [
    *((Undefined, "undefined"), (bool, "boolean"), ((int, float), "number")),
    *((str, "string"), (dict, "object"), (list, "array")),
]


def kind(value: Any) -> str:
    return next((name for types, name in KINDS if isinstance(value, types)), "null")


def truth(value: Any) -> float:
    return float(value) if kind(value) == "boolean" else 0.5


def from_truth(number: float) -> Any:
    return {0: False, 0.5: UNDEFINED, 1: True}[number]


def compare(sign: str, left: Any, right: Any) -> Any:
    of = kind(left)
    ordered = sign not in ("=", "!=", "<>")
    comparable = {"number", "string"} if ordered else PRIMITIVES
    if of != kind(right) or of not in comparable:
        return UNDEFINED
    if of == "number":
        left, right = float(left), float(right)
    return SIGNS[sign](left, right)


def calculate(sign: str, left: Any, right: Any) -> Any:
    if not kind(left) == kind(right) == "number":
        return UNDEFINED
    one, other = Fraction(float(left)), Fraction(float(right))
    if sign in "/%" and not other:
        return UNDEFINED
    exact = {
        "+": lambda: one + other,
        "-": lambda: one - other,
        "*": lambda: one * other,
        "/": lambda: one / other,
        "%": lambda: one - other * math.trunc(one / other),
    }[sign]()
    try:
        return float(exact)
    except OverflowError:
        return UNDEFINED


def mean(node: Node, row: Any) -> Any:
    match node:
        case ("path", steps):
            for step in steps:
                if kind(row) != ("array" if isinstance(step, int) else "object"):
                    return UNDEFINED
                try:
                    row = row[step]
                except LookupError:
                    return UNDEFINED
            return row
        case ("constant", value):
            return value
        case ("array", elements):
            return list(elements)
        case ("and", operands):
            return from_truth(min(truth(mean(operand, row)) for operand in operands))
        case ("or", operands):
            return from_truth(max(truth(mean(operand, row)) for operand in operands))
        case ("not", operand):
            return from_truth(1 - truth(mean(operand, row)))
        case ("compare", sign, left, right):
            return compare(sign, mean(left, row), mean(right, row))
        case ("in", positive, value, array):
            elements = mean(array, row)
            if kind(elements) != "array":
                return UNDEFINED
            one = mean(value, row)
            found = max([truth(compare("=", one, element)) for element in elements], default=0)
            return from_truth(found if positive else 1 - found)
        case ("calculate", sign, left, right):
            return calculate(sign, mean(left, row), mean(right, row))
        case ("negative", operand):
            return calculate("-", 0, mean(operand, row))
        case (("startswith" | "endswith") as function, *operands):
            text, part = (mean(operand, row) for operand in operands)
            if not kind(text) == kind(part) == "string":
                return UNDEFINED
            place = text[: len(part)] if function == "startswith" else text[len(text) - len(part) :]
            return place == part and len(part) <= len(text)
        case (function, operand):
            return kind(mean(operand, row)) in TESTS[function]
    raise AssertionError(node)


@given(EXPRESSIONS, ROWS)
@example(("not", ("or", (("constant", True), ("constant", False)))), {})
@example(("negative", ("negative", ("constant", 1))), {})
@example(("in", False, ("path", ("a",)), ("path", ("b",))), {"a": 1, "b": [True, 1.0]})
def test_conditions_and_projections_agree_with_the_second_evaluator(node: Node, row: Any) -> None:
    text, meaning = write(node), mean(node, row)
    assert compile_condition(parse_condition(text), MEMBERS)(row) is (meaning is True), text
    negated = compile_condition(parse_condition(f"NOT ({text})"), MEMBERS)(row)
    assert negated is (meaning is False), text
    items = parse(f"SELECT {text} AS x FROM devices").items
    assert items is not None
    projected = compile_projection(items, MEMBERS)(row)
    if meaning is UNDEFINED:
        assert projected == {}
        return
    assert kind(projected["x"]) == kind(meaning)
    if kind(meaning) == "number":
        assert float(projected["x"]) == float(meaning)
    else:
        assert projected == {"x": meaning}
    assert dumps(projected)


# --- any text

KEYWORDS = (
    "SELECT FROM WHERE GROUP BY TOP AS AND OR NOT IN NIN TRUE FALSE NULL UNDEFINED devices modules "
    "jobs deviceId tags COUNT AVG IS_DEFINED STARTS_WITH"
)
SIGNS_AND_CONSTANTS = (
    ". . , , ( ) [ ] [[ ]] * + - / % = != <> < <= > >= 0 1 2.5 1e999 0x1F 0x 'a' \"b\" ' \" \\ ; "
    ": # é 😀 \n \0"
)
WORDS = [*KEYWORDS.split(), *SIGNS_AND_CONSTANTS.split(" ")]


@given(st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join))
@example("[] FROM devices")
@example("() FROM devices")
@example("COUNT ( ) FROM devices GROUP BY tags . COUNT")
@pytest.mark.parametrize("start", ["", "SELECT * FROM devices WHERE ", "SELECT "])
def test_any_text_is_parsed_or_refused(start: str, text: str) -> None:
    for ask in (parse, parse_condition):
        refusal = ""
        try:
            ask(start + text)
        except ArgumentInvalid as error:
            refusal = error.text
        assert not refusal or refusal.startswith("BadRequest: line ")
        assert ";" not in refusal
