"""Helpers of the REST tests: documents, errors, tokens, and devices that answer direct methods."""

from __future__ import annotations

import http.client
import itertools
import json
import queue
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlencode

import requests
from paho.mqtt.client import Client, MQTTMessage, MQTTv311

from emulator import Emulator
from tests.hub.uploads.shelf import Shelf
from tests.support import API_VERSION, PATIENCE, Device, Service, own, sas_token, trust

JSON_TYPE = "application/json; charset=utf-8"
ANY: dict[str, str | None] = {"If-Match": "*"}
EDGE = {"capabilities": {"iotEdge": True}}
NEVER = "0001-01-01T00:00:00Z"
MOMENT = re.compile(r"2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,6}[1-9])?Z")

_TRACKING = re.compile(
    r"Tracking ID:[0-9a-fA-F]{32}(-G:\d+)?-TimeStamp:\d\d/\d\d/\d{4} \d\d:\d\d:\d\d"
)
_FLAT_TRACKING = re.compile(r"[0-9A-F]{32}-G2:-TimeStamp:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d.*Z.*")


# --- errors


def _check_error(response: requests.Response, status: int, name: str) -> Any:
    assert response.status_code == status, response.text
    assert response.headers["iothub-errorcode"] == name
    assert response.headers["Content-Type"] == JSON_TYPE
    return response.json()


def check_error(response: requests.Response, status: int, name: str) -> str:
    """Check an error in the usual form, `{"Message", "ExceptionMessage"}`; return its text."""
    body = _check_error(response, status, name)
    assert list(body) == ["Message", "ExceptionMessage"]
    message: str = body["Message"]
    error_code, _, text = message.partition(";")
    assert error_code == f"ErrorCode:{name}"
    # The SDK for Node splits at ';', and needs two parts.
    assert text
    assert _TRACKING.fullmatch(body["ExceptionMessage"])
    return text


