"""The walls of the house: which module may import which."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = [ROOT / "dmpatterns_getstarted_device.py", ROOT / "dmpatterns_getstarted_service.py"]
MODULES = sorted((ROOT / "emulator").rglob("*.py"))

# What reaches out of the process; a hub that needs none of it can be tested without any.
INPUT_AND_OUTPUT = {"amqtt", "aiohttp", "paho", "requests", "socket", "ssl", "sqlite3", "uvloop"}
AMQTT_MODULES = {"emulator/mqtt/server.py"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(tree: ast.AST, package: str) -> set[str]:
    """Name every module that is imported, wherever in the file, relative imports resolved."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=module, names=names, level=level):
                parts = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                origin = ".".join([*parts, *([module] if module else [])])
                # `from emulator import http` imports a module by its name.
                found |= {origin} | {f"{origin}.{alias.name}" for alias in names}
            case ast.Call(func=ast.Name(id="__import__") | ast.Attribute(attr="import_module")):
                found.add("<an import that can't be read from the source>")
    return found


@functools.cache
def imports_of(path: Path) -> set[str]:
    package = ".".join(path.relative_to(ROOT).parent.parts)
    return imports(ast.parse(path.read_text(encoding="utf-8"), str(path)), package)


def within(found: set[str], *packages: str) -> set[str]:
    return {
        name
        for name in found
        for package in packages
        if name == package or name.startswith(f"{package}.")
    }


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a.b, c as d", {"a.b", "c"}),
        ("from a import b", {"a", "a.b"}),
        ("def f():\n    if True:\n        import hidden", {"hidden"}),
        ("from . import x", {"emulator.hub", "emulator.hub.x"}),
        ("from ..mqtt import topics", {"emulator.mqtt", "emulator.mqtt.topics"}),
        ("import importlib\nimportlib.import_module('x')", {"importlib", "<"}),
        ("__import__('x')", {"<"}),
    ],
)
def test_imports_are_found(source: str, expected: set[str]) -> None:
    found = imports(ast.parse(source), "emulator.hub")
    assert {"<" if name.startswith("<") else name for name in found} == expected


def test_the_walk_sees_the_whole_house() -> None:
    names = {name_of(path) for path in MODULES}
    assert {"emulator/hub/hub.py", "emulator/http/server.py"} | AMQTT_MODULES <= names
    assert all(path.exists() for path in SCRIPTS)


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS], ids=name_of)
def test_a_module_can_be_read_for_its_imports(path: Path) -> None:
    assert not any(name.startswith("<") for name in imports_of(path))


@pytest.mark.parametrize(
    "path", [path for path in MODULES if name_of(path).startswith("emulator/hub/")], ids=name_of
)
def test_the_hub_knows_no_head_and_no_socket(path: Path) -> None:
    found = imports_of(path)
    own = within(found, "emulator")
    assert own == within(own, "emulator.hub")
    allowed = {"sqlite3"} if path.name == "store.py" else set()
    assert within(found, *(INPUT_AND_OUTPUT - allowed)) == set()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_emulator_runs_without_the_sdks(path: Path) -> None:
    # azure-iot-hub has no build for every machine that the emulator runs on.
    assert within(imports_of(path), "azure", "uamqp", "msrest") == set()


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_the_tutorials_scripts_know_nothing_of_the_emulator(path: Path) -> None:
    assert within(imports_of(path), "emulator", "tests", "amqtt", "aiohttp") == set()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_amqtt_stays_in_its_corner(path: Path) -> None:
    if name_of(path) not in AMQTT_MODULES:
        assert within(imports_of(path), "amqtt") == set()


@pytest.mark.parametrize(
    ("head", "strangers"),
    [
        ("mqtt", ("emulator.http", "emulator.emulator", "emulator.cli.main")),
        ("http", ("emulator.mqtt", "emulator.emulator", "emulator.cli.main")),
    ],
)
def test_a_head_knows_the_hub_and_no_other_head(head: str, strangers: tuple[str, ...]) -> None:
    for path in MODULES:
        if name_of(path).startswith(f"emulator/{head}/"):
            assert within(imports_of(path), *strangers) == set(), name_of(path)


def test_every_error_of_the_hub_is_raised_somewhere() -> None:
    errors = ROOT / "emulator" / "hub" / "core" / "errors.py"
    tree = ast.parse(errors.read_text(encoding="utf-8"))
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)} - {"HubError"}
    used: set[str] = set()
    for path in MODULES:
        if path != errors:
            source = ast.parse(path.read_text(encoding="utf-8"))
            used |= {node.id for node in ast.walk(source) if isinstance(node, ast.Name)}
    assert classes - used == set()
