"""A loopback address for each process that runs tests."""

from __future__ import annotations

import socket
import sys

import pytest

from emulator.errors import StartError
from emulator.testing.addresses import free_loopback_address


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has one loopback address")
def test_an_address_is_drawn_whose_port_is_free() -> None:
    addresses = {free_loopback_address() for _ in range(20)}
    assert len(addresses) > 15
    for address in addresses:
        assert address.startswith("127.0.")
        socket.create_server((address, 8883)).close()


def test_macos_has_one_address_and_those_that_its_user_adds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    existing = ["127.0.0.1", "127.0.0.2"]

    def create_server(address: tuple[str, int]) -> socket.socket:
        if address[0] not in existing:
            raise OSError(49, "Can't assign requested address")
        return socket.socket()

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(socket, "create_server", create_server)
    assert [free_loopback_address(worker) for worker in (0, 1)] == existing
    with pytest.raises(StartError) as caught:
        free_loopback_address(2)
    assert str(caught.value) == (
        "Each worker of pytest needs a loopback address of its own, and 127.0.0.3 is missing. "
        "Add it: sudo ifconfig lo0 alias 127.0.0.3 up. Or run the tests without -n."
    )
