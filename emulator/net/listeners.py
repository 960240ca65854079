"""Listening sockets, and the errors that tell what to do when there are none to be had."""

from __future__ import annotations

import errno
import socket

# Connections that the system holds while the loop is busy: a thousand devices may come at once.
BACKLOG = 1024


class ListenError(Exception):
    """An address can't be listened on; the text is one line that says what to do."""


def listen(host: str, port: int, *, option: str) -> list[socket.socket]:
    """Open the sockets of one listener: `localhost` has one for IPv4 and one for IPv6.

    Args:
        port: 0 picks a free one, the same for each socket.
        option: the command-line option that would move this listener elsewhere.

    Raises:
        ListenError: the address is not this machine's, the port is taken, or needs a privilege.
    """
    sockets: list[socket.socket] = []
    try:
        for family, address in _addresses(host):
            try:
                opened = socket.create_server((address, port), family=family, backlog=BACKLOG)
            except OSError as error:
                # A machine without IPv6 may still call ::1 localhost.
                if sockets and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    continue
                raise
            port = opened.getsockname()[1]
            sockets.append(opened)
    except OSError as error:
        for opened in sockets:
            opened.close()
        raise ListenError(_explain(error, host, port, option)) from error
    return sockets


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = {(family, str(address[0])) for family, _, _, _, address in found}
    if host == "localhost":
        # Both, whatever the hosts file says: some clients ask for IPv6 first, some never do.
        addresses |= {(socket.AF_INET, "127.0.0.1")}
        if socket.has_ipv6:
            addresses |= {(socket.AF_INET6, "::1")}
    return sorted(addresses)  # IPv4 first


def _explain(error: OSError, host: str, port: int, option: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} on {host} is taken, perhaps by another emulator: stop that program, or "
            f"choose another port with {option}, or another address with --host."
        )
    if error.errno == errno.EACCES:
        return (
            f"Port {port} on {host} needs a privilege that this user doesn't have: choose one "
            f"above 1023 with {option}."
        )
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine: choose another with --host."
    return f"Can't listen on port {port} of {host}: {error.strerror or error}."
