"""Devices with a TPM that register over HTTPS."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import requests

from emulator import Emulator
from emulator.dps import tpm
from tests.dps.software_tpm import SoftwareTpm, a_tpm, block, public_area
from tests.dps.support import KEY, Owner, Registrant, derived, new_id
from tests.support import PATIENCE, Service, second_hub


def enroll(owner: Owner, name: str, of: SoftwareTpm, **more: Any) -> Any:
    return owner.enroll(name, {"type": "tpm", "tpm": of.document}, **more)


class TpmRegistrant(Registrant):
    """A device with a TPM."""

    def __init__(self, emulator: Emulator, registration_id: str, own: SoftwareTpm) -> None:
        super().__init__(emulator, registration_id, key=None)
        self.tpm = own
        self.resource = self.url.partition("//")[2].partition("/")[2]

    def challenge(self, **tpm_: str) -> requests.Response:
        """Send the first request, without credentials."""
        return self.begin(tpm={**self.tpm.document, **tpm_})

    def activate(self) -> None:
        """Get the key of the service into the TPM, and a token that it signs."""
        answer = self.challenge()
        assert answer.status_code == 401, answer.text
        body = answer.json()
        assert {*body} == {"message", "authenticationKey", "keyName"}
        self.tpm.activate(base64.b64decode(body["authenticationKey"]))
        self.token = self.tpm.token(self.resource, body["keyName"])
        self._session.headers["Authorization"] = self.token


def test_a_device_registers_and_sends(owner: Owner, emulator: Emulator, service: Service) -> None:
    name, own = new_id(), a_tpm()
    enroll(owner, name, own, deviceId=f"{name}-d")
    device = TpmRegistrant(emulator, name, own)
    device.activate()
    final = device.register(tpm=own.document)
    assert final["status"] == "assigned"
    own.activate(base64.b64decode(final["registrationState"]["tpm"]["authenticationKey"]))
    identity = service.request("GET", f"/devices/{name}-d").json()
    key = base64.b64encode(own.key).decode()
    assert identity["authentication"]["type"] == "sas"
    assert identity["authentication"]["symmetricKey"] == {"primaryKey": key, "secondaryKey": key}
    answer = requests.post(
        f"https://{emulator.https_host}/devices/{name}-d/messages/events",
        params={"api-version": "2021-04-12"},
        headers={"Authorization": own.token(f"{emulator.host_name}/devices/{name}-d", None)},
        verify=str(emulator.ca_file),
        timeout=PATIENCE,
    )
    assert answer.status_code == 204, answer.text
    # The owner of the service reads no key.
    assert "tpm" not in owner.call("GET", f"/registrations/{name}")
    assert device.send("POST", "", {}).json()["tpm"] == final["registrationState"]["tpm"]


def test_the_enrollment_can_have_the_endorsement_key_alone(
    owner: Owner, emulator: Emulator
) -> None:
    name, own = new_id(), a_tpm()
    document = {"endorsementKey": own.document["endorsementKey"]}
    owner.enroll(name, {"type": "tpm", "tpm": document})
    device = TpmRegistrant(emulator, name, own)
    device.activate()
    assert device.register(tpm=own.document)["status"] == "assigned"
    body = device.begin(tpm=document).json()  # later, no key of the TPM is known
    assert (body["errorCode"], "storageRootKey" in body["message"]) == (400004, True)


def test_the_body_can_be_empty_behind_the_challenge(owner: Owner, emulator: Emulator) -> None:
    name, own = new_id(), a_tpm()
    enroll(owner, name, own)
    device = TpmRegistrant(emulator, name, own)
    device.activate()
    assert device.register()["status"] == "assigned"


def test_a_device_without_a_tpm_gets_no_challenge(owner: Owner, emulator: Emulator) -> None:
    name = new_id()
    enroll(owner, name, a_tpm())
    assert Registrant(emulator, name, key=None).refused() == 401000
    assert Registrant(emulator, name).refused() == 401000  # its token has another key


@pytest.mark.parametrize("enrolled", ["tpm", "symmetricKey"])
def test_another_tpm_gets_no_challenge(owner: Owner, emulator: Emulator, enrolled: str) -> None:
    name = new_id()
    block_ = {"tpm": a_tpm(1).document} if enrolled == "tpm" else {}
    owner.enroll(name, {"type": enrolled, **block_})
    assert TpmRegistrant(emulator, name, a_tpm()).refused(tpm=a_tpm().document) == 401000


def test_another_root_key_than_the_enrolled_one_is_refused(
    owner: Owner, emulator: Emulator
) -> None:
    name, own = new_id(), a_tpm()
    enroll(owner, name, own)
    other = a_tpm(1).document["storageRootKey"]
    answer = TpmRegistrant(emulator, name, own).challenge(storageRootKey=other)
    assert answer.json()["errorCode"] == 401000


def test_a_key_is_for_one_tpm(owner: Owner, emulator: Emulator) -> None:
    name = new_id()
    enroll(owner, name, a_tpm())
    sealed = TpmRegistrant(emulator, name, a_tpm()).challenge().json()["authenticationKey"]
    with pytest.raises(ValueError, match=r"[Dd]ecryption|integrity"):
        a_tpm(1).activate(base64.b64decode(sealed))


def test_a_tpm_without_an_enrollment_fails_and_leaves_nothing(
    owner: Owner, emulator: Emulator
) -> None:
    name = new_id()
    device = TpmRegistrant(emulator, name, a_tpm())
    device.activate()
    final = device.register(tpm=a_tpm().document)
    state = final["registrationState"]
    assert (final["status"], state["status"]) == ("failed", "failed")
    assert (state["errorCode"], state["errorMessage"]) == (404201, "Enrollment not found.")
    owner.refuse("GET", f"/registrations/{name}", 404203)
    assert device.send("GET", "/operations/5.0.0").json()["errorCode"] == 404204
    enroll(owner, name, a_tpm())
    assert device.register(tpm=a_tpm().document)["status"] == "assigned"


def test_a_group_does_not_take_a_tpm(owner: Owner, emulator: Emulator) -> None:
    group, name = new_id("group"), new_id()
    owner.enroll_group(group)
    device = TpmRegistrant(emulator, name, a_tpm())
    device.activate()
    assert device.register(tpm=a_tpm().document)["registrationState"]["errorCode"] == 404201
    assert Registrant(emulator, name, derived(KEY, name)).register()["status"] == "assigned"
    owner.call("DELETE", f"/enrollmentGroups/{group}", status=204)


def test_a_token_lasts_over_a_restart(emulator: Emulator, tmp_path: Any) -> None:
    name, own = new_id(), a_tpm()
    with second_hub(emulator, data_dir=tmp_path) as hub, Owner(hub) as owner:
        enroll(owner, name, own)
        device = TpmRegistrant(hub, name, own)
        device.activate()
        operation = device.begin(tpm=own.document).json()["operationId"]
    with second_hub(emulator, data_dir=tmp_path) as hub:
        again = TpmRegistrant(hub, name, own)
        again._session.headers["Authorization"] = device.token
        answer = again.send("GET", f"/operations/{operation}")
        assert answer.json()["status"] == "assigned", answer.text


# --- public areas

_MODULUS = int.from_bytes(a_tpm().endorsement[-256:], "big")
_EK, _POLICY = 0x000300B2, b"p" * 32


@pytest.mark.parametrize(
    ("area", "reason"),
    [
        (b"", "ends too early"),
        (b"\0\1", "ends too early"),
        (block(public_area(_MODULUS, _EK, _POLICY)) + b"x", "1 bytes too many"),
        (block(public_area(_MODULUS, _EK, _POLICY) + b"x"), "1 bytes too many"),
        (block(b"\0\x23" + public_area(_MODULUS, _EK, _POLICY)[2:]), "not an RSA key"),
        (block(public_area(_MODULUS, _EK, _POLICY).replace(b"\0\x0b", b"\0\x12", 1)), "not an RSA"),
        (block(public_area(_MODULUS, 0x00020072, _POLICY)), "not a restricted key"),
        (block(public_area(_MODULUS, _EK, _POLICY, cipher=7)), "does not use AES"),
        (block(public_area(_MODULUS >> 2 | 1, _EK, _POLICY)), "its length"),
        (block(public_area(_MODULUS % 2**1024, _EK, _POLICY, bits=1024)), "its length"),
        (block(public_area(_MODULUS - 1, _EK, _POLICY)), "malformed"),
    ],
)
def test_what_is_not_a_key_of_a_tpm_is_refused(
    owner: Owner, emulator: Emulator, area: bytes, reason: str
) -> None:
    with pytest.raises(tpm.TpmError, match=reason):
        tpm.StorageKey.parse(area)
    text = base64.b64encode(area).decode()
    attestation = {"type": "tpm", "tpm": {"endorsementKey": text}}
    body = {"registrationId": "x", "attestation": attestation}
    message = owner.refuse("PUT", "/enrollments/x", 400004, body)["message"]
    assert "endorsementKey" in message
    if area:
        name = new_id()
        assert TpmRegistrant(emulator, name, a_tpm()).refused(tpm=attestation["tpm"]) == 400004


def test_keys_that_are_not_base64_are_refused(emulator: Emulator) -> None:
    device = TpmRegistrant(emulator, new_id(), a_tpm())
    assert device.challenge(endorsementKey="ü").json()["errorCode"] == 400004
    assert device.refused(tpm="x") == 400004
