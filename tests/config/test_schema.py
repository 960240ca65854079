"""The published JSON Schema, and the documentation of configuration files."""

from __future__ import annotations

import asyncio
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from emulator import Settings
from emulator.cli.config import published_schema
from emulator.config.apply import check
from tests.config.test_file import MISTAKES
from tests.processes import ROOT

SCHEMA = ROOT / "docs" / "config.schema.json"
PAGE = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```(toml|json)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

# Mistakes that a schema can't see: they are in the text of a value, or between two entries.
BEYOND_A_SCHEMA = {
    "no TOML",
    "a port out of range",
    "a time without a unit",
    "one wrong value of several",
    "a device that stands twice",
    "a module that stands twice",
    "a policy without rights",
    "a key that is not base64",
    "a fault that does not exist",
    "a fault with a member of another one",
    "a date",
    "an infinite number",
    "a number of more digits than a number of the hub",
    "a list that nests too deep",
    "a list that Python can't read",
    "a name with too many dots",
    "a CA that stands twice",
    "a CA with two certificates",
    "a CA without its certificate",
    "a file of a CA that is missing",
    "a key and a thumbprint",
    "a thumbprint that a module does not use",
}


@pytest.fixture(scope="module")
def validator() -> jsonschema.protocols.Validator:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_published_schema_is_current() -> None:
    command = "python -m emulator config schema > docs/config.schema.json"
    assert SCHEMA.read_text(encoding="utf-8") == published_schema() + "\n", f"Run: {command}"


def parse(kind: str, text: str) -> Any:
    return tomllib.loads(text) if kind == "toml" else json.loads(text)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_is_valid_for_the_schema_and_for_a_hub(
    validator: jsonschema.protocols.Validator, number: int, tmp_path: Path
) -> None:
    kind, text = EXAMPLES[number]
    validator.validate(parse(kind, text))
    file = tmp_path / f"hub.{kind}"
    file.write_text(text, encoding="utf-8")
    settings = Settings.from_file(file)
    assert settings.config is not None
    asyncio.run(check(settings.config.content, settings.key_pair))


def test_the_page_has_an_example_of_each_kind() -> None:
    assert [kind for kind, _ in EXAMPLES] == ["toml", "json"]
    whole = parse(*EXAMPLES[0])
    assert {"policies", "devices", "configurations", "faults"} <= whole.keys()


@pytest.mark.parametrize("name", sorted(MISTAKES.keys() - BEYOND_A_SCHEMA))
def test_the_schema_refuses_a_document_with_a_mistake(
    validator: jsonschema.protocols.Validator, name: str
) -> None:
    document = tomllib.loads(MISTAKES[name][0])
    assert not validator.is_valid(document)
