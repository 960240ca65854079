"""Fault requests: device-to-cloud messages by which the SDKs' own tests ask a test hub for faults.

The names are those of the end-to-end tests of Azure's SDKs. A production hub takes such a message
as telemetry, and so does the emulator unless its setting `fault_messages` is on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from emulator.hub.core.clock import Clock
from emulator.hub.core.json import JsonObject
from emulator.hub.core.printable import printable
from emulator.hub.faults.fault import CLEAN, CUT, Fault
from emulator.hub.faults.faults import Faults
from emulator.hub.identities.identity import IdentityKey

log = logging.getLogger(__name__)

_TYPE = "AzIoTHub_FaultOperationType"
_REASON = "AzIoTHub_FaultOperationCloseReason"
_DELAY = "AzIoTHub_FaultOperationDelayInSecs"
_DURATION = "AzIoTHub_FaultOperationDurationInSecs"

_ORDERLY = "byebye"
_MOST_SECONDS = 3600

# What each type does, and whether the device can't connect for the duration.
TYPES: dict[str, tuple[JsonObject, bool]] = {
    "KillTcp": ({"kind": "drop-connection"}, True),
    "ShutDownMqtt": ({"kind": "drop-connection", "how": CLEAN}, True),
    "ShutDownAmqp": ({"kind": "drop-link", "link": "connection"}, True),
    "KillAmqpConnection": ({"kind": "drop-link", "link": "connection"}, True),
    "KillAmqpSession": ({"kind": "drop-link", "link": "session"}, False),
    "KillAmqpCBSLinkReq": ({"kind": "drop-link", "link": "cbs-requests"}, False),
    "KillAmqpCBSLinkResp": ({"kind": "drop-link", "link": "cbs-replies"}, False),
    "KillAmqpD2CLink": ({"kind": "drop-link", "link": "telemetry"}, False),
    "KillAmqpC2DLink": ({"kind": "drop-link", "link": "commands"}, False),
    "KillAmqpTwinLinkReq": ({"kind": "drop-link", "link": "twin-requests"}, False),
    "KillAmqpTwinLinkResp": ({"kind": "drop-link", "link": "twin-replies"}, False),
    "KillAmqpMethodReqLink": ({"kind": "drop-link", "link": "method-requests"}, False),
    "KillAmqpMethodRespLink": ({"kind": "drop-link", "link": "method-responses"}, False),
    "InvokeThrottling": ({"kind": "throttle"}, False),
    "InvokeMaxMessageQuota": ({"kind": "quota-exceeded"}, False),
    "InvokeAuthError": ({"kind": "expire-token"}, False),
}


def is_request(properties: Mapping[str, str | None]) -> bool:
    """Return whether a message with these properties is a fault request."""
    return _TYPE in properties


def take(
    faults: Faults, clock: Clock, key: IdentityKey, properties: Mapping[str, str | None]
) -> None:
    """Do what a fault request of a device asks for, after its delay."""
    known = TYPES.get(properties[_TYPE] or "")
    if known is None:
        log.warning("Unknown fault request of %s: %r", printable(key), properties[_TYPE])
        return
    document, refuses = known
    duration = _seconds(properties.get(_DURATION))
    to_device = {"device": key.device_id, "module": key.module_id}
    if document["kind"] == "drop-connection":
        how = CLEAN if properties.get(_REASON) == _ORDERLY else CUT
        document = {"how": how, **document}
    elif document["kind"] != "drop-link":
        document = {**document, **({"duration": duration} if duration else {"count": 1})}
    wanted = [Fault.parse({**document, **to_device})]
    if refuses and duration:
        refusal = {"kind": "refuse-connection", "duration": duration, **to_device}
        wanted.append(Fault.parse(refusal))
    # At once it would end the connection in the middle of a call of its head.
    clock.call_later(_seconds(properties.get(_DELAY)), _add, faults, wanted)


def _add(faults: Faults, wanted: list[Fault]) -> None:
    for fault in wanted:
        faults.add(fault)


def _seconds(text: str | None) -> int:
    is_number = text is not None and text.isascii() and text.isdigit()
    return min(int((text or "")[:9]), _MOST_SECONDS) if is_number else 0
