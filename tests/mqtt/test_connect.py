"""How a connection begins: CONNECT, and the CONNACK that answers it."""

from __future__ import annotations

import base64
import ssl
import time

import pytest

from emulator import Emulator
from emulator.hub.core import limits
from tests.mqtt.raw import (
    DISCONNECT,
    PINGREQ,
    PINGRESP,
    Dial,
    Greet,
    Online,
    connack,
    connect,
    number,
    packet,
    puback,
    publish,
    suback,
    subscribe,
    text,
)
from tests.support import Device, Service, sas_token

_TAIL = "/?api-version=2021-04-12"
_WRONG_KEY = base64.b64encode(b"a key that nobody has registered").decode()


@pytest.mark.parametrize(
    "user_name",
    [
        "{host}/{id}/?api-version=2021-04-12",
        "{host}/{id}/?api-version=2019-10-01&DeviceClientType=azure-iot-device%2F2.14.0%20(x%3B)",
        "{host}/{id}/?api-version=2020-09-30&model-id=dtmi%3Acom%3Aexample%3AThing%3B1",
        "{host}/{id}/?api-version=2021-04-12&api-version=1999-01-01&unknown=1&flag",
        "{host}/{id}/api-version=2016-11-14",  # as old clients send it
        "{host}/{id}/",
        "{host}/{id}",
        "{HOST}/{id}/?api-version=2021-04-12",
    ],
)
def test_a_device_connects_with_its_own_key(
    dial: Dial, emulator: Emulator, device: Device, user_name: str
) -> None:
    host = emulator.host_name
    wire = dial()
    wire.send(
        connect(
            device.id,
            user_name.format(host=host, HOST=host.upper(), id=device.id),
            sas_token(f"{host}/devices/{device.id}", device.key),
        )
    )
    wire.expect(connack(0))
    wire.send(PINGREQ)
    wire.expect(PINGRESP)


def test_a_device_may_know_the_hub_by_another_name(dial: Dial, device: Device) -> None:
    """A container's name, or the hub's own behind `GatewayHostName`: the token is signed for it."""
    wire = dial()
    token = sas_token(f"hub.example/devices/{device.id}", device.key)
    wire.send(connect(device.id, f"hub.example/{device.id}{_TAIL}", token))
    wire.expect(connack(0))


def test_a_device_connects_with_its_secondary_key(
    dial: Dial, emulator: Emulator, service: Service, device: Device
) -> None:
    identity = service.request("GET", f"/devices/{device.id}").json()
    secondary = identity["authentication"]["symmetricKey"]["secondaryKey"]
    assert secondary != device.key
    host = emulator.host_name
    wire = dial()
    token = sas_token(f"{host}/devices/{device.id}", secondary)
    wire.send(connect(device.id, f"{host}/{device.id}{_TAIL}", token))
    wire.expect(connack(0))


@pytest.mark.parametrize(
    "user_name",
    [
        None,
        "",
        "{host}",
        "{id}",
        "/{id}/?api-version=2021-04-12",
        "{host}/",
        "{host}/{other}/?api-version=2021-04-12",
        "{host}/{id}x/?api-version=2021-04-12",
        "{host}//{id}/?api-version=2021-04-12",
        "{host}/{id}?api-version=2021-04-12",
        # These name a module, and the client id names the device.
        "{host}/{id}/module/?api-version=2021-04-12",
        "{host}/{id}/module",
    ],
)
def test_a_user_name_that_disagrees_with_the_client_id_is_refused(
    dial: Dial, emulator: Emulator, device: Device, other_device: Device, user_name: str | None
) -> None:
    host = emulator.host_name
    if user_name is not None:
        user_name = user_name.format(host=host, id=device.id, other=other_device.id)
    token = sas_token(f"{host}/devices/{device.id}", device.key)
    wire = dial()
    wire.send(connect(device.id, user_name, None if user_name is None else token))
    wire.expect(connack(5))
    wire.expect_closed()


