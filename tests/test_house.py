"""The walls of the house that the import contracts in pyproject.toml can't hold."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = [ROOT / "dmpatterns_getstarted_device.py", ROOT / "dmpatterns_getstarted_service.py"]
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
def test_the_scripts_of_the_tutorial_import_nothing_of_ours(path: Path) -> None:
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


def test_every_error_of_the_hub_is_raised_somewhere() -> None:
    errors = ROOT / "emulator" / "hub" / "core" / "errors.py"
    classes = {node.name for node in NODES[errors] if isinstance(node, ast.ClassDef)}
    used = set().union(*(names_in(path) for path in MODULES if path != errors))
    assert classes - {"HubError"} - used == set()
