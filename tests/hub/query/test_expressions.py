"""Expressions of the query language: what each is for a row."""

from typing import Any

import pytest

from emulator.hub.core.json import UNDEFINED, loads
from emulator.hub.query import Members, parse, parse_condition
from emulator.hub.query.expressions import compile_condition
from emulator.hub.query.projections import compile_projection
from tests.hub.query.tables import cases

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


def value(expression: str, row: Any = ROW) -> Any:
    """Return what an expression is for a row: UNDEFINED where the projection leaves it out."""
    items = parse(f"SELECT {expression} AS x FROM devices").items
    assert items is not None
    return compile_projection(items, TAGS)(row).get("x", UNDEFINED)


VALUES = """
# Values of one kind are compared. 1 equals 1.0, however it is written.
true       tags.one = 1; tags.one = 1.0; tags.onePoint = 1; tags.onePoint = tags.one
true       tags.exponent = 100; tags.minusZero = 0; tags.one <> 2; tags.one < 2; tags.one <= 1
true       1 = tags.one; tags.half = 0.5e0
false      tags.one != 1; tags.one > 1; tags.one >= 1.5
# As doubles, these two are one number.
true       tags.large = 9007199254740992; tags.large = 9007199254740993; tags.large = tags.even
true       tags.text = 'abc'; tags.text != tags.upper; tags.upper < tags.text; tags.empty < 'a'
true       tags.empty = ''; 'ab' < tags.text; tags.yes = true; tags.no != tags.yes; true = true
false      tags.text = 'ABC'; tags.yes = false
# Dates are text, so a part of a date can be compared.
true       tags.moment > '2026-01'; tags.moment < '2026-01-31T15'
false      tags.moment > '2026-02'
# Values of two kinds are neither equal nor unequal.
undefined  tags.digit = 1; tags.digit != 1; tags.one > 'a'; tags.yes = 1; tags.one = true
undefined  tags.no = 0; tags.text = true; tags.empty = null
# Booleans and null have no order.
undefined  tags.no < tags.yes; tags.yes >= true; null <= null; tags.nothing < null
# Null equals null, and nothing else.
true       tags.nothing = null
false      tags.nothing != null
undefined  tags.one = null; tags.one != null; null != 1
# A missing member makes a comparison undefined.
undefined  tags.absent; undefined; tags.absent = 'a'; tags.absent != 'a'; 'a' != tags.absent
undefined  tags.absent = null; tags.absent != null; tags.absent = undefined
undefined  undefined = undefined; tags.absent = tags.absent
# So does an object or an array.
undefined  tags.object = tags.object; tags.list = tags.list; tags.list = [1, 'a', true]
undefined  tags.object != 1; tags.object > tags.list
# NOT
true       NOT false; NOT NOT tags.yes
false      NOT true
undefined  NOT undefined; NOT null; NOT 1; NOT 'a'; NOT tags.absent = 1
# AND: false first, then undefined
true       true AND true
false      true AND false; undefined AND false; false AND undefined; undefined AND true AND false
false      null AND false
undefined  undefined AND true; true AND undefined; 1 AND true
# OR: true first, then undefined
true       false OR true; undefined OR true; true OR undefined; undefined OR false OR true
true       'a' OR true
false      false OR false
undefined  undefined OR false; false OR undefined; 'a' OR false
# NOT binds tighter than AND, and AND tighter than OR.
true       true OR true AND false; NOT (false AND false); NOT tags.one = 2
false      (true OR true) AND false; NOT false AND false
# IN and NIN
true       tags.text IN ['x', 'abc']; tags.text NIN ['x']; tags.one IN [1.0]
true       tags.exponent IN [100]; tags.one IN [-1, 0x1]; tags.yes IN [true]
true       tags.nothing IN [null]; tags.text NIN []
false      tags.text IN ['x']; tags.text NIN ['abc']; tags.text IN []
undefined  tags.yes IN [1]; tags.one IN [true]
# Each element is compared; a comparison can be undefined.
true       tags.text IN ['abc', 1]
undefined  tags.text IN ['x', 1]; tags.text NIN ['x', 1]; tags.text IN ['x', null]
undefined  tags.text IN ['x', undefined]; tags.absent IN ['x']; tags.absent NIN ['x']
undefined  tags.object IN ['x']
# The array can be one of the row.
true       'a' IN tags.list; true IN tags.list; 1.0 IN tags.list; null IN tags.nulls
undefined  'b' IN tags.list; 'a' IN tags.text; 'a' IN tags.absent; 'a' IN tags.object
# Numbers
3       1 + 2; 7 % 4; 7 % -4
1       2 * 0.5; 8 / 4 / 2; - -1
1.5     1 + 0.5; 7.5 % 2; 1.50
-4      7 - 10 - 1
0.25    1 / 4
-3      -7 % 4
7       1 + 2 * 3
9       (1 + 2) * 3
5       2 - -3
-2      -tags.one - 1; -(1 + 1)
31      0x1F
256     0XfF + 1
1000    1e3
2       tags.one + tags.onePoint
0.5     tags.one/2
0.30000000000000004  0.1 + 0.2
9007199254740992.0   9007199254740993; tags.large + 0
# Operands that are not numbers, and results that are not finite numbers.
undefined  tags.text + 'a'; tags.digit + 1; tags.yes + 1; null + 1; tags.absent * 0; -tags.text
undefined  -tags.absent; 1 / 0; 0 / 0; 1 % 0; 1e308 * 10; -1e308 - 1e308; 1 / 0 + 1
# ARRAY_CONTAINS
true       ARRAY_CONTAINS(tags.list, 1); array_contains(tags.list, 'a')
true       Array_Contains(tags.list, true)
true       ARRAY_CONTAINS(tags.list, tags.onePoint); ARRAY_CONTAINS(tags.nulls, null)
false      ARRAY_CONTAINS(tags.list, 2); ARRAY_CONTAINS(tags.list, '1')
false      ARRAY_CONTAINS(tags.list, false)
false      ARRAY_CONTAINS(tags.list, null); ARRAY_CONTAINS(tags.list, tags.object)
undefined  ARRAY_CONTAINS(tags.absent, 1); ARRAY_CONTAINS(tags.text, 'a')
undefined  ARRAY_CONTAINS(tags.object, 1)
undefined  ARRAY_CONTAINS(tags.list, tags.absent); NOT ARRAY_CONTAINS(tags.absent, 1)
# STARTSWITH and ENDSWITH
true       STARTSWITH(tags.text, 'ab'); STARTSWITH(tags.text, ''); StartsWith(tags.text, tags.text)
true       ENDSWITH(tags.text, 'bc'); NOT STARTSWITH(tags.text, 'b') AND IS_DEFINED(tags.one)
false      STARTSWITH(tags.text, 'bc'); endswith(tags.text, 'ab')
undefined  STARTSWITH(tags.absent, 'a'); STARTSWITH(tags.text, tags.absent)
undefined  STARTSWITH(tags.one, '1'); ENDSWITH(tags.text, 1); ENDSWITH(tags.list, 'a')
# Paths
"x"        tags.object.deep.text; tags["object"].deep["text"]; tags.[[object]].[[deep]].text
"abc"      TAGS.text; [[tags]].text; devices.tags.text; Devices.Tags.text
1          tags.list[0]; tags.object['one']
"a"        tags.list [ 1 ]
undefined  tags.Text; tags.text.one; tags.list[3]; tags.text[0]; tags.list['0']; tags.list.length
undefined  devices; text; nowhere.to.be.found
"""