def test_a_client_id_is_compared_by_case(dial: Dial, emulator: Emulator, device: Device) -> None:
    host, shouted = emulator.host_name, device.id.upper()
    wire = dial()
    token = sas_token(f"{host}/devices/{shouted}", device.key)
    wire.send(connect(shouted, f"{host}/{shouted}{_TAIL}", token))
    wire.expect(connack(5))
    wire.expect_closed()


@pytest.mark.parametrize("clean", [False, True])
def test_an_empty_client_id_is_refused(
    dial: Dial, emulator: Emulator, device: Device, clean: bool
) -> None:
    # MQTT 3.1.1, 3.1.3.1: with clean session 0 the answer is 2. With 1 a server may take it, but it
    # can't agree with a user name: that is 5 to a hub.
    host = emulator.host_name
    token = sas_token(f"{host}/devices/{device.id}", device.key)
    wire = dial()
    wire.send(connect("", f"{host}/{_TAIL}", token, clean=clean))
    wire.expect(connack(5 if clean else 2))
    wire.expect_closed()


@pytest.mark.parametrize(
    "password",
    [
        None,
        "",
        "letmein",
        "SharedAccessSignature",
        "SharedAccessSignature sr=x",
        "SharedAccessSignature sr=x&sig=*&se=never",
        b"\xff\xfe\x00 not text, which a password may be",
    ],
)
def test_a_password_that_is_no_token_is_refused(
    dial: Dial, emulator: Emulator, device: Device, password: str | bytes | None
) -> None:
    wire = dial()
    wire.send(connect(device.id, f"{emulator.host_name}/{device.id}{_TAIL}", password))
    wire.expect(connack(5))
    wire.expect_closed()


def test_the_device_key_itself_is_no_password(
    dial: Dial, emulator: Emulator, device: Device
) -> None:
    wire = dial()
    wire.send(connect(device.id, f"{emulator.host_name}/{device.id}{_TAIL}", device.key))
    wire.expect(connack(5))
    wire.expect_closed()


@pytest.mark.parametrize(
    ("resource", "fields"),
    [
        ("{host}/devices/{id}", {"key": _WRONG_KEY}),
        ("{host}/devices/{id}", {"lifetime": -60}),
        ("{host}/devices/{other}", {}),
        ("{host}/devices/{id}x", {}),
        ("{host}/devices/{id}/modules/m", {}),
        ("elsewhere.example/devices/{id}", {}),
        ("{host}/devices/{id}", {"policy": "device"}),  # signed with the device's key
        ("{host}/devices/{id}", {"policy": "nobody"}),
    ],
    ids=str,
)
def test_a_token_that_is_not_good_for_the_device_is_refused(
    dial: Dial,
    emulator: Emulator,
    service: Service,
    device: Device,
    other_device: Device,
    resource: str,
    fields: dict[str, object],
) -> None:
    # Keys of its own: the emulator gives every device and policy the same well-known ones.
    own_key = _give_random_keys(service, device)
    host = emulator.host_name
    resource = resource.format(host=host, id=device.id, other=other_device.id)
    token = sas_token(resource, **({"key": own_key} | fields))  # type: ignore[arg-type]
    wire = dial()
    wire.send(connect(device.id, f"{host}/{device.id}{_TAIL}", token))
    wire.expect(connack(5))
    wire.expect_closed()


def test_another_devices_token_is_refused(
    dial: Dial, emulator: Emulator, service: Service, device: Device, other_device: Device
) -> None:
    _give_random_keys(service, device)
    host = emulator.host_name
    wire = dial()
    token = sas_token(f"{host}/devices/{other_device.id}", other_device.key)
    wire.send(connect(device.id, f"{host}/{device.id}{_TAIL}", token))
    wire.expect(connack(5))
    wire.expect_closed()


@pytest.mark.parametrize("client_id", ["nobody-registered-me", "{id}/module"])
def test_an_unknown_identity_is_refused(
    dial: Dial, emulator: Emulator, device: Device, client_id: str
) -> None:
    host, client_id = emulator.host_name, client_id.format(id=device.id)
    resource = f"{host}/devices/{client_id.replace('/', '/modules/')}"
    wire = dial()
    wire.send(connect(client_id, f"{host}/{client_id}{_TAIL}", sas_token(resource, device.key)))
    wire.expect(connack(5))
    wire.expect_closed()


