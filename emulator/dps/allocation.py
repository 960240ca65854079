"""Allocation: the choice of a hub for a device (DPS docs: allocation policies)."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import aiohttp

from emulator.dps import enrollment, limits
from emulator.dps.enrollment import CUSTOM, HASHED, Enrollment
from emulator.dps.errors import CustomAllocationFailed, NoHub
from emulator.hub.core import members
from emulator.hub.core.errors import HubError
from emulator.hub.core.json import JsonObject, dumps, loads

_OK = range(200, 300)
_ANSWER = members.Form("iotHubHostName", "initialTwin", "payload")


class Allocation(NamedTuple):
    """Where a device goes.

    Args:
        hub: the host name of the hub.
        initial_twin: the first tags and desired properties.
        payload: what the webhook sends to the device.
    """

    hub: str
    initial_twin: JsonObject | None
    payload: Any = None


def choose(found: Enrollment, registration_id: str, linked: str) -> Allocation:
    """Choose a hub without a webhook.

    All hubs of this machine are equally near, so the first one has the lowest latency.

    Args:
        found: the enrollment of the device.
        registration_id: the id of the device.
        linked: the host name of the hub that is linked with the service.
    """
    hubs = list(found.iot_hubs) or [found.host_name or linked]
    index = 0
    if found.allocation == HASHED:
        digest = hashlib.sha256(registration_id.lower().encode()).digest()
        index = int.from_bytes(digest[:8], "big") % len(hubs)
    return Allocation(hubs[index], found.initial_twin)


async def ask(found: Enrollment, context: JsonObject, linked: str) -> Allocation:
    """Ask the webhook of an enrollment (DPS docs: custom allocation policies).

    Args:
        found: the enrollment.
        context: what is known of the device: `deviceRuntimeContext`.
        linked: the host name of the hub that is linked with the service.

    Raises:
        CustomAllocationFailed: it does not answer in time, or with an error.
        NoHub: its answer names no hub.
    """
    member = "enrollmentGroup" if found.is_group else "individualEnrollment"
    body = {
        member: found.document(),
        "deviceRuntimeContext": context,
        "linkedHubs": list(found.iot_hubs) or [linked],
    }
    answer = await _post(found, dumps(body))
    try:
        if not isinstance(parsed := loads(answer), dict):
            raise ValueError("it is not an object")
        document = members.document(parsed, _ANSWER)
        hub, twin = members.text(document, "iotHubHostName"), document.get("initialTwin")
        if not hub:
            raise NoHub
        enrollment.check_host(hub)
        first = found.initial_twin if twin is None else enrollment.initial_twin(document)
    except NoHub:
        raise
    except (ValueError, HubError) as error:
        reason = error.text if isinstance(error, HubError) else error
        raise CustomAllocationFailed(f"The webhook's answer is invalid: {reason}") from None
    return Allocation(hub, first, document.get("payload"))


async def _post(found: Enrollment, body: bytes) -> bytes:
    """Send a request to the webhook, and return the body of its answer."""
    if found.webhook is None or found.allocation != CUSTOM:
        raise NoHub
    timeout = aiohttp.ClientTimeout(total=limits.WEBHOOK_SECONDS)
    parameters = {"api-version": found.webhook.api_version} if found.webhook.api_version else {}
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
            session.post(
                found.webhook.url,
                data=body,
                params=parameters,
                headers={"Content-Type": "application/json; charset=utf-8"},
                allow_redirects=False,
            ) as answer,
        ):
            if answer.status not in _OK:
                raise CustomAllocationFailed(f"The webhook answered {answer.status}.")
            return await _bounded(answer)
    except TimeoutError:
        raise CustomAllocationFailed(
            f"The webhook did not answer within {limits.WEBHOOK_SECONDS} s."
        ) from None
    except (aiohttp.ClientError, OSError) as error:
        raise CustomAllocationFailed(
            f"The webhook can't be reached ({type(error).__name__}): does it run?"
        ) from None


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in answer.content.iter_any():
        content += chunk
        if len(content) > limits.WEBHOOK_BYTES:
            raise CustomAllocationFailed(
                f"The webhook answered more than {limits.WEBHOOK_BYTES} bytes."
            )
    return bytes(content)
