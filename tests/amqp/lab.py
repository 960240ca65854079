"""Clients of a hub over AMQP, without a socket, and without a clock that runs.

    client = AmqpClient(lab).open()
    client.put_token(service_token(lab))
    link = client.sender("/messages/devicebound")
    outcome = link.send(Message(b"hello", Properties(to="/devices/d1/messages/devicebound")))

`lab` is the hub of `tests/mqtt/playbook.py`, with the devices d1 and d2. `client.play` takes
transcripts, as in `playbook.py` here.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

from emulator.amqp import frame
from emulator.amqp.client import Client
from emulator.amqp.message import Message, Value, decode_message
from emulator.amqp.performatives import (
    RECEIVER,
    SENDER,
    Attach,
    Begin,
    Detach,
    Disposition,
    Error,
    Flow,
    Open,
    Outcome,
    Properties,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    Source,
    Target,
    Transfer,
)
from emulator.hub.access.certificates import ClientCertificate
from tests.amqp.playbook import Peer, write
from tests.mqtt.playbook import HOST, KEY, POLICY_KEY, Lab

__all__ = ["HOST", "KEY", "POLICY_KEY", "AmqpClient", "Lab", "RemoteLink", "service_token"]

_PART = 32 * 1024  # the largest payload of a frame here

TLS_PORT = 5679

PUT_TOKEN = {"operation": "put-token", "type": "servicebus.windows.net:sastoken", "name": HOST}


def service_token(lab: Lab, policy: str = "service", **fields: Any) -> str:
    """Sign a token of a policy for the hub."""
    return lab.token(HOST, POLICY_KEY, policy=policy, **fields)


def device_token(lab: Lab, name: str = "d1", key: str = KEY, **fields: Any) -> str:
    """Sign a token with the key of a device or a `device/module`."""
    return lab.token(f"{HOST}/devices/{name.replace('/', '/modules/')}", key, **fields)


class AmqpClient(Peer):
    """A client, with one session on channel 0 unless it begins more."""

    def __init__(self, lab: Lab, *, certificate: ClientCertificate | None = None) -> None:
        self.lab = lab
        self.client = Client(lab.hub, TLS_PORT, certificate, "test", self.wake)
        super().__init__(self.client.connection)
        self._handles = itertools.count()
        self._numbers = itertools.count()
        self._cbs: tuple[RemoteLink, RemoteLink] | None = None

    def send(self, data: bytes) -> None:
        """Send bytes, at the time of the lab."""
        for _ in self.connection.receive(data, self.lab.clock.machine.monotonic()):
            pass

    def sasl(self, user_name: str, password: str) -> int:
        """Authenticate by PLAIN; return the code of the outcome."""
        self.send(frame.SASL_HEADER)
        self._frames.append(self.connection.data_to_send())
        assert self._frames.header() == frame.SASL_HEADER
        assert isinstance(self.take(frame.SASL)[1], SaslMechanisms)
        response = f"\0{user_name}\0{password}".encode()
        self.send(frame.write(0, SaslInit("PLAIN", response), frame.SASL))
        outcome = self.take(frame.SASL)[1]
        assert isinstance(outcome, SaslOutcome)
        return outcome.code

    def open(self, *, host: str | None = HOST, **fields: Any) -> AmqpClient:
        """Open the connection and a session on channel 0."""
        self.send(frame.AMQP_HEADER + frame.write(0, Open("test", host, **fields)))
        assert self.take_bytes(8) == frame.AMQP_HEADER
        assert isinstance(self.take()[1], Open)
        return self.session(0)

    def session(self, channel: int) -> AmqpClient:
        """Begin a session."""
        self.send(frame.write(channel, Begin(None, 0, 100_000, 100_000)))
        assert isinstance(self.take()[1], Begin)
        return self

    def attach(self, attach: Attach, channel: int = 0) -> RemoteLink:
        """Attach a link; see `RemoteLink.error` for whether it was refused."""
        self.send(write(channel, attach))
        return RemoteLink(self, attach, channel)

    def pending(self, address: str) -> Attach:
        """Send the attach of a link that sends, and take no answer."""
        handle = next(self._handles)
        attach = Attach(f"link-{handle}", handle, SENDER, target=Target(address))
        self.send(write(0, attach))
        return attach

    def sender(self, address: str | None, channel: int = 0, **fields: Any) -> RemoteLink:
        """Attach a link that sends to a node."""
        handle = next(self._handles)
        target = Target(address)
        attach = Attach(f"link-{handle}", handle, SENDER, target=target, **fields)
        return self.attach(attach, channel)

    def receiver(
        self, address: str | None, *, credit: int = 0, channel: int = 0, **fields: Any
    ) -> RemoteLink:
        """Attach a link that receives from a node, and grant credit."""
        handle = next(self._handles)
        source = Source(address)
        link = self.attach(
            Attach(f"link-{handle}", handle, RECEIVER, source=source, **fields), channel
        )
        if credit and link.error is None:
            link.grant(credit)
        return link

    def refused(self, link: RemoteLink) -> tuple[str, int]:
        """Return the condition of a link that was refused, and the code in its description."""
        assert link.error is not None
        return link.error.condition, code_of(link.error)

    def put_token(self, token: str, message_id: Any = "1", status: int = 200) -> Message:
        """Send a token to `$cbs`, and take the reply, which has this status."""
        if self._cbs is None:
            self._cbs = self.sender("$cbs"), self.receiver("$cbs", credit=1000)
        sender, receiver = self._cbs
        message = Message(Value(token), Properties(message_id=message_id), PUT_TOKEN)
        sender.post(message)
        disposition = self.take()[1]  # uamqp wants it before the reply
        assert isinstance(disposition, Disposition), disposition
        reply = receiver.take()
        self.expect_nothing()
        assert reply.properties.correlation_id == message_id
        assert type(reply.properties.correlation_id) is type(message_id)
        assert reply.application_properties["status-code"] == status, reply
        return reply

    def next_number(self) -> int:
        """Return the next delivery id."""
        return next(self._numbers)


class RemoteLink:
    """A link as its client has it."""

    def __init__(self, client: AmqpClient, attach: Attach, channel: int) -> None:
        self.client = client
        self.handle = attach.handle
        self.channel = channel
        self.answer = self._take(Attach)
        self.error: Error | None = None
        """Why the hub refused the link; None if it is attached."""
        self.tags: list[bytes] = []
        self.ids: list[int] = []
        sends = attach.role == SENDER
        if (self.answer.target if sends else self.answer.source) is None:
            self.error = self.detached()
        elif sends:
            self.credit = self._take(Flow).link_credit or 0

    def grant(self, credit: int, *, drain: bool = False) -> None:
        """Grant credit; `drain` asks for what there is."""
        flow = Flow(
            0, 100_000, 0, 100_000, handle=self.handle, delivery_count=len(self.ids),
            link_credit=credit, drain=drain,
        )  # fmt: skip
        self.client.send(write(self.channel, flow))

    def post(self, message: Message | bytes, *, settled: bool = False, **fields: Any) -> int:
        """Send a message; return its delivery id."""
        number = self.client.next_number()
        payload = message if isinstance(message, bytes) else message.to_bytes()
        while True:
            part, payload = payload[:_PART], payload[_PART:]
            tag = b"%d" % number
            transfer = Transfer(
                self.handle, number, tag, settled=settled, more=bool(payload), **fields
            )
            self.client.send(write(self.channel, transfer, part))
            if not payload:
                return number

    def send(self, message: Message | bytes, **fields: Any) -> Outcome | None:
        """Send a message, and return its outcome; nothing else must be sent, except credit."""
        number = self.post(message, **fields)
        disposition = self._take(Disposition, Flow)
        assert (disposition.first, disposition.settled) == (number, True)
        assert disposition.role == RECEIVER
        state = disposition.state
        assert state is None or isinstance(state, Outcome)
        return state

    def take(self) -> Message:
        """Take a message that the hub has sent; its tag and id are in `tags` and `ids`."""
        return decode_message(self.take_bytes())

    def take_bytes(self) -> bytes:
        """Take a message, encoded."""
        transfer, payload = None, b""
        while transfer is None or transfer.more:
            channel, transfer, part = self.client.take()
            if isinstance(transfer, Flow):  # new credit, of another link
                transfer = None
                continue
            assert isinstance(transfer, Transfer), transfer
            assert (channel, transfer.handle) == (self.channel, self.handle)
            if transfer.delivery_tag is not None:
                self.tags.append(transfer.delivery_tag)
                assert transfer.delivery_id is not None
                self.ids.append(transfer.delivery_id)
            payload += part
        return payload

    def settle(
        self, outcome: Outcome | None, *, settled: bool = True, number: int | None = None
    ) -> None:
        """Settle the last message, or another one."""
        number = self.ids[-1] if number is None else number
        disposition = Disposition(RECEIVER, number, number, settled, outcome)
        self.client.send(write(self.channel, disposition))

    def detach(self) -> None:
        """Detach the link."""
        self.client.send(write(self.channel, Detach(self.handle, closed=True)))
        assert self.detached() is None

    def detached(self) -> Error | None:
        """The hub has detached the link; return the error."""
        return self._take(Detach).error

    def _take(self, kind: Any, *skipped: type) -> Any:
        found = self.client.take()
        while isinstance(found[1], skipped):
            found = self.client.take()
        assert isinstance(found[1], kind), found
        assert found[0] == self.channel
        return found[1]


def code_of(error: Error | None) -> int:
    """Return the code in the description of an error."""
    assert error is not None
    return int(json.loads(error.description or "")["errorCode"])