def check_flat_error(response: requests.Response, code: int, name: str) -> str:
    """Check an error of a module identity, which is a flat object; return its text."""
    return _check_flat(_check_error(response, code // 1000, name), code)


def check_nested_error(response: requests.Response, code: int, name: str) -> dict[str, Any]:
    """Check an error of a direct method, whose `Message` is JSON text; return what is in it."""
    body = _check_error(response, code // 1000, name)
    assert list(body) == ["Message", "ExceptionMessage"]
    inner: dict[str, Any] = json.loads(body["Message"])
    _check_flat(inner, code)
    return inner


def _check_flat(body: dict[str, Any], code: int) -> str:
    assert set(body) == {"errorCode", "trackingId", "message", "timestampUtc", "info"}
    assert body["errorCode"] == code
    assert _FLAT_TRACKING.fullmatch(body["trackingId"])
    message: str = body["message"]
    assert message
    return message


# --- documents and identities


def read(service: Service, path: str, **params: str) -> Any:
    """Read a JSON document."""
    query = {"api-version": API_VERSION, **params}
    response = service.request("GET", path, params=query)
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == JSON_TYPE
    return response.json()


def desired(service: Service, path: str) -> dict[str, Any]:
    """Read the desired properties of a device, or of a module (`device/modules/module`)."""
    return own(read(service, f"/twins/{path}")["properties"]["desired"])


def new_id(prefix: str = "device") -> str:
    """Return an id that no other test uses."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def register(emulator: Emulator, device_id: str) -> Device:
    """Register a device without a request."""
    return Device.of(emulator.register_device(device_id))


@contextmanager
def registered(emulator: Emulator, janitor: Service, device_id: str = "") -> Iterator[Device]:
    """Register a device; it is deleted after the block."""
    device = register(emulator, device_id or new_id())
    yield device
    janitor.request("DELETE", f"/devices/{device.id}", headers=ANY)


def put_device(service: Service, device_id: str, **members: Any) -> Any:
    """Create a device; return its document."""
    body = {"deviceId": device_id, **members}
    response = service.request("PUT", f"/devices/{device_id}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def update_device(service: Service, device_id: str, **members: Any) -> requests.Response:
    """Replace a device's identity, whatever its etag is."""
    body = {"deviceId": device_id, **members}
    return service.request("PUT", f"/devices/{device_id}", json=body, headers=ANY)


# --- emulators, connections and tokens


def https_connection(emulator: Emulator) -> http.client.HTTPSConnection:
    """Make an HTTPS connection on which an answer can be read later, or piece by piece."""
    return http.client.HTTPSConnection(
        emulator.host_name, emulator.https_port, context=trust(emulator), timeout=2 * PATIENCE
    )


def policy_token(
    emulator: Emulator, policy: str, *, resource: str = "", lifetime: float = 3600
) -> str:
    """Sign a token with a policy's key, for the whole hub unless a resource is named."""
    key, _ = emulator.settings.key_pair(policy)
    return sas_token(resource or emulator.https_host, key, policy=policy, lifetime=lifetime)


def device_token(emulator: Emulator, device: Device) -> str:
    """Sign a token with a device's key."""
    return sas_token(f"{emulator.https_host}/devices/{device.id}", device.key)


# --- uploads


def report_upload(
    emulator: Emulator, device: Device, shelf: Shelf, name: str, **report: object
) -> None:
    """Start an upload and report its end, as a device over HTTPS; the file is on the shelf."""
    headers = {"Authorization": device_token(emulator, device)}
    url = f"https://{emulator.https_host}/devices/{device.id}/files"
    with requests.Session() as session:
        session.verify, session.params = str(emulator.ca_file), {"api-version": API_VERSION}
        started = session.post(url, json={"blobName": name}, headers=headers, timeout=PATIENCE)
        assert started.status_code == 200, started.text
        shelf.put(started.json()["blobName"])
        body = {"correlationId": started.json()["correlationId"], "isSuccess": True, **report}
        answer = session.post(url + "/notifications", json=body, headers=headers, timeout=PATIENCE)
        assert answer.status_code == 204, answer.text


# --- direct methods


def invoke(service: Service, device_id: str, **members: Any) -> requests.Response:
    """Invoke the direct method `m`, or the one that the members of the body name."""
    body = {"methodName": "m", **members}
    return service.request("POST", f"/twins/{device_id}/methods", json=body)


@contextmanager
def sent_call(emulator: Emulator, path: str, body: object, **params: object) -> Iterator[SentCall]:
    """Send a POST of a service, without waiting for its answer."""
    connection = https_connection(emulator)
    try:
        connection.request(
            "POST",
            f"{path}?{urlencode({'api-version': API_VERSION, **params})}",
            body=json.dumps(body),
            headers={"Authorization": policy_token(emulator, "service")},
        )
        yield SentCall(connection)
    finally:
        connection.close()


class SentCall(NamedTuple):
    """A request that waits for its answer."""

    connection: http.client.HTTPSConnection

    def answer(self) -> Any:
        """Wait for a 200; return its JSON."""
        response = self.connection.getresponse()
        text = response.read()
        assert response.status == 200, text
        return json.loads(text)


class Call(NamedTuple):
    """A direct method as it reached the device."""

    name: str
    payload: bytes
    request_id: str


# Returns the status and the body of an answer; None sends no answer.
AnswerMethod = Callable[[Call], "tuple[int, bytes] | None"]


class MethodDevice:
    """A connected device, without an SDK, which receives direct methods: a `with` block.

    Args:
        answer: makes the answer of each call; it runs in the device's own thread.
        subscribe: the topic filter of the methods that the device accepts.
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
        # No reconnect: a device that the hub disconnects stays away.
        self._client = Client(device.id, protocol=MQTTv311, reconnect_on_failure=False)
        self._client.tls_set_context(trust(emulator))
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

    def __exit__(self, *_: object) -> None:
        self.disconnect()
        self._client.loop_stop()

    def next_call(self) -> Call:
        """Wait for the next direct method."""
        return self.calls.get(timeout=PATIENCE)

    def reply(self, request_id: str, status: int, body: bytes) -> None:
        """Answer a direct method."""
        self._client.publish(f"$iothub/methods/res/{status}/?$rid={request_id}", body)

    def report(self, patch: str) -> None:
        """Patch the reported properties, and wait for the hub's answer."""
        number = next(self._numbers)
        self._client.publish(f"$iothub/twin/PATCH/properties/reported/?$rid={number}", patch)
        topic = self._twin_answers.get(timeout=PATIENCE)
        assert topic.startswith("$iothub/twin/res/204/"), topic

    def disconnect(self) -> None:
        """Send DISCONNECT, and wait for the end of the connection."""
        self._client.disconnect()
        self.wait_until_gone()

    def wait_until_gone(self) -> None:
        """Wait for the end of the connection."""
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
    """Send no answer."""
