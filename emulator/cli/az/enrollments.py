"""`enrollment` and `enrollment-group`: which devices can register, and where they are assigned."""

from __future__ import annotations

import argparse
import base64
from typing import Any

from emulator.cli.az import options as o
from emulator.cli.az import provisioning as p
from emulator.cli.az.command import Command
from emulator.cli.az.provisioning import Provisioning
from emulator.cli.az.session import precondition
from emulator.cli.parser import UsageError

_KEY, _X509, _TPM = "symmetricKey", "x509", "tpm"
_CLIENT, _SIGNING, _REFERENCES = "clientCertificates", "signingCertificates", "caReferences"
_SLOTS = ("primary", "secondary")
_STATIC, _CUSTOM = "static", "custom"
# `updateHubAssignment` and `migrateDeviceData` of each policy.
_REPROVISION = {
    "reprovisionandmigratedata": (True, True),
    "reprovisionandresetdata": (True, False),
    "never": (False, False),
}
# What the service says of itself, and does not take back.
_READ_ONLY = ("createdDateTimeUtc", "lastUpdatedDateTimeUtc", "registrationState", "etag")
# The options of each type of attestation.
_OPTIONS_OF = {
    _KEY: ("primary_key", "secondary_key"),
    _X509: (
        *("certificate_path", "secondary_certificate_path", "root_ca_name"),
        *("secondary_root_ca_name", "remove_certificate", "remove_secondary_certificate"),
    ),
    _TPM: ("endorsement_key",),
}
_COLUMNS = ("registrationId", "deviceId", "provisioningStatus", "allocationPolicy")
_GROUP_COLUMNS = ("enrollmentGroupId", "provisioningStatus", "allocationPolicy")


def create(service: Provisioning, options: argparse.Namespace) -> Any:
    """Create an individual enrollment; return it."""
    kind = options.attestation_type
    _check_options(options, kind)
    document = {"registrationId": options.enrollment_id, "attestation": _attestation(options, kind)}
    _change(document, options, is_new=True)
    return _write(service, "enrollments", options, document, {})


def create_group(service: Provisioning, options: argparse.Namespace) -> Any:
    """Create an enrollment group; return it."""
    kind = _X509 if any(_given(options, name) for name in _OPTIONS_OF[_X509]) else _KEY
    _check_options(options, kind)
    attestation = _attestation(options, kind)
    document = {"enrollmentGroupId": options.enrollment_id, "attestation": attestation}
    _change(document, options, is_new=True)
    return _write(service, "enrollmentGroups", options, document, {})


def list_all(service: Provisioning, options: argparse.Namespace) -> Any:
    """Return all individual enrollments."""
    return service.pages("POST", ("enrollments", "query"), {"query": "SELECT *"}, options.top)


def list_groups(service: Provisioning, options: argparse.Namespace) -> Any:
    """Return all enrollment groups."""
    return service.pages("POST", ("enrollmentGroups", "query"), {"query": "SELECT *"}, options.top)


def show(service: Provisioning, options: argparse.Namespace) -> Any:
    """Return an individual enrollment."""
    return _show(service, "enrollments", options)


def show_group(service: Provisioning, options: argparse.Namespace) -> Any:
    """Return an enrollment group."""
    return _show(service, "enrollmentGroups", options)


def update(service: Provisioning, options: argparse.Namespace) -> Any:
    """Change an individual enrollment; return it."""
    return _update(service, "enrollments", options)


def update_group(service: Provisioning, options: argparse.Namespace) -> Any:
    """Change an enrollment group; return it."""
    return _update(service, "enrollmentGroups", options)


def delete(service: Provisioning, options: argparse.Namespace) -> None:
    """Delete an individual enrollment."""
    _delete(service, "enrollments", options)


def delete_group(service: Provisioning, options: argparse.Namespace) -> None:
    """Delete an enrollment group."""
    _delete(service, "enrollmentGroups", options)


def attestation_of(service: Provisioning, family: str, name: str) -> dict[str, Any]:
    """Return the attestation of an enrollment or a group, with its keys."""
    answer = service.send("POST", family, name, "attestationmechanism")
    found: dict[str, Any] = answer.json()
    return found


def _show(service: Provisioning, family: str, options: argparse.Namespace) -> Any:
    document = service.get(family, options.enrollment_id)
    if options.show_keys and document["attestation"]["type"] == _KEY:
        document["attestation"] = attestation_of(service, family, options.enrollment_id)
    return document


