"""The addresses of cloud-to-device messages: `/devices/{id}/messages/devicebound`."""

from __future__ import annotations

from urllib.parse import unquote

from emulator.hub.core.errors import ArgumentInvalid

_SHOWN = 200  # characters of an invalid address that an error repeats


def device_ids(to: str) -> list[str]:
    """Return the ids of the devices that an address can mean: as it is written, and decoded.

    The SDK for Python does not encode the id, the SDK for Node does. Some clients write scheme and
    host before the path. The words have any letter case.

    Raises:
        ArgumentInvalid: it is not such an address.
    """
    _, scheme, rest = to.partition("://")
    path = rest.partition("/")[2] if scheme else to
    parts = path.strip("/").split("/")
    words = [part.lower() for part in (parts[0], *parts[-2:])]
    if len(parts) < 4 or words != ["devices", "messages", "devicebound"]:
        raise ArgumentInvalid(
            f"The property 'to' of the message is {to[:_SHOWN]!r}. "
            "Use /devices/DEVICE_ID/messages/devicebound."
        )
    written = "/".join(parts[1:-2])
    return [written, unquote(written)]
