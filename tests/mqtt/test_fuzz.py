"""Bytes by chance. Whatever comes, the hub logs no error of its own, and serves another device.

A normal run tries a few; the environment variable FUZZ_EXAMPLES sets how many each test tries.
"""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emulator import Emulator
from tests.mqtt import raw
from tests.mqtt.playbook import Lab
from tests.mqtt.raw import DISCONNECT, PINGREQ, Greet, Online, Wire
from tests.mqtt.web_socket import WebSocketWire, frame
from tests.support import Device

_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))

# The fixtures are one for all examples: a running emulator is meant to outlive any bytes.
_checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
on_the_wire = settings(max_examples=_EXAMPLES // 4, deadline=None, suppress_health_check=_checks)
on_a_channel = settings(max_examples=2 * _EXAMPLES, deadline=None, suppress_health_check=_checks)


def _mutated(valid: bytes) -> st.SearchStrategy[bytes]:
    """Bytes that were valid packets before chance changed them."""
    positions = st.integers(0, len(valid))

    def flip(position: int, mask: int) -> bytes:
        changed = bytearray(valid)
        changed[position % len(valid)] ^= mask
        return bytes(changed)

    return st.one_of(
        st.builds(flip, positions, st.integers(1, 255)),
        positions.map(lambda end: valid[:end]),
        st.builds(lambda a, b: valid[: min(a, b)] + valid[max(a, b) :], positions, positions),
        st.builds(lambda a, b: valid[: max(a, b)] + valid[min(a, b) :], positions, positions),
        st.builds(
            lambda at, more: valid[:at] + more + valid[at:], positions, st.binary(max_size=20)
        ),
    )


_TOPICS = st.sampled_from(
    [
        "$iothub/twin/GET/?$rid=1",
        "$iothub/twin/PATCH/properties/reported/?$rid=2",
        "$iothub/twin/PATCH/properties/reported/?$rid=2&$version=3",
        "$iothub/methods/res/200/?$rid=1",
        "devices/d1/messages/events/",
        "devices/d1/messages/events/$.mid=1&a=b&c",
        "$iothub/twin/res/#",
        "$iothub/twin/PATCH/properties/desired/#",
        "$iothub/methods/POST/#",
        "devices/d1/messages/devicebound/#",
    ]
)
_PAYLOADS = st.one_of(
    st.sampled_from(
        [b"", b" ", b'{"a":1}', b'{"a":{"b":null}}', b"[]", b"{", b'{"$a":1}', b"\xff"]
    ),
    st.binary(max_size=30),
)
_IDS = st.integers(1, 0xFFFF)
_PACKETS = st.one_of(
    st.builds(raw.publish, _TOPICS, _PAYLOADS),
    st.builds(raw.publish, _TOPICS, _PAYLOADS, packet_id=_IDS),
    st.builds(raw.subscribe, _IDS, st.tuples(_TOPICS, st.integers(0, 3))),
    st.builds(raw.unsubscribe, _IDS, _TOPICS),
    st.builds(raw.puback, _IDS),
    st.sampled_from([PINGREQ, DISCONNECT]),
)
_SEQUENCES = st.lists(_PACKETS, min_size=1, max_size=5).map(b"".join)
_BYTES = st.binary(max_size=200)


@on_a_channel
@given(st.data())
def test_any_bytes_are_handled_or_end_the_connection(lab: Lab, data: st.DataObject) -> None:
    lab.sessions.forget("d1")
    other = lab.connect("d2", "$iothub/twin/res/#")
    greeting = lab.greeting(will=("devices/d1/messages/events/", b"gone"))
    client = lab.dial()
    lab.send("waits")
    client.send(
        data.draw(
            st.one_of(
                _BYTES,
                _mutated(greeting),
                _BYTES.map(greeting.__add__),
                _SEQUENCES.map(greeting.__add__),
                _SEQUENCES.flatmap(_mutated).map(greeting.__add__),
            )
        )
    )
    client.send(PINGREQ)
    lab.patch_desired(a=1)
    lab.hub.cloud_to_device.purge("d1")
    client.lose()
    assert lab.state() == "Disconnected"
    other.play(">> PUBLISH $iothub/twin/GET/?$rid=1", "<< PUBLISH $iothub/twin/res/200/?$rid=1 …")


# --- over the wire


def _exchange(wire: Wire, data: bytes) -> None:
    """Send all data, and wait until the hub has handled what it can."""
    wire.send_what_goes(data)
    connection = wire._tls if isinstance(wire, WebSocketWire) else wire._socket
    with suppress(OSError):  # the hub was faster
        connection.shutdown(socket.SHUT_WR)
    with suppress(ConnectionError):
        while connection.recv(65536):  # below TLS by now; only the end matters
            pass


@on_the_wire
@given(_BYTES | _SEQUENCES.flatmap(_mutated), st.booleans())
def test_any_bytes_over_tls(
    emulator: Emulator, trust: ssl.SSLContext, greet: Greet, device: Device, online: Online,
    other_device: Device, data: bytes, connected: bool,
) -> None:  # fmt: skip
    with online(other_device) as other:
        with Wire((emulator.host_name, emulator.mqtt_port), trust) as wire:
            _exchange(wire, (greet(device) if connected else b"") + data)
        other.expect_nothing()


@on_the_wire
@given(_SEQUENCES.map(frame).flatmap(_mutated), st.booleans())
def test_mutated_frames_of_a_web_socket(
    emulator: Emulator, trust: ssl.SSLContext, greet: Greet, device: Device, online: Online,
    other_device: Device, data: bytes, connected: bool,
) -> None:  # fmt: skip
    with online(other_device) as other:
        with WebSocketWire(emulator.host_name, emulator.https_port, trust) as wire:
            if connected:
                wire.send(greet(device))
            _exchange(wire, data)
        other.expect_nothing()
