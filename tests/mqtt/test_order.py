"""The order of what a device sees, and of what the log has, where the hub keeps messages together.

Acknowledgements have the order of what they acknowledge (MQTT 3.1.1, section 4.6). A store that
lasts has the messages of a turn of the event loop only at its end.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from emulator.disk.store import DiskStore
from emulator.hub.core.store import MemoryStore
from emulator.hub.notifications.sources import TWIN_CHANGES
from tests.clock import settle
from tests.mqtt.playbook import Client, Lab
from tests.mqtt.raw import PINGREQ, describe, publish

_TOPIC = "devices/d1/messages/events/"
_ANSWERS = "$iothub/twin/res/#"


def _report(packet_id: int) -> bytes:
    topic = f"$iothub/twin/PATCH/properties/reported/?$rid={packet_id}"
    return publish(topic, b'{"a":%d}' % packet_id, packet_id=packet_id)


def _get(packet_id: int) -> bytes:
    return publish(f"$iothub/twin/GET/?$rid={packet_id}", packet_id=packet_id)


@pytest.fixture(params=["memory", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryStore:
    return MemoryStore() if request.param == "memory" else DiskStore(tmp_path / "hub.sqlite")


def _seen(client: Client) -> list[str]:
    """Return what a device sees, without payloads: `2` is a PUBACK, `rid 2` is an answer."""
    seen = []
    while client.has_packets:
        kind, _, rest = describe(client.take()).partition(" ")
        if kind == "PUBLISH":
            seen.append("rid " + rest.partition("$rid=")[2].partition("&")[0].partition(" ")[0])
        else:
            seen.append(rest or kind)
    return seen


@pytest.mark.parametrize("faults", [False, True], ids=["no-faults", "faults"])
@pytest.mark.parametrize("reads", [False, True], ids=["one-read", "several-reads"])
async def test_answers_have_the_order_of_what_they_answer(
    store: MemoryStore, faults: bool, reads: bool
) -> None:
    lab = Lab(store=store, takes_fault_requests=faults)
    client = lab.connect("d1", _ANSWERS)
    telemetry = [publish(_TOPIC, b"%d" % each, packet_id=each) for each in (1, 4, 5, 7)]
    packets = [
        *(telemetry[0], _report(2), PINGREQ, _get(3), telemetry[1], telemetry[2], _report(6)),
        *(telemetry[3], _report(8)),
    ]
    for piece in packets if reads else [b"".join(packets)]:  # all in one turn of the event loop
        client.send(piece)
    await settle()
    assert _seen(client) == [
        *("1", "2", "rid 2", "PINGRESP", "3", "rid 3", "4", "5", "6", "rid 6", "7", "8", "rid 8"),
    ]
    assert lab.bodies() == ["1", "4", "5", "7"]


async def test_answers_that_are_too_large_to_go_out_together_keep_their_order(
    store: MemoryStore,
) -> None:
    lab = Lab(store=store)
    client = lab.connect("d1", _ANSWERS)
    lab.hub.twins.report(client.channel.key, {f"p{each}": "x" * 3900 for each in range(7)}, None)
    packets = [publish(_TOPIC, packet_id=1), *(_get(each) for each in range(2, 99)), _report(99)]
    client.send(*packets)
    await settle()
    seen = _seen(client)
    assert [each for each in seen if "rid" not in each] == [str(each) for each in range(1, 100)]
    assert [each for each in seen if "rid" in each] == [f"rid {each}" for each in range(2, 100)]


async def test_events_of_changes_are_in_order_with_telemetry(store: MemoryStore) -> None:
    lab = Lab(store=store, event_sources=(TWIN_CHANGES,))
    client = lab.connect()
    messages = [publish(_TOPIC, b"%d" % each, packet_id=each) for each in range(1, 5)]
    client.send(messages[0], messages[1], _report(5), messages[2], _report(6), messages[3])
    await settle()
    bodies = [each["body"] for each in lab.events()]
    reported = [
        each if isinstance(each, str) else each["properties"]["reported"]["a"] for each in bodies
    ]
    assert reported == ["1", "2", 5, "3", 6, "4"]
    assert _seen(client) == ["1", "2", "5", "3", "6", "4"]
