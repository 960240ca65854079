"""Links and messages by chance, to every node of the hub. No node fails with an error of its own.

The environment variable FUZZ_EXAMPLES sets how many examples are tried.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emulator.amqp.message import BATCH_FORMAT, Message, Value
from emulator.amqp.nodes.nodes import NODES
from emulator.amqp.performatives import (
    ACCEPTED,
    RECEIVER,
    SENDER,
    Attach,
    Detach,
    Disposition,
    Flow,
    Modified,
    Properties,
    Rejected,
    Released,
    Source,
    Target,
    Transfer,
)
from emulator.amqp.types import Described, Int, Symbol, Timestamp, UByte, ULong
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.link import Admission
from emulator.hub.messages.message import Message as HubMessage
from tests.amqp.lab import (
    HOST,
    POLICY_KEY,
    PUT_TOKEN,
    AmqpClient,
    Lab,
    device_token,
    service_token,
)
from tests.amqp.playbook import write
from tests.support import entity_token

_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
_settings = settings(
    max_examples=_EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

_NAMES = {
    "device_id": ["d1", "d1", "d2", "x"],
    "module_id": ["camera", "x"],
    "group": ["$Default", "x"],
    "partition": ["0", "1", "99", "x"],
}


def _addresses(path: str) -> st.SearchStrategy[str]:
    parts = [
        st.sampled_from(_NAMES.get(part[1:-1], ["x"])) if part.startswith("{") else st.just(part)
        for part in path.split("/")
    ]
    return st.tuples(*parts).map("/".join)


_ADDRESS = st.sampled_from(sorted({node.path for node in NODES})).flatmap(_addresses)
_VALUE: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(),
        st.text(max_size=5),
        st.binary(max_size=20),
        st.sampled_from(
            [Int(5), ULong(7), UByte(1), Timestamp(2**62), Symbol("s"), uuid.UUID(int=1)]
        ),
        st.sampled_from(["GET", "PATCH", "PUT", "DELETE", "READ", "put-token", "full", "$Default"]),
        st.sampled_from(["/properties/reported", "/notifications/twin/properties/desired"]),
    ),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=3,
)
_KEYS = st.sampled_from(
    [
        *("operation", "resource", "version", "type", "name", "partition", "status"),
        *("iothub-ack", "IoThub-status", "IoThub-methodname", "com.microsoft:epoch"),
        *("com.microsoft:model-id", "com.microsoft:channel-correlation-id", "x-opt-offset", "x"),
    ]
)
_MAP = st.dictionaries(_KEYS, _VALUE, max_size=4)
_SYMBOLS = st.dictionaries(_KEYS.map(Symbol), _VALUE, max_size=3)
_ID = st.none() | st.sampled_from(["1", ULong(1), uuid.UUID(int=2), b"\x01"])
_TO = st.sampled_from(
    [None, "", "/devices/d1/messages/devicebound", "/devices/x/messages/devicebound", "//%zz/"]
)
_BODY = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"{}", b'{"a": 1}', b"[", b" ", b"null"]),
    _VALUE.map(Value),
)
_MESSAGE = st.builds(
    lambda body, to, ids, properties, annotations, user: Message(
        body,
        Properties(message_id=ids[0], correlation_id=ids[1], to=to, user_id=user),
        properties,
        annotations,
    ).to_bytes(),
    _BODY,
    _TO,
    st.tuples(_ID, _ID),
    _MAP,
    _SYMBOLS,
    st.none() | st.binary(max_size=3),
)
_SELECTOR = st.sampled_from(
    [
        *("amqp.annotation.x-opt-offset > '-1'", "amqp.annotation.x-opt-sequence-number >= 'x'"),
        *("amqp.annotation.x-opt-enqueued-time > '99999999999999999999'", "x", "", 5, None),
    ]
).map(lambda text: {Symbol("f"): Described(Symbol("apache.org:selector-filter:string"), text)})
_ATTACH = st.builds(
    lambda name, handle, role, address, modes, properties, filters, other: Attach(
        name,
        handle,
        role,
        *modes,
        source=Source(address if role == RECEIVER else other, filter=filters),
        target=Target(address if role == SENDER else other),
        properties=properties,
    ),
    st.sampled_from("abcdef"),
    st.integers(10, 14),
    st.booleans(),
    _ADDRESS,
    st.tuples(st.integers(0, 2), st.integers(0, 1)),
    st.none() | _SYMBOLS,
    st.none() | _SELECTOR,
    st.none() | st.sampled_from(["", "x"]),
)
_HANDLE = st.integers(10, 14)
_STEP = st.one_of(
    _ATTACH,
    _ATTACH,
    st.tuples(_HANDLE, _MESSAGE, st.sampled_from([0, 0, 0, BATCH_FORMAT]), st.booleans()),
    st.tuples(_HANDLE, _MESSAGE, st.just(0), st.booleans()),
    st.builds(
        lambda handle, credit: Flow(
            0, 10_000, 0, 10_000, handle=handle, delivery_count=0, link_credit=credit
        ),
        _HANDLE,
        st.integers(0, 20),
    ),
    st.builds(
        lambda first, settled, state: Disposition(RECEIVER, first, first + 5, settled, state),
        st.integers(0, 9),
        st.booleans(),
        st.sampled_from([None, ACCEPTED, Released(), Modified(), Rejected()]),
    ),
    st.builds(lambda handle: Detach(handle, closed=True), _HANDLE),
    st.floats(0, 100),
    st.sampled_from(["command", "event", "method", "twin"]),
)


async def _disturb(lab: Lab, kind: str) -> None:
    """Let something happen in the hub."""
    if kind == "command":
        if lab.pending() < 50:
            lab.send("hello", **{"iothub-ack": "full"})
    elif kind == "twin":
        lab.patch_desired(a=1)
    elif kind == "event":
        key = IdentityKey("d1")
        admission = Admission(key, math.inf, lab.identity()["generationId"], "{}")
        lab.hub.telemetry.sender(admission).ingest([HubMessage(b"{}", {}, {"a": "b"})])
    else:
        call = asyncio.ensure_future(lab.hub.methods.invoke(IdentityKey("d1"), METHOD))
        call.add_done_callback(lambda done: done.cancelled() or done.exception())


def _send(client: AmqpClient, step: Any, number: int) -> None:
    if isinstance(step, tuple):
        handle, payload, message_format, settled = step
        transfer = Transfer(handle, number, b"%d" % number, message_format, settled)
        client.send(write(0, transfer, payload))
    else:
        client.send(write(0, step))


METHOD = {"methodName": "reboot", "responseTimeoutInSeconds": 30, "payload": None}


@_settings
@given(st.lists(_STEP, max_size=12))
def test_no_node_fails(caplog: pytest.LogCaptureFixture, steps: list[Any]) -> None:
    caplog.clear()
    lab = Lab()
    now = lab.clock.now().timestamp()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        client = AmqpClient(lab).open()
        client.put_token(service_token(lab, "iothubowner"))
        client.put_token(entity_token(f"sb://{HOST}/", POLICY_KEY, "service", now))
        client.put_token(device_token(lab))
        number = client.next_number()
        for step in steps:
            if isinstance(step, float):
                lab.clock.advance(step)
            elif isinstance(step, str):
                await _disturb(lab, step)
            else:
                _send(client, step, number)
                number += isinstance(step, tuple)
            await asyncio.sleep(0)
            client.connection.data_to_send()
            client.connection.drained()
            if client.connection.closed:
                break
        client.connection.lost()
        lab.clock.advance(4000)

    try:
        loop.run_until_complete(run())
    finally:
        loop.close()
    failures = [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
    assert not failures, (failures, caplog.text)


def test_each_kind_of_name_is_known() -> None:
    names = set(re.findall(r"{(\w+)}", " ".join(node.path for node in NODES)))
    assert names <= {*_NAMES, "entity", "hub"}
    assert PUT_TOKEN
