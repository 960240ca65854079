"""What the command logs: by itself, with `--verbose` and with `--quiet`."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from emulator.cli.log import LENGTH, LINES, WINDOW_SECONDS, Limit
from emulator.settings import WELL_KNOWN_PRIMARY_KEY
from tests.clock import ManualClock
from tests.devices import METHODS, connect_device
from tests.mqtt.raw import Wire, connack, connect, publish
from tests.processes import EmulatorConsole
from tests.support import API_VERSION, sas_token

ANY_PORTS = (
    "--host",
    "127.0.0.1",
    *(f"--{kind}-port=0" for kind in ("mqtt", "https", "amqps", "amqp", "uploads")),
)
WRONG_KEY = "d3Jvbmcga2V5IGZvciB0aGUgdGVzdHMgb2YgdGhlIGxvZw=="


# --- the limit


class Log:
    """The lines that pass a limit, at the time of a manual clock."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.limit = Limit(self.clock.monotonic)

    def lines(self, *texts: str, level: int = logging.INFO) -> list[str]:
        records = [logging.LogRecord("x", level, "", 0, "%s", (text,), None) for text in texts]
        return [record.getMessage() for record in records if self.limit.filter(record)]


def test_a_line_is_logged_once_and_then_with_the_number_of_the_others() -> None:
    log = Log()
    assert log.lines(*["Refused a"] * 300, "Refused b") == ["Refused a", "Refused b"]
    log.clock.advance(WINDOW_SECONDS)
    assert log.lines("Refused a", "Refused a", "Refused b") == [
        "Refused a (299 more before this)",
        "Refused b",
    ]
    log.clock.advance(WINDOW_SECONDS / 2)
    assert log.lines("Refused b", "Refused a") == []
    log.clock.advance(WINDOW_SECONDS / 2)
    assert log.lines("Refused b", "Refused a") == [
        "Refused b (1 more before this)",
        "Refused a (2 more before this)",
    ]
    log.clock.advance(WINDOW_SECONDS)
    assert log.lines("Refused a") == ["Refused a"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Refused 'a' at 127.0.0.1:40000: x", "Refused 'a' at 127.0.0.1:50123: x", True),
        ("Refused 'a' at [::1]:40000: x", "Refused 'a' at [::1]:50123: x", True),
        ("expired: se is 1764150000, the time", "expired: se is 1764150005, the time", True),
        ("Refused 'device1000'", "Refused 'device1001'", False),
        ("Refused '1000'", "Refused '1001'", False),
        ("Refused 'a' at 10.0.0.1:40000", "Refused 'a' at 10.0.0.2:40000", False),
    ],
)
def test_two_attempts_of_one_client_are_the_same_line(one: str, other: str, same: bool) -> None:
    assert Log().lines(one, other) == ([one] if same else [one, other])


def test_a_flood_of_different_lines_is_bounded_too() -> None:
    log = Log()
    lines = log.lines(*(f"Refused '{n}'" for n in range(2_000)))
    assert len(lines) == LINES + 1
    assert lines[-1].startswith("Too many different lines")
    log.clock.advance(WINDOW_SECONDS)
    assert log.lines("Refused '1'") == ["Refused '1'"]


def test_a_long_line_is_cut() -> None:
    assert Log().lines("x" * 60_000) == ["x" * LENGTH + " ..."]


def test_debug_lines_always_pass() -> None:
    assert len(Log().lines(*["GET /twins/a: 200"] * 100, level=logging.DEBUG)) == 100


# --- refusals, as a console shows them


def mqtt_refusal(token: str, device_id: str = "myDeviceId") -> Callable[[EmulatorConsole], None]:
    def refused(hub: EmulatorConsole) -> None:
        port = int(hub.wait_for(r"  devices .*").rpartition(":")[2])
        context = ssl.create_default_context(cafile=hub.variables["SSL_CERT_FILE"])
        user = f"127.0.0.1/{device_id}/?api-version={API_VERSION}"
        with Wire(("127.0.0.1", port), context) as wire:
            wire.send(connect(device_id, user, token))
            wire.expect(connack(5))

    return refused


def token(key: str = WELL_KNOWN_PRIMARY_KEY, **other: float) -> str:
    return sas_token("127.0.0.1/devices/myDeviceId", key, **other)


def disable_and_connect(hub: EmulatorConsole) -> None:
    hub.request("PUT", "/devices/gone", json={"deviceId": "gone", "status": "disabled"})
    mqtt_refusal(token(), "gone")(hub)


