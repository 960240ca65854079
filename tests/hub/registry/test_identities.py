from collections.abc import Callable
from typing import Any

import pytest

from emulator.hub.core import errors
from emulator.hub.core.etags import IfMatch
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import (
    IdentityChanged,
    IdentityCreated,
    IdentityDeleted,
    IdentityKey,
)
from emulator.hub.twins.twin import TwinDeleted
from tests.hub import fakes
from tests.hub.fakes import ANY, CREATE, DEVICE, MODULE, STALE, FakeLink, connect, done, put

EDGE = {"iotEdge": True}


@pytest.fixture
def hub(hub: IotHub) -> IotHub:
    """A hub with the device `d` and its module `m`."""
    put(hub, DEVICE)
    put(hub, MODULE)
    return hub


def disable(hub: IotHub) -> None:
    put(hub, DEVICE, ANY, status="disabled")


def names(hub: IotHub) -> list[str]:
    return [module["moduleId"] for module in hub.identities.list_modules("d")]


# --- devices


def test_a_list_has_devices_without_their_modules_the_oldest_first(hub: IotHub) -> None:
    put(hub, IdentityKey("a"))
    put(hub, DEVICE, ANY)
    assert [device["deviceId"] for device in done(hub.identities.list_devices())] == ["d", "a"]


def test_a_list_has_1000_devices_at_most(hub: IotHub) -> None:
    for number in range(1000):
        put(hub, IdentityKey(f"d{number}"))
    counts = [len(done(hub.identities.list_devices(top))) for top in (999, 1000, 1001, 0, -1)]
    assert counts == [999, 1000, 1000, 1000, 1000]
    assert len(done(hub.identities.list_devices())) == 1000


def test_devices_are_counted_by_their_status_and_their_connection(
    hub: IotHub, store: fakes.CountingStore
) -> None:
    def counts(each: IotHub = hub) -> list[int]:
        statistics = (
            done(each.identities.device_statistics()) | each.identities.service_statistics()
        )
        assert list(statistics) == [
            *("totalDeviceCount", "enabledDeviceCount", "disabledDeviceCount"),
            "connectedDeviceCount",
        ]
        return list(statistics.values())

    put(hub, IdentityKey("e"), status="disabled")
    connect(hub, FakeLink(DEVICE))
    connect(hub, FakeLink(MODULE))
    assert counts() == [2, 1, 1, 1]
    assert counts(fakes.make_hub(store)) == [2, 1, 1, 0]
    disable(hub)
    hub.identities.delete(IdentityKey("e"), ANY)
    assert counts() == [1, 0, 1, 0]


