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

_PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def _config() -> BrokerConfig:
    return BrokerConfig(
        listeners={"default": ListenerConfig(type=ListenerType.EXTERNAL)}, plugins={}
    )


def test_amqtt_is_the_version_that_is_pinned() -> None:
    pin = re.search(r"\"amqtt==([^\"]+)\"", _PROJECT.read_text(encoding="utf-8"), re.MULTILINE)
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
