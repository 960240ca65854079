"""Many TLS connections in one thread, none of which blocks.

By hand on a selector: a framework would cost more for each message than the servers do.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import sys
import time
from collections.abc import Callable

from benchmarks.bench import End

# How long nothing at all may happen.
_PATIENCE = 30.0

# Windows' select() takes no more sockets than that.
SELECTABLE = 500 if sys.platform == "win32" else None

Ready = Callable[[], None]


class Loop:
    """Calls back when something has come."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def watch(self, watched: socket.socket, ready: Ready, *, writing: bool = False) -> None:
        """From now on, call `ready` when the socket can be read, or written to if that is asked."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        try:
            self._selector.modify(watched, events, ready)
        except KeyError:
            self._selector.register(watched, events, ready)

    def forget(self, watched: socket.socket) -> None:
        """Watch it no longer."""
        self._selector.unregister(watched)

    def run(self, done: Callable[[], bool]) -> None:
        """Go on until `done` says so; it is asked after each turn.

        Raises:
            TimeoutError: nothing happens any more.
        """
        select = self._selector.select
        while not done():
            ready = select(_PATIENCE)
            if not ready:
                raise TimeoutError(f"the servers were silent for {_PATIENCE:.0f} s")
            for key, _ in ready:
                key.data()

    def run_for(self, seconds: float) -> None:
        """Go on for a time, and to the end of the turn.

        Raises:
            TimeoutError: nothing happens any more.
        """
        end = time.perf_counter() + seconds
        self.run(lambda: time.perf_counter() >= end)

    def close(self) -> None:
        """Free what the system keeps for it."""
        self._selector.close()


class Wire:
    """One connection. Set `on_data` to who takes what comes, then open it.

    Raises:
        OSError: nobody listens.
    """

    def __init__(self, loop: Loop, end: End, trust: ssl.SSLContext) -> None:
        plain = socket.create_connection(end.address, timeout=_PATIENCE)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = trust.wrap_socket(
            plain, server_hostname=end.host, do_handshake_on_connect=False
        )
        self._socket.setblocking(False)
        self._loop = loop
        self._unsent = b""
        self._on_open: Ready = _nothing
        self.on_data: Callable[[bytes], None] = _unexpected

    def open(self, on_open: Ready) -> None:
        """Shake hands, and call `on_open` after that; it may be done when this returns."""
        self._on_open = on_open
        self._shake_hands()

    def send(self, data: bytes) -> None:
        """Send now what goes, and the rest as soon as it goes."""
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

    def close(self) -> None:
        """Go, without a goodbye."""
        self._loop.forget(self._socket)
        self._socket.close()

    def _shake_hands(self) -> None:
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            self._loop.watch(self._socket, self._shake_hands)
        except ssl.SSLWantWriteError:
            self._loop.watch(self._socket, self._shake_hands, writing=True)
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
        """Send the rest, then read: both may be why this is called."""
        rest, self._unsent = self._unsent, b""
        self._loop.watch(self._socket, self._read)
        self.send(rest)
        self._read()


def _nothing() -> None:
    pass


def _unexpected(data: bytes) -> None:
    raise ValueError(f"nobody asked for {data[:100]!r}")
