"""The plugin for pytest, in runs of pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from emulator import Emulator
from tests.support import second_hub

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
SECONDS = 90

Run = Callable[..., str]

# A device without an SDK: it sends telemetry over HTTPS.
DEVICE = """
import json, os, ssl, urllib.request
from tests.support import fields_of, sas_token

def send(hub, string, body, verify=None):
    fields = fields_of(string)
    resource = f"{fields['HostName']}/devices/{fields['DeviceId']}"
    path = f"/devices/{fields['DeviceId']}/messages/events?api-version=2021-04-12"
    token = sas_token(resource, fields["SharedAccessKey"])
    context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    request = urllib.request.Request(
        f"https://{hub.https_host}{path}", json.dumps(body).encode(), {"Authorization": token}
    )
    urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    ).open(request, timeout=30).close()
"""

SETTINGS = """
import pytest
from pathlib import Path
from dataclasses import replace

@pytest.fixture(scope="session")
def iothub_settings(iothub_settings):
    ports = dict(amqps_port=0, amqp_port=0, uploads_port=0)
    return replace(iothub_settings, cert_dir=Path({folder!r}), **ports)
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, emulator: Emulator) -> object:
    """Runs pytest on tests that stand in a string, in a process of its own."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in list(os.environ):
        if name.startswith(("PYTEST_XDIST", "IOTHUB_")):
            monkeypatch.delenv(name)
    pytester.makeconftest(SETTINGS.format(folder=str(emulator.settings.cert_dir)))
    pytester.makepyfile(device=DEVICE)

    def start(tests: str, *options: str, passed: int = 0, failed: int = 0, errors: int = 0) -> str:
        imports = "import os, pytest\nfrom device import send\n"
        pytester.makepyfile(test_it=imports + textwrap.dedent(tests))
        command = ("-p", "emulator.testing.plugin", "-p", "no:cacheprovider", *options)
        result = pytester.runpytest_subprocess(*command, timeout=SECONDS)
        result.assert_outcomes(passed=passed, failed=failed, errors=errors)
        return result.stdout.str()

    return start


def test_each_test_has_a_clean_hub_that_its_programs_trust(run: Run) -> None:
    run(
        """
        def test_one(iothub, iothub_device):
            assert os.environ["IOTHUB_DEVICE_CONNECTION_STRING"] == iothub_device.connection_string
            assert os.environ["IOTHUB_DEVICE_ID"] == iothub_device.id
            iothub.register_device("kitchen", tags={"a": 1})
            send(iothub, iothub.device_connection_string("kitchen"), {"n": 1})
            assert iothub.wait_for_event("kitchen", where={"n": 1}).number == 0
            iothub.clock.advance(hours=1)
            iothub.faults.add("throttle", device="kitchen")

        def test_two(iothub):
            assert "IOTHUB_DEVICE_ID" not in os.environ
            assert os.environ["IOTHUB_CONNECTION_STRING"] == iothub.service_connection_string
            assert iothub.query("SELECT * FROM devices") == []
            assert iothub.events() == []
            assert iothub.calls == []
            assert iothub.faults.list() == []
            assert not iothub.clock.advanced_by
            iothub.register_device("kitchen")

        def test_three():
            assert "IOTHUB_CONNECTION_STRING" not in os.environ

        @pytest.mark.asyncio
        async def test_four(iothub, iothub_device):
            send(iothub, iothub_device.connection_string, {"n": 1})
            event = await iothub.aio.wait_for_event(iothub_device.id, where={"n": 1})
            assert event.body == {"n": 1}
        """,
        passed=4,
    )


def test_settings_can_be_overridden(run: Run) -> None:
    run(
        """
        from dataclasses import replace

        @pytest.fixture(scope="session")
        def iothub_settings(iothub_settings):
            return replace(iothub_settings, devices=("kitchen",))

        @pytest.mark.parametrize("number", [1, 2])
        def test_it(iothub, number):
            (row,) = iothub.query("SELECT * FROM devices")
            assert row["deviceId"] == "kitchen"
            iothub.remove_device("kitchen")
        """,
        passed=2,
    )


def test_a_clean_hub_takes_less_than_10_ms(run: Run) -> None:
    output = run(
        """
        import time

        @pytest.mark.parametrize("number", range(50))
        def test_it(iothub, number, record_property):
            for device in range(5):
                iothub.register_device(f"device-{device}")
        """,
        *("--durations=0", "-vv", "--durations-min=0.01"),
        passed=50,
    )
    slow = [line for line in output.splitlines() if " setup " in line]
    assert len(slow) < 25, slow  # the median of 50


def test_the_report_of_a_failed_test_shows_what_the_hub_did(run: Run) -> None:
    output = run(
        """
        def test_fails(iothub, iothub_device):
            send(iothub, iothub_device.connection_string, {"n": 41})
            iothub.wait_for_event(where={"n": 42}, timeout=0.1)

        def test_passes(iothub):
            pass

        def test_fails_without_a_hub():
            assert not "without a hub"
        """,
        passed=1,
        failed=2,
    )
    assert output.count("- IoT hub: log -") == 1
    assert output.count("- IoT hub: what is there -") == 1
    assert 'No event with {"n":42} within 0.1 s.' in output
    assert "#0 of device-" in output
    # The frames of the emulator are left out.
    assert "emulator/testing" not in output.replace("-p emulator", "")
    assert "event_loop.py" not in output


def test_an_error_of_the_hub_shows_the_line_of_the_test(run: Run) -> None:
    output = run(
        """
        def test_fails(iothub):
            iothub.invoke("kitchen", "go")

        def test_predicate(iothub, iothub_device):
            send(iothub, iothub_device.connection_string, {"n": 1})
            iothub.wait_for_event(where=lambda event: event.body["missing"])
        """,
        failed=2,
    )
    assert "DeviceNotFound: kitchen" in output
    assert "kitchen: not registered" in output
    assert "KeyError: 'missing'" in output


def test_a_hub_that_cannot_start_is_one_line(run: Run) -> None:
    output = run(
        """
        import socket
        from dataclasses import replace

        @pytest.fixture(scope="session")
        def iothub_settings(iothub_settings):
            with socket.create_server((iothub_settings.host, 0)) as taken:
                yield replace(iothub_settings, mqtt_port=taken.getsockname()[1])

        def test_it(iothub):
            pass
        """,
        errors=1,
    )
    assert "is in use on 127." in output
    assert "Traceback" not in output


def test_workers_have_an_address_each(run: Run, tmp_path: Path) -> None:
    run(
        f"""
        import time
        from pathlib import Path

        @pytest.mark.parametrize("number", [1, 2])
        def test_it(iothub, number):
            folder = Path({str(tmp_path)!r})
            (folder / iothub.settings.host).touch()
            deadline = time.monotonic() + 60
            while len(list(folder.iterdir())) < 2:  # the other worker has its hub now
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert iothub.mqtt_port == 8883
        """,
        *("-n", "2"),
        passed=2,
    )


REAL_TEST = """
import base64