def _update(service: Provisioning, family: str, options: argparse.Namespace) -> Any:
    document = service.get(family, options.enrollment_id)
    kind = document["attestation"]["type"]
    _check_options(options, kind)
    if kind == _KEY:
        document["attestation"] = attestation_of(service, family, options.enrollment_id)
    _change_attestation(document["attestation"], options)
    for name in _READ_ONLY:
        document.pop(name, None)
    _change(document, options, is_new=False)
    return _write(service, family, options, document, precondition(options.etag))


def _write(
    service: Provisioning,
    family: str,
    options: argparse.Namespace,
    document: dict[str, Any],
    headers: dict[str, str],
) -> Any:
    where = family, options.enrollment_id
    return service.send("PUT", *where, body=document, headers=headers).json()


def _delete(service: Provisioning, family: str, options: argparse.Namespace) -> None:
    service.send("DELETE", family, options.enrollment_id, headers=precondition(options.etag))


# --- attestation


def _given(options: argparse.Namespace, name: str) -> Any:
    return getattr(options, name, None)


def _check_options(options: argparse.Namespace, kind: str) -> None:
    """Refuse the options of another type of attestation.

    Raises:
        UsageError
    """
    for other, names in _OPTIONS_OF.items():
        for name in names:
            if other != kind and _given(options, name):
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"{flag} does not fit: the attestation is {kind}, not {other}")