@pytest.mark.parametrize("resource", ["{host}", "{host}/devices", "{host}/devices/{id}"])
@pytest.mark.parametrize("policy", ["device", "iothubowner"])
def test_a_policy_with_the_right_to_connect_devices_connects_any(
    dial: Dial, emulator: Emulator, device: Device, policy: str, resource: str
) -> None:
    host = emulator.host_name
    token = _policy_token(emulator, policy, resource.format(host=host, id=device.id))
    wire = dial()
    wire.send(connect(device.id, f"{host}/{device.id}{_TAIL}", token))
    wire.expect(connack(0))


@pytest.mark.parametrize("policy", ["service", "registryRead", "registryReadWrite"])
def test_a_policy_without_that_right_connects_none(
    dial: Dial, emulator: Emulator, device: Device, policy: str
) -> None:
    host = emulator.host_name
    wire = dial()
    token = _policy_token(emulator, policy, host)
    wire.send(connect(device.id, f"{host}/{device.id}{_TAIL}", token))
    wire.expect(connack(5))
    wire.expect_closed()


def test_a_policy_token_for_one_device_connects_no_other(
    dial: Dial, emulator: Emulator, device: Device, other_device: Device
) -> None:
    host = emulator.host_name
    wire = dial()
    token = _policy_token(emulator, "device", f"{host}/devices/{device.id}")
    wire.send(connect(other_device.id, f"{host}/{other_device.id}{_TAIL}", token))
    wire.expect(connack(5))
    wire.expect_closed()


def test_a_token_may_be_good_for_centuries(dial: Dial, greet: Greet, device: Device) -> None:
    until_9999 = 253_402_300_799 - time.time()
    wire = dial()
    wire.send(greet(device, lifetime=until_9999))
    wire.expect(connack(0))
    wire.expect_nothing()


def test_a_disabled_device_is_refused(
    dial: Dial, greet: Greet, service: Service, device: Device
) -> None:
    identity = service.request("GET", f"/devices/{device.id}").json()
    disabled = service.request(
        "PUT", f"/devices/{device.id}", json=identity | {"status": "disabled"},
        headers={"If-Match": "*"},
    )  # fmt: skip
    assert disabled.status_code == 200
    wire = dial()
    wire.send(greet(device))
    wire.expect(connack(5))
    wire.expect_closed()


def test_what_follows_a_refused_connect_is_not_handled(
    dial: Dial, emulator: Emulator, service: Service, device: Device
) -> None:
    wire = dial()
    wire.send(
        connect(device.id, f"{emulator.host_name}/{device.id}{_TAIL}", "no token"),
        publish("$iothub/twin/PATCH/properties/reported/?$rid=1", b'{"sneaked": "in"}'),
    )
    wire.expect(connack(5))
    wire.expect_closed()
    twin = service.request("GET", f"/twins/{device.id}").json()
    assert "sneaked" not in twin["properties"]["reported"]
    assert twin["connectionState"] == "Disconnected"


# --- the protocol's version


@pytest.mark.parametrize("level", [0, 3, 5, 0x84])
def test_another_protocol_level_is_refused(
    dial: Dial, greet: Greet, device: Device, level: int
) -> None:
    wire = dial()
    wire.send(greet(device, level=level))
    wire.expect(connack(1))
    wire.expect_closed()


def test_a_client_of_mqtt_3_1_is_refused(dial: Dial, greet: Greet, device: Device) -> None:
    wire = dial()
    wire.send(greet(device, protocol="MQIsdp", level=3))
    wire.expect(connack(1))
    wire.expect_closed()


