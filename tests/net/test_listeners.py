"""What an error says when a socket can't be opened."""

from __future__ import annotations

import socket
import sys
from contextlib import ExitStack

import pytest

from emulator.net.listeners import ListenError, listen, other_loopback_address

not_macos = pytest.mark.skipif(sys.platform == "darwin", reason="macOS has one loopback address")


@not_macos
@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", "127.0.0.2"),
        ("127.0.0.1", "127.0.0.2"),
        ("127.0.0.2", "127.0.0.3"),
        ("::1", "127.0.0.2"),
        ("127.255.255.255", None),
        ("0.0.0.0", None),
        ("192.168.1.7", None),
        ("hub.example.com", None),
    ],
)
def test_another_loopback_address(host: str, expected: str | None) -> None:
    assert other_loopback_address(host) == expected


@not_macos
@pytest.mark.parametrize(
    ("host", "advice"),
    [
        ("localhost", "use another address: --host 127.0.0.2."),
        ("127.0.0.3", "use another address: --host 127.0.0.4."),
        ("0.0.0.0", "use another port: --mqtt-port PORT."),
    ],
)
def test_a_port_in_use_is_answered_with_an_address_that_sdks_can_use(
    host: str, advice: str
) -> None:
    with ExitStack() as stack:
        taken = stack.enter_context(socket.create_server((host, 0)))
        port = taken.getsockname()[1]
        with pytest.raises(ListenError) as raised:
            listen(host, port, option="--mqtt-port")
    assert raised.value.in_use
    assert str(raised.value) == (
        f"Port {port} is in use on {host}. Stop the other program, or {advice}"
    )


def test_an_address_of_another_machine_is_not_in_use() -> None:
    with pytest.raises(ListenError) as raised:
        listen("192.0.2.1", 0, option="--mqtt-port")
    assert not raised.value.in_use
