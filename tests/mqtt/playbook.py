"""Transcripts: a device and a hub without a socket, and without a clock that runs.

    device.play('''
        >> PUBLISH 1 $iothub/twin/GET/?$rid=7
        << PUBACK 1
        << PUBLISH $iothub/twin/res/200/?$rid=7 {"desired": {"$version": 1}, "reported": …}
    ''')

`>>` is a packet that the device sends, `<<` one that the hub sends. The hub must send exactly what
the transcript has, and nothing more. A line is one of these:

    PUBLISH [FLAGS] [PACKET-ID] TOPIC [PAYLOAD]   FLAGS such as +dup+retain; an id means QoS 1
    SUBSCRIBE ID FILTER[:QOS]…   UNSUBSCRIBE ID FILTER…   PUBACK ID   PINGREQ   DISCONNECT
    CONNACK CODE [session]   SUBACK ID QOS…   UNSUBACK ID   PINGRESP
    << CLOSED    the hub ends the connection
    >> LOST      the connection ends without a DISCONNECT

`…` stands for any text. Payloads that are JSON are compared as JSON.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from typing import Any

from emulator.hub.access.keys import SymmetricKeys
from emulator.hub.access.policies import DEFAULT_RIGHTS, Policy
from emulator.hub.access.throttles import Throttles
from emulator.hub.core.clock import TimeSource
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import dumps
from emulator.hub.core.store import MemoryStore
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.messages.message import Message
from emulator.hub.methods.request import MethodResult
from emulator.mqtt.channel import Channel
from emulator.mqtt.frame import ProtocolError
from emulator.mqtt.sessions import Sessions
from tests.clock import ManualClock, settle
from tests.mqtt import raw
from tests.mqtt.raw import describe
from tests.support import API_VERSION, sas_token

HOST = "hub.test"
KEY = "A" * 43 + "="
POLICY_KEY = "E" * 43 + "="
_SECONDARY_KEY = "I" * 43 + "="

ANY = IfMatch("*")


class Lab:
    """A hub with a clock that stands still, the devices `d1` and `d2`, and modules of `d1`.

    Args:
        throttles: settings such as `twin-reads=1/min`.
        clock: the clock.
        store: the store.
        options: more arguments of the hub.
    """

    def __init__(
        self,
        *throttles: str,
        clock: ManualClock | None = None,
        store: MemoryStore | None = None,
        **options: Any,
    ) -> None:
        self.clock = clock or ManualClock()
        keys = SymmetricKeys(POLICY_KEY, POLICY_KEY)
        store = store or MemoryStore()
        self.hub = IotHub(
            store=store,
            policies=[Policy(name, rights, keys) for name, rights in DEFAULT_RIGHTS.items()],
            hosts=(HOST,),
            clock=self.clock,
            throttles=Throttles.parse(throttles, clock=self.clock),
            **options,
        )
        self.sessions = Sessions(store)
        self._keys: dict[str, str] = {}
        self.register("d1")
        self.clock.advance(1)
        self.register("d2", key="M" * 43 + "=")
        self.register("d1/camera", key="Q" * 43 + "=")
        self.register("d1/microphone", key="U" * 43 + "=")

    def register(self, name: str, key: str = KEY, **members: Any) -> IdentityKey:
        """Create an identity, or update it."""
        identity = _key(name)
        self._keys[name] = key
        body = {
            "authentication": {"symmetricKey": {"primaryKey": key, "secondaryKey": _SECONDARY_KEY}},
            "deviceId": identity.device_id,
            **({"moduleId": identity.module_id} if identity.module_id else {}),
            **members,
        }
        if_match = ANY if self.hub.identities.has(identity) else IfMatch(None)
        self.hub.identities.put(identity, body, if_match)
        return identity

    def identity(self, name: str = "d1") -> dict[str, Any]:
        """Return the document of an identity."""
        return self.hub.identities.get(_key(name))

    def delete(self, name: str) -> None:
        """Delete an identity."""
        self.hub.identities.remove(_key(name), ANY)

    # --- devices

    def token(self, resource: str, key: str = KEY, **fields: Any) -> str:
        """Sign a SAS token; its lifetime begins now, by the machine's time."""
        now = self.clock.machine.now().timestamp()
        return sas_token(resource, key, now=now, **fields)

    def greeting(
        self,
        name: str = "d1",
        *,
        key: str | None = None,
        lifetime: float = 3600,
        tail: str = f"/?api-version={API_VERSION}",
        **fields: Any,
    ) -> bytes:
        """Build a CONNECT, with the identity's own key; `tail` ends its user name."""
        resource = f"{HOST}/devices/{name.replace('/', '/modules/')}"
        token = self.token(resource, key or self._keys.get(name, KEY), lifetime=lifetime)
        return raw.connect(name, f"{HOST}/{name}{tail}", token, **fields)

    def dial(self, *packets: bytes) -> Client:
        """Open a connection, and send packets in one piece."""
        client = Client(self)
        if packets:
            client.send(*packets)
        return client

    def refuse(self, *packets: bytes, code: int = 5) -> None:
        """Open a connection with packets that the hub refuses."""
        client = self.dial(*packets)
        client.expect(raw.connack(code))
        client.expect_closed()

    def connect(
        self, name: str = "d1", *filters: str, session_present: bool = False, **fields: Any
    ) -> Client:
        """Connect a device or module, and subscribe it to filters."""
        client = self.dial(self.greeting(name, **fields))
        client.expect(raw.connack(0, session_present=session_present))
        if filters:
            client.send(build(f"SUBSCRIBE 1 {' '.join(filters)}"))
            assert client.take()[0] == 0x90
        return client

    # --- services

    def state(self, name: str = "d1") -> str:
        """Return the connection state of an identity."""
        return str(self.twin(name)["connectionState"])

    def twin(self, name: str = "d1") -> dict[str, Any]:
        """Return a twin as services see it."""
        return json_of(self.hub.twins.get(_key(name)))

    def patch_desired(self, name: str = "d1", **desired: object) -> None:
        """Change desired properties."""
        self.hub.twins.patch(_key(name), {"properties": {"desired": desired}}, ANY)

    def invoke(
        self, name: str, method: str, payload: object = None, **more: int
    ) -> asyncio.Task[MethodResult]:
        """Invoke a direct method, in a task."""
        body = {"methodName": method, "payload": payload, **more}
        return asyncio.ensure_future(self.hub.methods.invoke(_key(name), body))

    async def invoked(
        self, name: str, method: str, payload: object = None, **more: int
    ) -> asyncio.Task[MethodResult]:
        """Invoke a direct method, and let the hub send it."""
        call = self.invoke(name, method, payload, **more)
        await settle()
        return call

    def send(self, body: str, device_id: str = "d1", **properties: str) -> None:
        """Send a cloud-to-device message; `message_id` and the like are system properties."""
        names = {"message_id": "message-id", "expiry": "absolute-expiry-time"}
        system = {names[name]: properties.pop(name) for name in names if name in properties}
        if "ack" in properties:
            properties["iothub-ack"] = properties.pop("ack")
        self.hub.cloud_to_device.send(device_id, Message(body.encode(), system, properties))

    def pending(self, device_id: str = "d1") -> int:
        """Count the cloud-to-device messages of a device."""
        return self.hub.cloud_to_device.pending(device_id)

    def feedback(self) -> list[tuple[str | None, str]]:
        """Take all feedback: message ids and outcomes."""
        records = []
        while batch := self.hub.cloud_to_device.receive_feedback():
            records += batch.records
            assert batch.lock is not None
            self.hub.cloud_to_device.complete_feedback(batch.lock.token)
        return [(each["originalMessageId"], each["statusCode"]) for each in records]

    def events(self, device_id: str = "d1") -> list[dict[str, Any]]:
        """Return what the event log has of a device and its modules."""
        return [json_of(each.document()) for each in self.hub.events.read(0, device_id)]

    def bodies(self, device_id: str = "d1") -> list[Any]:
        """Return the bodies of these events."""
        return [each["body"] for each in self.events(device_id)]


