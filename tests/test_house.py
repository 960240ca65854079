"""The walls of the house that the import contracts in pyproject.toml can't hold."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = [*sorted(ROOT.glob("dmpatterns_*.py")), *sorted((ROOT / "examples").glob("*.py"))]
MODULES = sorted((ROOT / "emulator").rglob("*.py"))
NODES = {
    path: [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))] for path in [*MODULES, *SCRIPTS]
}


def names_in(path: Path) -> set[str]:
    """Return the names and attributes that a module uses."""
    names = {node.id for node in NODES[path] if isinstance(node, ast.Name)}
    return names | {node.attr for node in NODES[path] if isinstance(node, ast.Attribute)}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", NODES, ids=name_of)
def test_every_import_is_a_statement_that_the_contracts_can_read(path: Path) -> None:
    assert not {"__import__", "import_module"} & names_in(path)


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_the_scripts_of_the_tutorials_import_nothing_of_ours(path: Path) -> None:
    imported = {
        name.partition(".")[0]
        for node in NODES[path]
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert "azure" in imported
    assert not imported & {"", "emulator", "tests", "amqtt", "aiohttp"}


# Arguments of log calls that no client can choose.
OWN_TEXT = {"_peer", "peer", "__name__", "value"}


def quotes(call: ast.Call) -> bool:
    """Return whether a log call quotes all text: `%r`, or `%s` with `printable(...)`."""
    text, *arguments = call.args
    if not isinstance(text, ast.Constant):
        return False
    kinds = re.findall(r"%(.)", text.value.replace("%%", ""))
    return len(kinds) == len(arguments) and all(
        kind in "rdf"
        or (isinstance(argument, ast.Call) and ast.unparse(argument.func) == "printable")
        or (isinstance(argument, ast.Attribute) and argument.attr in OWN_TEXT)
        for kind, argument in zip(kinds, arguments, strict=True)
    )


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_log_call_quotes_what_a_client_can_choose(path: Path) -> None:
    calls = [
        node
        for node in NODES[path]
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value).rpartition(".")[2] in ("log", "refusals")
        and node.func.attr in ("debug", "info", "warning", "error", "exception", "critical")
        and not any(isinstance(argument, ast.Starred) for argument in node.args)
    ]
    assert [ast.unparse(call) for call in calls if not quotes(call)] == []


def test_one_module_uses_the_private_parts_of_aiohttp() -> None:
    users = {path for path in MODULES if "_prepare_hook" in path.read_text(encoding="utf-8")}
    assert {name_of(path) for path in users} == {"emulator/net/http_connection.py"}
    private = re.compile(r"\b(_message|_payload|_protocol|_waiter|_messages|_current_request)\b")
    for path in MODULES:
        source = path.read_text(encoding="utf-8")
        if "from aiohttp" in source and path not in users:
            attributes = {node.attr for node in NODES[path] if isinstance(node, ast.Attribute)}
            assert not any(private.fullmatch(name) for name in attributes), name_of(path)


def test_every_error_of_the_hub_is_raised_somewhere() -> None:
    errors = ROOT / "emulator" / "hub" / "core" / "errors.py"
    classes = {node.name for node in NODES[errors] if isinstance(node, ast.ClassDef)}
    used = set().union(*(names_in(path) for path in MODULES if path != errors))
    assert classes - {"HubError"} - used == set()
