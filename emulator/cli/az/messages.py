"""`c2d-message`: cloud-to-device messages, as a service sends and as a device receives them."""

from __future__ import annotations

import argparse
import base64
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from emulator.cli.az import feedback
from emulator.cli.az import options as o
from emulator.cli.az.command import Command
from emulator.cli.az.session import Hub, precondition
from emulator.cli.parser import UsageError

_SETTLED = ("complete", "abandon", "reject")
_APPLICATION = "iothub-app-"
# The headers of a message that az shows (azure-iot-cli-extension: constants.py).
_SYSTEM = (
    *("iothub-ack", "iothub-correlationid", "iothub-deliverycount", "iothub-enqueuedtime"),
    *("iothub-expiry", "iothub-messageid", "iothub-sequencenumber", "iothub-to", "iothub-userid"),
    *("iothub-messagelocktoken", "contentencoding", "contenttype"),
)
# The names of az, with those of the emulator's route.
_MEMBERS = {
    "messageId": "message_id",
    "correlationId": "correlation_id",
    "userId": "user_id",
    "contentType": "content_type",
    "contentEncoding": "content_encoding",
    "ack": "ack",
}


def send(hub: Hub, options: argparse.Namespace) -> None:
    """Send a message to a device."""
    if options.wait and not options.ack:
        raise UsageError("--wait needs --ack: positive, negative or full")
    body = options.data.encode() if options.data_file_path is None else options.data_file_path
    message = {
        name: value
        for name, member in _MEMBERS.items()
        if (value := getattr(options, member)) is not None
    }
    message.setdefault("messageId", str(uuid.uuid4()))
    if options.expiry_time_utc is not None:
        if options.expiry_time_utc < time.time() * 1000:
            raise UsageError("--expiry-time-utc is in the past: use ms since 1970")
        expiry = datetime.fromtimestamp(options.expiry_time_utc / 1000, UTC)
        message["expiryTimeUtc"] = expiry.isoformat().replace("+00:00", "Z")
    if hub.emulator is None:
        # Imported here: it needs the SDKs of an extra.
        from emulator.cli.az.real_hub import send_command

        send_command(hub.client, options.device_id, body, message, options.properties)
    else:
        content = {"bodyBase64": base64.b64encode(body).decode()}
        document = {**content, "properties": options.properties, **message}
        hub.send("POST", "_emulator", "devices", options.device_id, "messages", body=document)
    if options.wait:
        feedback.follow(hub, options.device_id, message["messageId"], options)


def receive(hub: Hub, options: argparse.Namespace) -> Any:
    """Receive the next message of a device; return it, or None."""
    wanted = [each for each in _SETTLED if getattr(options, each)]
    if len(wanted) > 1:
        raise UsageError(f"--{' and --'.join(wanted)} contradict each other. Use one")
    lock = {"IotHub-MessageLockTimeout": str(options.lock_timeout)}
    answer = hub.send("GET", *_bound(options), headers=lock)
    if answer.status == 204:
        return None
    headers = {name.lower(): value for name, value in answer.headers.items()}
    etag = headers["etag"].strip('"')
    found: dict[str, Any] = {"etag": etag, "properties": {}}
    if wanted:
        _settle(hub, options, etag, wanted[0])
        found["ack"] = wanted[0]
    parts = {
        "app": {
            name[len(_APPLICATION) :]: value
            for name, value in answer.headers.items()
            if name.lower().startswith(_APPLICATION)
        },
        "system": {name: headers[name] for name in _SYSTEM if name in headers},
    }
    found["properties"] = {name: values for name, values in parts.items() if values}
    found["data"] = answer.body.decode(errors="backslashreplace")
    return found


def settle(how: str) -> Any:
    """Return the function of a command that completes, abandons or rejects a message."""

    def run(hub: Hub, options: argparse.Namespace) -> None:
        _settle(hub, options, options.etag, how)

    return run


def _settle(hub: Hub, options: argparse.Namespace, etag: str, how: str) -> None:
    where = (*_bound(options), etag)
    if how == "abandon":
        hub.send("POST", *where, "abandon", headers=precondition(etag))
    else:
        hub.send("DELETE", *where, parameters={"reject": ""} if how == "reject" else None)


def purge(hub: Hub, options: argparse.Namespace) -> Any:
    """Delete all messages that wait for a device; return their number."""
    return hub.send("DELETE", "devices", options.device_id, "commands").json()


def _bound(options: argparse.Namespace) -> tuple[str, ...]:
    return "devices", options.device_id, "messages", "deviceBound"


_OF = (o.DEVICE,)
_LOCKED = "-d kitchen -e 2c1f9a52-5f0c-4b5e-9c52-4f4a3f9c8f6d"

COMMANDS: tuple[Command, ...] = (
    Command(
        "c2d-message send",
        "send a message to a device",
        send,
        (*_OF, o.DATA, o.DATA_FILE, o.PROPERTIES, *o.C2D_SYSTEM, o.WAIT_FEEDBACK),
        "-d kitchen --data hello --props a=1 --ack full",
    ),
    Command(
        "c2d-message receive",
        "receive the next message of a device, as the device",
        receive,
        (*_OF, *o.RECEIVE),
        "-d kitchen --complete",
    ),
    *(
        Command(
            f"c2d-message {how}",
            f"{how} a message that was received",
            settle(how),
            (*_OF, o.LOCK),
            _LOCKED,
        )
        for how in _SETTLED
    ),
    Command(
        "c2d-message purge", "delete all messages that wait for a device", purge, _OF, "-d kitchen"
    ),
)
