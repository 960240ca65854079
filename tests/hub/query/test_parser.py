"""The parser of queries and conditions: what it accepts, and what it refuses, and where."""

import pathlib
import subprocess
import sys
from collections.abc import Callable

import pytest

from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid, PreconditionFailed
from emulator.hub.query import Source, parse, parse_condition
from emulator.hub.query.expressions import compile_condition
from emulator.hub.query.tree import Path, walk

ROOT = pathlib.Path(__file__).parents[3]


def refusal(ask: Callable[[str], object], text: str) -> str:
    """Return the text of the error that a query causes, without its beginning."""
    with pytest.raises(ArgumentInvalid) as caught:
        ask(text)
    assert caught.value.text.startswith("BadRequest: ")
    assert ";" not in caught.value.text  # the SDK for Node splits the text there
    return caught.value.text.removeprefix("BadRequest: ")


def refused(marked: str, why: str) -> tuple[str, str]:
    """Return a query and its refusal; ^ marks the place of the error."""
    before = marked[: marked.index("^")]
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    return marked.replace("^", ""), f"line {line}, column {column}: {why}"


def refusals(table: str) -> list[tuple[str, str]]:
    """Read a table: in each line a query with a mark, an arrow, and why the parser refuses it."""
    lines = [line for line in table.splitlines() if line[:1] not in ("", "#")]
    rows = [line.partition("  -> ") for line in lines]
    return [refused(marked, why) for marked, _, why in rows]


# --- queries


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM devices",
        "select * from devices",
        "Select\n\t*\r\nFrom Devices",
        " SELECT*FROM devices ",
        "SELECT TOP 10 * FROM devices",
        "select top(10) * from devices.modules",
        "SELECT TOP 10 deviceId, tags.a b FROM devices WHERE a = 1",
        "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'j'",
        "SELECT COUNT() FROM devices",
        "SELECT count( * ) AS n FROM devices.modules",
        "SELECT tags.a FROM devices GROUP BY tags.a",
        "SELECT tags.a AS x, AVG(tags.b), sum(tags.b), MIN(tags.b), max(tags.b) "
        "FROM devices WHERE tags.c = 1 GROUP BY tags.a, devices.tags.d",
        "SELECT tags.a = 1 AS [[a is one]] FROM devices",
        "SELECT * FROM devices WHERE(tags.a=1)AND(tags.b='x')",
    ],
)
def test_a_query_is_accepted(text: str) -> None:
    query = parse(text)
    assert query.source.value in text.lower()
    assert (query.items is None) == ("*" in text and "count" not in text)