@pytest.mark.parametrize(("expression", "expected"), cases(VALUES))
def test_the_value_of_an_expression(expression: str, expected: object) -> None:
    found = value(expression)
    assert found == expected
    assert type(found) is type(expected)  # for JSON 1 is not true


KINDS = {
    "IS_NULL": {"nothing"},
    "IS_BOOL": {"yes"},
    "IS_NUMBER": {"one", "exponent"},
    "IS_STRING": {"text"},
    "IS_OBJECT": {"object"},
    "IS_ARRAY": {"list"},
    "IS_PRIMITIVE": {"nothing", "yes", "one", "exponent", "text"},
    "IS_DEFINED": {"nothing", "yes", "one", "exponent", "text", "object", "list"},
}


@pytest.mark.parametrize("function", KINDS)
@pytest.mark.parametrize("name", sorted(KINDS["IS_DEFINED"] | {"absent"}))
def test_functions_of_kinds(function: str, name: str) -> None:
    expected = name in KINDS[function]
    assert value(f"{function}(tags.{name})") is expected
    assert value(f"{function.lower()} ( tags.{name} )") is expected


@pytest.mark.parametrize(
    "where", ["1", "'true'", "null", "undefined", "tags.object", "tags.list", "tags.one", "[true]"]
)
def test_a_condition_keeps_a_row_only_where_it_is_true(where: str) -> None:
    assert not compile_condition(parse_condition(where), TAGS)(ROW)
    assert not compile_condition(parse_condition(f"NOT ({where})"), TAGS)(ROW)
    assert compile_condition(parse_condition(f"({where}) OR true"), TAGS)(ROW)


def test_a_condition_keeps_rows() -> None:
    keeps = compile_condition(parse_condition("tags.one = 1"), TAGS)
    assert [keeps({"one": 1}), keeps({"one": 2}), keeps({})] == [True, False, False]
    assert compile_condition(parse_condition("*"), TAGS)({}) is True


@pytest.mark.parametrize(
    ("path", "name"),
    [
        *((f"tags.[[{name}]]", name) for name in ("group", "a-b", "a b.c", "]a")),
        *(
            (f"tags.{name}", name)
            for name in ("$edgeAgent", "_a1", "größe", "selection", "inner", "top1", "count")
        ),
        ("tags.is_defined", "is_defined"),
        ("tags['it\\'s']", "it's"),
    ],
)
def test_a_member_can_have_any_name(path: str, name: str) -> None:
    assert value(path, {name: 1, "other": 2}) == 1
    assert parse(f"SELECT {path} FROM devices").items is not None
    assert value(f"{path} = 1 AND is_defined({path})", {name: 1}) is True


@pytest.mark.parametrize(
    ("written", "text"),
    [
        *((f"'{text}'", text) for text in ("a", "", '"', "😀", "a\nb", "[[x]] -- ; // AND")),
        *((f'"{text}"', text) for text in ("a", "'")),
        (r"'it\'s'", "it's"),
        (r'"\""', '"'),
        (r"'\\'", "\\"),
        (r"'\\u0041'", r"\u0041"),
        (r"'\u0041\u00e9'", "Aé"),
        (r"'\ud83d\ude00'", "😀"),
    ],
)
def test_strings(written: str, text: str) -> None:
    assert value(written) == text
    assert value(f"{written} IN [{written}]") is True


def test_constants_are_projected_unchanged() -> None:
    assert value("true") is True
    assert value("null") is None
    assert value("['a', -1, null, true, 0x10]") == ["a", -1, None, True, 16]
    assert value("tags.exponent").text == "1e2"  # as the twin has it
