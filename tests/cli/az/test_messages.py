"""`c2d-message`, `monitor-feedback` and `monitor-events` on a running hub."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emulator import Emulator
from emulator.cli.az.session import Hub
from tests.cli.az.conftest import Run
from tests.http.support import new_id
from tests.support import PATIENCE, Device, Service

Send = Callable[..., None]


def documents(text: str) -> list[Any]:
    """Parse documents that follow each other."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text):
        document, at = decoder.raw_decode(text, at)
        found.append(document)
        at += len(text[at:]) - len(text[at:].lstrip())
    return found


# --- c2d-message


def test_a_message_goes_to_a_device(az: Run, device: Device) -> None:
    of = ("-d", device.id)
    options = ("--props", "a=1;b=x y", "--ct", "text/plain", "--mid", "m1", "--cid", "c1")
    sent = az("c2d-message", "send", *of, "--data", "hé\x1b[2J", *options, "--uid", "u1")
    assert sent == (0, "", [])
    received = az("c2d-message", "receive", *of)
    assert "hé\\u001b[2J" in received.output
    message = received.document
    assert message["data"] == "hé\x1b[2J"
    assert message["properties"]["app"] == {"a": "1", "b": "x y"}
    system = message["properties"]["system"]
    assert (system["iothub-messageid"], system["iothub-correlationid"]) == ("m1", "c1")
    assert (system["contenttype"], system["contentencoding"]) == ("text/plain", "utf-8")
    assert system["iothub-userid"] == "u1"
    # It is locked.
    assert az("c2d-message", "receive", *of) == (0, "", [])
    lock = ("-e", message["etag"])
    assert az("c2d-message", "abandon", *of, *lock).status == 0
    again = az("c2d-message", "receive", *of, "--complete").document
    assert (again["ack"], again["properties"]["system"]["iothub-deliverycount"]) == (
        "complete",
        "1",
    )
    late = az("c2d-message", "complete", *of, "-e", again["etag"])
    assert (late.status, len(late.errors)) == (1, 1)
    assert "412 DeviceMessageLockLost" in late.errors[0]


def test_messages_are_rejected_completed_and_purged(az: Run, device: Device) -> None:
    of = ("-d", device.id)
    for how in ("reject", "complete"):
        az("c2d-message", "send", *of)
        etag = az("c2d-message", "receive", *of, "--lt", "5").document["etag"]
        assert az("c2d-message", how, *of, "-e", etag) == (0, "", [])
    az("c2d-message", "send", *of)
    assert az("c2d-message", "receive", *of, "--reject").document["ack"] == "reject"
    for _ in range(3):
        az("c2d-message", "send", *of)
    assert az("c2d-message", "purge", *of).document["totalMessagesPurged"] == 3