INVALID_QUERIES = r"""
^  -> the query ends too early
SELECT * FROM^  -> the query ends too early
SELECT * ^FORM devices  -> 'FORM' is unexpected
SELECT * FROM devices WHERE^  -> the query ends too early
SELECT * FROM devices WHERE (a = 1^  -> the query ends too early
SELECT * FROM devices WHERE a = ^'x  -> the string has no end
SELECT * FROM devices^;  -> a semicolon is unexpected
SELECT * FROM devices WHERE a =^= 1  -> '=' is unexpected
SELECT * FROM devices WHERE a = b ^= c  -> '=' is unexpected
SELECT * FROM devices ^-- all  -> '-' is unexpected
SELECT deviceId, ^FROM devices  -> 'FROM' is unexpected
SELECT *^, deviceId FROM devices  -> ',' is unexpected
^DELETE FROM devices  -> 'DELETE' is unexpected
SELECT * FROM devices WHERE a = 'it'^'s'  -> ''s'' is unexpected
SELECT * FROM devices WHERE a IN ^('b')  -> '(' is unexpected
SELECT * FROM devices WHERE a ^NOT IN ['b']  -> 'NOT' is unexpected
SELECT * FROM devices WHERE tags.a.^  -> the query ends too early
SELECT * FROM devices WHERE tags.^1 = 1  -> '1' is unexpected
SELECT * FROM devices WHERE tags[^-1] = 1  -> '-' is unexpected
SELECT * FROM devices WHERE a = ^2b  -> '2b' is unexpected
SELECT * FROM devices WHERE a = ^0xG  -> '0xG' is unexpected
SELECT * FROM devices WHERE a IN [^b]  -> 'b' is unexpected
# Words of the language that are not escaped.
SELECT tags.^group FROM devices  -> 'group' is unexpected
SELECT * FROM devices WHERE ^top = 1  -> 'top' is unexpected
SELECT tags.a AS ^from FROM devices  -> 'from' is unexpected
# Other dialects.
SELECT * FROM devices ^ORDER BY deviceId  -> 'ORDER' is unexpected
SELECT DISTINCT tags^.a FROM devices  -> '.' is unexpected
SELECT ^DISTINCT deviceId FROM devices  -> 'DISTINCT' is unexpected
SELECT ^VALUE deviceId FROM devices  -> 'VALUE' is unexpected
SELECT * FROM devices ^d  -> 'd' is unexpected
SELECT * FROM devices ^JOIN x  -> 'JOIN' is unexpected
SELECT * FROM ^(SELECT * FROM devices)  -> '(' is unexpected
SELECT * FROM devices WHERE a ^LIKE 'b%'  -> 'LIKE' is unexpected
SELECT * FROM devices WHERE a ^BETWEEN 1 AND 2  -> 'BETWEEN' is unexpected
SELECT tags.a FROM devices GROUP BY tags.a ^HAVING COUNT() > 1  -> 'HAVING' is unexpected
# Functions.
SELECT * FROM devices WHERE ^IS_DEFINED()  -> IS_DEFINED takes 1 argument(s)
SELECT * FROM devices WHERE ^IS_DEFINED(*)  -> IS_DEFINED takes 1 argument(s)
SELECT * FROM devices WHERE ^STARTSWITH('a')  -> STARTSWITH takes 2 argument(s)
# Aggregates.
SELECT ^COUNT(tags.a) FROM devices  -> COUNT takes no argument
SELECT ^AVG() FROM devices  -> AVG takes a path
SELECT ^AVG(*) FROM devices  -> AVG takes a path
SELECT ^AVG(1) FROM devices  -> AVG takes a path
SELECT ^SUM(tags.a, tags.b) FROM devices  -> SUM takes a path
SELECT ^COUNT() + 1 AS n FROM devices  -> COUNT is allowed in SELECT only
SELECT * FROM devices WHERE ^count() > 1  -> COUNT is allowed in SELECT only
SELECT ^* FROM devices GROUP BY tags.a  -> SELECT * is not allowed with GROUP BY
SELECT COUNT() FROM devices GROUP BY ^1  -> '1' is unexpected
SELECT ^tags.a, COUNT() FROM devices  -> with aggregates, SELECT can have only what GROUP BY has
SELECT COUNT(), ^deviceId FROM devices  -> with aggregates, SELECT can have only what GROUP BY has
SELECT ^1 AS x FROM devices GROUP BY a  -> with aggregates, SELECT can have only what GROUP BY has
SELECT a, ^b FROM devices GROUP BY a  -> with aggregates, SELECT can have only what GROUP BY has
# Collections.
SELECT * FROM ^twins  -> unknown collection 'twins': use devices, devices.modules, devices.jobs
SELECT * FROM ^twins.a  -> unknown collection 'twins.a': use devices, devices.modules, devices.jobs
SELECT * FROM ^jobs  -> unknown collection 'jobs': use devices, devices.modules, devices.jobs
SELECT ^jobId FROM devices.jobs  -> devices.jobs allows SELECT * only
SELECT ^COUNT() FROM devices.jobs  -> devices.jobs allows SELECT * only
SELECT COUNT() FROM devices.modules GROUP BY ^tags.a  -> GROUP BY is allowed for devices only
# Constants.
SELECT * FROM devices WHERE a = ^1e999  -> '1e999' is beyond a double
SELECT ^'\n' AS x FROM devices  -> '\n' is not an escape
SELECT ^'\u12' AS x FROM devices  -> '\u' is not an escape
SELECT ^'\ud83d' AS x FROM devices  -> the string holds half of a surrogate pair
SELECT TOP ^1.5 * FROM devices  -> '1.5' is not a whole number
SELECT TOP ^-1 * FROM devices  -> '-' is unexpected
SELECT TOP ^* FROM devices  -> '*' is unexpected
# Members without a name.
SELECT ^1 FROM devices  -> an expression needs an alias
SELECT ^tags.a + 1 FROM devices  -> an expression needs an alias
SELECT ^[] FROM devices  -> an expression needs an alias
"""
UNKNOWN_FUNCTIONS = ("STARTS_WITH", "ENDS_WITH", "CONTAINS", "LOWER", "ABS", "nonsense")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *refusals(INVALID_QUERIES),
        refused("SELECT *\nFROM devices\n  WHERE ^= 1", "'=' is unexpected"),
        *(
            refused(f"SELECT * FROM devices WHERE ^{name}(a, 'a')", f"unknown function '{name}'")
            for name in UNKNOWN_FUNCTIONS
        ),
    ],
)
def test_an_invalid_query_is_refused(text: str, message: str) -> None:
    assert refusal(parse, text) == message


def test_an_error_quotes_a_bounded_part_of_the_query() -> None:
    found = refusal(parse, "SELECT * FROM devices " + "x" * 5000)
    assert found == f"line 1, column 23: '{'x' * 40}...' is unexpected"


