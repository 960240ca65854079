"""Devices that register over MQTT, packet by packet."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from emulator import Emulator
from tests.devices import greeting
from tests.dps.support import ID_SCOPE, KEY, OTHER_KEY, Owner, derived, new_id, pem
from tests.mqtt import raw
from tests.mqtt.raw import Wire
from tests.mqtt.web_socket import WebSocketWire
from tests.support import Device, Service, sas_token, second_hub, trust
from tests.x509 import Credential, issue

ANSWERS = "$dps/registrations/res/#"
REGISTER = "$dps/registrations/PUT/iotdps-register/?$rid={}"
STATUS = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid={}&operationId={}"

Dial = Callable[..., Wire]


@pytest.fixture
def dial(emulator: Emulator) -> Iterator[Dial]:
    context = trust(emulator)
    with ExitStack() as wires:

        def open_wire(*, tls: ssl.SSLContext = context) -> Wire:
            address = (emulator.host_name, emulator.mqtt_port)
            return wires.enter_context(Wire(address, tls))

        yield open_wire


def hello(
    name: str,
    key: str | None = KEY,
    *,
    scope: str = ID_SCOPE,
    client_id: str | None = None,
    tail: str = "/api-version=2019-03-31&ClientVersion=test%2F1",
    **fields: Any,
) -> bytes:
    """Build the CONNECT of a device that registers."""
    resource = f"{scope}/registrations/{name}"
    token = None if key is None else sas_token(resource, key, policy="registration")
    return raw.connect(client_id or name, resource + tail, token, **fields)


def receive(wire: Wire) -> tuple[str, Any]:
    """Return the topic and the JSON of the next answer, which has QoS 1; acknowledge it."""
    data = wire.receive()
    assert data[0] == 0x32, raw.describe(data)
    wire.send(raw.puback(raw.packet_id(data)))
    topic, payload = raw.published(data)
    return topic, json.loads(payload)


def begin(wire: Wire, greeting_: bytes) -> None:
    wire.send(greeting_)
    wire.expect(raw.connack(0))
    wire.send(raw.subscribe(1, (ANSWERS, 1)))
    wire.expect(raw.suback(1, 1))


def test_a_device_registers(owner: Owner, dial: Dial, service: Service) -> None:
    name = new_id()
    owner.enroll(name)
    wire = dial()
    begin(wire, hello(name, keep_alive=0))
    body = json.dumps({"registrationId": name}).encode()
    wire.send(raw.publish(REGISTER.format(1), body))
    topic, pending = receive(wire)
    operation = pending["operationId"]
    assert topic == "$dps/registrations/res/202/?$rid=1&retry-after=3"
    assert pending == {"operationId": operation, "status": "assigning"}
    wire.send(raw.publish(STATUS.format("a-guid", operation), b" ", packet_id=9))
    wire.expect(raw.puback(9))
    topic, last = receive(wire)
    assert topic == "$dps/registrations/res/200/?$rid=a-guid"
    assert (last["operationId"], last["status"]) == (operation, "assigned")
    assert last["registrationState"] == owner.call("GET", f"/registrations/{name}")
    assert service.request("GET", f"/devices/{name}").ok
    wire.send(raw.PINGREQ)
    wire.expect(raw.PINGRESP)
    wire.send(raw.unsubscribe(2, ANSWERS))
    wire.expect(raw.unsuback(2))
    wire.send(raw.DISCONNECT)
    wire.expect_closed()


def test_all_packets_may_come_at_once(owner: Owner, dial: Dial) -> None:
    name = new_id()
    owner.enroll(name)
    wire = dial()
    wire.send(hello(name), raw.subscribe(1, ANSWERS), raw.publish(REGISTER.format(1)), raw.PINGREQ)
    wire.expect(raw.connack(0), raw.suback(1, 0))
    assert wire.receive_publish()[0] == "$dps/registrations/res/202/?$rid=1&retry-after=3"
    wire.expect(raw.PINGRESP)


def test_packets_may_come_in_pieces(owner: Owner, dial: Dial) -> None:
    name = new_id()
    owner.enroll(name)
    wire = dial()
    data = hello(name) + raw.subscribe(1, ANSWERS)
    cut = len(hello(name)) + 3
    wire.send(data[:20])
    wire.send(data[20:cut])
    wire.expect(raw.connack(0))
    wire.send(data[cut:])
    wire.expect(raw.suback(1, 0))


def test_a_group_and_a_payload(owner: Owner, dial: Dial) -> None:
    group, name = new_id("group"), new_id()
    owner.enroll_group(group)
    wire = dial()
    begin(wire, hello(name, derived(KEY, name)))
    body = json.dumps({"registrationId": name, "payload": {"a": 1}}).encode()
    wire.send(raw.publish(REGISTER.format(1), body))
    assert receive(wire)[1]["status"] == "assigning"
    owner.call("DELETE", f"/enrollmentGroups/{group}", status=204)


@pytest.mark.parametrize("key", [OTHER_KEY[:-5] + "AAAA=", KEY])
def test_a_refusal_comes_with_the_registration(owner: Owner, dial: Dial, key: str) -> None:
    name = new_id()
    if key != KEY:
        owner.enroll(name)  # else it is unknown
    wire = dial()
    begin(wire, hello(name, key))
    wire.send(raw.publish(REGISTER.format(7), b"{}"))
    topic, body = receive(wire)
    assert topic == "$dps/registrations/res/401/?$rid=7"
    assert (body["errorCode"], body["message"]) == (401000, "Unauthorized")
    assert {*body} >= {"trackingId", "timestampUtc"}
    wire.send(raw.PINGREQ)
    wire.expect(raw.PINGRESP)


def test_other_errors_are_answered(owner: Owner, dial: Dial) -> None:
    name = new_id()
    owner.enroll(name)
    wire = dial()
    begin(wire, hello(name))
    wire.send(raw.publish(REGISTER.format(1), b"{"))
    assert receive(wire)[0] == "$dps/registrations/res/400/?$rid=1"
    wire.send(raw.publish(REGISTER.format(2), b'"' + b"x" * 100_000 + b'"'))
    assert receive(wire)[0] == "$dps/registrations/res/413/?$rid=2"
    wire.send(raw.publish(STATUS.format(3, "unknown")))
    topic, body = receive(wire)
    assert (topic, body["errorCode"]) == ("$dps/registrations/res/404/?$rid=3", 404204)


def test_a_device_without_any_proof_can_not_connect(owner: Owner, dial: Dial) -> None:
    name = new_id()
    owner.enroll(name)
    wire = dial()
    wire.send(hello(name, None), raw.PINGREQ)
    wire.expect(raw.connack(5))
    wire.expect_closed()


def test_an_unknown_id_scope_gets_no_answer(owner: Owner, dial: Dial) -> None:
    name = new_id()
    owner.enroll(name)
    wire = dial()
    wire.send(hello(name, scope="0ne00000000"))
    wire.expect_closed()


def test_a_client_id_of_another_device_is_refused_by_the_hub(owner: Owner, dial: Dial) -> None:
    name = new_id()
    owner.enroll(name)
    wire = dial()
    wire.send(hello(name, client_id="another"))
    wire.expect(raw.connack(5))


@pytest.mark.parametrize(
    "packet",
    [
        raw.publish("$iothub/twin/GET/?$rid=1"),
        raw.publish("devices/x/messages/events/"),
        raw.publish("$dps/registrations/PUT/iotdps-register/"),
        raw.publish("$dps/registrations/POST/other/?$rid=1"),
        raw.packet(0x10, b""),
    ],
)
def test_what_is_not_of_the_service_ends_the_connection(
    owner: Owner, dial: Dial, packet: bytes
) -> None:
    name = new_id()
    owner.enroll(name)
    wire = dial()
    begin(wire, hello(name))
    wire.send(packet)
    wire.expect_closed()


def test_another_filter_is_refused(owner: Owner, dial: Dial) -> None:
    name = new_id()
    owner.enroll(name)
    wire = dial()
    wire.send(hello(name))
    wire.expect(raw.connack(0))
    wire.send(raw.subscribe(1, "$iothub/twin/res/#", (ANSWERS, 2)))
    wire.expect(raw.suback(1, 0x80, 1))


def test_without_a_subscription_there_is_no_answer(owner: Owner, dial: Dial) -> None:
    name = new_id()
    owner.enroll(name)
    wire = dial()
    wire.send(hello(name), raw.publish(REGISTER.format(1), b"", packet_id=3))
    wire.expect(raw.connack(0), raw.puback(3))
    wire.expect_nothing()


def test_a_silent_device_is_cut_off(owner: Owner, dial: Dial) -> None:
    name = new_id()
    owner.enroll(name)
    wire = dial()
    wire.send(hello(name, keep_alive=1))
    wire.expect(raw.connack(0))
    wire.expect_closed()


def test_a_certificate(owner: Owner, dial: Dial, emulator: Emulator, folder: Path) -> None:
    name = new_id()
    own = issue(name)
    pair = {"primary": {"certificate": pem(own)}}
    owner.enroll(name, {"type": "x509", "x509": {"clientCertificates": pair}})

    def register(credential: Credential) -> tuple[str, Any]:
        context = trust(emulator)
        context.load_cert_chain(credential.client_file(folder))
        wire = dial(tls=context)
        begin(wire, hello(name, None))
        wire.send(raw.publish(REGISTER.format(1)))
        return receive(wire)

    assert register(own)[1]["status"] == "assigning"
    topic, body = register(issue(name))
    assert topic == "$dps/registrations/res/401/?$rid=1"
    assert (body["errorCode"], body["message"]) == (401002, "Invalid certificate.")


@pytest.mark.parametrize("path", ["/", "/$iothub/websocket"])
def test_a_device_registers_over_a_web_socket(owner: Owner, emulator: Emulator, path: str) -> None:
    name = new_id()
    owner.enroll(name)
    with WebSocketWire(emulator.host_name, emulator.https_port, trust(emulator), path=path) as wire:
        begin(wire, hello(name))
        wire.send(raw.publish(REGISTER.format(1)))
        assert receive(wire)[1]["status"] == "assigning"


def test_a_device_of_the_hub_may_be_named_registrations(
    emulator: Emulator, dial: Dial, service: Service
) -> None:
    device = Device.of(emulator.register_device("registrations"))
    body = {"deviceId": "registrations", "moduleId": "m"}
    module = service.request("PUT", "/devices/registrations/modules/m", json=body).json()
    key = module["authentication"]["symmetricKey"]["primaryKey"]
    for client_id, own_key in (("registrations", device.key), ("registrations/m", key)):
        wire = dial()
        wire.send(greeting(emulator.host_name, client_id, own_key))
        wire.expect(raw.connack(0))
    service.request("DELETE", "/devices/registrations", headers={"If-Match": "*"})


def test_a_hub_without_the_service(emulator: Emulator) -> None:
    with second_hub(emulator, no_dps=True) as hub:
        assert (hub.dps_id_scope, hub.dps_connection_string) == (None, None)
        with Service(hub) as service:
            answer = service.request("GET", "/enrollments/x")
            assert (answer.status_code, [*answer.json()]) == (404, ["Message"])
        with Wire((hub.host_name, hub.mqtt_port), trust(hub)) as wire:
            wire.send(hello("x"))
            wire.expect(raw.connack(5))
