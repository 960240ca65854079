"""Twin requests of devices, with the answers that a hub sends over MQTT."""

from __future__ import annotations

import logging

from emulator.hub.core import errors
from emulator.hub.core.json import dumps
from emulator.hub.core.printable import printable
from emulator.hub.hub import IotHub
from emulator.hub.links.link import Admission
from emulator.hub.twins import writes
from emulator.mqtt import topics
from emulator.mqtt.topics import TwinGet, TwinPatch

log = logging.getLogger(__name__)

# A status, a version and a body.
_Outcome = tuple[int, int | None, bytes]


def answer(
    hub: IotHub,
    admission: Admission,
    request: TwinGet | TwinPatch,
    payload: bytes,
    *,
    versioned: bool,
) -> tuple[str, bytes] | None:
    """Carry out a twin request.

    Args:
        hub: the hub.
        admission: of the device.
        request: the request.
        payload: the body of the request.
        versioned: whether the device has named an api-version.

    Returns:
        the topic and payload of the answer, also if the request fails; None if it has no id.
    """
    status, version, body = _outcome(hub, admission, request, payload, versioned=versioned)
    if request.request_id is None:
        return None
    return topics.twin_response(status, request.request_id, version), body


def _outcome(
    hub: IotHub,
    admission: Admission,
    request: TwinGet | TwinPatch,
    payload: bytes,
    *,
    versioned: bool,
) -> _Outcome:
    try:
        if not versioned:
            raise errors.InvalidProtocolVersion
        return _carry_out(hub, admission, request, payload)
    except errors.HubError as error:
        return _failure(hub, error)
    except Exception:
        log.exception("A twin request of %s failed", printable(admission.key))
        return _failure(hub, errors.ServerError())


def _carry_out(
    hub: IotHub, admission: Admission, request: TwinGet | TwinPatch, payload: bytes
) -> _Outcome:
    if isinstance(request, TwinGet):
        hub.gate.enter(admission, request.operation)
        return 200, None, dumps(hub.twins.read_own(admission.key))
    patch, expected = writes.parse_report(payload, request.expected_version)
    hub.gate.enter(admission, request.operation)  # a malformed patch is free
    return 204, hub.twins.report(admission.key, patch, expected), b""


def _failure(hub: IotHub, error: errors.HubError) -> _Outcome:
    # The SDK for Node needs the body: it ignores the status in the topic.
    return error.status, None, dumps(errors.error_document(error, hub.clock.now()))
