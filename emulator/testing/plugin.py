"""The plugin for pytest: a hub for tests, clean for each of them.

Installing the package loads it. It imports the emulator when a test uses a fixture.
"""

from __future__ import annotations

import contextlib
import os

import pytest

# Not that of typing, whose import is not needed here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from emulator import Emulator, Settings
    from emulator.testing.log import LogTail
    from emulator.testing.real_hub import RealHub
    from emulator.testing.values import Device

REAL = "IOTHUB_REAL_CONNECTION_STRING"

# The hub that a test uses, and the hub's log.
_HUB = pytest.StashKey["tuple[Emulator, LogTail]"]()


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers", f"iothub_real: runs on the hub of {REAL} as well, if it is set"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a marked test on both hubs."""
    marked = metafunc.definition.get_closest_marker("iothub_real")
    if marked and "iothub" in metafunc.fixturenames and os.environ.get(REAL):
        metafunc.parametrize("iothub", ["emulator", "real"], indirect=True)


@pytest.fixture(scope="session")
def iothub_settings() -> Settings:
    """How the hub is set up; override it for other settings.

    Each process has a loopback address of its own, because device SDKs dial one port only.
    """
    from emulator import Settings, StartError
    from emulator.testing.addresses import free_loopback_address

    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    try:
        return Settings(host=free_loopback_address(int(worker[2:])), https_port=0, devices=())
    except StartError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def _iothub_session(iothub_settings: Settings) -> Iterator[tuple[Emulator, LogTail]]:
    """The hub of this process, and its log."""
    from emulator import Emulator, StartError
    from emulator.testing.log import LogTail

    with contextlib.ExitStack() as stack:
        log = LogTail()
        stack.enter_context(log.listen())
        try:
            emulator = stack.enter_context(Emulator(iothub_settings))
        except StartError as error:
            pytest.fail(str(error), pytrace=False)
        yield emulator, log


@pytest.fixture
def iothub(request: pytest.FixtureRequest) -> Iterator[Emulator | RealHub]:
    """A hub without devices, messages and calls; this process trusts it.

    A test with the marker `iothub_real` has a `RealHub` in its second run.
    """
    if getattr(request, "param", "emulator") == "real":
        from emulator.errors import ClientError
        from emulator.testing.real_hub import RealHub

        try:
            hub = RealHub(os.environ[REAL])
        except ClientError as error:
            pytest.fail(f"{REAL}: {error}", pytrace=False)
        with hub as real, real.patch_environment():
            yield real
        return
    emulator, log = request.getfixturevalue("_iothub_session")
    emulator.reset()
    log.lines.clear()
    request.node.stash[_HUB] = emulator, log
    with emulator.patch_environment():
        yield emulator


@pytest.fixture
def iothub_device(iothub: Emulator | RealHub) -> Iterator[Device]:
    """A registered device, with its `id` and `connection_string`, and variables for its program."""
    from emulator.testing.values import Device

    device_id = f"device-{os.urandom(4).hex()}"
    device = Device(device_id, iothub.register_device(device_id))
    with iothub.patch_environment(device_id):
        yield device


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the hub did to the report of a test that failed."""
    report = yield
    if report.failed and (used := item.stash.get(_HUB, None)):
        emulator, log = used
        report.sections += [
            ("IoT hub: log", "\n".join(log.lines)),
            ("IoT hub: what is there", emulator.describe()),
        ]
    return report