def _attestation(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    """Return a new attestation.

    Raises:
        UsageError: an option is missing, or two contradict each other.
    """
    attestation: dict[str, Any] = {"type": kind}
    if kind == _TPM and not options.endorsement_key:
        raise UsageError("--endorsement-key is missing. tpm needs it")
    _change_attestation(attestation, options)
    if kind == _X509 and _X509 not in attestation:
        raise UsageError("--certificate-path is missing. x509 needs it")
    return attestation


def _change_attestation(attestation: dict[str, Any], options: argparse.Namespace) -> None:
    kind = attestation["type"]
    if kind == _KEY:
        names = ("primaryKey", "primary_key"), ("secondaryKey", "secondary_key")
        keys = {name: key for name, option in names if (key := _given(options, option))}
        if keys:
            attestation[_KEY] = {**(attestation.get(_KEY) or {}), **keys}
    elif kind == _TPM:
        if options.endorsement_key:
            attestation[_TPM] = {"endorsementKey": options.endorsement_key}
    elif kind == _X509:
        _change_certificates(attestation, options)


def _change_certificates(attestation: dict[str, Any], options: argparse.Namespace) -> None:
    contents = options.certificate_path, options.secondary_certificate_path
    names = _given(options, "root_ca_name"), _given(options, "secondary_root_ca_name")
    removes = _given(options, "remove_certificate"), _given(options, "remove_secondary_certificate")
    if any(contents) and any(names):
        raise UsageError("--certificate-path and --root-ca-name contradict each other")
    found = attestation.get(_X509) or {}
    kinds = [each for each in (_CLIENT, _SIGNING, _REFERENCES) if found.get(each)]
    kind = kinds[0] if kinds else None
    given: tuple[Any, ...] = names
    if any(names):
        wanted = _REFERENCES
    else:
        is_group = hasattr(options, "root_ca_name")
        wanted = _SIGNING if is_group else _CLIENT
        given = tuple(
            each and {"certificate": base64.b64encode(each).decode()} for each in contents
        )
        if not any(contents):
            wanted = kind or wanted
    pair = dict(found.get(wanted) or {})
    for slot, value, remove in zip(_SLOTS, given, removes, strict=True):
        if remove:
            pair.pop(slot, None)
        if value:
            pair[slot] = value
    if any(removes) and not any(pair.values()):
        raise UsageError("No certificate would be left. Use --certificate-path as well")
    if pair:
        attestation[_X509] = {wanted: pair}


# --- everything else


def _change(document: dict[str, Any], options: argparse.Namespace, *, is_new: bool) -> None:
    """Change what all enrollments have, as the options say.

    Raises:
        UsageError: an option is missing, or two contradict each other.
    """
    twin = document.get("initialTwin") or {}
    if options.initial_twin_tags is not None:
        twin["tags"] = options.initial_twin_tags
    if options.initial_twin_properties is not None:
        twin["properties"] = {"desired": options.initial_twin_properties}
    given = {
        "initialTwin": twin or None,
        "provisioningStatus": options.provisioning_status,
        "allocationPolicy": options.allocation_policy,
        "iotHubs": options.iot_hubs,
        "deviceId": _given(options, "device_id"),
        "optionalDeviceInformation": _given(options, "device_information"),
    }
    document |= {name: value for name, value in given.items() if value is not None}
    if options.edge_enabled is not None or is_new:
        document["capabilities"] = {"iotEdge": bool(options.edge_enabled)}
    if options.reprovision_policy or is_new:
        policy = options.reprovision_policy or "reprovisionandmigratedata"
        update_assignment, migrate = _REPROVISION[policy]
        document["reprovisionPolicy"] = {
            "updateHubAssignment": update_assignment,
            "migrateDeviceData": migrate,
        }
    _allocate(document, options, is_new=is_new)


def _allocate(document: dict[str, Any], options: argparse.Namespace, *, is_new: bool) -> None:
    policy, linked = document.get("allocationPolicy"), document.get("iotHubs") or []
    if linked and is_new and not policy:
        raise UsageError("--iot-hubs needs --allocation-policy")
    if policy == _STATIC and len(linked) != 1:
        raise UsageError(f"--iot-hubs has {len(linked)} hubs. --allocation-policy static needs one")
    webhook = dict(document.get("customAllocationDefinition") or {})
    for name, value in (("webhookUrl", options.webhook_url), ("apiVersion", options.api_version)):
        if value and policy != _CUSTOM:
            raise UsageError("--webhook-url and --api-version need --allocation-policy custom")
        if value:
            webhook[name] = value
    if policy == _CUSTOM:
        if not all(webhook.get(name) for name in ("webhookUrl", "apiVersion")):
            raise UsageError("--allocation-policy custom needs --webhook-url and --api-version")
        document["customAllocationDefinition"] = webhook


_ONE, _GROUP = (p.ENROLLMENT,), (p.GROUP,)
_OF_ONE = (*p.KEYS, *p.CERTIFICATES, p.ENDORSEMENT_KEY, p.DEVICE, p.INFORMATION, *p.SHARED)
_OF_GROUP = (*p.KEYS, *p.CERTIFICATES, *p.CA_NAMES, *p.SHARED)
_EXAMPLE, _GROUP_EXAMPLE = "--eid boiler", "--gid boilers"


def _command(words: str, summary: str, run: Any, options: Any, example: str) -> Command:
    columns = _GROUP_COLUMNS if words.startswith("enrollment-group") else _COLUMNS
    return Command(words, summary, run, options, example, columns, Provisioning)


COMMANDS: tuple[Command, ...] = (
    _command(
        "enrollment create",
        "enroll a device, so that it can register",
        create,
        (*_ONE, p.ATTESTATION, *_OF_ONE),
        f"{_EXAMPLE} --at symmetricKey",
    ),
    _command("enrollment list", "list enrolled devices", list_all, (p.TOP,), "-o table"),
    _command(
        "enrollment show",
        "show an enrolled device",
        show,
        (*_ONE, p.SHOW_KEYS),
        f"{_EXAMPLE} --show-keys",
    ),
    _command(
        "enrollment update",
        "change the enrollment of a device",
        update,
        (*_ONE, *_OF_ONE, *p.REMOVE_CERTIFICATES, o.ETAG),
        f"{_EXAMPLE} --provisioning-status disabled",
    ),
    _command(
        "enrollment delete", "delete the enrollment of a device", delete, (*_ONE, o.ETAG), _EXAMPLE
    ),
    _command(
        "enrollment-group create",
        "enroll devices by derived keys, or by a CA",
        create_group,
        (*_GROUP, *_OF_GROUP),
        f"{_GROUP_EXAMPLE} --root-ca-name factory",
    ),
    _command("enrollment-group list", "list enrollment groups", list_groups, (p.TOP,), "-o table"),
    _command(
        "enrollment-group show",
        "show an enrollment group",
        show_group,
        (*_GROUP, p.SHOW_KEYS),
        f"{_GROUP_EXAMPLE} --show-keys",
    ),
    _command(
        "enrollment-group update",
        "change an enrollment group",
        update_group,
        (*_GROUP, *_OF_GROUP, *p.REMOVE_CERTIFICATES, o.ETAG),
        f"{_GROUP_EXAMPLE} --provisioning-status disabled",
    ),
    _command(
        "enrollment-group delete",
        "delete an enrollment group",
        delete_group,
        (*_GROUP, o.ETAG),
        _GROUP_EXAMPLE,
    ),
)
