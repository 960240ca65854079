"""Helpers of the SDK tests."""

import base64
import queue
import time
from collections.abc import Callable
from typing import Any

import pytest

# Long enough for a busy machine, and for a real hub. A wait ends by its event, except in a failure.
PATIENCE = 60

# Two pairs of a primary and a secondary key.
KEYS, OTHER_KEYS = (
    [base64.b64encode(bytes([number]) * 32).decode() for number in pair]
    for pair in ((1, 2), (3, 4))
)

real_hub = pytest.mark.real_hub

# The SDK recommends handlers, but the tutorial receives by these calls.
uses_deprecated_calls = pytest.mark.filterwarnings(
    "ignore:receive_.* is deprecated:DeprecationWarning"
)


def wait_until(happened: Callable[[], Any]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def desired_patches(client: Any) -> queue.Queue[dict[str, Any]]:
    """Return the queue of the desired patches that a client receives from now on."""
    patches: queue.Queue[dict[str, Any]] = queue.Queue()
    client.on_twin_desired_properties_patch_received = patches.put
    return patches


def own(properties: dict[str, Any]) -> dict[str, Any]:
    """Return the members of a twin's section without those that the hub adds."""
    return {name: value for name, value in properties.items() if not name.startswith("$")}


def keys_of(identity: Any) -> list[str]:
    """Return the symmetric keys of a device or module."""
    keys = identity.authentication.symmetric_key
    return [keys.primary_key, keys.secondary_key]
