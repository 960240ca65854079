"""Loopback addresses of hubs side by side: device SDKs dial one port, so each needs its own."""

from __future__ import annotations

import contextlib
import random
import socket
import sys

from emulator.errors import StartError
from emulator.settings import MQTT_PORT


def free_loopback_address(worker: int = 0) -> str:
    """Find a loopback address with a free port 8883, the only one that device SDKs dial.

    Linux and Windows have all of 127.0.0.0/8, from which one is drawn, so that runs side by side
    don't meet. macOS has 127.0.0.1 only, and the addresses that its user adds.

    Args:
        worker: the number of this process among those that run tests at the same time, from 0.

    Raises:
        StartError: this machine has no address for the worker.
    """
    if sys.platform == "darwin":
        return _address_of(worker)
    while True:
        address = f"127.0.{random.randrange(1, 255)}.{random.randrange(1, 255)}"  # noqa: S311
        with contextlib.suppress(OSError), socket.create_server((address, MQTT_PORT)):
            return address


def _address_of(worker: int) -> str:
    address = f"127.0.0.{worker + 1}"
    try:
        socket.create_server((address, 0)).close()
    except OSError:
        raise StartError(
            f"Each worker of pytest needs a loopback address of its own, and {address} is missing. "
            f"Add it: sudo ifconfig lo0 alias {address} up. Or run the tests without -n."
        ) from None
    return address
