"""A hub in the cloud, with the part of the test kit that a service can do over HTTPS."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self
from urllib.parse import quote

from emulator import connection_strings
from emulator.client import Client
from emulator.errors import ClientError
from emulator.hub.access.keys import SymmetricKeys, key_document
from emulator.hub.core import errors
from emulator.hub.core.json import includes
from emulator.hub.waits import WaitTimeout
from emulator.testing.environment import set_variables
from emulator.testing.values import MethodAnswer

_REQUEST_SECONDS = 330.0  # a direct method can take 300
_POLL_SECONDS = 0.5
# A hub in the cloud is further away than the emulator.
_WAIT_SECONDS = 60.0


class RealHub:
    """A hub in the cloud. At the end of its block it deletes the devices that it registered.

    What it does not have, such as `events`, only the emulator can do.

    Args:
        connection_string: a service's, of a policy with every right.
    """

    def __init__(self, connection_string: str) -> None:
        self.service_connection_string = connection_string
        self._client = Client(connection_string, timeout=_REQUEST_SECONDS)
        self._devices: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for device_id in list(self._devices):
            self.remove_device(device_id)

    def __getattr__(self, name: str) -> Any:
        """Explain that a name of the test kit is the emulator's alone."""
        known = ", ".join(each for each in vars(RealHub) if each[0] != "_")
        raise AttributeError(
            f"A real hub has no {name!r} for tests. Leave the marker iothub_real out, or use "
            f"one of {known}."
        )

    def register_device(
        self,
        device_id: str,
        *,
        tags: Mapping[str, Any] | None = None,
        desired: Mapping[str, Any] | None = None,
    ) -> str:
        """Register a device with new keys, and return its connection string."""
        keys = SymmetricKeys.generate()
        authentication = {"type": "sas", "symmetricKey": key_document(keys)}
        body = {"deviceId": device_id, "authentication": authentication}
        self._request("PUT", f"/devices/{_quoted(device_id)}", body)
        host = self._client.host.partition(":")[0]
        string = connection_strings.for_device(host, device_id, keys.primary)
        self._devices[device_id] = string
        if tags or desired:
            self.update_twin(device_id, tags=tags, desired=desired)
        return string

    def remove_device(self, device_id: str) -> None:
        """Delete a device, if it is still there."""
        self._devices.pop(device_id, None)
        try:
            self._request("DELETE", f"/devices/{_quoted(device_id)}")
        except errors.DeviceNotFound:
            return

    def device_connection_string(self, device_id: str) -> str:
        """Return the connection string of a device that the test registered."""
        return self._devices[device_id]

    def twin(self, device: str) -> dict[str, Any]:
        """Return the twin of a device."""
        twin: dict[str, Any] = self._request("GET", f"/twins/{_quoted(device)}")
        return twin

    def update_twin(
        self,
        device: str,
        *,
        tags: Mapping[str, Any] | None = None,
        desired: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Merge tags and desired properties into a twin, and return it."""
        body = {"tags": tags or {}, "properties": {"desired": desired or {}}}
        twin: dict[str, Any] = self._request("PATCH", f"/twins/{_quoted(device)}", body)
        return twin

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Return the first page of a query."""
        rows: list[dict[str, Any]] = self._request("POST", "/devices/query", {"query": sql})
        return rows

    def invoke(
        self,
        device: str,
        method: str,
        payload: Any = None,
        *,
        timeout: int = int(_WAIT_SECONDS),
        connect_timeout: int | None = None,
    ) -> MethodAnswer:
        """Invoke a direct method, and return the answer of the device; see `AioKit.invoke`."""
        body = {
            "methodName": method,
            "payload": payload,
            "responseTimeoutInSeconds": timeout,
            "connectTimeoutInSeconds": timeout if connect_timeout is None else connect_timeout,
        }
        answer = self._request("POST", f"/twins/{_quoted(device)}/methods", body)
        return MethodAnswer(answer["status"], answer["payload"])

    def wait_until_connected(self, device: str, *, timeout: float = _WAIT_SECONDS) -> None:
        """Wait until a device is connected.

        Raises:
            WaitTimeout
        """
        _poll(
            lambda: self.twin(device),
            lambda twin: twin["connectionState"] == "Connected",
            f"{device!r} did not connect",
            timeout,
        )

    def wait_for_reported(
        self, device: str, subset: Mapping[str, Any], *, timeout: float = _WAIT_SECONDS
    ) -> dict[str, Any]:
        """Wait until the reported properties include others, and return all of them.

        Raises:
            WaitTimeout
        """
        twin = _poll(
            lambda: self.twin(device),
            lambda twin: includes(twin["properties"]["reported"], dict(subset)),
            f"{device!r} did not report {json.dumps(dict(subset))}",
            timeout,
        )
        reported = twin["properties"]["reported"]
        return {name: value for name, value in reported.items() if name[0] != "$"}

    def environment(self, device_id: str | None = None) -> dict[str, str]:
        """Return the environment variables for programs; the public roots are trusted already."""
        variables = {"IOTHUB_CONNECTION_STRING": self.service_connection_string}
        if device_id is not None:
            variables["IOTHUB_DEVICE_ID"] = device_id
            variables["IOTHUB_DEVICE_CONNECTION_STRING"] = self._devices[device_id]
        return variables

    @contextmanager
    def patch_environment(self, device_id: str | None = None) -> Iterator[dict[str, str]]:
        """Set the variables of `environment` in this process; restore the old ones at the end."""
        variables = self.environment(device_id)
        with set_variables(variables):
            yield variables

    def _request(self, verb: str, path: str, body: object = None) -> Any:
        """Send a request, and return its JSON answer.

        Raises:
            HubError: the hub refuses the request.
            ClientError: the hub can't be reached.
        """
        headers = {} if verb == "PUT" else {"If-Match": "*"}  # PUT makes a new device
        try:
            return self._client.request(verb, path, body, headers=headers).json()
        except ClientError as error:
            kinds = {each.__name__: each for each in errors.HubError.__subclasses__()}
            if error.code in kinds:
                raise kinds[error.code](str(error)) from None
            raise


def _quoted(device_id: str) -> str:
    return quote(device_id, safe="")


def _poll(
    read: Callable[[], dict[str, Any]],
    holds: Callable[[dict[str, Any]], bool],
    failed: str,
    seconds: float,
) -> dict[str, Any]:
    """Read a document until a condition holds, and return it."""
    deadline = time.monotonic() + seconds
    while not holds(document := read()):
        if time.monotonic() > deadline:
            raise WaitTimeout(f"{failed} within {seconds:g} s.\n  {document}", document)
        time.sleep(_POLL_SECONDS)
    return document
