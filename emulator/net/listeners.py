"""Listening sockets, and errors that say what to do when a socket can't be opened."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
import ssl
import sys
from collections.abc import Callable, Iterable

from emulator.hub.core import limits

# Connections that the system holds while the loop is busy: a thousand devices may come at once.
BACKLOG = 1024


class ListenError(Exception):
    """A socket can't be opened. The text is one line: what is wrong, and what to do.

    Args:
        text: the text.
        in_use: whether another program has the port.
    """

    def __init__(self, text: str, *, in_use: bool = False) -> None:
        super().__init__(text)
        self.in_use = in_use


def listen(host: str, port: int, *, option: str) -> list[socket.socket]:
    """Open the sockets of one head: `localhost` has one for IPv4 and one for IPv6.

    Args:
        host: an address or a name of this machine.
        port: 0 chooses a free one, the same for each socket.
        option: the command-line option that sets the port.

    Raises:
        ListenError: the address is not this machine's, or the port is in use or needs a privilege.
    """
    sockets: list[socket.socket] = []
    try:
        for family, address in _addresses(host):
            try:
                opened = socket.create_server((address, port), family=family, backlog=BACKLOG)
            except OSError as error:
                # A machine without IPv6 can still have the name localhost for ::1.
                if sockets and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    continue
                raise
            port = opened.getsockname()[1]
            sockets.append(opened)
    except OSError as error:
        for opened in sockets:
            opened.close()
        in_use = error.errno == errno.EADDRINUSE
        raise ListenError(_explain(error, host, port, option), in_use=in_use) from error
    return sockets


async def accept(
    protocol: Callable[[], asyncio.BaseProtocol],
    sockets: Iterable[socket.socket],
    tls: ssl.SSLContext | None,
) -> list[asyncio.Server]:
    """Accept connections on bound sockets, over TLS or plain, each with a protocol of its own."""
    loop = asyncio.get_running_loop()
    return [
        await loop.create_server(
            protocol,
            sock=each,
            ssl=tls,
            backlog=BACKLOG,
            ssl_handshake_timeout=limits.TLS_HANDSHAKE_TIMEOUT if tls else None,
        )
        for each in sockets
    ]


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = {(family, str(address[0])) for family, _, _, _, address in found}
    if host == "localhost":
        # Both, whatever the hosts file says: some clients try IPv6 first, some never do.
        addresses |= {(socket.AF_INET, "127.0.0.1")}
        if socket.has_ipv6:
            addresses |= {(socket.AF_INET6, "::1")}
    return sorted(addresses)  # IPv4 first


def other_loopback_address(host: str) -> str | None:
    """Return a loopback address to use in place of a host; None if the machine has none.

    Azure's device SDKs can't use another port. macOS has 127.0.0.1 only, and an address that other
    machines use has no substitute.
    """
    if sys.platform == "darwin":
        return None
    if host in ("localhost", "::1"):
        return "127.0.0.2"
    with contextlib.suppress(ValueError):
        address = ipaddress.IPv4Address(host)
        if address.is_loopback and (address + 1).is_loopback:
            return str(address + 1)
    return None


def _explain(error: OSError, host: str, port: int, option: str) -> str:
    if error.errno == errno.EADDRINUSE:
        address = other_loopback_address(host)
        other = f"address: --host {address}" if address else f"port: {option} PORT"
        return f"Port {port} is in use on {host}. Stop the other program, or use another {other}."
    if error.errno == errno.EACCES:
        return f"This user can't open port {port}. Use a port above 1023: {option} PORT."
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine. Use another one: --host ADDRESS."
    return f"Can't open port {port} on {host}: {error.strerror or error}."
