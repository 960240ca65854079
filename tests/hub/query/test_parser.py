"""The query language: what it reads, what it refuses and where, and what its expressions are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emulator.hub.core import limits
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import UNDEFINED, loads
from emulator.hub.query import Members, Source, parse, parse_condition
from emulator.hub.query.projections import compile_aggregation, compile_projection

ROOT = Path(__file__).parents[2]

ROW = loads(
    """{
    "yes": true, "no": false, "nothing": null,
    "one": 1, "onePoint": 1.0, "half": 0.5, "exponent": 1e2, "minusZero": -0,
    "text": "abc", "upper": "ABC", "empty": "", "digit": "1", "moment": "2026-01-31T14:46:08Z",
    "list": [1, "a", true], "object": {"one": 1, "deep": {"text": "x"}}, "nulls": [null],
    "large": 9007199254740993, "even": 9007199254740992
    }"""
)
TAGS: Members[Any] = {"tags": lambda row: row, "deviceId": lambda row: "device-1"}


def refusal(ask: Callable[[str], object], text: str) -> str:
    with pytest.raises(ArgumentInvalid) as caught:
        ask(text)
    assert caught.value.text.startswith("BadRequest: ")
    assert ";" not in caught.value.text
    return caught.value.text.removeprefix("BadRequest: ")


def value(expression: str, row: Any = ROW) -> Any:
    """Tell what an expression is for a row: UNDEFINED where the projection leaves it out."""
    items = parse(f"SELECT {expression} AS x FROM devices").items
    assert items is not None
    return compile_projection(items, TAGS)(row).get("x", UNDEFINED)


def same(one: Any, other: Any) -> bool:
    """Compare as JSON does: 1 is not true."""
    return type(one) is type(other) and bool(one == other)


# --- null, undefined and the like


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        # One kind: compared. 1 is 1.0, however it was written.
        ("tags.one = 1", True),
        ("tags.one = 1.0", True),
        ("tags.onePoint = 1", True),
        ("tags.onePoint = tags.one", True),
        ("tags.exponent = 100", True),
        ("tags.minusZero = 0", True),
        ("tags.one != 1", False),
        ("tags.one <> 2", True),
        ("tags.one < 2", True),
        ("tags.one <= 1", True),
        ("tags.one > 1", False),
        ("tags.one >= 1.5", False),
        ("1 = tags.one", True),
        ("tags.half = 0.5e0", True),
        # As doubles, these two are one number.
        ("tags.large = 9007199254740992", True),
        ("tags.large = 9007199254740993", True),
        ("tags.large = tags.even", True),
        ("tags.text = 'abc'", True),
        ("tags.text = 'ABC'", False),
        ("tags.text != tags.upper", True),
        ("tags.upper < tags.text", True),
        ("tags.empty < 'a'", True),
        ("tags.empty = ''", True),
        ("'ab' < tags.text", True),
        ("tags.yes = true", True),
        ("tags.yes = false", False),
        ("tags.no != tags.yes", True),
        ("true = true", True),
        # Dates are text, so that a part of one will do.
        ("tags.moment > '2026-01'", True),
        ("tags.moment > '2026-02'", False),
        ("tags.moment < '2026-01-31T15'", True),
        # Two kinds: neither equal nor unequal.
        ("tags.digit = 1", UNDEFINED),
        ("tags.digit != 1", UNDEFINED),
        ("tags.one > 'a'", UNDEFINED),
        ("tags.yes = 1", UNDEFINED),
        ("tags.one = true", UNDEFINED),
        ("tags.no = 0", UNDEFINED),
        ("tags.text = true", UNDEFINED),
        ("tags.empty = null", UNDEFINED),
        # Booleans and null are in no order.
        ("tags.no < tags.yes", UNDEFINED),
        ("tags.yes >= true", UNDEFINED),
        ("null <= null", UNDEFINED),
        ("tags.nothing < null", UNDEFINED),
        # Null is equal to null, and to nothing else.
        ("tags.nothing = null", True),
        ("tags.nothing != null", False),
        ("tags.one = null", UNDEFINED),
        ("tags.one != null", UNDEFINED),
        ("null != 1", UNDEFINED),
        # Nothing can be said of what is not there.
        ("tags.absent", UNDEFINED),
        ("undefined", UNDEFINED),
        ("tags.absent = 'a'", UNDEFINED),
        ("tags.absent != 'a'", UNDEFINED),
        ("'a' != tags.absent", UNDEFINED),
        ("tags.absent = null", UNDEFINED),
        ("tags.absent != null", UNDEFINED),
        ("tags.absent = undefined", UNDEFINED),
        ("undefined = undefined", UNDEFINED),
        ("tags.absent = tags.absent", UNDEFINED),
        # Nor of what is no primitive.
        ("tags.object = tags.object", UNDEFINED),
        ("tags.list = tags.list", UNDEFINED),
        ("tags.list = [1, 'a', true]", UNDEFINED),
        ("tags.object != 1", UNDEFINED),
        ("tags.object > tags.list", UNDEFINED),
        # NOT
        ("NOT true", False),
        ("NOT false", True),
        ("NOT undefined", UNDEFINED),
        ("NOT null", UNDEFINED),
        ("NOT 1", UNDEFINED),
        ("NOT 'a'", UNDEFINED),
        ("NOT tags.absent = 1", UNDEFINED),
        ("NOT NOT tags.yes", True),
        # AND: false, then undefined.
        ("true AND true", True),
        ("true AND false", False),
        ("undefined AND false", False),
        ("false AND undefined", False),
        ("undefined AND true", UNDEFINED),
        ("true AND undefined", UNDEFINED),
        ("undefined AND true AND false", False),
        ("null AND false", False),
        ("1 AND true", UNDEFINED),
        # OR: true, then undefined.
        ("false OR false", False),
        ("false OR true", True),
        ("undefined OR true", True),
        ("true OR undefined", True),
        ("undefined OR false", UNDEFINED),
        ("false OR undefined", UNDEFINED),
        ("undefined OR false OR true", True),
        ("'a' OR true", True),
        ("'a' OR false", UNDEFINED),
        # The tightest first: NOT, AND, OR.
        ("true OR true AND false", True),
        ("(true OR true) AND false", False),
        ("NOT false AND false", False),
        ("NOT (false AND false)", True),
        ("NOT tags.one = 2", True),
    ],
)
def test_three_valued_logic(expression: str, expected: object) -> None:
    assert value(expression) is expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("tags.text IN ['x', 'abc']", True),
        ("tags.text IN ['x']", False),
        ("tags.text NIN ['x']", True),
        ("tags.text NIN ['abc']", False),
        ("tags.one IN [1.0]", True),
        ("tags.exponent IN [100]", True),
        ("tags.one IN [-1, 0x1]", True),
        ("tags.yes IN [1]", UNDEFINED),
        ("tags.one IN [true]", UNDEFINED),
        ("tags.yes IN [true]", True),
        ("tags.nothing IN [null]", True),
        ("tags.text IN []", False),
        ("tags.text NIN []", True),
        # As a comparison with each, of which one can't be made.
        ("tags.text IN ['abc', 1]", True),
        ("tags.text IN ['x', 1]", UNDEFINED),
        ("tags.text NIN ['x', 1]", UNDEFINED),
        ("tags.text IN ['x', null]", UNDEFINED),
        ("tags.text IN ['x', undefined]", UNDEFINED),
        ("tags.absent IN ['x']", UNDEFINED),
        ("tags.absent NIN ['x']", UNDEFINED),
        ("tags.object IN ['x']", UNDEFINED),
        # The other way round: an array of the row.
        ("'a' IN tags.list", True),
        ("true IN tags.list", True),
        ("1.0 IN tags.list", True),
        ("'b' IN tags.list", UNDEFINED),
        ("null IN tags.nulls", True),
        ("'a' IN tags.text", UNDEFINED),
        ("'a' IN tags.absent", UNDEFINED),
        ("'a' IN tags.object", UNDEFINED),
    ],
)
def test_membership(expression: str, expected: object) -> None:
    assert value(expression) is expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1 + 2", 3),
        ("1 + 0.5", 1.5),
        ("2 * 0.5", 1),
        ("7 - 10 - 1", -4),
        ("8 / 4 / 2", 1),
        ("1 / 4", 0.25),
        ("7 % 4", 3),
        ("-7 % 4", -3),
        ("7 % -4", 3),
        ("7.5 % 2", 1.5),
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("2 - -3", 5),
        ("-tags.one - 1", -2),
        ("- -1", 1),
        ("-(1 + 1)", -2),
        ("0x1F", 31),
        ("0XfF + 1", 256),
        ("1e3", 1000),
        ("1.50", 1.5),
        ("9007199254740993", 9007199254740992.0),
        ("tags.large + 0", 9007199254740992.0),
        ("0.1 + 0.2", 0.30000000000000004),
        ("tags.one + tags.onePoint", 2),
        ("tags.one/2", 0.5),
        # No numbers, or none as the result.
        ("tags.text + 'a'", UNDEFINED),
        ("tags.digit + 1", UNDEFINED),
        ("tags.yes + 1", UNDEFINED),
        ("null + 1", UNDEFINED),
        ("tags.absent * 0", UNDEFINED),
        ("-tags.text", UNDEFINED),
        ("-tags.absent", UNDEFINED),
        ("1 / 0", UNDEFINED),
        ("0 / 0", UNDEFINED),
        ("1 % 0", UNDEFINED),
        ("1e308 * 10", UNDEFINED),
        ("-1e308 - 1e308", UNDEFINED),
        ("1 / 0 + 1", UNDEFINED),
    ],
)
def test_arithmetic(expression: str, expected: object) -> None:
    assert same(value(expression), expected)


TESTS_OF_A_KIND = {
    "IS_NULL": {"nothing"},
    "IS_BOOL": {"yes"},
    "IS_NUMBER": {"one", "exponent"},
    "IS_STRING": {"text"},
    "IS_OBJECT": {"object"},
    "IS_ARRAY": {"list"},
    "IS_PRIMITIVE": {"nothing", "yes", "one", "exponent", "text"},
    "IS_DEFINED": {"nothing", "yes", "one", "exponent", "text", "object", "list"},
}


@pytest.mark.parametrize("function", TESTS_OF_A_KIND)
@pytest.mark.parametrize(
    "name", ["nothing", "yes", "one", "exponent", "text", "object", "list", "absent"]
)
def test_a_function_tells_kinds_apart(function: str, name: str) -> None:
    expected = name in TESTS_OF_A_KIND[function]
    assert value(f"{function}(tags.{name})") is expected
    assert value(f"{function.lower()} ( tags.{name} )") is expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("STARTSWITH(tags.text, 'ab')", True),
        ("STARTSWITH(tags.text, 'bc')", False),
        ("STARTSWITH(tags.text, '')", True),
        ("StartsWith(tags.text, tags.text)", True),
        ("ENDSWITH(tags.text, 'bc')", True),
        ("endswith(tags.text, 'ab')", False),
        ("STARTSWITH(tags.absent, 'a')", UNDEFINED),
        ("STARTSWITH(tags.text, tags.absent)", UNDEFINED),
        ("STARTSWITH(tags.one, '1')", UNDEFINED),
        ("ENDSWITH(tags.text, 1)", UNDEFINED),
        ("ENDSWITH(tags.list, 'a')", UNDEFINED),
        ("NOT STARTSWITH(tags.text, 'b') AND IS_DEFINED(tags.one)", True),
    ],
)
def test_functions_of_text(expression: str, expected: object) -> None:
    assert value(expression) is expected


@pytest.mark.parametrize(
    "where", ["1", "'true'", "null", "undefined", "tags.object", "tags.list", "tags.one", "[true]"]
)
def test_a_row_is_kept_by_true_alone(where: str) -> None:
    assert not parse_condition(where).compile(TAGS)(ROW)
    assert not parse_condition(f"NOT ({where})").compile(TAGS)(ROW)
    assert parse_condition(f"({where}) OR true").compile(TAGS)(ROW)


# --- paths, names and constants


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("tags.object.deep.text", "x"),
        ("TAGS.text", "abc"),
        ("tags.Text", UNDEFINED),
        ("tags.text.one", UNDEFINED),
        ("tags.list[0]", 1),
        ("tags.list [ 1 ]", "a"),
        ("tags.list[3]", UNDEFINED),
        ("tags.text[0]", UNDEFINED),
        ("tags.object['one']", 1),
        ('tags["object"].deep["text"]', "x"),
        ("tags.list['0']", UNDEFINED),
        ("tags.list.length", UNDEFINED),
        ("tags.[[object]].[[deep]].text", "x"),
        ("[[tags]].text", "abc"),
        ("devices.tags.text", "abc"),
        ("Devices.Tags.text", "abc"),
        ("devices", UNDEFINED),
        ("text", UNDEFINED),
        ("nowhere.to.be.found", UNDEFINED),
    ],
)
def test_paths(expression: str, expected: object) -> None:
    assert same(value(expression), expected)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("tags.[[group]]", "group"),
        ("tags.[[a-b]]", "a-b"),
        ("tags.[[a b.c]]", "a b.c"),
        ("tags.[[]a]]", "]a"),
        ("tags.$edgeAgent", "$edgeAgent"),
        ("tags._a1", "_a1"),
        ("tags.größe", "größe"),
        ("tags.selection", "selection"),
        ("tags.inner", "inner"),
        ("tags.top1", "top1"),
        ("tags.count", "count"),
        ("tags.is_defined", "is_defined"),
        ("tags['it\\'s']", "it's"),
    ],
)
def test_a_member_bears_any_name(path: str, name: str) -> None:
    assert value(path, {name: 1, "other": 2}) == 1
    assert parse(f"SELECT {path} FROM devices").items is not None
    assert value(f"{path} = 1 AND is_defined({path})", {name: 1}) is True


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("'a'", "a"),
        ('"a"', "a"),
        ("''", ""),
        ("'\"'", '"'),
        ('"\'"', "'"),
        (r"'it\'s'", "it's"),
        (r'"\""', '"'),
        (r"'\\'", "\\"),
        (r"'\\u0041'", r"\u0041"),
        (r"'\u0041\u00e9'", "Aé"),
        (r"'\ud83d\ude00'", "😀"),
        ("'😀'", "😀"),
        ("'a\nb'", "a\nb"),
        ("'[[x]] -- ; // AND'", "[[x]] -- ; // AND"),
    ],
)
def test_strings(written: str, text: str) -> None:
    assert value(written) == text
    assert value(f"{written} IN [{written}]") is True


def test_constants_are_projected_as_they_are() -> None:
    assert value("true") is True
    assert value("null") is None
    assert value("['a', -1, null, true, 0x10]") == ["a", -1, None, True, 16]
    assert value("tags.exponent").text == "1e2"  # as the twin has it


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
def test_what_is_a_query(text: str) -> None:
    parse(text)


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
            {("Tags", "a"), ("properties", "reported", "b", "c", "0")}
            | {("x",), ("y",), ("z",), ("w",)},
        ),
        ("true", Source.DEVICES, set()),
    ],
)
def test_conditions(text: str, source: Source, paths: set[tuple[str, ...]]) -> None:
    condition = parse_condition(text)
    assert condition.source is source
    assert condition.paths == paths
    assert parse_condition(text) is condition  # parsed but once


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, column 1: the query ends too early"),
        ("  ", "line 1, column 3: the query ends too early"),
        ("WHERE deviceId = 'a'", "line 1, column 1: 'WHERE' is unexpected"),
        ("SELECT * FROM devices", "line 1, column 1: 'SELECT' is unexpected"),
        ("* AND true", "line 1, column 3: 'AND' is unexpected"),
        ("FROM modules", "line 1, column 6: there is no collection 'modules'"),
        ("COUNT() = 1", "line 1, column 1: COUNT can be a member of a projection only"),
    ],
)
def test_what_is_no_condition(text: str, message: str) -> None:
    assert refusal(parse_condition, text) == message


def test_a_condition_keeps_rows() -> None:
    keeps = parse_condition("tags.one = 1").compile(TAGS)
    assert [keeps({"one": 1}), keeps({"one": 2}), keeps({})] == [True, False, False]
    assert parse_condition("*").compile(TAGS)({}) is True


# --- what is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # What is no query at all.
        ("", "line 1, column 1: the query ends too early"),
        ("SELECT * FROM", "line 1, column 14: the query ends too early"),
        ("SELECT * FORM devices", "line 1, column 10: 'FORM' is unexpected"),
        ("SELECT *\nFROM devices\n  WHERE = 1", "line 3, column 9: '=' is unexpected"),
        ("SELECT * FROM devices WHERE", "line 1, column 28: the query ends too early"),
        ("SELECT * FROM devices WHERE (a = 1", "line 1, column 35: the query ends too early"),
        ("SELECT * FROM devices WHERE a = 'x", "line 1, column 33: the string has no end"),
        ("SELECT * FROM devices;", "line 1, column 22: a semicolon is unexpected"),
        ("SELECT * FROM devices WHERE a == 1", "line 1, column 32: '=' is unexpected"),
        ("SELECT * FROM devices WHERE a = b = c", "line 1, column 35: '=' is unexpected"),
        ("SELECT * FROM devices -- all", "line 1, column 23: '-' is unexpected"),
        ("SELECT deviceId, FROM devices", "line 1, column 18: 'FROM' is unexpected"),
        ("SELECT *, deviceId FROM devices", "line 1, column 9: ',' is unexpected"),
        ("DELETE FROM devices", "line 1, column 1: 'DELETE' is unexpected"),
        ("SELECT * FROM devices WHERE a = 'it''s'", "line 1, column 37: ''s'' is unexpected"),
        ("SELECT * FROM devices WHERE a IN ('b')", "line 1, column 34: '(' is unexpected"),
        ("SELECT * FROM devices WHERE a NOT IN ['b']", "line 1, column 31: 'NOT' is unexpected"),
        ("SELECT * FROM devices WHERE tags.a.", "line 1, column 36: the query ends too early"),
        ("SELECT * FROM devices WHERE tags.1 = 1", "line 1, column 34: '1' is unexpected"),
        ("SELECT * FROM devices WHERE tags[-1] = 1", "line 1, column 34: '-' is unexpected"),
        ("SELECT * FROM devices WHERE a = 2b", "line 1, column 33: '2b' is unexpected"),
        ("SELECT * FROM devices WHERE a = 0xG", "line 1, column 33: '0xG' is unexpected"),
        ("SELECT * FROM devices WHERE a IN [b]", "line 1, column 35: 'b' is unexpected"),
        # Words of the language, unescaped.
        ("SELECT tags.group FROM devices", "line 1, column 13: 'group' is unexpected"),
        ("SELECT * FROM devices WHERE top = 1", "line 1, column 29: 'top' is unexpected"),
        ("SELECT tags.a AS from FROM devices", "line 1, column 18: 'from' is unexpected"),
        # What other dialects have.
        ("SELECT * FROM devices ORDER BY deviceId", "line 1, column 23: 'ORDER' is unexpected"),
        ("SELECT DISTINCT tags.a FROM devices", "line 1, column 21: '.' is unexpected"),
        ("SELECT DISTINCT deviceId FROM devices", "line 1, column 8: 'DISTINCT' is unexpected"),
        ("SELECT VALUE deviceId FROM devices", "line 1, column 8: 'VALUE' is unexpected"),
        ("SELECT * FROM devices d", "line 1, column 23: 'd' is unexpected"),
        ("SELECT * FROM devices JOIN x", "line 1, column 23: 'JOIN' is unexpected"),
        ("SELECT * FROM (SELECT * FROM devices)", "line 1, column 15: '(' is unexpected"),
        ("SELECT * FROM devices WHERE a LIKE 'b%'", "line 1, column 31: 'LIKE' is unexpected"),
        (
            "SELECT * FROM devices WHERE a BETWEEN 1 AND 2",
            "line 1, column 31: 'BETWEEN' is unexpected",
        ),
        (
            "SELECT tags.a FROM devices GROUP BY tags.a HAVING COUNT() > 1",
            "line 1, column 44: 'HAVING' is unexpected",
        ),
        # Functions.
        *(
            (
                f"SELECT * FROM devices WHERE {function}(deviceId, 'a')",
                f"line 1, column 29: there is no function '{function}'",
            )
            for function in ("STARTS_WITH", "ENDS_WITH", "CONTAINS", "LOWER", "ABS", "nonsense")
        ),
        (
            "SELECT * FROM devices WHERE IS_DEFINED()",
            "line 1, column 29: IS_DEFINED takes 1 argument(s)",
        ),
        (
            "SELECT * FROM devices WHERE IS_DEFINED(*)",
            "line 1, column 29: IS_DEFINED takes 1 argument(s)",
        ),
        (
            "SELECT * FROM devices WHERE STARTSWITH('a')",
            "line 1, column 29: STARTSWITH takes 2 argument(s)",
        ),
        # Aggregates.
        ("SELECT COUNT(tags.a) FROM devices", "line 1, column 8: COUNT takes no argument"),
        ("SELECT AVG() FROM devices", "line 1, column 8: AVG takes a path"),
        ("SELECT AVG(*) FROM devices", "line 1, column 8: AVG takes a path"),
        ("SELECT AVG(1) FROM devices", "line 1, column 8: AVG takes a path"),
        ("SELECT SUM(tags.a, tags.b) FROM devices", "line 1, column 8: SUM takes a path"),
        (
            "SELECT COUNT() + 1 AS n FROM devices",
            "line 1, column 8: COUNT can be a member of a projection only",
        ),
        (
            "SELECT * FROM devices WHERE count() > 1",
            "line 1, column 29: COUNT can be a member of a projection only",
        ),
        *(
            (text, f"line 1, column {column}: {why}")
            for why in ["beside aggregates, only what stands in GROUP BY can be selected"]
            for text, column in [
                ("SELECT tags.a, COUNT() FROM devices", 8),
                ("SELECT COUNT(), deviceId FROM devices", 17),
                ("SELECT tags.a, tags.b FROM devices GROUP BY tags.a", 16),
                ("SELECT 1 AS x FROM devices GROUP BY tags.a", 8),
            ]
        ),
        (
            "SELECT * FROM devices GROUP BY tags.a",
            "line 1, column 8: there is no SELECT * with GROUP BY",
        ),
        ("SELECT COUNT() FROM devices GROUP BY 1", "line 1, column 38: '1' is unexpected"),
        # Collections.
        ("SELECT * FROM twins", "line 1, column 15: there is no collection 'twins'"),
        (
            "SELECT * FROM devices.twins",
            "line 1, column 15: there is no collection 'devices.twins'",
        ),
        ("SELECT * FROM jobs", "line 1, column 15: there is no collection 'jobs'"),
        *(
            (
                f"SELECT {selection} FROM devices.jobs",
                "line 1, column 8: from devices.jobs there is SELECT * only",
            )
            for selection in ("jobId", "COUNT()")
        ),
        (
            "SELECT COUNT() FROM devices.modules GROUP BY tags.a",
            "line 1, column 46: GROUP BY is for devices only",
        ),
        # Constants.
        (
            "SELECT * FROM devices WHERE a = 1e999",
            "line 1, column 33: '1e999' is beyond a double",
        ),
        (r"SELECT '\n' AS x FROM devices", r"line 1, column 8: '\n' is no escape"),
        (r"SELECT '\u12' AS x FROM devices", r"line 1, column 8: '\u' is no escape"),
        (
            r"SELECT '\ud83d' AS x FROM devices",
            "line 1, column 8: the string holds half of a surrogate pair",
        ),
        ("SELECT TOP 1.5 * FROM devices", "line 1, column 12: '1.5' is no whole number"),
        ("SELECT TOP -1 * FROM devices", "line 1, column 12: '-' is unexpected"),
        ("SELECT TOP * FROM devices", "line 1, column 12: '*' is unexpected"),
        # Members without a name.
        ("SELECT 1 FROM devices", "line 1, column 8: what is no member needs an alias"),
        ("SELECT tags.a + 1 FROM devices", "line 1, column 8: what is no member needs an alias"),
        ("SELECT [] FROM devices", "line 1, column 8: what is no member needs an alias"),
    ],
)
def test_what_is_no_query(text: str, message: str) -> None:
    assert refusal(parse, text) == message


def test_what_is_found_is_not_quoted_without_end() -> None:
    found = refusal(parse, "SELECT * FROM devices " + "x" * 5000)
    assert found == f"line 1, column 23: '{'x' * 40}...' is unexpected"


def test_semicolons_never_reach_the_text_of_an_error() -> None:
    # The SDK for Node splits it there.
    for text in ("SELECT [[;]].a.b. FROM x", "SELECT ';' FROM devices", r"SELECT '\;' AS x FROM a"):
        refusal(parse, text)
    refusal(parse, "SELECT * FROM devices WHERE a = ';")
    refusal(lambda text: compile_projection(parse(text).items or (), TAGS), CLASH)


CLASH = "SELECT tags.[[;]], deviceId AS [[;]] FROM devices"


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
def test_what_nests_too_deep_is_refused(expression: str) -> None:
    found = refusal(parse_condition, expression)
    assert found.endswith(f"the query nests deeper than {limits.QUERY_DEPTH} levels")


@pytest.mark.parametrize("bracket", ["(", "[", "[[", "IS_DEFINED("])
def test_brackets_that_stay_open(bracket: str) -> None:
    refusal(parse_condition, bracket * (8000 // len(bracket)))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1" + " + 1" * 2000 + " = 2001", True),
        ("false" + " OR false" * 800 + " OR true", True),
        ("true" + " AND true" * 700, True),
        (f"tags.text IN [{', '.join(f'{n}' for n in range(1500))}, 'abc']", True),
        ("(" * 90 + "true" + ")" * 90, True),
        ("NOT " * 90 + "true", True),
        ("is_defined(tags" + ".a" * 4000 + ")", False),
    ],
)
def test_what_is_long_is_answered(expression: str, expected: bool) -> None:
    assert parse_condition(expression).compile(TAGS)(ROW) is expected


def test_the_text_has_a_limit() -> None:
    longest = "SELECT * FROM devices".ljust(8192)
    assert parse(longest).items is None
    found = refusal(parse, longest + " ")
    assert found == "the query has 8193 characters, more than the 8192 that are allowed"
    refusal(parse_condition, "true".ljust(8193))


# --- projections and aggregates, over rows of any kind


def project(selection: str, row: Any) -> Any:
    items = parse(f"SELECT {selection} FROM devices").items
    assert items is not None
    return compile_projection(items, TAGS)(row)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("DEVICEID", {"deviceId": "device-1"}),
        ("devices.DeviceId", {"deviceId": "device-1"}),
        ("DeviceId AS DeviceId", {"DeviceId": "device-1"}),
        ("tags.a.b", {"b": 1}),
        ("tags.a.B", {}),
        ("tags.a.[[b]] c", {"c": 1}),
        ("tags.list[1]", {"list": 3}),
        ("tags.list[1], tags.a['b']", {"list": 3, "b": 1}),
        ("tags.nothing, tags.absent, tags.a", {"nothing": None, "a": {"b": 1}}),
        ("Tags", {"tags": {"a": {"b": 1}, "list": [2, 3], "nothing": None}}),
        ("tags.absent", {}),
        ("unknown.Member", {}),
        ("tags.a.b = 1 AS one, tags.x = 1 AS two", {"one": True}),
        ("tags.a.b AS value, deviceId AS distinct", {"value": 1, "distinct": "device-1"}),
    ],
)
def test_projections(selection: str, expected: object) -> None:
    projected = project(selection, {"a": {"b": 1}, "list": [2, 3], "nothing": None})
    assert projected == expected
    assert list(projected) == list(expected)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "selection", ["tags.a, tags.b.a", "deviceId, tags.x AS deviceId", "DeviceID, deviceid"]
)
def test_two_members_need_two_names(selection: str) -> None:
    found = refusal(lambda text: project(text, {}), selection)
    assert "two members have one name: " in found


def aggregate(text: str, *rows: Any) -> list[Any]:
    query = parse(text)
    assert query.items is not None
    return compile_aggregation(query.items, query.group_by, TAGS)(rows)


MIXED = [{"n": n} for n in (loads("1.50"), 4, "9", True, None, [7], {"n": 8}, 0.5)] + [{}]


def test_aggregates_skip_what_is_no_number() -> None:
    (row,) = aggregate(
        "SELECT COUNT() AS rows, SUM(tags.n), AVG(tags.n), MIN(tags.n) AS least, MAX(tags.n) "
        "FROM devices",
        *MIXED,
    )
    assert row == {"rows": 9, "sum": 6, "avg": 2, "least": 0.5, "max": 4}
    assert list(row) == ["rows", "sum", "avg", "least", "max"]
    assert type(row["avg"]) is int
    (row,) = aggregate("SELECT MIN(tags.n) FROM devices", *MIXED[:2])
    assert row["min"].text == "1.50"  # the twin's own number


def test_aggregates_of_nothing() -> None:
    text = "SELECT COUNT(), SUM(tags.n), AVG(tags.n), MIN(tags.n), MAX(tags.n) FROM devices"
    assert aggregate(text) == [{"count": 0, "sum": 0}]
    assert aggregate(text, {"n": "x"}) == [{"count": 1, "sum": 0}]
    assert aggregate(f"{text} GROUP BY tags.g") == []


def test_sums_beyond_a_double_are_left_out() -> None:
    rows = [{"n": 1.7e308}, {"n": 1.7e308}]
    assert aggregate("SELECT SUM(tags.n), AVG(tags.n), COUNT() FROM devices", *rows) == [
        {"count": 2}
    ]


def test_groups_are_of_equal_values() -> None:
    values = [1, loads("1.0"), True, "1", None, "1", {"a": 1, "b": 2}, {"b": 2, "a": 1.0}, [1], [1]]
    rows = [*({"g": value} for value in values), {}, {}]
    found = aggregate("SELECT tags.g AS g, COUNT() AS n FROM devices GROUP BY tags.g", *rows)
    assert found == [
        {"g": 1, "n": 2},
        {"g": True, "n": 1},
        {"g": "1", "n": 2},
        {"g": None, "n": 1},
        {"g": {"a": 1, "b": 2}, "n": 2},
        {"g": [1], "n": 2},
        {"n": 2},
    ]


def test_groups_by_two_paths() -> None:
    rows = [{"a": a, "b": b, "n": n} for n, (a, b) in enumerate(["xy", "xz", "xy", "yx"])]
    found = aggregate(
        "SELECT MAX(tags.n) AS most, tags.b, devices.tags.a FROM devices GROUP BY tags.a, tags.b",
        *rows,
    )
    assert found == [
        {"most": 2, "b": "y", "a": "x"},
        {"most": 1, "b": "z", "a": "x"},
        {"most": 3, "b": "x", "a": "y"},
    ]


def test_groups_without_aggregates() -> None:
    rows = [{"a": 1}, {"a": 2}, {"a": 1}]
    assert aggregate("SELECT tags.a FROM devices GROUP BY tags.a", *rows) == [{"a": 1}, {"a": 2}]


# --- what it costs


def test_the_parser_is_not_loaded_before_the_first_query() -> None:
    code = (
        "import sys, emulator.emulator; from emulator.hub.query import parse; "
        "assert 'lark' not in sys.modules; parse('SELECT * FROM devices'); "
        "assert 'lark' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
