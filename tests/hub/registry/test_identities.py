"""Modules in the registry: they live with their device, each with an identity and a twin."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.hub.commits import CountingStore

from emulator.hub.access.certificates import ClientCertificate
from emulator.hub.core.errors import (
    ArgumentInvalid,
    DeviceNotFound,
    HubError,
    IotHubUnauthorizedAccess,
    ModuleAlreadyExistsOnDevice,
    ModuleNotFound,
    PreconditionFailed,
    TooManyModulesOnDevice,
)
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.store import MemoryStore
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.registry.identities import Registry

NOW = datetime(2026, 1, 31, 14, 46, 8, tzinfo=UTC)
CREATE, ANY = IfMatch(None), IfMatch("*")
MODULE = IdentityKey("d", "m")


def put(registry: Registry, key: IdentityKey, if_match: IfMatch = CREATE, **members: Any) -> Any:
    body = {"deviceId": key.device_id, "moduleId": key.module_id, **members}
    return registry.put_module(key, body, if_match)


@pytest.fixture
def registry() -> Registry:
    """A registry with the device `d`, and its module `m`."""
    hub = IotHub(store=MemoryStore(), policies=(), hosts=(), clock=lambda: NOW)
    hub.registry.put_device("d", {"deviceId": "d"}, CREATE)
    put(hub.registry, MODULE)
    return hub.registry


def disable(registry: Registry) -> None:
    registry.put_device("d", {"deviceId": "d", "status": "disabled"}, ANY)


def test_a_device_has_twenty_modules_at_most(registry: Registry) -> None:
    for number in range(19):
        put(registry, IdentityKey("d", f"m{number}"))
    with pytest.raises(TooManyModulesOnDevice):
        put(registry, IdentityKey("d", "one-too-many"))
    with pytest.raises(ModuleAlreadyExistsOnDevice):  # which is what is wrong with this one
        put(registry, MODULE)
    put(registry, MODULE, ANY, managedBy="still possible")
    registry.put_device("e", {"deviceId": "e"}, CREATE)
    put(registry, IdentityKey("e", "m"))
    registry.delete_module(IdentityKey("d", "m7"), ANY)
    put(registry, IdentityKey("d", "one-more"))
    names = [module["moduleId"] for module in registry.list_modules("d")]
    assert len(names) == 20
    assert "m7" not in names


@pytest.mark.parametrize("module_id", ["$edgeAgent", "$x", "", "a b", "a/b", "ä", "x" * 129])
def test_a_module_id_that_is_none_is_refused(registry: Registry, module_id: str) -> None:
    with pytest.raises(ArgumentInvalid):
        put(registry, IdentityKey("d", module_id))
    assert len(registry.list_modules("d")) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda registry: registry.get_module(MODULE),
        lambda registry: registry.list_modules("d"),
        lambda registry: put(registry, MODULE),
        lambda registry: put(registry, MODULE, ANY),
        lambda registry: put(registry, IdentityKey("d", "new")),
        lambda registry: registry.delete_module(MODULE, ANY),
    ],
    ids=["get", "list", "put", "update", "create", "delete"],
)
@pytest.mark.parametrize("deleted", [True, False], ids=["deleted", "disabled"])
def test_the_modules_of_a_device_that_is_gone_or_disabled_are_out_of_reach(
    registry: Registry, call: Callable[[Registry], object], deleted: bool
) -> None:
    if deleted:
        registry.delete_device("d", ANY)
    else:
        disable(registry)
    with pytest.raises(IotHubUnauthorizedAccess):
        call(registry)


def test_a_module_twin_is_there_while_its_device_is_disabled(registry: Registry) -> None:
    disable(registry)
    twin = registry.patch_twin(MODULE, {"tags": {"a": 1}}, CREATE)
    assert (twin["moduleId"], twin["tags"]) == ("m", {"a": 1})


def test_a_module_and_its_twin_live_and_die_with_the_device(registry: Registry) -> None:
    gone: list[IdentityKey] = []
    registry.when_deleted(gone.append)
    put(registry, IdentityKey("d", "n"))
    registry.patch_twin(MODULE, {"tags": {"a": 1}}, CREATE)
    registry.delete_device("d", ANY)
    assert set(gone) == {IdentityKey("d"), MODULE, IdentityKey("d", "n")}
    for key in gone:
        with pytest.raises(DeviceNotFound):
            registry.get_twin(key)
    registry.put_device("d", {"deviceId": "d"}, CREATE)
    assert registry.list_modules("d") == []
    put(registry, MODULE)
    assert "tags" not in registry.get_twin(MODULE)


def test_a_module_that_is_made_again_is_another(registry: Registry) -> None:
    before = registry.get_module(MODULE)
    registry.delete_module(MODULE, IfMatch.parse(f'"{before["etag"]}"'))
    after = put(registry, MODULE)
    assert after["authentication"] != before["authentication"]
    assert registry.get_device("d")["deviceId"] == "d"


@pytest.mark.parametrize(
    ("key", "if_match", "error"),
    [
        (MODULE, CREATE, PreconditionFailed),
        (MODULE, IfMatch.parse('"c3RhbGU="'), PreconditionFailed),
        (IdentityKey("d", "M"), ANY, ModuleNotFound),
    ],
)
def test_a_module_is_deleted_by_its_id_under_its_etag(
    registry: Registry, key: IdentityKey, if_match: IfMatch, error: type[HubError]
) -> None:
    with pytest.raises(error):
        registry.delete_module(key, if_match)
    assert len(registry.list_modules("d")) == 1


def test_an_update_of_a_module_leaves_its_device_and_its_siblings_alone(
    registry: Registry,
) -> None:
    put(registry, IdentityKey("d", "n"))
    sibling = registry.get_module(IdentityKey("d", "n"))
    device = registry.get_device("d")
    before = registry.get_module(MODULE)
    after = put(registry, MODULE, IfMatch.parse(f'"{before["etag"]}"'), managedBy="me")
    assert (after["managedBy"], after["generationId"]) == ("me", before["generationId"])
    assert after["etag"] != before["etag"]
    with pytest.raises(PreconditionFailed):
        put(registry, MODULE, IfMatch.parse(f'"{before["etag"]}"'))
    assert registry.get_module(IdentityKey("d", "n")) == sibling
    assert registry.get_device("d") == device


def test_devices_are_listed_without_their_modules(registry: Registry) -> None:
    assert [device["deviceId"] for device in registry.list_devices()] == ["d"]


def test_a_model_is_noted_of_the_one_that_named_it(registry: Registry) -> None:
    registry.note_model(MODULE, "dtmi:x;1")
    registry.note_model(MODULE, "")
    registry.note_model(IdentityKey("d", "unknown"), "dtmi:x;1")
    assert registry.get_twin(MODULE)["modelId"] == "dtmi:x;1"
    assert registry.get_twin(IdentityKey("d"))["modelId"] == ""
    put(registry, MODULE, ANY)
    assert registry.get_twin(MODULE)["modelId"] == "dtmi:x;1"


# --- IoT Edge devices


def test_no_certificate_lets_a_module_of_the_runtime_in() -> None:
    hub = IotHub(store=MemoryStore(), policies=(), hosts=(), clock=lambda: NOW)
    edge = {"deviceId": "d", "capabilities": {"iotEdge": True}}
    hub.registry.put_device("d", edge, CREATE)
    body = {"type": "certificateAuthority"}
    put(hub.registry, MODULE, authentication=body)
    for module_id, admitted in (("m", True), ("$edgeAgent", False), ("$edgeHub", False)):
        key = IdentityKey("d", module_id)
        shown = ClientCertificate("1" * 40, "2" * 64, str(key), by_authority=True)
        if admitted:
            assert hub.admit(key, None, host="h", certificate=shown).key == key
        else:
            with pytest.raises(IotHubUnauthorizedAccess):
                hub.admit(key, None, host="h", certificate=shown)


def test_an_edge_device_is_born_and_dies_with_its_modules_in_one_commit() -> None:
    store = CountingStore()
    hub = IotHub(store=store, policies=(), hosts=(), clock=lambda: NOW)
    family = {IdentityKey("d"), IdentityKey("d", "$edgeAgent"), IdentityKey("d", "$edgeHub")}
    told: dict[str, list[IdentityKey]] = {"changed": [], "deleted": []}
    hub.registry.when_changed(told["changed"].append)
    hub.registry.when_deleted(told["deleted"].append)
    edge = {"deviceId": "d", "capabilities": {"iotEdge": True}}
    document = hub.registry.put_device("d", edge, CREATE)
    assert (store.commits, set(told["changed"])) == (1, family)
    hub.registry.put_device("d", document | {"capabilities": None}, ANY)
    assert (store.commits, set(told["deleted"])) == (2, family - {IdentityKey("d")})
    assert [row.identity.key for row in hub.registry.module_rows()] == []
    hub.registry.put_device("d", edge, ANY)
    assert store.commits == 3
    assert {row.identity.key for row in hub.registry.module_rows()} == family - {IdentityKey("d")}
    told["deleted"].clear()
    hub.registry.delete_device("d", ANY)
    assert set(told["deleted"]) == family


def test_devices_are_counted_by_their_status(registry: Registry) -> None:
    registry.put_device("e", {"deviceId": "e", "status": "disabled"}, CREATE)
    counts = {"totalDeviceCount": 2, "enabledDeviceCount": 1, "disabledDeviceCount": 1}
    assert registry.device_statistics() == counts
    disable(registry)
    assert registry.device_statistics()["disabledDeviceCount"] == 2
    registry.delete_device("e", ANY)
    assert list(registry.device_statistics().values()) == [1, 0, 1]