class Client:
    """A device's end of a channel, and all that is between the two."""

    def __init__(self, lab: Lab) -> None:
        self.backlog = 0
        """How many bytes the device has not read."""
        self.error: ProtocolError | None = None
        """The rule that the device broke."""
        self.ended = self._lost = False
        self.rate: int | None = None
        """The pace of the connection."""
        self._sent: deque[bytes] = deque()
        self.channel = Channel(lab.hub, lab.sessions, self, None, "the lab")

    # --- what the channel calls

    def write(self, data: bytes) -> None:
        """See `Output.write`."""
        assert not self.ended
        self._sent.extend(raw.packets(data))

    def close(self) -> None:
        """See `Output.close`."""
        assert not self.ended
        self.ended = True

    def abort(self) -> None:
        """See `Output.abort`."""
        self.ended = True

    def pace(self, rate: int | None, clock: TimeSource) -> None:
        """See `Output.pace`."""
        self.rate = rate

    def unsent(self) -> int:
        """See `Output.unsent`."""
        return self.backlog

    # --- what a test calls

    def send(self, *packets: bytes) -> None:
        """Send packets in one piece."""
        data = b"".join(packets)
        if self.channel.receive_one(data):
            return
        try:
            for _ in self.channel.receive(data):
                pass
        except ProtocolError as error:
            self.error = error
        finally:
            self.channel.flush()
        if self.error:
            self.lose()

    def lose(self) -> None:
        """End the connection, without a DISCONNECT."""
        self.ended = True
        if not self._lost:
            self._lost = True
            self.channel.lost()

    @property
    def has_packets(self) -> bool:
        """Whether the hub has sent more packets."""
        return bool(self._sent)

    def take(self) -> bytes:
        """Return the next packet of the hub."""
        assert self._sent, f"the hub sent nothing; closed: {self.ended}; {self.error}"
        return self._sent.popleft()

    def take_publish(self) -> tuple[str, bytes]:
        """Return the topic and the payload of the next packet, a PUBLISH with QoS 0."""
        data = self.take()
        assert data[0] == 0x30, describe(data)
        return raw.published(data)

    def take_message(self) -> tuple[int, str]:
        """Return the packet identifier and the body of the next packet, a message with QoS 1."""
        data = self.take()
        assert data[0] & 0xF7 == 0x32, describe(data)
        return raw.packet_id(data), raw.published(data)[1].decode()

    def expect(self, *packets: bytes) -> None:
        """The next packets of the hub are these, byte by byte."""
        for expected in packets:
            data = self.take()
            assert data == expected, f"{describe(data)}, not {describe(expected)}"

    def expect_nothing(self) -> None:
        """The hub has sent nothing more, and the connection is open."""
        assert not self._sent, describe(self._sent[0])
        assert not self.ended, self.error
        assert not self.channel.closed

    def expect_closed(self) -> None:
        """The hub has sent nothing more, and has ended the connection."""
        assert not self._sent, describe(self._sent[0])
        assert self.ended
        self.lose()  # as the connection does now

    def play(self, *transcript: str) -> None:
        """Go through a transcript: one text, or a text for each line."""
        closed = False
        for line in filter(None, map(str.strip, "\n".join(transcript).splitlines())):
            direction, _, packet = line.partition(" ")
            if direction == ">>":
                assert not self._sent, f"before {line}: {describe(self._sent[0])}"
                if packet == "LOST":
                    self.lose()
                    closed = True
                else:
                    self.send(build(packet))
            elif packet == "CLOSED":
                self.expect_closed()
                closed = True
            else:
                assert direction == "<<", line
                _compare(self.take(), packet)
        if not closed:
            self.expect_nothing()


