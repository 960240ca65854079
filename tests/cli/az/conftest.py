"""The commands in the words of `az iot hub`, in this process, on the emulator of the whole run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import pytest

from emulator import Emulator
from emulator.cli.main import main


class Result(NamedTuple):
    """What a command did."""

    status: int
    output: str
    errors: list[str]

    @property
    def document(self) -> Any:
        """Its output as JSON."""
        assert (self.status, self.errors) == (0, [])
        return json.loads(self.output)


Run = Callable[..., Result]


@pytest.fixture
def run_command(capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a command, as its process does, without what a process does to itself."""

    def run(*arguments: str) -> Result:
        capfd.readouterr()
        try:
            status = main(arguments)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        output, errors = capfd.readouterr()
        return Result(status, output, errors.splitlines())

    # The garbage collector and Ctrl-C are those of the test run.
    with (
        mock.patch("emulator.cli.main.gc.disable"),
        mock.patch("emulator.cli.main.end_on_ctrl_c"),
        mock.patch("emulator.cli.main.discard_output", create=True),
    ):
        yield run


@pytest.fixture
def az(run_command: Run, emulator: Emulator) -> Run:
    """Runs a command on the emulator of the whole run."""

    def run(*arguments: str) -> Result:
        return run_command(*arguments, "--login", emulator.service_connection_string)

    return run
