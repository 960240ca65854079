from collections.abc import Callable

import pytest

from emulator.hub.hub import IotHub
from emulator.hub.messages.message import Message
from tests.hub.fakes import (
    ANY,
    CREATE,
    DEVICE,
    CountingStore,
    FakeLink,
    connect,
    done,
    put,
    record_changes,
)


@pytest.mark.parametrize(
    "call",
    [
        lambda hub: hub.identities.get(DEVICE),
        lambda hub: done(hub.identities.list_devices()),
        lambda hub: hub.identities.list_modules("d"),
        lambda hub: done(hub.identities.device_statistics()),
        lambda hub: hub.identities.service_statistics(),
        lambda hub: hub.twins.get(DEVICE),
        lambda hub: hub.twins.read_own(DEVICE),
        lambda hub: hub.twins.patch(DEVICE, {"properties": {"reported": {"x": 1}}}, ANY),
        lambda hub: hub.twins.write(DEVICE, {}),
        lambda hub: hub.bulk.apply({"id": "d", "importMode": "updateTwin"}),
        lambda hub: hub.digital_twins.get("d"),
        lambda hub: hub.digital_twins.update("d", [], ANY),
        lambda hub: done(hub.queries.run("SELECT * FROM devices", size=10, continuation=None)),
        lambda hub: hub.cloud_to_device.receive_feedback(),
        lambda hub: hub.cloud_to_device.receive("d"),
        lambda hub: hub.cloud_to_device.pending("d"),
        lambda hub: hub.cloud_to_device.purge("d"),
        lambda hub: hub.links.disconnect(FakeLink()),
        lambda hub: hub.jobs.get("j"),
        lambda hub: done(hub.jobs.query(kind="", status="", size=10, continuation=None)),
        lambda hub: done(hub.configurations.get("c")),
    ],
)
@pytest.mark.parametrize("sent", [False, True], ids=["without messages", "after a message"])
def test_nothing_is_committed_where_nothing_changed(
    hub: IotHub, store: CountingStore, call: Callable[[IotHub], object], sent: bool
) -> None:
    content = {"deviceContent": {"properties.desired.x": 1}}
    done(hub.configurations.put("c", {"id": "c", "content": content}, CREATE))
    put(hub, DEVICE)
    connect(hub, FakeLink(accepts_commands=not sent))
    if sent:
        hub.cloud_to_device.send("d", Message(b"", {}, {"iothub-ack": "full"}))
        hub.cloud_to_device.purge("d")
        batch = hub.cloud_to_device.receive_feedback()
        hub.cloud_to_device.complete_feedback(batch.lock.token)  # type: ignore[union-attr]
    changes, commits = record_changes(hub.feed), store.commits
    for _ in range(5):
        call(hub)
    assert (store.commits, changes) == (commits, [])