def https_with(text: str | None, path: str = "/devices") -> Callable[[EmulatorConsole], None]:
    def refused(hub: EmulatorConsole) -> None:
        address = next(line for line in hub.lines if "services" in line).rpartition("https://")[2]
        answer = requests.get(
            f"https://{address}{path}",
            params={"api-version": API_VERSION},
            headers={"Authorization": text} if text else {},
            verify=hub.variables["REQUESTS_CA_BUNDLE"],
            timeout=30,
        )
        assert answer.status_code == 401

    return refused


def distrust(port_of: str, name: str = "127.0.0.1", trust: bool = False) -> Callable[..., None]:
    def refused(hub: EmulatorConsole) -> None:
        port = int(hub.wait_for(rf"  {port_of} .*").rpartition(":")[2])
        file = hub.variables["SSL_CERT_FILE"] if trust else None
        context = ssl.create_default_context(cafile=file)
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
            pytest.raises(ssl.SSLError),
        ):
            context.wrap_socket(plain, server_hostname=name)

    return refused


def leave(hub: EmulatorConsole) -> None:
    """Leave a TLS handshake after the answer of the hub, as Node does."""
    port = int(hub.wait_for(r"  devices .*").rpartition(":")[2])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
        plain.sendall(outgoing.read())
        assert plain.recv(1)


def port_of(hub: EmulatorConsole, kind: str) -> int:
    return int(hub.wait_for(rf"  {kind} .*").rpartition(":")[2].partition(",")[0])


def without_tls(kind: str, data: bytes) -> Callable[[EmulatorConsole], None]:
    """Send bytes to a port for TLS, which closes the connection."""

    def sent(hub: EmulatorConsole) -> None:
        with socket.create_connection(("127.0.0.1", port_of(hub, kind)), timeout=5) as plain:
            plain.sendall(data)
            with contextlib.suppress(ConnectionError):
                assert plain.recv(1) == b""

    return sent