@pytest.mark.iothub_real
def test_both(iothub, iothub_device):
    assert iothub.twin(iothub_device.id)["deviceId"] == iothub_device.id
    twin = iothub.update_twin(iothub_device.id, tags={"a": 1}, desired={"b": 2})
    assert twin["properties"]["desired"]["b"] == 2
    rows = iothub.query("SELECT * FROM devices WHERE tags.a = 1")
    assert [each["deviceId"] for each in rows] == [iothub_device.id]
    assert iothub.wait_for_reported(iothub_device.id, {"c": None}) == {}
    assert os.environ["IOTHUB_CONNECTION_STRING"] == iothub.service_connection_string

@pytest.mark.iothub_real
def test_emulator_alone(iothub):
    iothub.events()

def test_unmarked(iothub):
    iothub.events()
"""


def test_marked_tests_run_on_a_real_hub_too(
    run: Run, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(REAL_TEST, passed=3)
    with second_hub(emulator) as real, real.patch_environment():
        monkeypatch.setenv("IOTHUB_REAL_CONNECTION_STRING", real.service_connection_string)
        output = run(REAL_TEST, "-rA", passed=4, failed=1)
        assert real.query("SELECT * FROM devices") == []
    assert "PASSED test_it.py::test_both[real]" in output
    assert "A real hub has no 'events' for tests. Leave the marker iothub_real out" in output


def test_a_malformed_string_of_a_real_hub_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IOTHUB_REAL_CONNECTION_STRING", "HostName=a")
    output = run(REAL_TEST, passed=3, errors=2)
    assert "IOTHUB_REAL_CONNECTION_STRING: Invalid connection string of a service. Use " in output
    assert "Traceback" not in output


def test_an_unused_plugin_costs_nothing() -> None:
    program = """
import sys, time
import pytest
before = set(sys.modules)
began = time.perf_counter()
import emulator.testing.plugin
took = time.perf_counter() - began
print(took, *sorted(set(sys.modules) - before))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    took, *modules = run.stdout.split()
    assert modules == ["emulator", "emulator.testing", "emulator.testing.plugin"]
    assert float(took) < 0.1  # 1 ms on a quiet machine