@pytest.mark.parametrize(
    "text",
    [
        "SELECT [[;]].a.b. FROM x",
        "SELECT ';' FROM devices",
        r"SELECT '\;' AS x FROM a",
        "SELECT * FROM devices WHERE a = ';",
    ],
)
def test_an_error_has_no_semicolon(text: str) -> None:
    assert refusal(parse, text)


# --- conditions


@pytest.mark.parametrize(
    ("text", "source", "paths"),
    [
        ("*", Source.DEVICES, set()),
        (" * ", Source.DEVICES, set()),
        ("deviceId IN ['a', 'b']", Source.DEVICES, {("deviceId",)}),
        ("FROM devices", Source.DEVICES, set()),
        ("from devices.modules", Source.MODULES, set()),
        ("FROM devices.jobs", Source.JOBS, set()),
        (
            "FROM devices.modules WHERE devices.modules.moduleId = 'm' AND devices.tags.a = 1",
            Source.MODULES,
            {("moduleId",), ("tags", "a")},
        ),
        (
            "NOT (DEVICES.Tags.a = properties.reported.[[b]].c[0] OR -x + y * 2 > 1) "
            "AND STARTSWITH(z, 'a') AND 'v' IN w",
            Source.DEVICES,
            {("Tags", "a"), ("properties", "reported", "b", "c", "0"), *map(tuple, "xyzw")},
        ),
        ("true", Source.DEVICES, set()),
    ],
)
def test_a_condition_is_parsed_once(text: str, source: Source, paths: set[tuple[str, ...]]) -> None:
    condition = parse_condition(text)
    assert condition.source is source
    parts = [] if condition.where is None else walk(condition.where)
    assert {tuple(map(str, part.parts)) for part in parts if isinstance(part, Path)} == paths
    assert parse_condition(text) is condition


INVALID_CONDITIONS = """
^  -> the query ends too early
  ^  -> the query ends too early
^WHERE deviceId = 'a'  -> 'WHERE' is unexpected
^SELECT * FROM devices  -> 'SELECT' is unexpected
* ^AND true  -> 'AND' is unexpected
FROM ^modules  -> unknown collection 'modules': use devices, devices.modules, devices.jobs
^COUNT() = 1  -> COUNT is allowed in SELECT only
"""


@pytest.mark.parametrize(("text", "message"), refusals(INVALID_CONDITIONS))
def test_an_invalid_condition_is_refused(text: str, message: str) -> None:
    assert refusal(parse_condition, text) == message


# --- limits


@pytest.mark.parametrize(
    "expression",
    [
        "(" * 4000 + "1" + ")" * 4000,
        "(" * 102 + "true" + ")" * 102,
        "NOT " * 2000 + "true",
        "-" * 4000 + "1",
        "- " * 2000 + "tags.a",
        "IS_DEFINED(" * 600 + "1" + ")" * 600,
        "1 = (" * 1300 + "1" + ")" * 1300,
        "1 + (2 * " * 700 + "1" + ")" * 700,
    ],
)
def test_a_query_that_nests_too_deep_is_refused(expression: str) -> None:
    found = refusal(parse_condition, expression)
    assert found.endswith(f"the query nests deeper than {limits.QUERY_DEPTH} levels")


@pytest.mark.parametrize("bracket", ["(", "[", "[[", "IS_DEFINED("])
def test_brackets_that_stay_open_are_refused(bracket: str) -> None:
    assert refusal(parse_condition, bracket * (8000 // len(bracket)))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1" + " + 1" * 2000 + " = 2001", True),
        ("false" + " OR false" * 800 + " OR true", True),
        ("true" + " AND true" * 700, True),
        (f"'abc' IN [{', '.join(f'{n}' for n in range(1500))}, 'abc']", True),
        ("(" * 90 + "true" + ")" * 90, True),
        ("NOT " * 90 + "true", True),
        ("is_defined(tags" + ".a" * 4000 + ")", False),
    ],
)
def test_a_long_query_is_answered(expression: str, expected: bool) -> None:
    assert compile_condition(parse_condition(expression), {})({}) is expected


def test_the_text_has_a_limit() -> None:
    longest = "SELECT * FROM devices".ljust(8192)
    assert parse(longest).items is None
    for text, read in ((longest + " ", parse), ("true".ljust(8193), parse_condition)):
        with pytest.raises(PreconditionFailed, match="8193 characters"):
            read(text)


def test_the_first_query_loads_the_parser() -> None:
    code = (
        "import sys, emulator.emulator; from emulator.hub.query import parse; "
        "assert 'lark' not in sys.modules; parse('SELECT * FROM devices'); "
        "assert 'lark' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT, timeout=60)
    assert done.returncode == 0
