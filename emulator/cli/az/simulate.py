"""`simulate`: devices that send telemetry, answer methods, and report what is desired."""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import re
import secrets
import ssl
import sys
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

from emulator import event_loop
from emulator.cli.az import credentials
from emulator.cli.az import options as o
from emulator.cli.az.command import Command
from emulator.cli.az.mqtt_device import MqttDevice
from emulator.cli.az.output import Picker, picker, show
from emulator.cli.az.session import Hub, path
from emulator.cli.az.values import parse_json
from emulator.cli.output import complain
from emulator.cli.parser import UsageError
from emulator.cli.process import on_signals
from emulator.client import sas_token
from emulator.errors import ClientError
from emulator.mqtt.frame import Publish
from emulator.settings import MQTT_PORT

_METHOD = re.compile(r"\$iothub/methods/POST/([^/]*)/\?\$rid=(.*)")
_DESIRED = "$iothub/twin/PATCH/properties/desired/"
_REPORTED = "$iothub/twin/PATCH/properties/reported/?$rid="
_TOKEN_SECONDS = 7 * 24 * 3600  # a run is shorter: the token is not renewed
_READERS = 8  # how many devices are read at once
_MOST_CREATED = 100  # by one request
_MOST_CONNECTING = 32


def simulate(hub: Hub, options: argparse.Namespace) -> None:
    """Simulate devices until all messages are sent, or until Ctrl-C."""
    certificate = (options.certificate_file_path, options.key_file_path)
    if any(certificate) and not all(certificate):
        raise UsageError("--certificate-file-path and --key-file-path belong together")
    if options.count and (options.symmetric_key or any(certificate)):
        raise UsageError("--count has no use for the key or the certificate of one device")
    event_loop.run(_Simulation(hub, options).run(_keys(hub, options)))


def _keys(hub: Hub, options: argparse.Namespace) -> dict[str, str | None]:
    """Return the key of each device; None with a certificate. Missing ones of many are created."""
    device_id = options.device_id
    if options.certificate_file_path or options.symmetric_key:
        return {device_id: options.symmetric_key}
    if not options.count:
        return {device_id: credentials.key_of(hub.get("devices", device_id))}
    names = [f"{device_id}-{number}" for number in range(1, options.count + 1)]
    hub.client  # noqa: B018 - found once, before the threads
    with ThreadPoolExecutor(_READERS) as threads:
        found = dict(zip(names, threads.map(lambda name: _key(hub, name), names), strict=True))
    missing = [name for name, key in found.items() if key is None]
    for start in range(0, len(missing), _MOST_CREATED):
        found |= _create(hub, missing[start : start + _MOST_CREATED])
    if missing:
        complain(f"emulator: Created {len(missing)} devices.")
    return found


def _key(hub: Hub, device_id: str) -> str | None:
    try:
        return credentials.key_of(hub.get("devices", device_id))
    except ClientError as error:
        if error.code != "DeviceNotFound":
            raise
        return None


def _create(hub: Hub, names: Sequence[str]) -> dict[str, str | None]:
    keys = {name: base64.b64encode(secrets.token_bytes(32)).decode() for name in names}
    documents = [
        {
            "id": name,
            "importMode": "create",
            "status": "enabled",
            "authentication": {
                "type": "sas",
                "symmetricKey": {"primaryKey": key, "secondaryKey": key},
            },
        }
        for name, key in keys.items()
    ]
    hub.send("POST", "devices", body=documents)
    return dict(keys)


