"""Registrations of devices with the Device Provisioning Service: read, deleted, and made."""

from __future__ import annotations

import argparse
import base64
import hmac
import time
from collections.abc import Mapping
from typing import Any

from emulator.cli.az import enrollments, values
from emulator.cli.az import options as o
from emulator.cli.az import provisioning as p
from emulator.cli.az.command import Command
from emulator.cli.az.provisioning import Provisioning
from emulator.cli.az.session import path, precondition
from emulator.cli.parser import UsageError, encodable
from emulator.client import Client, Response, sas_token
from emulator.errors import ClientError

_TOKEN_SECONDS = 3600
_POLICY = "registration"  # in the token of a device (DPS docs: symmetric key attestation)
_PENDING = 202
_MOST_SECONDS, _RETRY_SECONDS = 60, 2


def show(service: Provisioning, options: argparse.Namespace) -> Any:
    """Return the registration of a device."""
    return service.get("registrations", _id(options))


def delete(service: Provisioning, options: argparse.Namespace) -> None:
    """Delete the registration of a device."""
    service.send("DELETE", "registrations", _id(options), headers=precondition(options.etag))


def _id(options: argparse.Namespace) -> str:
    """Return the registration id: of a device that is enrolled alone, it is the enrollment's."""
    return str(getattr(options, "registration_id", None) or options.enrollment_id)


def list_all(service: Provisioning, options: argparse.Namespace) -> Any:
    """Return the registrations of the devices of a group."""
    where = "registrations", options.enrollment_id, "query"
    return service.pages("POST", where, {"query": "SELECT *"}, options.top)


def compute_key(service: Provisioning, options: argparse.Namespace) -> str:
    """Return the key of a device of a group."""
    key = options.symmetric_key
    if key is None:
        if options.enrollment_id is None:
            raise UsageError("--enrollment-id is missing. Name the group, or --symmetric-key")
        key = _key_of(service, "enrollmentGroups", options.enrollment_id)
    return _derived(key, options.registration_id)


def _key_of(service: Provisioning, family: str, name: str) -> str:
    """Return the primary key of an enrollment or a group.

    Raises:
        ClientError: it has none.
    """
    attestation = enrollments.attestation_of(service, family, name)
    if attestation["type"] != "symmetricKey":
        raise ClientError(f"{name!r} has no key: its attestation is {attestation['type']}.")
    return str(attestation["symmetricKey"]["primaryKey"])


def _derived(key: str, registration_id: str) -> str:
    derived = hmac.digest(base64.b64decode(key), registration_id.encode(), "sha256")
    return base64.b64encode(derived).decode()


# --- a device that registers


def create(service: Provisioning, options: argparse.Namespace) -> Any:
    """Register a device as the device itself does, over HTTPS; return its state."""
    if bool(options.certificate_file_path) != bool(options.key_file_path):
        raise UsageError("--certificate-file-path and --key-file-path belong together")
    if options.certificate_file_path and options.symmetric_key:
        raise UsageError("--symmetric-key and --certificate-file-path contradict each other")
    if options.compute_key and not options.symmetric_key:
        raise UsageError("--compute-key needs --symmetric-key, the key of the group")
    scope = options.id_scope or service.id_scope
    if not scope:
        raise UsageError("--id-scope is missing. A connection string does not have it")
    body: dict[str, Any] = {"registrationId": options.registration_id}
    if options.payload is not None:
        body["payload"] = options.payload
    return _register(_Device(service, options, scope), body)


def _register(device: _Device, body: object) -> Any:
    answer = device.send("PUT", "register", body=body)
    deadline = time.monotonic() + _MOST_SECONDS
    while answer.status == _PENDING:
        if time.monotonic() > deadline:
            raise ClientError(f"The device is not assigned yet, after {_MOST_SECONDS} s.")
        time.sleep(_RETRY_SECONDS)
        answer = device.send("GET", "operations", answer.json()["operationId"])
    state = answer.json()
    registration = state.get("registrationState") or {}
    if state.get("status") != "assigned":
        reason = registration.get("errorMessage") or "the enrollment is not enabled"
        raise ClientError(f"The registration is {state.get('status')}: {reason}.")
    return state


