"""The tutorial's two scripts where no hub is: each failure ends in one clear line.

The scripts run as real processes. Where something has to answer, a few lines here answer like the
hub's front door, and no more. A process takes about half a second to start. The service SDK adds
about five seconds where it can't connect: it tries four times, 0, 1.6 and 3.2 seconds apart.
"""

from __future__ import annotations

import contextlib
import datetime
import http.server
import importlib.util
import ipaddress
import json
import os
import re
import signal
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.processes import DEVICE_SCRIPT, SERVICE_SCRIPT, Console, clean_environment, posix_only

KEY = "c2VjcmV0LWtleS1vZi1hLWRldmljZQ=="

DEVICE_START = [
    "Starting the IoT Hub Python sample...",
    "IoTHubDeviceClient waiting for commands, press Ctrl-C to exit",
]
DEVICE_STOP = "IoTHubDeviceClient sample stopped"
SERVICE_STOP = "IoTHubDeviceMethod sample stopped"

# The device SDK always dials port 8883, so each kind of server needs an address of its own.
NOBODY = "127.0.0.77"
FRONT_DOOR = "127.0.0.78"
MUTE = "127.0.0.79"

needs_service_sdk = pytest.mark.skipif(
    importlib.util.find_spec("uamqp") is None, reason="azure-iot-hub doesn't install here"
)


# --- Running a script ---


def script_console(script: Path, **variables: str) -> Console:
    # A test run may have Python's buffers off, which would hide a line that comes late.
    return Console(script, environment=clean_environment(PYTHONUNBUFFERED="", **variables))


def device_console(connection_string: str, **variables: str) -> Console:
    variables["IOTHUB_DEVICE_CONNECTION_STRING"] = connection_string
    return script_console(DEVICE_SCRIPT, **variables)


def service_console(connection_string: str, **variables: str) -> Console:
    variables |= {"IOTHUB_CONNECTION_STRING": connection_string, "IOTHUB_DEVICE_ID": "thermostat"}
    return script_console(SERVICE_SCRIPT, **variables)


def end(console: Console) -> tuple[int, list[str]]:
    """Wait for a script's end, and give its exit status and its lines."""
    with console:
        status = console.wait()
    assert console.errors == []
    assert "Traceback" not in console.output
    assert KEY not in console.output
    return status, console.lines


def device_string(host: str) -> str:
    return f"HostName={host};DeviceId=thermostat;SharedAccessKey={KEY}"


def service_string(host: str) -> str:
    return f"HostName={host};SharedAccessKeyName=service;SharedAccessKey={KEY}"