def json_of(document: object) -> Any:
    """Return a document of the hub as a client would read it."""
    return json.loads(dumps(document))


# --- packets as text


def build(line: str) -> bytes:
    """Build the packet of a line."""
    kind, *words = line.split(" ")
    match kind:
        case "PUBLISH":
            flags = words.pop(0) if words[0].startswith("+") else ""
            packet_id = int(words.pop(0)) if words[0].isdecimal() else None
            topic, payload = words[0], " ".join(words[1:]).encode()
            dup, retain = "+dup" in flags, "+retain" in flags
            return raw.publish(topic, payload, packet_id=packet_id, dup=dup, retain=retain)
        case "SUBSCRIBE":
            filters = [each if each[-2:-1] == ":" else f"{each}:0" for each in words[1:]]
            return raw.subscribe(int(words[0]), *[(each[:-2], int(each[-1])) for each in filters])
        case "UNSUBSCRIBE":
            return raw.unsubscribe(int(words[0]), *words[1:])
        case "PUBACK":
            return raw.puback(int(words[0]))
        case "PINGREQ":
            return raw.PINGREQ
        case "DISCONNECT":
            return raw.DISCONNECT
    raise AssertionError(f"no packet: {line}")


def _compare(data: bytes, expected: str) -> None:
    actual = describe(data)
    start = re.match(r"(PUBLISH( \+\S+)?( \d+)? \S+ )(?=[\[{\"])", expected)
    if start and "…" not in expected and actual.startswith(start[1]):
        payload = actual[len(start[1]) :]
        assert json.loads(payload) == json.loads(expected[len(start[1]) :]), actual
        return
    pattern = ".*".join(map(re.escape, expected.split("…")))
    assert re.fullmatch(pattern, actual, re.DOTALL), f"{actual[:500]}, not {expected[:500]}"


def _key(name: str) -> IdentityKey:
    device_id, _, module_id = name.partition("/")
    return IdentityKey(device_id, module_id or None)