def within_tls(kind: str, data: bytes) -> Callable[[EmulatorConsole], None]:
    """Send another protocol over TLS to a port, which closes the connection."""

    def sent(hub: EmulatorConsole) -> None:
        context = ssl.create_default_context(cafile=hub.variables["SSL_CERT_FILE"])
        with (
            socket.create_connection(("127.0.0.1", port_of(hub, kind)), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as over_tls,
        ):
            over_tls.sendall(data)
            with contextlib.suppress(OSError):
                while over_tls.recv(1000):
                    pass

    return sent


HTTP_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
MQTT_CONNECT = connect("myDeviceId", "", "")
SERVICE = "127.0.0.1"
# What a client does, and the reason in the log.
REFUSALS: dict[str, tuple[Callable[[EmulatorConsole], None], str]] = {
    "unknown device": (mqtt_refusal(token(), "nosuch"), "'nosuch' at .*: unknown device: 'nosuch'"),
    "disabled device": (disable_and_connect, "'gone' at .*: disabled: 'gone'"),
    "wrong key": (mqtt_refusal(token(WRONG_KEY)), "'myDeviceId' at .*: wrong key"),
    "expired token": (mqtt_refusal(token(lifetime=-4000)), "'myDeviceId' at .*expired"),
    "wrong host": (
        mqtt_refusal(sas_token("hub.example.com/devices/myDeviceId", WELL_KNOWN_PRIMARY_KEY)),
        "the SAS token is for 'hub.example.com.*not for",
    ),
    "not a token": (mqtt_refusal("password"), "not a SAS token"),
    "service without a token": (https_with(None), "GET '/devices': no SAS token"),
    "service with a wrong key": (
        https_with(sas_token(SERVICE, WRONG_KEY, policy="service"), "/twins/myDeviceId"),
        "GET '/twins/myDeviceId': wrong key",
    ),
    "service of an unknown policy": (
        https_with(sas_token(SERVICE, WRONG_KEY, policy="owner")),
        "unknown policy 'owner'",
    ),
    "service without the right": (
        https_with(sas_token(SERVICE, WELL_KNOWN_PRIMARY_KEY, policy="device")),
        "the policy 'device' does not have the right 'registry read'",
    ),
    "device that does not trust the CA": (
        distrust("devices"),
        "does not trust the hub's CA.*SSL_CERT_FILE.*REQUESTS_CA_BUNDLE.*NODE_EXTRA_CA_CERTS.*"
        "--cacert.*ca-bundle.pem; azure-eventhub reads no variable: connection_verify='.*ca-bundle"
        r"\.pem'",
    ),
    "service that calls another name": (
        distrust("services", "hub.example.com", trust=True),
        "refused the hub's certificate. It uses a host name that is not in the certificate",
    ),
    "client that leaves": (leave, "left the TLS handshake, as Node does"),
    "HTTP without TLS": (
        without_tls("services", HTTP_REQUEST),
        "HTTP without TLS arrived at a port for TLS: use https, or wss for a WebSocket",
    ),
    "MQTT without TLS": (
        without_tls("devices", MQTT_CONNECT),
        "MQTT without TLS arrived at a port for TLS: use TLS",
    ),
    "AMQP without TLS": (
        without_tls("services", b"AMQP\x03\x01\x00\x00"),
        r"AMQP without TLS arrived at a port for TLS: use TLS, or port \d+",
    ),
    "neither TLS nor any other": (
        without_tls("devices", bytes(20)),
        r"Bytes that are not TLS arrived at a port for TLS: b'\\x00",
    ),
    "HTTP at the port of devices": (
        within_tls("devices", HTTP_REQUEST),
        r"HTTP arrived at a port for MQTT: use https://127\.0\.0\.1:\d+",
    ),
    "AMQP at the port of devices": (
        within_tls("devices", b"AMQP\x03\x01\x00\x00"),
        r"AMQP arrived at a port for MQTT: use port \d+",
    ),
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.mark.parametrize("option", ["", "--verbose", "--quiet"])
def test_each_refusal_is_a_line_with_its_reason(data_dir: Path, option: str) -> None:
    options = [option] if option else []
    with EmulatorConsole(*ANY_PORTS, "--data-dir", data_dir, *options) as hub:
        for act, reason in REFUSALS.values():
            act(hub)
            act(hub)
            if option != "--quiet":
                wait_for_error(hub, reason)
        assert hub.request("GET", "/devices").status_code == 200
        hub.terminate()
    refusals = [line for line in hub.errors if "emulator.refusals" in line]
    others = [line for line in hub.errors if line not in refusals]
    # Each once, unless this machine takes more than ten seconds for one of them.
    if option == "--quiet":
        assert refusals == []
    else:
        assert len(REFUSALS) <= len(refusals) < 2 * len(REFUSALS), hub.output
    assert bool(others) is (option == "--verbose"), hub.output
    assert WRONG_KEY not in hub.output


def wait_for_error(hub: EmulatorConsole, pattern: str) -> None:
    deadline = time.monotonic() + 30
    while not any(re.search(pattern, line) for line in hub.errors):
        assert time.monotonic() < deadline, f"{pattern}\n{hub.output}"
        time.sleep(0.02)


def test_verbose_adds_what_happens(data_dir: Path) -> None:
    with EmulatorConsole(*ANY_PORTS, "--data-dir", data_dir, "--verbose") as hub:
        port = int(hub.wait_for(r"  devices .*").rpartition(":")[2])
        context = ssl.create_default_context(cafile=hub.variables["SSL_CERT_FILE"])
        string = hub.device_connection_strings["myDeviceId"]
        with (
            ThreadPoolExecutor(1) as thread,
            connect_device(string, port, context, METHODS) as device,
        ):
            device.send(publish("devices/myDeviceId/messages/events/", b"secret body"))
            hub.request("PATCH", "/twins/myDeviceId", json={"tags": {"a": "secret value"}})
            body = {"methodName": "reboot", "payload": "secret"}
            call = thread.submit(hub.request, "POST", "/twins/myDeviceId/methods", json=body)
            rid = device.expect_method("reboot")
            device.send(publish(f"$iothub/methods/res/201/?$rid={rid}", b'"secret"'))
            assert call.result().status_code == 200
            hub.request("PUT", "/devices/new", json={"deviceId": "new"})
            wait_for_error(hub, "new was created")
        hub.terminate()
    log = "\n".join(hub.errors)
    for line in (
        "myDeviceId connected",
        "myDeviceId sent messages: 1",
        "Twin of myDeviceId: tags changed",
        "PATCH '/twins/myDeviceId': 200",
        "Method 'reboot' was sent to myDeviceId",
        "Method 'reboot' on myDeviceId: status 201",
        "POST '/twins/myDeviceId/methods': 200",
        "new was created",
    ):
        assert line in log
    assert "secret" not in log
