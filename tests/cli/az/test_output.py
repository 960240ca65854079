"""How documents are printed: forms, JMESPath, and text that could write to a terminal."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from emulator.cli.az.output import harmless, picker, show
from emulator.cli.output import OutputError

ROWS = [
    {"deviceId": "a", "n": 1, "on": True, "tags": {"x": 1}, "none": None},
    {"deviceId": "bcd", "n": 22, "on": False, "tags": {}, "none": None, "more": "é"},
]


class Output(io.TextIOWrapper):
    """A stdout with an encoding, which can be a terminal."""

    def __init__(self, encoding: str = "utf-8", *, is_terminal: bool = False) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, newline="\n")
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    @property
    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined]


def printed(
    monkeypatch: pytest.MonkeyPatch, document: Any, form: str, output: Output | None = None
) -> str:
    output = output or Output()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", output)
        show(document, form)
    text = output.text
    output.close()
    return text


def test_json_is_that_of_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(monkeypatch, ROWS, "json")
    assert json.loads(text) == ROWS
    assert "é" in text
    assert printed(monkeypatch, ROWS, "jsonc") == text
    assert printed(monkeypatch, ROWS, "none") == ""
    assert printed(monkeypatch, None, "json") == ""


def test_colours_are_for_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    document = {"a": "true 1", "b": [1.5, None]}
    text = printed(monkeypatch, document, "jsonc", Output(is_terminal=True))
    assert '\033[34m"a"\033[0m: \033[32m"true 1"\033[0m' in text
    assert "\033[33m1.5\033[0m" in text
    assert "\033" not in printed(monkeypatch, document, "json", Output(is_terminal=True))
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in printed(monkeypatch, document, "jsonc", Output(is_terminal=True))


def test_a_table_has_a_column_for_each_simple_member(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed(monkeypatch, ROWS, "table").splitlines() == [
        "DeviceId  N   On     None  More",
        "--------  --  -----  ----  ----",
        "a         1   True",
        "bcd       22  False        é",
    ]
    assert printed(monkeypatch, {"a": 1, "b": {}}, "table") == "A\n-\n1\n"
    assert printed(monkeypatch, ["x", "y"], "table") == "Result\n------\nx\ny\n"
    assert printed(monkeypatch, [["x", 1]], "table").splitlines()[0] == "Column1  Column2"
    assert printed(monkeypatch, [], "table") == ""


def test_a_table_is_straight_with_wide_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"a": "\u6e29\u5ea6\u8a08", "b": 1},
        {"a": "e\u0301t\u00e9", "b": 2},
        {"a": "x", "b": 3},
    ]
    assert printed(monkeypatch, rows, "table").splitlines() == [
        "A       B",
        "------  -",
        "\u6e29\u5ea6\u8a08  1",
        "e\u0301t\u00e9     2",
        "x       3",
    ]


def test_tsv_has_the_values_of_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """As knack writes them, the library of az."""
    row = {"b": "x", "a": 1, "none": None, "on": True, "of": {"x": 1}, "many": [1, 2]}
    assert printed(monkeypatch, [row], "tsv") == "1\tx\t2\tNone\t\tTrue\n"
    chosen = picker("[].{b: b, none: none, a: a}")([row])
    assert printed(monkeypatch, chosen, "tsv") == "x\tNone\t1\n"
    listed = picker("[].[on, of, many, b]")([row])
    assert printed(monkeypatch, listed, "tsv") == "True\t\t2\tx\n"
    assert printed(monkeypatch, True, "tsv") == "true\n"
    assert printed(monkeypatch, "x", "tsv") == "x\n"
    assert printed(monkeypatch, [1, 2], "tsv") == "1\n2\n"
    assert printed(monkeypatch, [{"a": "1\t2\n3"}], "tsv") == "1\\t2\\n3\n"


@pytest.mark.parametrize("form", ["json", "jsonc", "table", "tsv"])
@pytest.mark.parametrize(
    "text",
    [
        "\x1b[2J\x1b]0;title\x07",  # escape codes
        "\x9b31m",  # the same, in C1
        "\x7f\x08\r",
        "a\u202eb\u2066c",  # the direction of text
        "\ud800",  # half a character
        "\u2028",
    ],
)
def test_no_text_writes_to_the_terminal(
    monkeypatch: pytest.MonkeyPatch, form: str, text: str
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    document = [{text: text}]
    shown = printed(monkeypatch, document, form, Output(is_terminal=True))
    assert all(each.isprintable() or each in "\n\t" for each in shown)
    if form.startswith("json"):
        assert json.loads(shown) == document


def test_a_document_that_is_nested_too_deep_is_one_line() -> None:
    document: Any = []
    for _ in range(100_000):
        document = [document]
    with pytest.raises(OutputError, match=r"^Can't write the output: it is nested too deep\. "):
        show(document, "json")
    while document:  # Python would take its stack to free it
        document = document.pop()


def test_an_output_that_has_few_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    for form in ("json", "table", "tsv"):
        assert "\\u00e9\\ud83d\\ude00" in printed(monkeypatch, ["é😀"], form, Output("ascii"))


def test_what_prints_stays() -> None:
    assert harmless("naïve 日本 😀\n") == "naïve 日本 😀\n"


def test_a_query_picks() -> None:
    assert picker("[?n > `1`].deviceId")(ROWS) == ["bcd"]
    assert picker(None)(ROWS) is ROWS
