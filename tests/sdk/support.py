"""Helpers of the SDK tests."""

import base64
import queue
from collections.abc import Callable, Iterator
from typing import Any

import pytest

# Two pairs of a primary and a secondary key.
KEYS, OTHER_KEYS = (
    [base64.b64encode(bytes([number]) * 32).decode() for number in pair]
    for pair in ((1, 2), (3, 4))
)

# How long the SDK waits before it restores a connection: 10 s unless it is told otherwise.
RETRY = {"connection_retry_interval": 1}

iothub_real = pytest.mark.iothub_real

# The SDK recommends handlers, but the tutorial receives by these calls.
uses_deprecated_calls = pytest.mark.filterwarnings(
    "ignore:receive_.* is deprecated:DeprecationWarning"
)


def make_clients(kind: Any, connection_string: str) -> Iterator[Callable[..., Any]]:
    """Return a fixture that makes clients of a device or module, which are not connected yet."""
    clients = []

    def make(connection_string: str = connection_string, **options: Any) -> Any:
        client = kind.create_from_connection_string(connection_string, **RETRY | options)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.shutdown()


def desired_patches(client: Any) -> queue.Queue[dict[str, Any]]:
    """Return the queue of the desired patches that a client receives from now on."""
    patches: queue.Queue[dict[str, Any]] = queue.Queue()
    client.on_twin_desired_properties_patch_received = patches.put
    return patches


def keys_of(identity: Any) -> list[str]:
    """Return the symmetric keys of a device or module."""
    keys = identity.authentication.symmetric_key
    return [keys.primary_key, keys.secondary_key]