@pytest.mark.parametrize(
    "properties", [b"", b"\x11\x00\x00\x00\x3c"], ids=["no properties", "session expiry"]
)
def test_a_client_of_mqtt_5_is_refused(dial: Dial, device: Device, properties: bytes) -> None:
    # MQTT 5, 3.1: properties stand between the keep-alive and the client id.
    header = text("MQTT") + b"\x05\x02" + number(60) + bytes([len(properties)]) + properties
    wire = dial()
    wire.send(packet(0x10, header + text(device.id)))
    wire.expect(connack(1))
    wire.expect_closed()


# --- what it is sent with


def test_packets_that_come_together_with_the_connect_are_handled_after_it(
    dial: Dial, greet: Greet, device: Device
) -> None:
    wire = dial()
    wire.send(
        greet(device),
        subscribe(1, ("$iothub/twin/res/#", 1)),
        publish(f"devices/{device.id}/messages/events/", b"{}", packet_id=2),
        publish("$iothub/twin/GET/?$rid=3", packet_id=3),
        PINGREQ,
    )
    wire.expect(connack(0), suback(1, 1), puback(2), puback(3))
    wire.expect_publish("$iothub/twin/res/200/?$rid=3")
    wire.expect(PINGRESP)


def test_packets_may_come_in_pieces(dial: Dial, greet: Greet, device: Device) -> None:
    wire = dial()
    for data in (greet(device), subscribe(1, "$iothub/twin/res/#"), PINGREQ):
        for octet in data:
            wire.send(bytes([octet]))
    wire.expect(connack(0), suback(1, 0), PINGRESP)


def test_a_will_for_the_devices_own_telemetry_is_accepted(
    dial: Dial, greet: Greet, device: Device
) -> None:
    wire = dial()
    wire.send(greet(device, will=(f"devices/{device.id}/messages/events/", b"gone")))
    wire.expect(connack(0))
    wire.expect_nothing()


def test_a_client_that_never_sends_its_connect_is_closed(
    dial: Dial, greet: Greet, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MQTT_CONNECT_TIMEOUT", 0.3)
    silent, halfway = dial(), dial()
    halfway.send(greet(device)[:-1])
    silent.expect_closed()
    halfway.expect_closed()


def test_tls_1_2_is_enough(dial: Dial, emulator: Emulator, greet: Greet, device: Device) -> None:
    """The SDK for Python speaks no other."""
    tls = ssl.create_default_context(cafile=str(emulator.ca_file))
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    wire = dial(tls=tls)
    wire.send(greet(device))
    wire.expect(connack(0))


# --- the session-present bit


def test_session_present_tells_of_stored_subscriptions(
    dial: Dial, greet: Greet, device: Device
) -> None:
    def connected(*, clean: bool, session_present: bool) -> None:
        wire = dial()
        wire.send(greet(device, clean=clean))
        wire.expect(connack(0, session_present=session_present))
        wire.send(subscribe(1, "$iothub/twin/res/#"))
        wire.expect(suback(1, 0))
        wire.send(DISCONNECT)
        wire.expect_closed()

    connected(clean=False, session_present=False)
    connected(clean=False, session_present=True)
    connected(clean=True, session_present=False)  # which ends the session, too
    connected(clean=False, session_present=False)


def test_a_refusal_never_tells_of_a_session(
    dial: Dial, emulator: Emulator, online: Online, device: Device
) -> None:
    online(device, "$iothub/twin/res/#", clean=False)
    wire = dial()
    wire.send(connect(device.id, f"{emulator.host_name}/{device.id}", "no token", clean=False))
    wire.expect(connack(5, session_present=False))


# --- help


def _policy_token(emulator: Emulator, policy: str, resource: str) -> str:
    key = emulator.policy_connection_string(policy).partition(";SharedAccessKey=")[2]
    return sas_token(resource, key, policy=policy)


def _give_random_keys(service: Service, device: Device) -> str:
    """Replace a device's keys by ones that nothing else has; gives the primary one."""
    answer = service.request(
        "PUT", f"/devices/{device.id}", json={"deviceId": device.id}, headers={"If-Match": "*"}
    )
    assert answer.status_code == 200
    key: str = answer.json()["authentication"]["symmetricKey"]["primaryKey"]
    assert key != device.key
    return key
