"""The service over plain HTTPS that the command and the test kit share."""

from __future__ import annotations

import itertools
import re
import socket
import threading
from pathlib import Path

import pytest

from emulator import Emulator
from emulator.client import Client
from emulator.errors import ClientError
from emulator.program import program
from tests.http.support import device_token, new_id
from tests.support import Device

POLICY = "SharedAccessKeyName=iothubowner;SharedAccessKey=YWJj"


@pytest.fixture
def client(emulator: Emulator) -> Client:
    return Client(emulator.service_connection_string, trust=emulator.ca_file)


def test_documents_and_bytes_go_both_ways(client: Client, device: Device) -> None:
    assert client.get(f"/devices/{device.id}")["deviceId"] == device.id
    assert client.get("/devices", top="1")[0]["deviceId"]
    query = client.post("/devices/query", {"query": "SELECT COUNT() AS n FROM devices"})
    assert query[0]["n"] >= 1
    etag = client.request("GET", f"/devices/{device.id}").headers["ETag"]
    body = {"deviceId": device.id, "statusReason": "x"}
    answer = client.request("PUT", f"/devices/{device.id}", body, headers={"If-Match": etag})
    assert answer.json()["statusReason"] == "x"
    assert client.post(f"/_emulator/devices/{device.id}/messages", b'{"body": "x"}') is None


def test_a_stream_brings_documents_as_they_come(
    client: Client, emulator: Emulator, device: Device
) -> None:
    start = emulator.hub.events.end
    events = client.stream("/_emulator/events", **{"from": str(start), "device": device.id})

    def send() -> None:
        for number in range(3):
            client.request(
                "POST", f"/devices/{device.id}/messages/events", {"n": number}, headers=headers
            )

    headers = {"Authorization": device_token(emulator, device)}
    sender = threading.Timer(0.1, send)
    sender.start()
    found = [event["body"] for event in itertools.islice(events, 3)]
    sender.join()
    assert found == ['{"n": 0}', '{"n": 1}', '{"n": 2}']


def test_a_refusal_has_status_code_and_one_line(client: Client) -> None:
    unknown = new_id()
    with pytest.raises(ClientError) as error:
        client.get(f"/devices/{unknown}")
    assert (error.value.status, error.value.code) == (404, "DeviceNotFound")
    assert f"answers 404 DeviceNotFound: {unknown}" in str(error.value)
    with pytest.raises(ClientError, match="is not an emulator, or an older one: no /_emulator/x"):
        client.get("/_emulator/x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "HostName=a",
        f"HostName=;{POLICY}",
        f"HostName=a:b;{POLICY}",
        f"HostName=a/b;{POLICY}",
        f"HostName=a:99999;{POLICY}",
        "HostName=a;SharedAccessKeyName=b;SharedAccessKey=%",
    ],
)
def test_a_connection_string_that_is_malformed(text: str) -> None:
    with pytest.raises(ClientError, match=r"^Invalid connection string of a service\. Use Host"):
        Client(text)


def test_a_file_of_certificates_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match=r"^Can't read the certificates in .*none"):
        Client(f"HostName=a;{POLICY}", trust=tmp_path / "none")


def test_a_hub_that_does_not_answer(emulator: Emulator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        client = Client(f"HostName={host};{POLICY}", timeout=0.2)
        with pytest.raises(ClientError, match=rf"^Can't reach the hub at {host}: no answer within"):
            client.get("/devices")
    with pytest.raises(
        ClientError, match=rf"connection refused\. Start it: {re.escape(program())}$"
    ):
        client.get("/devices")


def test_a_server_that_is_not_a_hub() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = Client(f"HostName=127.0.0.1:{server.getsockname()[1]};{POLICY}", timeout=5)

        def answer() -> None:
            connection, _ = server.accept()
            connection.recv(1)
            connection.sendall(b"SSH-2.0-OpenSSH\r\n")
            connection.close()

        threading.Thread(target=answer).start()
        with pytest.raises(ClientError, match=r"^Can't reach the hub at 127\.0\.0\.1:\d+: .+\.$"):
            client.get("/devices")
