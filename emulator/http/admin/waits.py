"""Waits of tests in every language: `/_emulator/wait`."""

from __future__ import annotations

import itertools

from aiohttp.web_response import Response

from emulator.http.admin.parameters import check_parameters
from emulator.http.requests import Request, read_json
from emulator.http.responses import json_response
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core import limits, members
from emulator.hub.core.errors import ArgumentInvalid, ArgumentNull
from emulator.hub.core.json import JsonObject
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.waits import WaitTimeout, body_includes, where_text

_EVENT, _CONNECTED, _LISTENING, _REPORTED = "event", "connected", "listening", "reported"
_UPLOAD = "upload"

# The members that each kind of wait has, beside `for`, `device`, `module` and `timeout`.
_MEMBERS = {
    _EVENT: ("where", "from"),
    _CONNECTED: (),
    _LISTENING: ("method",),
    _REPORTED: ("properties",),
    _UPLOAD: ("name", "from"),
}
_FORM = members.Form(
    *("for", "device", "module", "timeout", "where", "from", "method", "properties", "name"),
    closed=True,
)
# Clients do not repeat a request with this answer by themselves, as some do after 408.
_NOT_IN_TIME = 504


async def wait(hub: IotHub, request: Request) -> JsonObject | Response:
    """`POST /_emulator/wait`: wait until something is so, and return what was found.

    The body is `{"for", "device", "module", "timeout"}`; the timeout is in seconds. The members of
    each kind are: `event` has `where`, an object that the JSON body of the event includes, and
    `from`, the number of the first event that counts; `listening` has `method`; `reported` has
    `properties`, an object that the reported properties include; `upload` has `name`, that of the
    file, and `from`, the number of the first upload that counts.

    Returns:
        200 with `{"event"}`, `{"upload"}`, or `{"device"}`, the state of the device; 504 with
        `{"Message", "instead"}`, which say what was there when the time was over; see
        `Waits.state`.
    """
    check_parameters(request)
    body = members.document(await read_json(request), _FORM)
    kind = _kind(body)
    seconds = body.get("timeout")
    if seconds is None:
        seconds = limits.WAIT_SECONDS_DEFAULT
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ArgumentInvalid("timeout is not a number. Use seconds")
    try:
        return await _wait(hub, kind, body, seconds)
    except WaitTimeout as error:
        document = {"Message": str(error), "instead": error.instead}
        return json_response(document, status=_NOT_IN_TIME)


async def _wait(hub: IotHub, kind: str, body: JsonObject, seconds: float) -> JsonObject:
    device_id, module_id = members.text(body, "device"), members.text(body, "module")
    if device_id is None and (module_id is not None or kind != _EVENT):
        raise ArgumentNull("device is missing. Name the device to wait for")
    key = None if device_id is None else IdentityKey(device_id, module_id)
    if key is None or kind == _EVENT:
        where = members.block(body, "where")
        start = members.number(body, "from", range(2**63), 0)
        event = await hub.waits.event(
            lambda event: not where or body_includes(event, where),
            where_text(where),
            key=key,
            start=start,
            seconds=seconds,
        )
        return {"event": event.document()}
    if kind == _UPLOAD:
        if module_id is not None:
            raise ArgumentInvalid("module is not for upload: modules have no uploads. Leave it out")
        start = members.number(body, "from", range(2**63), 0)
        name = members.text(body, "name")
        upload = await hub.waits.upload(key.device_id, name, start=start, seconds=seconds)
        return {"upload": upload.document()}
    if kind == _CONNECTED:
        await hub.waits.connected(key, seconds=seconds)
    elif kind == _LISTENING:
        method = members.text(body, "method")
        if not method:
            raise ArgumentNull("method is missing. Name the direct method to wait for")
        await hub.waits.listening(key, method, seconds=seconds)
    else:
        await hub.waits.reported(key, members.block(body, "properties"), seconds=seconds)
    return {"device": hub.waits.device(key)}


def _kind(body: JsonObject) -> str:
    """Return what to wait for; a member of another kind of wait is an error."""
    kind = members.text(body, "for")
    if kind not in _MEMBERS:
        raise ArgumentInvalid(f"Unknown for: {kind}. Use one of {', '.join(_MEMBERS)}")
    for name in itertools.chain.from_iterable(_MEMBERS.values()):
        if name not in _MEMBERS[kind] and body.get(name) is not None:
            others = " and ".join(other for other, names in _MEMBERS.items() if name in names)
            raise ArgumentInvalid(f"{name} is for {others} only. Leave it out")
    return kind


ROUTES = (Route("POST", "/_emulator/wait", Operation.OBSERVE, wait, versioned=False),)