def service_start(connection_string: str) -> list[str]:
    return [
        "Starting the IoT Hub Service Client DeviceManagement Python sample...",
        f"    Connection string = {connection_string.replace(KEY, '***')}",
        "    Device ID         = thermostat",
        "",
    ]


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """A shell's background job ignores Ctrl-C and hands that down, so take it back here."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


# --- Things to talk to ---


class Server(socketserver.ThreadingTCPServer):
    """Hands each connection to a handler, behind TLS if it has a certificate."""

    allow_reuse_address = os.name == "posix"

    def __init__(
        self, address: tuple[str, int], handler: Callable[..., object], certificate: Path | None
    ) -> None:
        super().__init__(address, handler)  # type: ignore[arg-type]
        self.certificate = certificate

    def finish_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        # A client that doesn't trust the certificate, or is stopped, hangs up.
        with contextlib.suppress(OSError):
            if self.certificate is None:
                super().finish_request(request, client_address)
                return
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            with context.wrap_socket(request, server_side=True) as tls:
                super().finish_request(tls, client_address)


@contextlib.contextmanager
def serving(
    address: tuple[str, int], handler: Callable[..., object], certificate: Path | None = None
) -> Iterator[int]:
    """Serve until the block ends. Yields the port."""
    try:
        server = Server(address, handler, certificate)
    except OSError as error:
        pytest.skip(f"can't listen on {address}: {error}")
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tutorial test")])
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address(FRONT_DOOR)),
    ]
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


class FrontDoor:
    """Answers MQTT's CONNECT and SUBSCRIBE.

    Args:
        codes: the CONNACK code of each connection to come.
        drops: how many of these to cut off once they have subscribed.
    """

    def __init__(self, *codes: int, drops: int = 0) -> None:
        self.codes = list(codes)
        self.drops = drops
        self.subscribed = threading.Event()
        self.welcomed_all = threading.Event()

    def __call__(self, connection: socket.socket, *_: object) -> None:
        while packet := connection.recv(4096):
            if packet[0] == 0x10:  # CONNECT
                connection.sendall(bytes([0x20, 2, 0, self.codes.pop(0)]))
                if not self.codes:
                    self.welcomed_all.set()
            elif packet[0] == 0x82:  # SUBSCRIBE, answered with its packet id
                connection.sendall(b"\x90\x03" + packet[2:4] + b"\x01")
                self.subscribed.set()
                if self.drops:
                    self.drops -= 1
                    return


class Mute:
    """Accepts a connection and never says a word."""

    def __init__(self) -> None:
        self.called = threading.Event()

    def __call__(self, connection: socket.socket, *_: object) -> None:
        self.called.set()
        while connection.recv(4096):
            pass


def rest_api(
    method_answer: tuple[int, str, str], twin_answer: tuple[int, str, str] | None = None
) -> tuple[type[http.server.BaseHTTPRequestHandler], list[object]]:
    """Make a handler of method calls and twin reads, and the list of the calls that it took.

    Args:
        method_answer: the HTTP status, hub error name and body that answer a method call.
        twin_answer: those that answer the read of a twin.

    Returns:
        The handler, and its method calls so far, each a path and a body.
    """
    calls: list[object] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

        def answer(self, status: int, error_name: str, body: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            if error_name:
                self.send_header("iothub-errorcode", error_name)
            self.end_headers()
            self.wfile.write(body.encode())

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            calls.append((self.path.partition("?")[0], json.loads(self.rfile.read(length))))
            self.answer(*method_answer)

        def do_GET(self) -> None:
            assert twin_answer is not None
            self.answer(*twin_answer)

    return Handler, calls


# --- Placeholders and connection strings ---


def test_the_device_names_its_placeholder() -> None:
    status, lines = end(script_console(DEVICE_SCRIPT))
    assert status == 2
    assert len(lines) == 1
    for what in (
        "{deviceConnectionString}",
        "IOTHUB_DEVICE_CONNECTION_STRING",
        " CONNECTION_STRING",
    ):
        assert what in lines[0]


@needs_service_sdk
@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({}, ("{IoTHubConnectionString}", "IOTHUB_CONNECTION_STRING", " CONNECTION_STRING")),
        (
            {"IOTHUB_CONNECTION_STRING": "", "IOTHUB_DEVICE_ID": "thermostat"},
            ("{IoTHubConnectionString}", "IOTHUB_CONNECTION_STRING", " CONNECTION_STRING"),
        ),
        (
            {"IOTHUB_CONNECTION_STRING": service_string("localhost")},
            ("{deviceId}", "IOTHUB_DEVICE_ID", " DEVICE_ID"),
        ),
    ],
)
def test_the_service_names_its_placeholder(variables: dict[str, str], named: tuple[str]) -> None:
    status, lines = end(script_console(SERVICE_SCRIPT, **variables))
    assert status == 2
    assert len(lines) == 1
    for what in named:
        assert what in lines[0]


@pytest.mark.parametrize(
    "connection_string",
    [
        "localhost",
        "HostName=localhost;DeviceId=thermostat",
        "HostName=localhost;DeviceId=thermostat;SharedAccessKey=abc",
        device_string("localhost") + ";",
        device_string("localhost") + ";Port=8883",
        service_string("localhost"),
    ],
)
def test_the_device_refuses_a_malformed_connection_string(connection_string: str) -> None:
    status, lines = end(device_console(connection_string))
    assert status == 1
    assert lines[:-1] == DEVICE_START
    assert re.fullmatch(
        r"Unexpected error in the connection string \(.+\); "
        r"its form is HostName=...;DeviceId=...;SharedAccessKey=...",
        lines[-1],
    )


@needs_service_sdk
@pytest.mark.parametrize(
    "connection_string",
    [
        "localhost",
        "HostName=localhost;SharedAccessKeyName=service",
        f"SharedAccessKey={KEY};HostName=localhost;SharedAccessKeyName=service;",
        f"HostName=localhost;SharedAccessKey={KEY};Policy=service",
        f"HostName=localhost;sharedaccesskey={KEY};SharedAccessKeyName=service",
        device_string("localhost"),
    ],
)
def test_the_service_refuses_a_malformed_connection_string(connection_string: str) -> None:
    status, lines = end(service_console(connection_string))
    assert status == 1
    assert lines[:-1] == service_start(connection_string)
    assert re.fullmatch(
        r"Unexpected error in the connection string \(.+\); "
        r"its form is HostName=...;SharedAccessKeyName=...;SharedAccessKey=...",
        lines[-1],
    )


@needs_service_sdk
def test_the_service_masks_a_key_that_is_no_base64() -> None:
    status, lines = end(
        service_console("HostName=localhost;SharedAccessKeyName=service;SharedAccessKey=abc")
    )
    assert status == 1
    assert lines[1].endswith("HostName=localhost;SharedAccessKeyName=service;SharedAccessKey=***")


def test_the_service_says_that_its_sdk_is_missing(tmp_path: Path) -> None:
    (tmp_path / "uamqp.py").write_text("raise ImportError('no build for this machine')")
    with script_console(SERVICE_SCRIPT, PYTHONPATH=str(tmp_path)) as console:
        assert console.wait() == 1
    assert console.lines == []
    assert len(console.errors) == 1
    assert console.errors[0].startswith(
        "azure-iot-hub can't be imported: no build for this machine ("
    )


# --- No connection ---


def test_the_device_says_that_nothing_listens() -> None:
    with contextlib.suppress(OSError), socket.create_connection((NOBODY, 8883), timeout=1):
        pytest.skip(f"something listens on {NOBODY}:8883")
    status, lines = end(device_console(device_string(NOBODY)))
    assert status == 1
    assert lines[:-1] == DEVICE_START
    assert lines[-1].startswith("Unexpected error ")
    assert lines[-1].endswith("(check that the hub is running, and that port 8883 is open)")


@needs_service_sdk
def test_the_service_says_that_nothing_listens() -> None:
    connection_string = service_string(f"localhost:{free_port()}")
    status, lines = end(service_console(connection_string))
    assert status == 1
    assert lines[:-1] == [*service_start(connection_string), "Invoking device to reboot...", ""]
    assert lines[-1].startswith("Unexpected error ")
    assert lines[-1].endswith("(check that the hub is running)")


def test_the_device_says_that_the_name_does_not_resolve() -> None:
    status, lines = end(device_console(device_string("nosuchhub.invalid")))
    assert status == 1
    assert lines[:-1] == DEVICE_START
    assert lines[-1].startswith("Unexpected error ")
    assert lines[-1].endswith("(check HostName in the connection string)")


@needs_service_sdk
def test_the_service_says_that_the_name_does_not_resolve() -> None:
    connection_string = service_string("nosuchhub.invalid")
    status, lines = end(service_console(connection_string))
    assert status == 1
    assert lines[:-1] == [*service_start(connection_string), "Invoking device to reboot...", ""]
    assert lines[-1].startswith("Unexpected error ")
    assert lines[-1].endswith("(check HostName in the connection string)")


def test_the_device_says_that_the_certificate_is_not_trusted(certificate: Path) -> None:
    with serving((FRONT_DOOR, 8883), FrontDoor(0), certificate):
        status, lines = end(device_console(device_string(FRONT_DOOR)))
    assert status == 1
    assert lines[:-1] == DEVICE_START
    assert lines[-1].startswith("Unexpected error [SSL: CERTIFICATE_VERIFY_FAILED]")
    assert "SSL_CERT_FILE" in lines[-1]


@needs_service_sdk
def test_the_service_says_that_the_certificate_is_not_trusted(certificate: Path) -> None:
    handler, calls = rest_api((200, "", "{}"))
    with serving(("localhost", 0), handler, certificate) as port:
        connection_string = service_string(f"localhost:{port}")
        status, lines = end(service_console(connection_string))
    assert status == 1
    assert calls == []
    assert lines[:-1] == [*service_start(connection_string), "Invoking device to reboot...", ""]
    assert lines[-1].startswith("Unexpected error [SSL: CERTIFICATE_VERIFY_FAILED]")
    assert "REQUESTS_CA_BUNDLE" in lines[-1]


# --- The hub says no ---


def test_the_device_says_that_its_key_is_wrong(certificate: Path) -> None:
    with serving((FRONT_DOOR, 8883), FrontDoor(5), certificate):
        status, lines = end(
            device_console(device_string(FRONT_DOOR), SSL_CERT_FILE=str(certificate))
        )
    assert status == 1
    assert lines[:-1] == DEVICE_START
    assert lines[-1].startswith("Unexpected error Connection Refused: not authorised.")
    assert "SharedAccessKey" in lines[-1]


def nested(code: int, message: str) -> str:
    """The body of a failed direct method: a JSON text within a JSON text."""
    inner = {"errorCode": code, "trackingId": "0", "message": message, "info": {}}
    return json.dumps({"Message": json.dumps(inner), "ExceptionMessage": ""})


@needs_service_sdk
@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (
            (404, "DeviceNotOnline", nested(404103, "The device isn't online.")),
            "HTTP 404 Not Found: The device isn't online. "
            "(check that the device console is running)",
        ),
        (
            (404, "DeviceNotFound", nested(404001, "No such device.")),
            "HTTP 404 Not Found: No such device. (check the device id)",
        ),
        (
            (504, "GatewayTimeout", nested(504101, "Timed out waiting for the response.")),
            "HTTP 504 Gateway Timeout: Timed out waiting for the response. "
            "(the device took the call but did not answer in time)",
        ),
        (
            (
                401,
                "IotHubUnauthorizedAccess",
                '{"Message":"ErrorCode:IotHubUnauthorizedAccess;No"}',
            ),
            "HTTP 401 Unauthorized: ErrorCode:IotHubUnauthorizedAccess;No (check the policy's "
            "name, key and permissions: it needs service connect and registry read)",
        ),
        ((403, "", "<p>\nNot a hub\n</p>"), "HTTP 403 Forbidden: <p> Not a hub </p>"),
        ((503, "", ""), "HTTP 503 Service Unavailable"),
    ],
)
def test_the_service_says_what_the_hub_answered(
    certificate: Path, answer: tuple[int, str, str], line: str
) -> None:
    handler, calls = rest_api(answer)
    with serving(("localhost", 0), handler, certificate) as port:
        connection_string = service_string(f"localhost:{port}")
        status, lines = end(service_console(connection_string, REQUESTS_CA_BUNDLE=str(certificate)))
    assert status == 1
    assert lines == [
        *service_start(connection_string),
        "Invoking device to reboot...",
        "",
        f"Unexpected error {line}",
    ]
    method = {
        "methodName": "rebootDevice",
        "payload": '{"method_number":"42"}',
        "responseTimeoutInSeconds": 60,
    }
    assert calls == [("/twins/thermostat/methods", method)]


@needs_service_sdk
def test_the_service_ends_when_a_poll_fails(certificate: Path) -> None:
    handler, _ = rest_api(
        (200, "", '{"status": 200, "payload": {"Response": "yes"}}'),
        (404, "DeviceNotFound", '{"Message":"ErrorCode:DeviceNotFound;thermostat"}'),
    )
    with serving(("localhost", 0), handler, certificate) as port:
        connection_string = service_string(f"localhost:{port}")
        status, lines = end(service_console(connection_string, REQUESTS_CA_BUNDLE=str(certificate)))
    assert status == 1
    assert lines == [
        *service_start(connection_string),
        "Invoking device to reboot...",
        "",
        "Successfully invoked the device to reboot.",
        "",
        "{'Response': 'yes'}",
        "",
        "IoTHubClient waiting for commands, press Ctrl-C to exit",
        "",
        "Unexpected error HTTP 404 Not Found: ErrorCode:DeviceNotFound;thermostat "
        "(check the device id)",
    ]


# --- A lost connection ---


@posix_only
def test_the_device_outlives_a_lost_connection(certificate: Path) -> None:
    door = FrontDoor(0, 0, drops=1)
    with (
        serving((FRONT_DOOR, 8883), door, certificate),
        device_console(device_string(FRONT_DOOR), SSL_CERT_FILE=str(certificate)) as console,
    ):
        assert door.welcomed_all.wait(20)
        console.press_ctrl_c()
        assert end(console) == (0, [*DEVICE_START, DEVICE_STOP])


def test_the_device_ends_when_the_hub_no_longer_lets_it_in(certificate: Path) -> None:
    with serving((FRONT_DOOR, 8883), FrontDoor(0, 5, drops=1), certificate):
        status, lines = end(
            device_console(device_string(FRONT_DOOR), SSL_CERT_FILE=str(certificate))
        )
    assert status == 1
    assert lines[:-1] == DEVICE_START
    assert lines[-1].startswith("Unexpected error Connection Refused: not authorised.")


# --- Ctrl-C ---


@posix_only
def test_ctrl_c_ends_the_device_while_it_listens(certificate: Path) -> None:
    door = FrontDoor(0)
    with (
        serving((FRONT_DOOR, 8883), door, certificate),
        device_console(device_string(FRONT_DOOR), SSL_CERT_FILE=str(certificate)) as console,
    ):
        assert door.subscribed.wait(20)
        console.wait_for(re.escape(DEVICE_START[-1]), timeout=5)  # though it goes on running
        console.press_ctrl_c()
        assert end(console) == (0, [*DEVICE_START, DEVICE_STOP])


@posix_only
def test_ctrl_c_ends_the_device_while_it_connects() -> None:
    mute = Mute()
    with (
        serving((MUTE, 8883), mute),
        device_console(device_string(MUTE)) as console,
        ThreadPoolExecutor() as pool,
    ):
        assert mute.called.wait(20)
        began = time.monotonic()
        first = pool.submit(console.press_ctrl_c)
        time.sleep(1)
        console.press_ctrl_c()  # by somebody who can't wait
        first.result()
        # The SDK itself would wait 60 s for the TLS handshake. The script gives it 3 s.
        assert time.monotonic() - began < 10
        assert end(console) == (0, [*DEVICE_START, DEVICE_STOP])


@posix_only
@needs_service_sdk
def test_ctrl_c_ends_the_service_while_it_connects() -> None:
    mute = Mute()
    with serving(("localhost", 0), mute) as port:
        connection_string = service_string(f"localhost:{port}")
        with service_console(connection_string) as console:
            assert mute.called.wait(20)
            console.press_ctrl_c()
            status, lines = end(console)
    assert status == 0
    assert lines == [
        *service_start(connection_string),
        "Invoking device to reboot...",
        "",
        SERVICE_STOP,
    ]


@posix_only
@needs_service_sdk
@pytest.mark.parametrize(
    ("reported", "line"),
    [
        ({}, "Waiting for device to report last reboot time..."),
        ({"rebootTime": "2020-02-02"}, "Last reboot time: 2020-02-02"),
    ],
)
def test_ctrl_c_ends_the_service_while_it_polls(
    certificate: Path, reported: dict[str, str], line: str
) -> None:
    handler, _ = rest_api(
        (200, "", '{"status": 200, "payload": null}'),
        (200, "", json.dumps({"properties": {"desired": {}, "reported": reported}})),
    )
    with serving(("localhost", 0), handler, certificate) as port:
        connection_string = service_string(f"localhost:{port}")
        with service_console(connection_string, REQUESTS_CA_BUNDLE=str(certificate)) as console:
            console.wait_for(re.escape(line), timeout=20)
            console.press_ctrl_c()
            status, lines = end(console)
    assert status == 0
    assert lines[-3:] == [line, "", SERVICE_STOP]
