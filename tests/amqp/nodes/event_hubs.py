"""What the tests of the built-in endpoint share: readers of a lab's events."""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
from typing import Any
from urllib.parse import quote

from emulator.amqp.performatives import RECEIVER, Attach, Source, Target
from emulator.amqp.types import Described, Symbol
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.link import Admission
from emulator.hub.messages.event import TELEMETRY, Origin
from emulator.hub.messages.event_log import ENTITY, Partition
from emulator.hub.messages.message import Message
from tests.amqp.lab import HOST, POLICY_KEY, AmqpClient, Lab, RemoteLink

# The device d1 is in this partition of four.
PARTITION = "2"

_FILTER = Symbol("apache.org:selector-filter:string")


def event_hubs_token(
    lab: Lab, policy: str = "service", path: str = ENTITY, lifetime: float = 3600
) -> str:
    """Sign a token as Event Hubs' clients do: with the text of the key (Event Hubs docs: SAS)."""
    audience = quote(f"sb://{HOST}/{path}", safe="")
    expiry = str(int(lab.clock.now().timestamp() + lifetime))
    mac = hmac.new(POLICY_KEY.encode(), f"{audience}\n{expiry}".encode(), hashlib.sha256)
    signature = quote(base64.b64encode(mac.digest()), safe="")
    return f"SharedAccessSignature sr={audience}&sig={signature}&se={expiry}&skn={policy}"


def open_client(lab: Lab) -> AmqpClient:
    """Return a client that has sent its token."""
    client = AmqpClient(lab).open()
    client.put_token(event_hubs_token(lab))
    return client


def address(partition: str = PARTITION, group: str = "$Default") -> str:
    """Return the address of a partition."""
    return f"amqps://{HOST}/{ENTITY}/ConsumerGroups/{group}/Partitions/{partition}"


def receiver(
    client: AmqpClient,
    where: str | None = None,
    *,
    selector: str | None = None,
    descriptor: Any = _FILTER,
    credit: int = 0,
    **fields: Any,
) -> RemoteLink:
    """Attach a receiver, and grant it credit."""
    filters = None if selector is None else {_FILTER: Described(descriptor, selector)}
    handle = next(client._handles)
    attach = Attach(
        f"reader-{handle}", handle, RECEIVER, source=Source(where or address(), filter=filters),
        target=Target("t"), **fields,
    )  # fmt: skip
    link = client.attach(attach)
    if credit and link.error is None:
        link.grant(credit)
    return link


def send(lab: Lab, *bodies: bytes | Message, device: str = "d1", module: str | None = None) -> None:
    """Let a device send messages."""
    key = IdentityKey(device, module)
    sender = Admission(key, math.inf, "42", '{"scope":"device"}', "")
    messages = [each if isinstance(each, Message) else Message(each) for each in bodies]
    lab.hub.events.extend(Origin(key, TELEMETRY, sender), messages)
    lab.clock.advance(0)


def partition_of(lab: Lab, device: str = "d1") -> Partition:
    """Return the partition of a device."""
    return lab.hub.events.partition_of(device)
