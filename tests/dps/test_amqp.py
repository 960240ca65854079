"""Devices that register over AMQP, frame by frame."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from emulator import Emulator
from emulator.amqp.message import Value
from emulator.amqp.performatives import SaslChallenge, SaslOutcome
from emulator.dps.amqp_client import _Replies
from tests.dps.amqp_device import REGISTER, AmqpDevice, RefusedError, status
from tests.dps.software_tpm import a_tpm
from tests.dps.support import KEY, Owner, derived, new_id, pem
from tests.support import Device, Service, sas_token, second_hub, trust
from tests.x509 import issue

Dial = Callable[..., AmqpDevice]


@pytest.fixture
def dial(emulator: Emulator) -> Iterator[Dial]:
    with ExitStack() as devices:

        def open_device(name: str, **options: Any) -> AmqpDevice:
            device = AmqpDevice(emulator, name, **options)
            devices.enter_context(device)
            return device

        yield open_device


def ready(device: AmqpDevice, key: str = KEY) -> AmqpDevice:
    """Send the token of a device, and attach its links."""
    device.plain(sas_token(device.address, key, policy="registration"))
    device.attach()
    return device


def test_a_device_with_a_key(owner: Owner, dial: Dial, service: Service) -> None:
    name = new_id()
    owner.enroll(name)
    final = ready(dial(name)).register(json.dumps({"registrationId": name}).encode())
    assert final["status"] == "assigned"
    assert final["registrationState"] == owner.call("GET", f"/registrations/{name}")
    assert service.request("GET", f"/devices/{name}").ok


def test_a_device_of_a_group(owner: Owner, dial: Dial) -> None:
    group, name = new_id("group"), new_id()
    owner.enroll_group(group)
    assert ready(dial(name), derived(KEY, name)).register()["status"] == "assigned"
    owner.call("DELETE", f"/enrollmentGroups/{group}", status=204)


@pytest.mark.parametrize("sasl", ["EXTERNAL", "ANONYMOUS", None])
def test_a_device_with_a_certificate(
    owner: Owner, dial: Dial, emulator: Emulator, folder: Path, sasl: str | None
) -> None:
    name, own = new_id(), None
    own = issue(name)
    pair = {"primary": {"certificate": pem(own)}}
    owner.enroll(name, {"type": "x509", "x509": {"clientCertificates": pair}})
    tls = trust(emulator)
    tls.load_cert_chain(own.client_file(folder))
    device = dial(name, tls=tls)
    if sasl is not None:
        assert device.sasl(sasl, b"") == SaslOutcome(0)
    device.attach()
    final = device.register()
    assert (final["status"], final["registrationState"]["x509"]) == ("assigned", {})


def test_the_registration_can_be_looked_up(owner: Owner, dial: Dial) -> None:
    name = new_id()
    owner.enroll(name)
    device = ready(dial(name))
    state = device.register()["registrationState"]
    assert device.request({"iotdps-operation-type": "iotdps-get-registration"})[1] == state


# --- refusals


def refusal(device: AmqpDevice, properties: dict[str, Any], body: bytes = b"") -> RefusedError:
    with pytest.raises(RefusedError) as refused:
        device.request(properties, body)
    return refused.value


def test_a_wrong_key_is_refused_with_the_request(owner: Owner, dial: Dial) -> None:
    name = new_id()
    owner.enroll(name, {"type": "symmetricKey"})
    device = ready(dial(name))
    refused = refusal(device, REGISTER)
    assert refused.condition == "amqp:unauthorized-access"
    assert (refused.body["errorCode"], refused.body["message"]) == (401000, "Unauthorized")
    assert refusal(device, status("5.0.0")).body["errorCode"] == 401000


@pytest.mark.parametrize(
    ("properties", "body", "condition", "code"),
    [
        (REGISTER, b"{", "com.microsoft:argument-error", 400012),
        (REGISTER, b'{"registrationId": "x"}', "com.microsoft:argument-error", 400004),
        (REGISTER, b'"%s"' % (b"x" * 98_400), "amqp:link:message-size-exceeded", 413001),
        (status("5.0.0"), b"", "amqp:not-found", 404204),
        ({}, b"", "com.microsoft:argument-error", 400004),
        ({"iotdps-operation-type": 7}, b"", "com.microsoft:argument-error", 400004),
    ],
)
def test_other_errors(
    owner: Owner, dial: Dial, properties: dict[str, Any], body: bytes, condition: str, code: int
) -> None:
    name = new_id()
    owner.enroll(name)
    refused = refusal(ready(dial(name)), properties, body)
    assert (refused.condition, refused.body["errorCode"]) == (condition, code)


def test_a_device_without_any_proof_is_refused(owner: Owner, dial: Dial) -> None:
    name = new_id()
    owner.enroll(name)
    with pytest.raises(RefusedError) as refused:
        dial(name).attach()
    assert refused.value.condition == "amqp:unauthorized-access"


def test_an_unknown_id_scope_is_refused(owner: Owner, dial: Dial) -> None:
    name = new_id()
    owner.enroll(name)
    device = dial(name, scope="0ne00000000")
    with pytest.raises(RefusedError) as refused:
        ready(device)
    assert refused.value.condition == "amqp:not-found"


def test_a_body_that_is_a_value_is_empty(owner: Owner, dial: Dial) -> None:
    name = new_id()
    owner.enroll(name)
    assert ready(dial(name)).request(REGISTER, Value("x"))[1]["status"] == "assigning"


def test_a_connection_keeps_nothing_of_links_that_have_ended() -> None:
    repliers: dict[str, list[Any]] = {}
    links: list[Any] = [object(), object()]
    first, second = (_Replies(repliers, "x", link) for link in links)
    first.on_detached(None)
    assert repliers == {"x": links[1:]}
    second.on_detached(None)
    assert not repliers


def test_the_hub_is_there_too(
    owner: Owner, dial: Dial, emulator: Emulator, service: Service
) -> None:
    name = new_id()
    owner.enroll(name)
    ready(dial(name)).register()
    device = dial(name)
    token = sas_token(f"{emulator.host_name}/devices/{name}", KEY)
    outcome = device.sasl("PLAIN", f"\0{name}@sas.{emulator.host_name}\0{token}".encode())
    assert outcome == SaslOutcome(0)
    device.address = f"/devices/{name}/twin"
    device.attach()


def test_a_device_of_the_hub_may_be_named_registrations(
    dial: Dial, emulator: Emulator, service: Service
) -> None:
    hub_device = Device.of(emulator.register_device("registrations"))
    token = sas_token(f"{emulator.host_name}/devices/registrations", hub_device.key)
    device = dial("x")
    device.sasl("PLAIN", f"\0registrations@sas.{emulator.host_name}\0{token}".encode())
    device.address = "/devices/registrations/twin"
    device.attach()
    service.request("DELETE", "/devices/registrations", headers={"If-Match": "*"})


def test_a_hub_without_the_service_offers_no_tpm(emulator: Emulator) -> None:
    with second_hub(emulator, no_dps=True) as hub, AmqpDevice(hub, "x") as device:
        assert device.sasl("PLAIN", b"") == SaslOutcome(1)
        assert "TPM" not in device.mechanisms


# --- TPM


def tpm_init(device: AmqpDevice, endorsement: bytes) -> bytes:
    scope, _, name = device.address.split("/")
    return b"\0".join((b"", scope.encode(), name.encode(), endorsement))


def unseal(device: AmqpDevice, number: int = 0) -> None:
    """Go through SASL up to the key, as the SDKs do, and activate it in a TPM."""
    tpm = a_tpm(number)
    answer = device.sasl("TPM", tpm_init(device, tpm.endorsement))
    assert answer == SaslChallenge(b"\0")
    sealed, controls = b"", []
    answer = device.respond(b"\0" + tpm.root)
    while True:
        assert isinstance(answer, SaslChallenge)
        controls.append(answer.challenge[0])
        sealed += answer.challenge[1:]
        if controls[-1] & 0xC0 == 0xC0:
            break
        answer = device.respond(b"\0")
    assert controls == [0x80, 0xC1]  # Java's SDK needs exactly two
    tpm.activate(sealed)


@pytest.mark.parametrize("body", [b"", None])
def test_a_device_with_a_tpm(
    owner: Owner, dial: Dial, service: Service, body: bytes | None
) -> None:
    name, tpm = new_id(), a_tpm()
    owner.enroll(name, {"type": "tpm", "tpm": tpm.document})
    device = dial(name)
    unseal(device)
    assert device.respond(b"\0" + tpm.token(device.address).encode()) == SaslOutcome(0)
    device.attach()
    whole = json.dumps({"registrationId": name, "tpm": tpm.document}).encode()
    final = device.register(whole if body is None else body)
    assert final["status"] == "assigned"
    assert {*final["registrationState"]["tpm"]} == {"authenticationKey"}


def test_a_device_whose_tpm_is_not_enrolled_fails(owner: Owner, dial: Dial) -> None:
    name, tpm = new_id(), a_tpm()
    device = dial(name)
    unseal(device)
    assert device.respond(b"\0" + tpm.token(device.address).encode()) == SaslOutcome(0)
    device.attach()
    final = device.register()
    assert (final["status"], final["registrationState"]["errorCode"]) == ("failed", 404201)


def test_a_token_that_the_tpm_did_not_sign_is_refused(owner: Owner, dial: Dial) -> None:
    name = new_id()
    owner.enroll(name, {"type": "tpm", "tpm": a_tpm().document})
    device = dial(name)
    unseal(device)
    token = sas_token(device.address, KEY, policy="registration")
    assert device.respond(b"\0" + token.encode()) == SaslOutcome(1)


@pytest.mark.parametrize(
    "enrolled", [{"type": "tpm", "tpm": a_tpm(1).document}, {"type": "symmetricKey"}]
)
def test_another_tpm_than_the_enrolled_one_is_refused(
    owner: Owner, dial: Dial, enrolled: dict[str, Any]
) -> None:
    name = new_id()
    owner.enroll(name, enrolled)
    device = dial(name)
    device.sasl("TPM", tpm_init(device, a_tpm().endorsement))
    assert device.respond(b"\0" + a_tpm().root) == SaslOutcome(1)


@pytest.mark.parametrize(
    ("init", "response"),
    [
        (b"", None),
        (b"\0scope\0id", None),
        (b"x\x000ne00010CA1\0id\0key", None),
        (b"\x000ne00000000\0id\0key", None),
        (b"\0\xff\0id\0key", None),
        (b"\x000ne00010CA1\0id\0key", b""),
        (b"\x000ne00010CA1\0id\0key", b"\x80key"),
        (b"\x000ne00010CA1\0id\0key", b"\0key"),
    ],
)
def test_what_is_not_of_a_tpm_is_refused(dial: Dial, init: bytes, response: bytes | None) -> None:
    device = dial("id")
    answer = device.sasl("TPM", init)
    if response is not None:
        assert answer == SaslChallenge(b"\0")
        answer = device.respond(response)
    assert answer == SaslOutcome(1)