def test_a_hub_has_as_many_devices_as_its_limit(
    hub: IotHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emulator.hub.core.limits.DEVICES_PER_HUB", 2)
    put(hub, IdentityKey("e"))
    with pytest.raises(errors.TooManyDevices):
        put(hub, IdentityKey("f"))
    put(hub, IdentityKey("e"), ANY)
    put(hub, IdentityKey("e", "m"))
    hub.identities.delete(DEVICE, ANY)
    put(hub, IdentityKey("f"))


# --- modules


def test_a_device_has_twenty_modules_at_most(hub: IotHub) -> None:
    for number in range(19):
        put(hub, IdentityKey("d", f"m{number}"))
    with pytest.raises(errors.TooManyModulesOnDevice):
        put(hub, IdentityKey("d", "one-too-many"))
    with pytest.raises(errors.ModuleAlreadyExistsOnDevice):  # this error comes first
        put(hub, MODULE)
    put(hub, MODULE, ANY, managedBy="still possible")
    put(hub, DEVICE, ANY, capabilities=EDGE)  # the hub's own modules don't count
    put(hub, IdentityKey("e"))
    put(hub, IdentityKey("e", "m"))
    hub.identities.remove(IdentityKey("d", "m7"), ANY)
    put(hub, IdentityKey("d", "one-more"))
    assert len(names(hub)) == 22
    assert "m7" not in names(hub)


@pytest.mark.parametrize("module_id", ["$edgeAgent", "$x", "", "a b", "a/b", "ä", "x" * 129])
def test_an_invalid_module_id_is_refused(hub: IotHub, module_id: str) -> None:
    with pytest.raises(errors.ArgumentInvalid):
        put(hub, IdentityKey("d", module_id))
    assert names(hub) == ["m"]


@pytest.mark.parametrize(
    "call",
    [
        lambda hub: hub.identities.get(MODULE),
        lambda hub: hub.identities.list_modules("d"),
        lambda hub: put(hub, MODULE),
        lambda hub: put(hub, MODULE, ANY),
        lambda hub: put(hub, IdentityKey("d", "new")),
        lambda hub: hub.identities.remove(MODULE, ANY),
    ],
    ids=["get", "list", "put", "update", "create", "delete"],
)
@pytest.mark.parametrize("deleted", [True, False], ids=["deleted", "disabled"])
def test_the_modules_of_a_deleted_or_disabled_device_cannot_be_reached(
    hub: IotHub, call: Callable[[IotHub], object], deleted: bool
) -> None:
    if deleted:
        hub.identities.remove(DEVICE, ANY)
    else:
        disable(hub)
        # Their twins can be.
        assert hub.twins.patch(MODULE, {"tags": {"a": 1}}, CREATE)["tags"] == {"a": 1}
    with pytest.raises(errors.IotHubUnauthorizedAccess):
        call(hub)


def test_a_module_and_its_twin_are_deleted_with_their_device(hub: IotHub) -> None:
    deleted = fakes.record_changes(hub.feed, IdentityDeleted)
    other = IdentityKey("d", "n")
    put(hub, other)
    hub.twins.patch(MODULE, {"tags": {"a": 1}}, CREATE)
    hub.identities.remove(DEVICE, ANY)
    assert [change.key for change in deleted] == [DEVICE, MODULE, other]
    for key in (DEVICE, MODULE, other):
        with pytest.raises(errors.DeviceNotFound):
            hub.twins.get(key)
    put(hub, DEVICE)
    assert names(hub) == []
    put(hub, MODULE)
    assert "tags" not in hub.twins.get(MODULE)


def test_a_module_that_is_created_again_is_another(hub: IotHub) -> None:
    before = hub.identities.get(MODULE)
    hub.identities.remove(MODULE, IfMatch(before["etag"]))
    assert hub.identities.has(DEVICE)
    assert put(hub, MODULE)["authentication"] != before["authentication"]


@pytest.mark.parametrize(
    ("key", "if_match", "error"),
    [
        (MODULE, CREATE, errors.PreconditionFailed),
        (MODULE, STALE, errors.PreconditionFailed),
        (IdentityKey("d", "M"), ANY, errors.ModuleNotFound),
        (IdentityKey("d", "$edgeAgent"), ANY, errors.ModuleNotFound),
    ],
)
def test_a_module_is_deleted_by_its_id_under_its_etag(
    hub: IotHub, key: IdentityKey, if_match: IfMatch, error: type[errors.HubError]
) -> None:
    with pytest.raises(error):
        hub.identities.remove(key, if_match)
    assert names(hub) == ["m"]


def test_an_update_of_a_module_changes_nothing_else(hub: IotHub) -> None:
    sibling = IdentityKey("d", "n")
    put(hub, sibling)
    others = [hub.identities.get(sibling), hub.identities.get(DEVICE)]
    before = hub.identities.get(MODULE)
    after = put(hub, MODULE, IfMatch(before["etag"]), managedBy="me")
    assert (after["managedBy"], after["generationId"]) == ("me", before["generationId"])
    assert after["etag"] != before["etag"]
    with pytest.raises(errors.PreconditionFailed):
        put(hub, MODULE, IfMatch(before["etag"]))
    assert [hub.identities.get(sibling), hub.identities.get(DEVICE)] == others


def test_a_model_is_stored_with_the_identity_that_named_it(hub: IotHub) -> None:
    for key, model_id in ((MODULE, "dtmi:x;1"), (MODULE, ""), (IdentityKey("d", "unknown"), "x")):
        connect(hub, FakeLink(key), model_id=model_id)
    assert hub.twins.get(MODULE)["modelId"] == "dtmi:x;1"
    assert hub.twins.get(DEVICE)["modelId"] == ""
    put(hub, MODULE, ANY)
    assert hub.twins.get(MODULE)["modelId"] == "dtmi:x;1"


# --- IoT Edge devices


def test_an_edge_device_has_its_system_modules_in_one_commit(
    hub: IotHub, store: fakes.CountingStore
) -> None:
    changes = fakes.record_changes(hub.feed)

    def taken() -> Any:
        result, changes[:] = [(type(change), change.key) for change in changes], []
        return store.commits, result

    agent, edge_hub = IdentityKey("d", "$edgeAgent"), IdentityKey("d", "$edgeHub")
    commits = store.commits
    put(hub, DEVICE, ANY, capabilities=EDGE)
    created = [(IdentityCreated, agent), (IdentityCreated, edge_hub)]
    assert taken() == (commits + 1, [(IdentityChanged, DEVICE), *created])
    assert names(hub) == ["m", "$edgeAgent", "$edgeHub"]
    with pytest.raises(errors.SystemModuleModifyUnauthorizedAccess):
        put(hub, agent, ANY)
    with pytest.raises(errors.SystemModuleModifyUnauthorizedAccess):
        hub.identities.remove(edge_hub, ANY)
    put(hub, DEVICE, ANY, capabilities=None)

    def deletions(*keys: IdentityKey) -> list[Any]:
        return [(kind, key) for key in keys for kind in (IdentityDeleted, TwinDeleted)]

    assert taken() == (commits + 2, [(IdentityChanged, DEVICE), *deletions(agent, edge_hub)])
    assert names(hub) == ["m"]
    hub.identities.remove(DEVICE, ANY)
    assert taken() == (commits + 3, deletions(DEVICE, MODULE))
    put(hub, DEVICE, capabilities=EDGE)
    assert taken() == (commits + 4, [(IdentityCreated, DEVICE), *created])