def test_a_message_is_a_file_of_any_bytes(az: Run, device: Device, tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(b"\xff\x00\x80")
    expiry = str(int(time.time() * 1000) + 60_000)
    az("c2d-message", "send", "-d", device.id, "--dfp", str(file), "--expiry", expiry)
    message = az("c2d-message", "receive", "-d", device.id, "--complete").document
    assert message["data"] == "\\xff\x00\\x80"


def test_a_message_to_no_device(az: Run) -> None:
    result = az("c2d-message", "send", "-d", "none")
    assert (result.status, result.output, len(result.errors)) == (3, "", 1)


def test_feedback_of_a_message_is_shown(az: Run, device: Device) -> None:
    of, message_id = ("-d", device.id), new_id()
    az("c2d-message", "send", *of, "--ack", "full", "--mid", message_id)
    az("c2d-message", "receive", *of, "--complete")
    query = ("--query", "[feedback.[originalMessageId, statusCode, deviceId]]", "-o", "tsv")
    result = az("monitor-feedback", *of, "-w", message_id, *query)
    assert result == (0, f"{message_id}\tSuccess\t{device.id}\n", [])


def test_a_send_waits_for_feedback(az: Run, device: Device, service: Service) -> None:
    def complete() -> None:
        path = f"/devices/{device.id}/messages/deviceBound"
        while (answer := service.request("GET", path)).status_code != 200:
            time.sleep(0.02)
        service.request("DELETE", f"{path}/{answer.headers['iothub-messagelocktoken']}")

    as_device = threading.Thread(target=complete, daemon=True)
    as_device.start()
    result = az("c2d-message", "send", "-d", device.id, "--ack", "full", "--wait")
    as_device.join(PATIENCE)
    assert result.document["feedback"]["statusCode"] == "Success"


# --- monitor-events


def test_events_are_shown_as_az_shows_them(az: Run, device: Device, send: Send) -> None:
    send('{"t": 21}', "plain", a="1")
    monitor = ("monitor-events", "-d", device.id, "--et", "0", "--mc", "2")
    first, second = documents(az(*monitor).output)
    assert first == {
        "event": {
            "origin": device.id,
            "module": "",
            "interface": "",
            "component": "",
            "payload": '{"t": 21}',
        }
    }
    assert second["event"]["payload"] == "plain"
    every = documents(az(*monitor, "-p", "all", "--ct", "application/json").output)
    assert every[0]["event"]["payload"] == {"t": 21}
    assert every[0]["event"]["properties"]["application"] == {"a": "1"}
    annotations = every[0]["event"]["annotations"]
    assert annotations["iothub-connection-device-id"] == device.id
    picked = az(*monitor, "--query", "event.payload", "-o", "tsv").output
    assert picked == '{"t": 21}\nplain\n'
    some = documents(az(*monitor, "--props", "sys", "app").output)[0]["event"]
    assert set(some["properties"]) == {"system", "application"}
    assert "annotations" not in some


def test_events_are_shown_as_they_come(az: Run, device: Device, send: Send) -> None:
    stop = threading.Event()

    def keep_sending() -> None:
        while not stop.wait(0.05):
            send("hello")

    sender = threading.Thread(target=keep_sending)
    sender.start()
    try:
        result = az("monitor-events", "-d", device.id, "--mc", "3", "-t", "60")
    finally:
        stop.set()
        sender.join(PATIENCE)
    assert [each["event"]["payload"] for each in documents(result.output)] == ["hello"] * 3


def test_events_are_filtered(az: Run, device: Device, send: Send) -> None:
    send("hello")
    own = f"select deviceId from devices where deviceId = '{device.id}'"
    for wanted in (("-d", f"{device.id[:-3]}*"), ("-d", device.id), ("-q", own)):
        result = az("monitor-events", "--et", "0", "--mc", "1", "-t", "60", *wanted)
        assert result.document["event"]["origin"] == device.id
    for unwanted in (
        ("-d", f"{device.id}?"),
        ("-d", device.id, "-m", "x"),
        ("-d", device.id, "-i", "dtmi:x;1"),
        ("-q", "select deviceId from devices where deviceId = 'none'"),
        ("-d", device.id, "--et", str(int(time.time() * 1000) + 60_000)),
    ):
        assert az("monitor-events", "--et", "0", "-t", "0.5", *unwanted) == (0, "", [])


def test_events_cannot_write_to_the_terminal(az: Run, device: Device, send: Send) -> None:
    send("\x1b[31mred\x9b2J", evil="1")
    for form in ("json", "table", "tsv"):
        monitor = ("monitor-events", "-d", device.id, "--et", "0", "--mc", "1", "-o", form)
        output = az(*monitor, "--query", "event").output
        assert all(each.isprintable() or each in "\n\t" for each in output)
        assert "\\u001b[31mred\\u009b2J" in output


def test_a_body_that_is_nested_deep_is_a_text(az: Run, device: Device, send: Send) -> None:
    deep = "[" * 900 + "]" * 900
    send(deep, **{"$.ct": "application/json", "$.ce": "utf-8"})
    monitor = (
        "monitor-events",
        "-d",
        device.id,
        "--et",
        "0",
        "--mc",
        "1",
        "--ct",
        "application/json",
    )
    assert az(*monitor).document["event"]["payload"] == deep


def test_events_of_no_device(az: Run) -> None:
    result = az("monitor-events", "-d", "none", "-t", "5")
    assert (result.status, result.output, len(result.errors)) == (3, "", 1)


# --- what a real hub offers over AMQP


@pytest.fixture
def real(run_command: Run, monkeypatch: pytest.MonkeyPatch, emulator: Emulator) -> Run:
    """Runs a command on the emulator as if it were a real hub, whose name has no port."""
    pytest.importorskip("uamqp", reason="uamqp has wheels for x86-64 only")
    monkeypatch.setattr(Hub, "emulator", None)
    text = emulator.service_connection_string.replace(emulator.https_host, emulator.host_name)
    folder = str(emulator.ca_file.parent)
    return lambda *arguments: run_command(*arguments, "--login", text, "--data-dir", folder)


@pytest.mark.parametrize("endpoint", ["named", "found"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_events_of_a_real_hub_are_read_over_amqp(
    endpoint: str,
    real: Run,
    device: Device,
    send: Send,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send("hello", a="1")
    if endpoint == "named":
        monkeypatch.setenv("EVENTHUB_CONNECTION_STRING", emulator.event_hubs_connection_string)
    else:
        monkeypatch.delenv("EVENTHUB_CONNECTION_STRING", raising=False)
    monitor = ("monitor-events", "-d", device.id, "--et", "0", "--mc", "1", "-p", "all", "-t", "60")
    event = real(*monitor).document["event"]
    assert (event["origin"], event["payload"]) == (device.id, "hello")
    assert event["properties"]["application"] == {"a": "1"}
    assert event["annotations"]["iothub-message-source"] == "Telemetry"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_message_of_a_real_hub_is_sent_over_amqp(real: Run, az: Run, device: Device) -> None:
    options = ("--props", "a=1", "--ct", "text/plain", "--mid", "m1", "--ack", "full")
    assert real("c2d-message", "send", "-d", device.id, "--data", "hé", *options) == (0, "", [])
    message = az("c2d-message", "receive", "-d", device.id, "--complete").document
    assert message["data"] == "hé"
    assert message["properties"]["app"] == {"a": "1"}
    system = message["properties"]["system"]
    assert (system["iothub-messageid"], system["contenttype"]) == ("m1", "text/plain")
    assert system["iothub-ack"] == "full"
    refused = real("c2d-message", "send", "-d", device.id, "--uid", "u")
    assert (refused.status, len(refused.errors)) == (1, 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_real_hub_that_refuses_is_one_line(
    run_command: Run, monkeypatch: pytest.MonkeyPatch, emulator: Emulator, real: Run
) -> None:
    monkeypatch.delenv("EVENTHUB_CONNECTION_STRING", raising=False)
    text = f"HostName={emulator.host_name};SharedAccessKeyName=none;SharedAccessKey=YWJj"
    folder = ("--data-dir", str(emulator.ca_file.parent))
    for command in (("monitor-events",), ("c2d-message", "send", "-d", "x")):
        result = run_command(*command, "--login", text, *folder)
        assert (result.status, result.output, len(result.errors)) == (1, "", 1), result


@pytest.mark.parametrize("package", ["azure.eventhub", "azure.iot.hub"])
def test_a_package_that_is_missing_is_named(
    package: str, az: Run, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub, "emulator", None)
    monkeypatch.setitem(sys.modules, package, None)
    events = ("monitor-events", "-d", device.id)
    send = ("c2d-message", "send", "-d", device.id)
    result = az(*(events if package == "azure.eventhub" else send))
    name = package.replace(".", "-")
    assert result == (
        1,
        "",
        [
            f"emulator: This needs AMQP on a real hub. Install {name}: "
            "pip install 'local-iot-hub[cli]'"
        ],
    )
