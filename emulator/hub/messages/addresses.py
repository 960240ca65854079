"""The addresses of cloud-to-device messages: `/devices/{id}/messages/devicebound`."""

from __future__ import annotations

from urllib.parse import unquote

from emulator.hub.core.errors import ArgumentInvalid

_SHOWN = 200  # characters of an invalid address that an error repeats


def segments(address: str) -> list[str]:
    """Return the segments of an address, not decoded: `amqps://host/a/b`, `/a/b` or `a/b/`.

    Python's service SDK and C# write the host, Node's SDK does not.
    """
    _, scheme, rest = address.partition("://")
    path = rest.partition("/")[2] if scheme else address
    return path.strip("/").split("/")


def device_ids(to: str) -> list[str]:
    """Return the ids of the devices that an address can mean: as it is written, and decoded.

    The SDK for Python does not encode the id, the SDK for Node does. The words have any letter
    case.

    Raises:
        ArgumentInvalid: it is not such an address.
    """
    parts = segments(to)
    words = [part.lower() for part in (parts[0], *parts[-2:])]
    if len(parts) < 4 or words != ["devices", "messages", "devicebound"]:
        raise ArgumentInvalid(
            f"The property 'to' of the message is {to[:_SHOWN]!r}. "
            "Use /devices/DEVICE_ID/messages/devicebound."
        )
    written = "/".join(parts[1:-2])
    return [written, unquote(written)]
