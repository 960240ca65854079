"""The hub's MQTT names: user names, topics that a device publishes to, filters that it may use, and
topics that the hub publishes to. The rules are those of IoT Hub docs: MQTT support.

Topics are case-sensitive. A request id is never decoded: it goes back as it came.
"""

from __future__ import annotations

import enum
import re
from typing import ClassVar, NamedTuple
from urllib.parse import quote, unquote

from msgspec import Struct

from emulator.hub.access.operations import Operation
from emulator.hub.identities.identity import IdentityKey
from emulator.mqtt.frame import ProtocolError

# What is percent-encoded in the name of a method. The SDK for Python decodes it, other SDKs don't,
# so this is only what would break a topic. What a real hub encodes is unknown.
_METHOD_NAME_UNSAFE = re.compile(r"[\x00-\x1f\x7f%/+#?]")
_INT32 = range(-(2**31), 2**31)


class UserName(NamedTuple):
    """The user name of a CONNECT: `{host}/{client id}/?api-version=…&model-id=…`."""

    host: str
    key: IdentityKey
    parameters: dict[str, str]


class Telemetry(Struct, frozen=True):
    """A device sends a message; `properties` is its property bag, still encoded."""

    operation: ClassVar[Operation] = Operation.SEND_EVENT
    properties: str


class TwinGet(Struct, frozen=True):
    """A device reads its twin."""

    operation: ClassVar[Operation] = Operation.READ_OWN_TWIN
    request_id: str


class TwinPatch(Struct, frozen=True):
    """A device patches its reported properties; without a request id it gets no answer."""

    operation: ClassVar[Operation] = Operation.REPORT
    request_id: str | None
    expected_version: str | None


class MethodResponse(Struct, frozen=True):
    """A device responds to a direct method."""

    operation: ClassVar[Operation] = Operation.RESPOND_TO_METHOD
    status: int
    request_id: str


Request = TwinGet | TwinPatch | MethodResponse
"""What a device publishes besides its messages."""


class Purpose(enum.Enum):
    """What a device may subscribe to; the value is the filter, if that names no device."""

    CLOUD_TO_DEVICE = "devicebound"
    INPUTS = "inputs"
    TWIN_RESPONSES = "$iothub/twin/res/#"
    DESIRED = "$iothub/twin/PATCH/properties/desired/#"
    METHODS = "$iothub/methods/POST/#"


_COMMON = (Purpose.TWIN_RESPONSES, Purpose.DESIRED, Purpose.METHODS)


class Filter(NamedTuple):
    """A topic filter that the hub knows; `method` narrows it to one direct method."""

    purpose: Purpose
    method: str | None = None


def parse_user_name(user_name: str, client_id: str) -> UserName | None:
    """Parse a user name.

    Its last part may be missing, and may lack its `?`, as old clients send it (EdgeHub).

    Returns:
        None if the user name does not agree with the client id.
    """
    host, _, rest = user_name.partition("/")
    if not host or not client_id:
        return None
    if rest != client_id and not rest.startswith(f"{client_id}/"):
        return None
    tail = rest[len(client_id) + 1 :]
    if tail and not tail.startswith(("?", "api-version=")):
        return None
    device_id, slash, module_id = client_id.partition("/")
    if "/" in module_id or (slash and not module_id):
        return None
    parameters: dict[str, str] = {}
    for pair in filter(None, tail.removeprefix("?").split("&")):
        name, _, value = pair.partition("=")
        parameters.setdefault(unquote(name), unquote(value))  # the first value counts (EdgeHub)
    return UserName(host, IdentityKey(device_id, module_id or None), parameters)


def own_topics(key: IdentityKey) -> str:
    """Write how each topic begins that names the device or module."""
    module = f"/modules/{key.module_id}" if key.module_id else ""
    return f"devices/{key.device_id}{module}"


def parse_topic(topic: str, key: IdentityKey) -> Telemetry | Request:
    """Parse a topic that a device published to.

    Raises:
        ProtocolError: the topic is unknown to the hub, or another device's.
    """
    if topic.startswith("$iothub/"):
        return _parse_request(topic)
    events = f"{own_topics(key)}/messages/events/"
    if f"{topic}/".startswith(events):
        bag = topic[len(events) :].removesuffix("/")
        if "/" not in bag:
            return Telemetry(bag)
    raise ProtocolError(f"PUBLISH to an unknown topic: {topic!r}")


def _parse_request(topic: str) -> Request:
    path, question_mark, query = topic.partition("?")
    parameters = dict(pair.partition("=")[::2] for pair in query.split("&")) if query else {}
    request_id = parameters.get("$rid")
    if path == "$iothub/twin/PATCH/properties/reported/":
        return TwinPatch(request_id, parameters.get("$version"))
    if question_mark and request_id is not None:
        if path == "$iothub/twin/GET/":
            return TwinGet(request_id)
        if response := re.fullmatch(r"\$iothub/methods/res/(-?\d{1,10})/", path, re.ASCII):
            status = int(response[1])
            if status in _INT32:
                return MethodResponse(status, request_id)
    raise ProtocolError(f"PUBLISH to an unknown topic: {topic!r}")


def parse_filter(topic_filter: str, key: IdentityKey) -> Filter:
    """Parse a filter that a device subscribes to.

    Raises:
        ProtocolError: the filter is unknown to the hub, or another device's.
    """
    filters = {common.value: common for common in _COMMON} | _own_filters(key)
    if topic_filter in filters:
        return Filter(filters[topic_filter])
    # A subscription may be narrowed to one method (IoT Hub docs: direct methods).
    if one_method := re.fullmatch(r"\$iothub/methods/POST/([^/+#]+)/#", topic_filter):
        return Filter(Purpose.METHODS, one_method[1])
    raise ProtocolError(f"SUBSCRIBE to an unknown filter: {topic_filter!r}")


def _own_filters(key: IdentityKey) -> dict[str, Purpose]:
    """Return the filters that name the device or module."""
    own = own_topics(key)
    filters = {f"{own}/messages/devicebound/#": Purpose.CLOUD_TO_DEVICE}
    if key.module_id is not None:
        # SDKs subscribe to these for edge modules; a hub in the cloud sends nothing there.
        filters |= {f"{own}/inputs/#": Purpose.INPUTS, f"{own}/#": Purpose.INPUTS}
    return filters


def twin_response(status: int, request_id: str, version: int | None = None) -> str:
    """Write the topic of an answer to a twin request."""
    tail = "" if version is None else f"&$version={version}"
    return f"$iothub/twin/res/{status}/?$rid={request_id}{tail}"


def desired_patch(version: int) -> str:
    """Write the topic of a change of the desired properties."""
    return f"$iothub/twin/PATCH/properties/desired/?$version={version}"


def cloud_to_device(device_id: str, bag: str) -> str:
    """Write the topic of a cloud-to-device message."""
    return f"devices/{device_id}/messages/devicebound/{bag}"


def method_name(name: str) -> str:
    """Write the name of a direct method as one segment of a topic."""
    return _METHOD_NAME_UNSAFE.sub(lambda match: quote(match[0], safe=""), name)


def method_request(name: str, request_id: str) -> str:
    """Write the topic of a direct method's request."""
    return f"$iothub/methods/POST/{method_name(name)}/?$rid={request_id}"
