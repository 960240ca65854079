"""Many TLS connections in one thread, none of which blocks.

They are written on a selector: a framework costs more for each message than the servers do.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import time
from collections.abc import Callable

from benchmarks.servers import HOST

# How long all servers may be silent.
_PATIENCE = 30.0

Ready = Callable[[], None]


class Loop:
    """Calls back when a connection can be read.

    Args:
        trust: what the TLS connections trust.
    """

    def __init__(self, trust: ssl.SSLContext) -> None:
        self.trust = trust
        self._selector = selectors.DefaultSelector()

    def watch(self, watched: socket.socket, ready: Ready, *, writing: bool = False) -> None:
        """Call `ready` when the socket can be read, or also when it can be written."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        known = watched in self._selector.get_map()
        (self._selector.modify if known else self._selector.register)(watched, events, ready)

    def run(self, done: Callable[[], bool]) -> None:
        """Run until `done()` is true; it is called after each turn.

        Raises:
            TimeoutError: the servers were silent for 30 s.
        """
        select = self._selector.select
        while not done():
            ready = select(_PATIENCE)
            if not ready:
                raise TimeoutError(f"the servers were silent for {_PATIENCE:.0f} s")
            for key, _ in ready:
                key.data()

    def run_for(self, seconds: float) -> None:
        """Run for a time, and to the end of the turn."""
        end = time.perf_counter() + seconds
        self.run(lambda: time.perf_counter() >= end)

    def close(self) -> None:
        """Close all connections."""
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr] # they are sockets
        self._selector.close()


class Wire:
    """One TLS connection. `on_data` takes what is received: set it before `open`.

    Raises:
        OSError: no server listens.
    """

    def __init__(self, loop: Loop, port: int) -> None:
        plain = socket.create_connection((HOST, port), timeout=_PATIENCE)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = loop.trust.wrap_socket(
            plain, server_hostname=HOST, do_handshake_on_connect=False
        )
        self._socket.setblocking(False)
        self._loop = loop
        self._unsent = b""
        self._on_open: Ready
        self.on_data: Callable[[bytes], None]

    def open(self, on_open: Ready) -> None:
        """Start the handshake; call `on_open` after it."""
        self._on_open = on_open
        self._shake_hands()

    def send(self, data: bytes) -> None:
        """Send now what the system takes, and the rest as soon as possible."""
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._socket.send(data)
        except ssl.SSLWantWriteError:
            sent = 0
        if sent < len(data):
            self._unsent = data[sent:]
            self._loop.watch(self._socket, self._flush, writing=True)

    def take(self, whole: Callable[[bytes], int], on_message: Callable[[bytes], None]) -> None:
        """Call `on_message` with each message from now on.

        Args:
            whole: returns the size of the first message; 0 if a part of it is missing.
        """
        received = b""

        def on_data(data: bytes) -> None:
            nonlocal received
            received += data
            while size := whole(received):
                message, received = received[:size], received[size:]
                on_message(message)

        self.on_data = on_data

    def _shake_hands(self) -> None:
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            self._loop.watch(self._socket, self._shake_hands)
        else:
            self._loop.watch(self._socket, self._read)
            self._on_open()

    def _read(self) -> None:
        try:
            data = self._socket.recv(65536)
        except ssl.SSLWantReadError:  # a session ticket, or half a record
            return
        if not data:
            raise ConnectionError("the server closed a connection")
        while self._socket.pending():
            data += self._socket.recv(65536)
        self.on_data(data)

    def _flush(self) -> None:
        """Send the rest, then read: the socket may be ready for both."""
        rest, self._unsent = self._unsent, b""
        self._loop.watch(self._socket, self._read)
        self.send(rest)
        self._read()