class _Simulation:
    """Devices that run until they have sent everything."""

    def __init__(self, hub: Hub, options: argparse.Namespace) -> None:
        info, host = hub.emulator, hub.device_host
        port = MQTT_PORT if info is None else info["ports"]["mqtt"]
        self._address = (host.strip("[]"), port)
        self._host = host
        self._options = options
        self._pick: Picker = picker(options.query)
        self._context = hub.client.tls_context()
        if options.certificate_file_path:
            files = (options.certificate_file_path, options.key_file_path)
            try:
                self._context.load_cert_chain(*files, password=options.passphrase or "")
            except (OSError, ssl.SSLError) as error:
                raise UsageError(f"Can't use {files[0]} and {files[1]}: {error}") from None
        self._sent = 0
        self._slots = asyncio.Semaphore(_MOST_CONNECTING)

    async def run(self, keys: dict[str, str | None]) -> None:
        """Run the devices, by their keys.

        Raises:
            ClientError: a device can't connect, or loses its connection.
        """
        stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        on_signals(lambda: None if stop.done() else stop.set_result(None))
        devices = asyncio.gather(*(self._device(*each) for each in keys.items()))
        await asyncio.wait((devices, stop), return_when=asyncio.FIRST_COMPLETED)
        if sys.stderr.isatty():
            print(file=sys.stderr)
        if not devices.done():
            devices.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await devices

    async def _device(self, device_id: str, key: str | None) -> None:
        options = self._options
        resource = self._host + path("devices", device_id)
        device = MqttDevice(
            self._address,
            self._context,
            host=self._host,
            device_id=device_id,
            token=None if key is None else sas_token(resource, key, _TOKEN_SECONDS),
            model_id=options.model_id,
            receive=self._receive,
        )
        async with self._slots:
            await device.connect()
        try:
            bound = f"devices/{device_id}/messages/devicebound/#"
            await device.subscribe(["$iothub/methods/POST/#", f"{_DESIRED}#", bound])
            if options.init_reported_properties is not None:
                content = json.dumps(options.init_reported_properties).encode()
                await device.publish(f"{_REPORTED}1", content)
            await self._send(device)
        finally:
            await device.close()

    async def _send(self, device: MqttDevice) -> None:
        options, number = self._options, 0
        properties = {"$.ct": "application/json", "$.ce": "utf-8", **options.properties}
        bag = "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in properties.items())
        topic = f"devices/{device.device_id}/messages/events/{bag}"
        while not options.msg_count or number < options.msg_count:
            number += 1
            body = {
                "id": str(uuid.uuid4()),
                "timestamp": str(datetime.now(UTC).replace(tzinfo=None)),
                "data": f"{options.data} #{number}",
            }
            await device.publish(topic, json.dumps(body).encode())
            self._count()
            await asyncio.sleep(options.msg_interval)

    def _count(self) -> None:
        self._sent += 1
        if sys.stderr.isatty():
            total = self._options.msg_count * (self._options.count or 1)
            of = f" of {total}" if total else ""
            print(f"\rMessages sent: {self._sent}{of}", end="", file=sys.stderr, flush=True)

    def _receive(self, device: MqttDevice, message: Publish) -> None:
        if method := _METHOD.fullmatch(message.topic):
            self._answer(device, unquote(method[1]), method[2], _document(message.payload))
        elif message.topic.startswith(_DESIRED):
            patch = _document(message.payload)
            values = {name: value for name, value in patch.items() if not name.startswith("$")}
            self._show(device, desired=patch)
            if values:
                device.answer(f"{_REPORTED}2", json.dumps(values).encode())
        elif message.topic.startswith("devices/"):
            bag = message.topic.partition("/messages/devicebound/")[2]
            pairs = (pair.partition("=") for pair in bag.split("&") if pair)
            properties = {unquote(name): unquote(value) for name, _, value in pairs}
            data = message.payload.decode(errors="backslashreplace")
            self._show(device, message={"data": data, "properties": properties})

    def _answer(self, device: MqttDevice, name: str, request_id: str, payload: Any) -> None:
        options = self._options
        status, response = options.method_response_code, options.method_response_payload
        if response is None:
            response = {
                "methodName": name,
                "methodRequestId": request_id,
                "methodRequestPayload": payload,
            }
        self._show(device, method={"name": name, "payload": payload, "status": status})
        topic = f"$iothub/methods/res/{status}/?$rid={request_id}"
        device.answer(topic, json.dumps(response).encode())

    def _show(self, device: MqttDevice, **what: Any) -> None:
        document = {"deviceId": device.device_id, **what}
        show(self._pick(document), self._options.output)


def _document(payload: bytes) -> Any:
    try:
        return parse_json(payload) if payload else None
    except ValueError:
        return payload.decode(errors="backslashreplace")


COMMANDS: tuple[Command, ...] = (
    Command(
        "simulate",
        "simulate a device, or many: telemetry, methods, twin and messages",
        simulate,
        (o.DEVICE, o.DATA, o.PROPERTIES, *o.SIMULATE),
        "-d kitchen --msg-count 10 --msg-interval 1",
    ),
)
