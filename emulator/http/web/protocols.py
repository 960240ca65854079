"""By which protocol devices are connected."""

from __future__ import annotations

from emulator.hub.core import members
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import JsonObject
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey

_FORM = members.Form("ids", closed=True)
_MOST = 1_000


def protocols(hub: IotHub, body: object) -> JsonObject:
    """Return the protocol of each identity that is connected, by `device` or `device/module`.

    Raises:
        ArgumentInvalid: the body is not `{"ids": [...]}` with at most 1,000 ids.
    """
    ids = members.document(body, _FORM).get("ids")
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        raise ArgumentInvalid('The body needs ids, an array of strings: {"ids": ["myDeviceId"]}')
    if len(ids) > _MOST:
        raise ArgumentInvalid(f"{len(ids)} ids: {_MOST} are allowed")
    links = ((each, hub.links.link(_key(each))) for each in ids)
    return {each: link.protocol for each, link in links if link is not None}


def _key(text: str) -> IdentityKey:
    device_id, _, module_id = text.partition("/")
    return IdentityKey(device_id, module_id or None)
