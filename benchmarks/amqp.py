"""AMQP 1.0 for the clients. They share the codec with the emulator, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.bench import Bench
from benchmarks.https import sas_token
from benchmarks.servers import HOST, Server
from benchmarks.wires import Wire
from emulator.amqp import frame
from emulator.amqp import performatives as p

# More than a run has: of messages, of bytes in a frame.
_MANY = 2**31 - 1

_GUEST = ("guest", "guest")


def whole(data: bytes) -> int:
    """Return the size of the first frame or header; 0 if a part of it is missing."""
    size = 8 if data.startswith(b"AMQP") else int.from_bytes(data[:4], "big")
    return size if 4 <= size <= len(data) else 0


class Link:
    """A connection with one session and one link, which is open when the call returns.

    Args:
        user: at the emulator; RabbitMQ has a guest on loopback.
        node: the address that the link is attached to.
        role: whether the link sends or receives; it accepts each message that it receives.
    """

    def __init__(self, bench: Bench, server: Server, user: str, node: str, role: bool) -> None:
        self.on_change: Callable[[], None] = lambda: None
        """Called when there is a message, an outcome or new credit."""
        self.sent = self.done = 0
        """How many messages were sent; how many the server has accepted, or the link received."""
        self.limit = 0
        """How many messages can be sent, with those that were; 0 until the link is open."""
        ours = (user, f"{sas_token(HOST)}&skn=iothubowner")
        self._login = "\0".join(("", *(ours if server is bench.hub else _GUEST))).encode()
        attach = p.Attach("link", 0, role, 0, 0, p.Source(node), p.Target(node), None, False, 0)
        self._opening = [p.Open("benchmarks", HOST), p.Begin(None, 0, _MANY, _MANY), attach]
        if role == p.RECEIVER:
            self._opening.append(p.Flow(0, _MANY, 0, _MANY, 0, 0, _MANY))
        self._frames, self._wire = frame.FrameBuffer(), Wire(bench.loop, server.ports["amqps"])
        self._wire.take(whole, self._take)
        self._wire.open(lambda: self._wire.send(frame.SASL_HEADER))
        bench.loop.run(lambda: self.limit > 0)

    def send(self, message: bytes, count: int = 1) -> None:
        """Send a message so many times."""
        ids = (each.to_bytes(4, "big") for each in range(self.sent, self.sent + count))
        fields = (b"\x70%b\xa0\x04%b\x43" % (each, each) for each in ids)  # id, tag, format
        frames = (frame.write_transfer(0, b"\x43", e, False, False, message) for e in fields)
        self.sent += count
        self._wire.send(b"".join(frames))

    def _write(self, *performatives: p.Composite, kind: int = frame.AMQP) -> None:
        self._wire.send(b"".join(frame.write(0, each, kind) for each in performatives))

    def _take(self, data: bytes) -> None:
        if data.startswith(b"AMQP"):
            return
        self._frames.append(data)
        match (self._frames.frame(data[5], _MANY) or [None, None])[1]:
            case p.Transfer(delivery_id=int(number)):
                self._write(p.Disposition(p.RECEIVER, number, settled=True, state=p.ACCEPTED))
                self.done += 1
            case p.Disposition(first=first, last=last, state=p.Accepted()):
                self.done += (first if last is None else last) - first + 1
            case p.Flow(next_incoming_id=int(start), link_credit=int(credit)) as flow:
                self.limit = min(start + flow.incoming_window, (flow.delivery_count or 0) + credit)
            case p.SaslMechanisms():
                self._write(p.SaslInit("PLAIN", self._login), kind=frame.SASL)
            case p.SaslOutcome():
                self._wire.send(frame.AMQP_HEADER)
                self._write(*self._opening)
            case p.Attach(role=p.SENDER):
                self.limit = 1
            case p.Detach() | p.End() | p.Close() | p.Disposition() as end:
                raise ValueError(f"the server sent {end}")
        self.on_change()
