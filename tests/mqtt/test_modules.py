"""Modules over MQTT: identities beside their device, each with a connection of its own."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import pytest

from emulator import Emulator
from tests.messages import Module, greet_module, put_module, read_events, send, wait_until
from tests.mqtt.raw import (
    DISCONNECT,
    Dial,
    Greet,
    Online,
    Wire,
    connack,
    connect,
    puback,
    publish,
    suback,
    subscribe,
    unsuback,
    unsubscribe,
)
from tests.support import API_VERSION, Device, Service, sas_token

_METHODS = "$iothub/methods/POST/#"
_TWIN_ANSWERS = "$iothub/twin/res/#"
_DESIRED = "$iothub/twin/PATCH/properties/desired/#"


class ModuleOnline(Protocol):
    """Connects a module, and subscribes it to filters."""

    def __call__(self, module: Module, *filters: str, **fields: Any) -> Wire: ...


@pytest.fixture
def module(service: Service, device: Device) -> Module:
    return put_module(service, device.id)


@pytest.fixture
def module_online(dial: Dial, emulator: Emulator) -> ModuleOnline:
    def connect_module(module: Module, *filters: str, **fields: Any) -> Wire:
        wire = dial()
        wire.send(greet_module(emulator, module, **fields))
        wire.expect(connack(0))
        if filters:
            wire.send(subscribe(1, *filters))
            wire.expect(suback(1, *[0] * len(filters)))
        return wire

    return connect_module


def _state(service: Service, path: str) -> str:
    state: str = service.request("GET", f"/twins/{path}").json()["connectionState"]
    return state


# --- who may connect


def test_modules_connect_beside_their_device(
    online: Online, module_online: ModuleOnline, service: Service, device: Device, module: Module
) -> None:
    sibling = put_module(service, device.id, "microphone")
    wires = [online(device), module_online(module), module_online(sibling)]
    paths = [device.id, module.path, sibling.path]
    for wire in wires:
        wire.expect_nothing()
    assert [_state(service, path) for path in paths] == ["Connected"] * 3
    wires[1].send(DISCONNECT)
    wires[1].expect_closed()
    assert [_state(service, path) for path in paths] == ["Connected", "Disconnected", "Connected"]
    wires[0].close()
    wait_until(lambda: _state(service, device.id) == "Disconnected")
    wires[2].expect_nothing()
    assert _state(service, sibling.path) == "Connected"


def test_a_module_takes_over_its_own_connection(
    module_online: ModuleOnline, online: Online, device: Device, module: Module
) -> None:
    wire, older, newer = online(device), module_online(module), module_online(module)
    older.expect_closed()
    newer.expect_nothing()
    wire.expect_nothing()


def test_a_module_connects_with_its_secondary_key(
    dial: Dial, emulator: Emulator, service: Service, module: Module
) -> None:
    identity = service.request("GET", f"/devices/{module.path}").json()
    key = identity["authentication"]["symmetricKey"]["secondaryKey"]
    assert key != module.key
    wire = dial()
    wire.send(greet_module(emulator, module, key=key))
    wire.expect(connack(0))


@pytest.mark.parametrize("whose", ["the device's", "a sibling's", "nobody's"])
def test_another_key_does_not_open_the_modules_connection(
    dial: Dial,
    emulator: Emulator,
    service: Service,
    device: Device,
    module: Module,
    module_online: ModuleOnline,
    whose: str,
) -> None:
    live = module_online(module)
    # Registered devices of this emulator have equal keys, so the device gets one of its own.
    identity = service.request("GET", f"/devices/{device.id}").json()
    identity["authentication"] = {"type": "sas"}
    own = service.request(
        "PUT", f"/devices/{device.id}", json=identity, headers={"If-Match": "*"}
    ).json()["authentication"]["symmetricKey"]["primaryKey"]
    keys = {
        "the device's": own,
        "a sibling's": put_module(service, device.id, "sibling").key,
        "nobody's": "A" * 43 + "=",
    }
    wire = dial()
    wire.send(greet_module(emulator, module, key=keys[whose]))
    wire.expect(connack(5))
    wire.expect_closed()
    live.expect_nothing()


def test_a_modules_key_does_not_open_its_devices_connection(
    dial: Dial, emulator: Emulator, device: Device, module: Module
) -> None:
    host = emulator.host_name
    user_name = f"{host}/{device.id}/?api-version={API_VERSION}"
    for audience in (f"{host}/devices/{device.id}", f"{host}/devices/{module.path}"):
        wire = dial()
        wire.send(connect(device.id, user_name, sas_token(audience, module.key)))
        wire.expect(connack(5))


def test_a_policy_that_connects_devices_connects_modules(
    dial: Dial, emulator: Emulator, service: Service, module: Module
) -> None:
    host, (key, _) = emulator.host_name, emulator.settings.key_pair("device")
    client_id = f"{module.device_id}/{module.id}"
    wire = dial()
    wire.send(
        connect(
            client_id,
            f"{host}/{client_id}/?api-version={API_VERSION}",
            sas_token(host, key, policy="device"),
        )
    )
    wire.expect(connack(0))
    wire.send(publish(module.events, packet_id=1))
    wire.expect(puback(1))
    (event,) = read_events(service, module.device_id)
    method = json.loads(event["annotations"]["iothub-connection-auth-method"])
    assert method["scope"] == "hub"


def test_an_unknown_module_is_refused(
    dial: Dial, emulator: Emulator, device: Device, module: Module
) -> None:
    for unknown in (module._replace(id="Camera"), module._replace(device_id=f"{device.id}-x")):
        wire = dial()
        wire.send(greet_module(emulator, unknown))
        wire.expect(connack(5))
        wire.expect_closed()


def _set_status(service: Service, device: Device, status: str) -> None:
    identity = service.request("GET", f"/devices/{device.id}").json()
    identity["status"] = status
    answer = service.request(
        "PUT", f"/devices/{device.id}", json=identity, headers={"If-Match": "*"}
    )
    assert answer.status_code == 200


def test_a_module_of_a_disabled_device_is_dropped_and_refused(
    dial: Dial,
    emulator: Emulator,
    module_online: ModuleOnline,
    service: Service,
    device: Device,
    module: Module,
) -> None:
    live = module_online(module)
    _set_status(service, device, "disabled")
    live.expect_closed()
    wire = dial()
    wire.send(greet_module(emulator, module))
    wire.expect(connack(5))
    _set_status(service, device, "enabled")
    module_online(module).expect_nothing()


def test_a_deleted_module_is_dropped_and_leaves_its_device_alone(
    dial: Dial,
    emulator: Emulator,
    online: Online,
    module_online: ModuleOnline,
    service: Service,
    device: Device,
    module: Module,
) -> None:
    wire, live = online(device), module_online(module, _METHODS, clean=False)
    deleted = service.request("DELETE", f"/devices/{module.path}", headers={"If-Match": "*"})
    assert deleted.status_code == 204
    live.expect_closed()
    wire.expect_nothing()
    assert _state(service, device.id) == "Connected"
    refused = dial()
    refused.send(greet_module(emulator, module))
    refused.expect(connack(5))
    # A namesake has no session of it.
    again = dial()
    again.send(greet_module(emulator, put_module(service, device.id), clean=False))
    again.expect(connack(0, session_present=False))


def test_deleting_a_device_drops_its_modules(
    online: Online, module_online: ModuleOnline, service: Service, device: Device, module: Module
) -> None:
    wires = [
        online(device),
        module_online(module),
        module_online(put_module(service, device.id, "microphone")),
    ]
    path = f"/devices/{device.id}"
    assert service.request("DELETE", path, headers={"If-Match": "*"}).status_code == 204
    for wire in wires:
        wire.expect_closed()
    assert service.request("PUT", path, json={"deviceId": device.id}).status_code == 200
    assert service.request("GET", f"{path}/modules").json() == []


# --- telemetry


def test_a_modules_telemetry_is_stamped_with_its_own_identity(
    online: Online, module_online: ModuleOnline, service: Service, device: Device, module: Module
) -> None:
    wire, own = online(device), module_online(module, tail="&model-id=dtmi%3Acom%3Aexample%3AC%3B1")
    own.send(publish(f"{module.events}a=1&%24.on=alerts/", b"from the module", packet_id=1))
    own.expect(puback(1))
    wire.send(publish(f"devices/{device.id}/messages/events/", b"from the device", packet_id=1))
    wire.expect(puback(1))
    first, second = read_events(service, device.id)
    assert (first["body"], first["deviceId"], first["moduleId"]) == (
        "from the module",
        device.id,
        module.id,
    )
    assert first["properties"] == {"a": "1"}
    assert first["systemProperties"] == {"iothub-outputname": "alerts"}
    stamps = first["annotations"]
    assert stamps["iothub-connection-device-id"] == device.id
    assert stamps["iothub-connection-module-id"] == module.id
    assert stamps["dt-dataschema"] == "dtmi:com:example:C;1"
    generation = service.request("GET", f"/devices/{module.path}").json()["generationId"]
    assert stamps["iothub-connection-auth-generation-id"] == generation
    assert second["annotations"]["iothub-connection-auth-generation-id"] != generation
    method = json.loads(stamps["iothub-connection-auth-method"])
    assert (method["scope"], method["type"], method["issuer"]) == ("module", "sas", "iothub")
    assert (second["body"], second["moduleId"]) == ("from the device", None)
    assert "iothub-connection-module-id" not in second["annotations"]
    assert "dt-dataschema" not in second["annotations"]
    for path, model in ((module.path, "dtmi:com:example:C;1"), (device.id, "")):
        assert service.request("GET", f"/twins/{path}").json()["modelId"] == model


@pytest.mark.parametrize("other", ["device", "sibling"])
def test_a_module_sends_for_nobody_else(
    module_online: ModuleOnline, service: Service, device: Device, module: Module, other: str
) -> None:
    sibling = put_module(service, device.id, "microphone")
    topics = {"device": f"devices/{device.id}/messages/events/", "sibling": sibling.events}
    wire = module_online(module)
    wire.send(publish(topics[other], b"x", packet_id=1))
    wire.expect_closed()
    assert read_events(service, device.id) == []


def test_a_device_does_not_send_for_its_modules(
    online: Online, service: Service, device: Device, module: Module
) -> None:
    wire = online(device)
    wire.send(publish(module.events, b"x", packet_id=1))
    wire.expect_closed()
    assert read_events(service, device.id) == []


# --- subscriptions and the session


def test_a_module_may_subscribe_to_what_the_sdks_subscribe_to(
    module_online: ModuleOnline, module: Module
) -> None:
    start = f"devices/{module.path}"
    wire = module_online(module)
    wire.send(
        subscribe(
            1,
            (f"{start}/messages/devicebound/#", 1),
            (f"{start}/inputs/#", 1),
            (_METHODS, 0),
            (_TWIN_ANSWERS, 0),
            (_DESIRED, 0),
        )
    )
    wire.expect(suback(1, 1, 1, 0, 0, 0))
    wire.send(unsubscribe(2, f"{start}/inputs/#"))
    wire.expect(unsuback(2))
    wire.send(subscribe(3, f"{start}/#"))
    wire.expect(suback(3, 0))


def test_a_module_may_not_subscribe_to_its_devices_messages(
    module_online: ModuleOnline, device: Device, module: Module
) -> None:
    wire = module_online(module)
    wire.send(subscribe(1, f"devices/{device.id}/messages/devicebound/#"))
    wire.expect_closed()


def test_a_devices_messages_are_not_for_its_modules(
    online: Online, module_online: ModuleOnline, service: Service, device: Device, module: Module
) -> None:
    own = module_online(module, f"devices/{module.path}/messages/devicebound/#")
    send(service, device, "for the device")
    own.expect_nothing()
    twin = service.request("GET", f"/twins/{module.path}").json()
    assert twin["cloudToDeviceMessageCount"] == 0
    wire = online(device, f"devices/{device.id}/messages/devicebound/#")
    assert wire.receive_publish()[1] == b"for the device"
    own.expect_nothing()


def test_a_module_that_leaves_releases_nothing_of_its_device(
    online: Online, module_online: ModuleOnline, service: Service, device: Device, module: Module
) -> None:
    """What the device holds stays with it; else it would get the message twice."""
    own, wire = module_online(module), online(device)
    name = f"devices/{device.id}/messages/devicebound/#"
    wire.send(subscribe(1, (name, 1)))
    wire.expect(suback(1, 1))
    send(service, device, "once")
    assert wire.receive()[0] == 0x32
    own.send(DISCONNECT)
    own.expect_closed()
    send(service, device, "next")
    assert b"next" in wire.receive()
    wire.expect_nothing()


def test_a_module_has_a_session_of_its_own(
    dial: Dial, emulator: Emulator, greet: Greet, online: Online, device: Device, module: Module
) -> None:
    with dial() as wire:
        wire.send(greet_module(emulator, module, clean=False), subscribe(1, _METHODS))
        wire.expect(connack(0), suback(1, 0))
        wire.send(DISCONNECT)
        wire.expect_closed()
    wire = dial()
    wire.send(greet(device, clean=False))
    wire.expect(connack(0, session_present=False))
    online(device, clean=True)  # which ends the device's session, and no other
    again = dial()
    again.send(greet_module(emulator, module, clean=False))
    again.expect(connack(0, session_present=True))


# --- twins and methods


def test_a_module_has_a_twin_of_its_own(
    online: Online, module_online: ModuleOnline, service: Service, device: Device, module: Module
) -> None:
    wire = online(device, _TWIN_ANSWERS, _DESIRED)
    own = module_online(module, _TWIN_ANSWERS, _DESIRED)
    patch = {"properties": {"desired": {"zoom": 2}}, "tags": {"lens": "wide"}}
    assert service.request("PATCH", f"/twins/{module.path}", json=patch).status_code == 200
    own.expect_publish(
        "$iothub/twin/PATCH/properties/desired/?$version=2", {"zoom": 2, "$version": 2}
    )
    own.send(publish("$iothub/twin/PATCH/properties/reported/?$rid=1", b'{"zoom": 1}'))
    own.expect_publish("$iothub/twin/res/204/?$rid=1&$version=2", b"")
    own.send(publish("$iothub/twin/GET/?$rid=2", b" "))
    own.expect_publish(
        "$iothub/twin/res/200/?$rid=2",
        {"desired": {"zoom": 2, "$version": 2}, "reported": {"zoom": 1, "$version": 2}},
    )
    wire.expect_nothing()
    wire.send(publish("$iothub/twin/GET/?$rid=3"))
    wire.expect_publish(
        "$iothub/twin/res/200/?$rid=3", {"desired": {"$version": 1}, "reported": {"$version": 1}}
    )
    twin = service.request("GET", f"/twins/{module.path}").json()
    assert (twin["deviceId"], twin["moduleId"]) == (device.id, module.id)
    assert twin["tags"] == {"lens": "wide"}
    assert twin["properties"]["reported"]["zoom"] == 1
    service.request(
        "PATCH", f"/twins/{device.id}", json={"properties": {"desired": {"interval": 1}}}
    )
    wire.expect_publish("$iothub/twin/PATCH/properties/desired/?$version=2")
    own.expect_nothing()


def test_a_module_answers_methods_of_its_own(
    online: Online, module_online: ModuleOnline, service: Service, device: Device, module: Module
) -> None:
    wire, own = online(device, _METHODS), module_online(module, _METHODS)
    body = {"methodName": "zoom", "payload": {"by": 2}, "responseTimeoutInSeconds": 10}
    with ThreadPoolExecutor() as threads:
        paths = (module.path, device.id)
        calls = [
            threads.submit(service.request, "POST", f"/twins/{path}/methods", json=body)
            for path in paths
        ]
        request_id = own.expect_method("zoom", {"by": 2})
        other_id = wire.expect_method("zoom", {"by": 2})
        # An answer counts only from the one that was asked.
        assert request_id != other_id
        wire.send(publish(f"$iothub/methods/res/500/?$rid={request_id}", b'"not mine"'))
        wire.expect_nothing()
        own.send(publish(f"$iothub/methods/res/200/?$rid={request_id}", b'"module"'))
        wire.send(publish(f"$iothub/methods/res/201/?$rid={other_id}", b'"device"'))
        answers = [call.result().json() for call in calls]
    assert answers == [{"status": 200, "payload": "module"}, {"status": 201, "payload": "device"}]


def test_a_method_for_a_module_does_not_reach_a_device_that_listens(
    online: Online, service: Service, device: Device, module: Module
) -> None:
    wire = online(device, _METHODS)
    answer = service.request("POST", f"/twins/{module.path}/methods", json={"methodName": "zoom"})
    assert (answer.status_code, answer.headers["iothub-errorcode"]) == (404, "DeviceNotOnline")
    wire.expect_nothing()
