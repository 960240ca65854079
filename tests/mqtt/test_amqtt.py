"""What emulator/mqtt/server.py leans on in amqtt, private names included.

These fail when amqtt is another version, or has changed where the broker overrides it.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from amqtt.adapters import BufferReader, BufferWriter, ReaderAdapter, WriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.mqtt.connack import CONNECTION_ACCEPTED, ConnackPacket
from amqtt.mqtt.connect import ConnectPacket
from amqtt.mqtt.packet import MQTTFixedHeader, MQTTPacket
from amqtt.mqtt.pingresp import PingRespPacket

from tests.mqtt import raw

_REQUIREMENTS = Path(__file__).parents[2] / "requirements.txt"


def _config() -> BrokerConfig:
    return BrokerConfig(
        listeners={"default": ListenerConfig(type=ListenerType.EXTERNAL)}, plugins={}
    )


def test_amqtt_is_the_version_that_is_pinned() -> None:
    pin = re.search(r"^amqtt==(\S+)$", _REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE)
    assert pin
    assert importlib.metadata.version("amqtt") == pin[1]


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (Broker.__init__, ["self", "config", "loop", "plugin_namespace"]),
        (Broker.start, ["self"]),
        (Broker.shutdown, ["self"]),
        (Broker.external_connected, ["self", "reader", "writer", "listener_name"]),
        (Broker._client_connected, ["self", "listener_name", "reader", "writer"]),
        (MQTTFixedHeader.__init__, ["self", "packet_type", "flags", "length"]),
        (ConnackPacket.build, ["session_parent", "return_code"]),
        (PingRespPacket.build, []),
        (MQTTPacket.to_stream, ["self", "writer"]),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_what_is_called_or_overridden_takes_what_it_took(
    function: Callable[..., Any], parameters: list[str]
) -> None:
    assert list(inspect.signature(function).parameters) == parameters


@pytest.mark.parametrize(
    ("base", "names"),
    [
        (ReaderAdapter, {"read", "feed_eof"}),
        (WriterAdapter, {"write", "drain", "get_peer_info", "get_ssl_info", "close"}),
    ],
)
def test_an_adapter_has_to_have_what_it_had_to_have(base: type, names: set[str]) -> None:
    assert inspect.isabstract(base)
    assert base.__abstractmethods__ == names  # type: ignore[attr-defined]


async def test_an_external_connection_is_served_by_the_method_that_is_overridden() -> None:
    served: list[tuple[object, ...]] = []

    class Probe(Broker):
        async def _client_connected(self, *given: object) -> None:
            served.append(given)

    reader, writer = BufferReader(b""), BufferWriter()
    await Probe(_config()).external_connected(reader, writer, "default")
    assert served == [("default", reader, writer)]


async def test_an_external_broker_opens_no_port_and_stops() -> None:
    broker = Broker(_config())
    await broker.start()
    [server] = broker._servers.values()
    assert server.instance is None
    await broker.shutdown()


def test_the_codec_writes_the_hubs_answers() -> None:
    answers = {
        raw.PINGRESP: PingRespPacket.build(),
        raw.connack(0, session_present=True): ConnackPacket.build(True, CONNECTION_ACCEPTED),
    }
    assert [packet.to_bytes() for packet in answers.values()] == list(answers)


async def _decoded(kind: Any, data: bytes) -> Any:
    body = data[2:]
    header = MQTTFixedHeader(data[0] >> 4, data[0] & 0x0F, len(body))
    return await kind.from_stream(BufferReader(body), header)


async def test_the_codec_reads_a_connect() -> None:
    data = raw.connect("d", "h/d", "secret", clean=False, keep_alive=300)
    connect = await _decoded(ConnectPacket, data)
    assert connect.to_bytes() == data
    assert (connect.proto_name, connect.proto_level, connect.keep_alive) == ("MQTT", 4, 300)
    assert (connect.client_id, connect.username, connect.password) == ("d", "h/d", "secret")
    assert not connect.clean_session_flag
    flags = connect.variable_header
    assert flags.username_flag
    assert flags.password_flag
    assert not flags.will_flag
    assert not flags.will_retain_flag
    assert not flags.reserved_flag
    assert flags.will_qos == 0
