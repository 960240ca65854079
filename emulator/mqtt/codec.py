"""CONNECT by amqtt's codec, which lets pass what MQTT forbids: strictly, here.

Section numbers are those of MQTT 3.1.1.
"""

from __future__ import annotations

import struct
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from amqtt.adapters import BufferReader
from amqtt.errors import AMQTTError, MQTTError, NoDataError
from amqtt.mqtt.connect import ConnectPacket
from amqtt.mqtt.packet import CONNECT, MQTTFixedHeader

from emulator.mqtt.frame import ProtocolError

_T = TypeVar("_T")

# What amqtt's codec raises over bytes that are no packet.
_CODEC_ERRORS = (AMQTTError, MQTTError, NoDataError, ValueError, struct.error)


def decode_connect(body: bytes) -> ConnectPacket:
    """Decode a CONNECT with amqtt's codec, and refuse what the codec lets pass.

    The codec takes truncated packets, bytes too many, and text that is not UTF-8. None of them
    comes out again as it went in, so that is what is checked; but the password need not be text.

    Raises:
        ProtocolError: the packet is malformed, or its flags contradict each other (MQTT 3.1.1,
            section 3.1.2).
    """
    try:
        connect = _at_once(
            ConnectPacket.from_stream(BufferReader(body), MQTTFixedHeader(CONNECT, 0, len(body)))
        )
        flags, payload = connect.variable_header, connect.payload
        if payload.client_id_is_random:  # amqtt's invention, where the client sent none
            payload.client_id = ""
        password, payload.password = payload.password, None
        before_password = flags.to_bytes() + payload.to_bytes(None, flags)
    except _CODEC_ERRORS as error:
        raise ProtocolError(f"a malformed CONNECT: {error}") from None
    payload.password = password
    rest = body[len(before_password) :]
    password_bytes = 2 + int.from_bytes(rest[:2], "big") if flags.password_flag else 0
    texts = (payload.client_id, payload.username or "", payload.will_topic or "")
    if (
        not body.startswith(before_password)
        or len(rest) != password_bytes
        or flags.proto_name != "MQTT"
        or flags.reserved_flag
        or flags.will_qos > 2
        or (not flags.will_flag and (flags.will_qos or flags.will_retain_flag))
        or (flags.will_flag and payload.will_topic is None)
        or (flags.username_flag and payload.username is None)
        or (flags.password_flag and not flags.username_flag)
        or any("\0" in text for text in texts)
    ):
        raise ProtocolError("a malformed CONNECT")
    return connect


def _at_once(decoding: Coroutine[Any, Any, _T]) -> _T:
    """Run amqtt's decoding to its end: its coroutines never wait where the bytes are there."""
    try:
        decoding.send(None)
    except StopIteration as result:
        return cast("_T", result.value)
    raise RuntimeError("amqtt waits for bytes that it has")
