"""What the tests of the REST head share: the forms of an error, and a device that takes methods."""

from __future__ import annotations

import http.client
import itertools
import json
import queue
import re
import ssl
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import requests
from paho.mqtt.client import Client, MQTTMessage, MQTTv311

from emulator import Emulator
from tests.support import API_VERSION, Device, Service, sas_token

# Longer than anything here takes on a busy machine: waiting ends by the event, not by this.
PATIENCE = 30.0

_TRACKING = re.compile(
    r"Tracking ID:[0-9a-fA-F]{32}(-G:\d+)?-TimeStamp:\d\d/\d\d/\d{4} \d\d:\d\d:\d\d"
)
_FLAT_TRACKING = re.compile(r"[0-9A-F]{32}-G2:-TimeStamp:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d.*Z.*")


def check_error(response: requests.Response, status: int, name: str) -> str:
    """Check an error in the usual form, `{"Message", "ExceptionMessage"}`; gives its text."""
    assert response.status_code == status, response.text
    assert response.headers["iothub-errorcode"] == name
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    body = response.json()
    assert list(body) == ["Message", "ExceptionMessage"]
    message: str = body["Message"]
    error_code, _, text = message.partition(";")
    assert error_code == f"ErrorCode:{name}"
    # The SDK for Node splits at ';', and needs two parts.
    assert text
    assert _TRACKING.fullmatch(body["ExceptionMessage"])
    return text


def check_nested_error(response: requests.Response, code: int, name: str) -> dict[str, Any]:
    """Check an error of a direct method, whose `Message` is JSON text; gives what is in it."""
    assert response.status_code == code // 1000, response.text
    assert response.headers["iothub-errorcode"] == name
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    body = response.json()
    assert list(body) == ["Message", "ExceptionMessage"]
    assert isinstance(body["Message"], str)
    inner: dict[str, Any] = json.loads(body["Message"])
    assert set(inner) == {"errorCode", "trackingId", "message", "timestampUtc", "info"}
    assert inner["errorCode"] == code
    assert inner["message"]
    assert _FLAT_TRACKING.fullmatch(inner["trackingId"])
    return inner


def put_device(service: Service, device_id: str, **members: Any) -> dict[str, Any]:
    """Create a device; gives its document."""
    response = service.request(
        "PUT", f"/devices/{device_id}", json={"deviceId": device_id, **members}
    )
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


def invoke(service: Service, device_id: str, **members: Any) -> requests.Response:
    """Invoke the direct method `m`, with the members of the body that are given."""
    body = {"methodName": "m", **members}
    return service.request("POST", f"/twins/{device_id}/methods", json=body)


@contextmanager
def sent_call(emulator: Emulator, device_id: str, **members: Any) -> Iterator[SentCall]:
    """Send a direct method call, without waiting for its answer."""
    connection = http.client.HTTPSConnection(
        emulator.host_name,
        emulator.https_port,
        context=ssl.create_default_context(cafile=emulator.ca_file),
        timeout=2 * PATIENCE,
    )
    policy = "service"
    key, _ = emulator.settings.key_pair(policy)
    path = f"/twins/{device_id}/methods?api-version={API_VERSION}"
    body = json.dumps({"methodName": "m", **members})
    token = sas_token(emulator.https_host, key, policy=policy)
    try:
        connection.request("POST", path, body=body, headers={"Authorization": token})
        yield SentCall(connection)
    finally:
        connection.close()


class SentCall(NamedTuple):
    """A direct method call that is open."""

    connection: http.client.HTTPSConnection

    def answer(self) -> dict[str, Any]:
        """Wait for its answer: a 200."""
        response = self.connection.getresponse()
        text = response.read()
        assert response.status == 200, text
        answer: dict[str, Any] = json.loads(text)
        return answer


class Call(NamedTuple):
    """A direct method as it reached the device."""

    name: str
    payload: bytes
    request_id: str


# The status and the body to answer with; None answers nothing.
AnswerMethod = Callable[[Call], "tuple[int, bytes] | None"]


class MethodDevice:
    """A connected device, without an SDK, which takes direct methods: a `with` block.

    Args:
        answer: makes the answer of each call; it runs in the device's own thread.
        subscribe: the topic filter of the methods that it listens for.
    """

    def __init__(
        self,
        emulator: Emulator,
        device: Device,
        answer: AnswerMethod,
        *,
        subscribe: str = "$iothub/methods/POST/#",
    ) -> None:
        self._emulator = emulator
        self._answer = answer
        self._filter = subscribe
        self._subscribed = threading.Event()
        self._gone = threading.Event()
        self._twin_answers: queue.Queue[str] = queue.Queue()
        self._numbers = itertools.count(1)
        self.calls: queue.Queue[Call] = queue.Queue()
        host = emulator.host_name
        # No reconnect: a device that the hub drops stays away.
        self._client = Client(device.id, protocol=MQTTv311, reconnect_on_failure=False)
        self._client.tls_set_context(ssl.create_default_context(cafile=emulator.ca_file))
        self._client.username_pw_set(
            f"{host}/{device.id}/?api-version={API_VERSION}",
            sas_token(f"{host}/devices/{device.id}", device.key),
        )
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_disconnect = lambda *_: self._gone.set()
        self._client.on_message = self._on_message

    def __enter__(self) -> MethodDevice:
        self._client.connect(self._emulator.host_name, self._emulator.mqtt_port)
        self._client.loop_start()
        assert self._subscribed.wait(PATIENCE)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.disconnect()
        self._client.loop_stop()

    def next_call(self) -> Call:
        """Wait for the next direct method."""
        return self.calls.get(timeout=PATIENCE)

    def reply(self, request_id: str, status: int, body: bytes) -> None:
        """Answer a direct method."""
        self._client.publish(f"$iothub/methods/res/{status}/?$rid={request_id}", body)

    def report(self, patch: str) -> None:
        """Patch the reported properties, and wait for the hub to have taken it."""
        number = next(self._numbers)
        self._client.publish(f"$iothub/twin/PATCH/properties/reported/?$rid={number}", patch)
        topic = self._twin_answers.get(timeout=PATIENCE)
        assert topic.startswith("$iothub/twin/res/204/"), topic

    def disconnect(self) -> None:
        """Say goodbye, and leave."""
        self._client.disconnect()
        self.wait_until_gone()

    def wait_until_gone(self) -> None:
        """Wait for the connection to have ended."""
        assert self._gone.wait(PATIENCE)

    def _on_connect(self, client: Client, *_: object) -> None:
        client.subscribe([(self._filter, 0), ("$iothub/twin/res/#", 0)])

    def _on_message(self, client: Client, user_data: object, message: MQTTMessage) -> None:
        request = re.fullmatch(r"\$iothub/methods/POST/([^/]+)/\?\$rid=(.+)", message.topic)
        if request is None:
            self._twin_answers.put(message.topic)
            return
        call = Call(request[1], message.payload, request[2])
        self.calls.put(call)
        answer = self._answer(call)
        if answer is not None:
            self.reply(call.request_id, *answer)


def echo(call: Call) -> tuple[int, bytes]:
    """Answer a call with its own payload."""
    return 200, call.payload


def silence(call: Call) -> None:
    """Answer nothing."""