class _Device:
    """A device as a client of the service, with the credentials of the options."""

    def __init__(self, service: Provisioning, options: argparse.Namespace, scope: str) -> None:
        self._where = scope, "registrations", options.registration_id
        files = options.certificate_file_path, options.key_file_path
        if files[0]:
            self._key, certificate = None, (*files, options.passphrase)
        else:
            self._key, certificate = _device_key(service, options), None
        owner = service.client
        # Only its host and its certificates count: the device has credentials of its own.
        self._client = Client(owner.connection_string, trust=owner.trust, certificate=certificate)

    def send(self, verb: str, *parts: str, body: object = None) -> Response:
        token = None
        if self._key is not None:
            token = sas_token("/".join(self._where), self._key, _TOKEN_SECONDS, _POLICY)
        headers: Mapping[str, str | None] = {"Authorization": token}
        parameters = {"api-version": p.API_VERSION}
        where = path(*self._where, *parts)
        return self._client.request(verb, where, body, headers=headers, parameters=parameters)


def _device_key(service: Provisioning, options: argparse.Namespace) -> str:
    name, group = options.registration_id, options.enrollment_group_id
    if options.symmetric_key:
        return (
            _derived(options.symmetric_key, name) if options.compute_key else options.symmetric_key
        )
    if group:
        return _derived(_key_of(service, "enrollmentGroups", group), name)
    return _key_of(service, "enrollments", name)


_ONE, _GROUP, _DEVICE = (p.ENROLLMENT,), (p.GROUP,), (p.REGISTRATION,)
_NEW = (
    p.REGISTRATION,
    o.option(*("--enrollment-group-id", "--group-id", "--gid"), help="the group, to read its key"),
    o.SYMMETRIC_KEY,
    o.switch("--compute-key", "--ck", help="the key is that of the group: derive one from it"),
    o.option("--certificate-file-path", "--cp", metavar="FILE", help="the device's certificate"),
    o.option("--key-file-path", "--kp", metavar="FILE", help="its private key"),
    o.option("--passphrase", "--pass", type=encodable, help="the passphrase of the private key"),
    o.option("--payload", metavar="JSON", type=values.json_value, help="for custom allocation"),
    o.option("--id-scope", "--scope", help="the id scope (default: that of the emulator)"),
)


class _Registration(Provisioning):
    NAMES = ("--host", "--provisioning-host", "--dps-name", "-n")


COMMANDS: tuple[Command, ...] = (
    Command(
        "enrollment registration show",
        "show the registration of an enrolled device",
        show,
        _ONE,
        "--eid boiler",
        session=Provisioning,
    ),
    Command(
        "enrollment registration delete",
        "delete the registration of an enrolled device",
        delete,
        (*_ONE, o.ETAG),
        "--eid boiler",
        session=Provisioning,
    ),
    Command(
        "enrollment-group compute-device-key",
        "derive the key of a device",
        compute_key,
        (p.GROUP.but(required=False), p.REGISTRATION, o.SYMMETRIC_KEY),
        "--gid boilers --rid boiler-1",
        session=Provisioning,
    ),
    Command(
        "enrollment-group registration list",
        "list the registrations of a group",
        list_all,
        (*_GROUP, p.TOP),
        "--gid boilers -o table",
        ("registrationId", "deviceId", "assignedHub", "status"),
        Provisioning,
    ),
    Command(
        "enrollment-group registration show",
        "show the registration of a device",
        show,
        _DEVICE,
        "--rid boiler-1",
        session=Provisioning,
    ),
    Command(
        "enrollment-group registration delete",
        "delete the registration of a device",
        delete,
        (*_DEVICE, o.ETAG),
        "--rid boiler-1",
        session=Provisioning,
    ),
    Command(
        "registration create",
        "register a device, as the device does itself",
        create,
        _NEW,
        "--rid boiler",
        session=_Registration,
    ),
)
