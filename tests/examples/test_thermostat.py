"""The project in examples/thermostat: its own tests, as its author runs them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

from tests.examples.test_examples import EXAMPLES, needs_service_sdk
from tests.processes import ROOT

FOLDER = EXAMPLES / "thermostat"
TESTS = FOLDER / "test_heating.py"
SECONDS = 110


@needs_service_sdk
def test_the_tests_of_the_project_pass() -> None:
    # The plugin is loaded by name: a checkout is not always installed.
    plugins = ("-p", "emulator.testing.plugin", "-p", "no:cacheprovider")
    # A test that hangs shows where.
    options = ("-v", "-o", "faulthandler_timeout=60", "-o", "faulthandler_exit_on_timeout=true")
    environment = {name: text for name, text in os.environ.items() if name[:6] != "PYTEST"}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *options],
        cwd=FOLDER,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "6 passed" in run.stdout


def test_the_set_up_is_short() -> None:
    """The fixtures have 10 lines, and there is nothing else beside the tests and the imports."""
    tree = ast.parse(TESTS.read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    set_up = [node for node in functions if not node.name.startswith("test_")]
    lines = sum(
        node.end_lineno - node.lineno + 1 + len(node.decorator_list)
        for node in set_up
        if node.end_lineno
    )
    assert 0 < lines <= 10
    assert not list(FOLDER.rglob("conftest.py"))


@pytest.mark.parametrize("name", ["thermostat.py", "heating.py"])
def test_its_programs_know_nothing_of_the_emulator(name: str) -> None:
    source = (FOLDER / name).read_text(encoding="utf-8")
    assert "azure" in source
    assert "emulator" not in source
