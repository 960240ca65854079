"""The hub's MQTT names: user names, topics that a device publishes to, filters, and topics that the
hub publishes to. The rules are those of IoT Hub docs: MQTT support.

Topics are case-sensitive. A request id is never decoded: it goes back as it came.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import ClassVar, NamedTuple
from urllib.parse import quote, unquote

from msgspec import Struct

from emulator.hub.access.operations import Operation
from emulator.hub.core import limits
from emulator.hub.identities.identity import IdentityKey
from emulator.mqtt.frame import PUBLISH, ProtocolError

# What is percent-encoded in the name of a method. The SDK for Python decodes it, other SDKs don't,
# so this is only what would break a topic. What a real hub encodes is unknown.
_METHOD_NAME_UNSAFE = re.compile(r"[\x00-\x1f\x7f%/+#?]")
_INT32 = range(-(2**31), 2**31)
_CLIENT_TYPE = "DeviceClientType="


class UserName(NamedTuple):
    """The user name of a CONNECT: `{host}/{client id}/?api-version=…&model-id=…`.

    Args:
        host: the name of the hub.
        key: the device or module.
        parameters: the parameters of the tail, decoded.
        is_cut: whether a raw `/` ended the parameter `DeviceClientType`.
    """

    host: str
    key: IdentityKey
    parameters: dict[str, str]
    is_cut: bool = False


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


def parse_user_name(user_name: str, client_id: str) -> UserName | None:
    """Parse a user name.

    Its tail may be missing, and may lack its `?`, as older clients send it. It ends at a raw `/`
    (azure-iot-sdk-csharp PR 185).

    Returns:
        None if the user name does not agree with the client id.
    """
    host, _, rest = user_name.partition("/")
    if not host or not client_id:
        return None
    if rest != client_id and not rest.startswith(f"{client_id}/"):
        return None
    tail, slash, _ = rest[len(client_id) + 1 :].partition("/")
    if (tail or slash) and not _is_tail(tail):
        return None
    device_id, module_slash, module_id = client_id.partition("/")
    if "/" in module_id or (module_slash and not module_id) or _is_tail(module_id):
        return None
    parameters: dict[str, str] = {}
    pairs = tail.removeprefix("?").split("&")
    for pair in filter(None, pairs):
        name, _, value = pair.partition("=")
        parameters.setdefault(unquote(name), unquote(value))  # the first value counts (EdgeHub)
    is_cut = bool(slash) and tail.startswith("?") and pairs[-1].startswith(_CLIENT_TYPE)
    return UserName(host, IdentityKey(device_id, module_id or None), parameters, is_cut)


def _is_tail(segment: str) -> bool:
    """Return whether a segment of a user name is its tail, and not the id of a module."""
    return segment.startswith(("?", _CLIENT_TYPE)) or "api-version=" in segment


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
        return Telemetry(topic[len(events) :])
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


def is_telemetry(first_byte: int, body: bytes) -> bool:
    """Return whether a packet is a PUBLISH to the telemetry topic, valid or not."""
    return first_byte & 0xF0 == PUBLISH and not body.startswith(b"$iothub/", 2)


def check_filters(filters: Collection[str]) -> None:
    """Check the filters of all subscriptions of a device.

    Raises:
        ProtocolError: one is malformed, or there are more than a hub allows.
    """
    if len(filters) > limits.MQTT_SUBSCRIPTIONS:
        allowed = limits.MQTT_SUBSCRIPTIONS
        raise ProtocolError(f"{len(filters)} subscriptions: {allowed} are allowed")
    for each in filters:
        check_filter(each)


def check_filter(topic_filter: str) -> None:
    """Check that a filter is well-formed (MQTT 3.1.1, section 4.7.1).

    Raises:
        ProtocolError: it is empty, `#` is not last, or a wildcard is not alone in its level.
    """
    levels = topic_filter.split("/")
    alone = all(level in ("#", "+") or not set(level) & {"#", "+"} for level in levels)
    if not topic_filter or not alone or "#" in levels[:-1]:
        raise ProtocolError(f"Malformed filter: {topic_filter!r}")


def matches(topic_filter: str, topic: str) -> bool:
    """Return whether a filter matches a topic (MQTT 3.1.1, section 4.7).

    A filter that begins with a wildcard does not match `$iothub/…`; what a real hub does there is
    unknown.
    """
    if topic[0] == "$" and topic_filter[0] in "#+":
        return False
    if "+" not in topic_filter:  # as the filters of most clients
        if topic_filter[-1] != "#":
            return topic_filter == topic
        return topic.startswith(topic_filter[:-1]) or topic == topic_filter[:-2]
    levels = topic.split("/")
    wanted = topic_filter.split("/", len(levels) + 1)  # a filter can have 30,000 levels
    if wanted[-1] == "#":
        wanted.pop()
        levels = levels[: len(wanted)]
    return len(wanted) == len(levels) and all(
        level in ("+", actual) for level, actual in zip(wanted, levels, strict=True)
    )


def granted_qos(filters: Mapping[str, int], topic: str) -> int | None:
    """Return the highest QoS of the filters that match a topic, or None if none matches."""
    granted = None
    for name, qos in filters.items():
        if matches(name, topic):
            if qos:
                return qos
            granted = qos
    return granted


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
