"""Devices that authenticate with a certificate, over MQTT and over HTTPS."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests

from emulator import Emulator
from tests.mqtt.raw import connack, connect
from tests.support import API_VERSION, Device, Service, sas_token, second_hub, trust
from tests.x509 import DAY, Credential, issue

CA = issue("Root", ca=True)

ACCEPTED, NOT_AUTHORIZED = 0, 5


@dataclass
class Hub:
    """An emulator that registers one CA, and clients of it."""

    emulator: Emulator
    folder: Path
    service: Service

    @property
    def host(self) -> str:
        return self.emulator.host_name

    def register(self, device_id: str, authentication: dict[str, Any], module_id: str = "") -> None:
        """Create a device or a module, or update it."""
        path = f"/devices/{device_id}" + (f"/modules/{module_id}" if module_id else "")
        body = {"deviceId": device_id, "authentication": authentication}
        if module_id:
            body["moduleId"] = module_id
        known = self.service.request("GET", path).ok
        headers: dict[str, str | None] = {"If-Match": "*"} if known else {}
        response = self.service.request("PUT", path, json=body, headers=headers)
        assert response.ok, response.text

    def connect(
        self,
        client_id: str,
        credential: Credential | None,
        password: str | None = None,
        version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    ) -> int:
        """Connect as a device does, and return the return code of the CONNACK."""
        context = self.client_context(credential)
        context.minimum_version = context.maximum_version = version
        address = (self.host, self.emulator.mqtt_port)
        with (
            socket.create_connection(address, timeout=10) as plain,
            context.wrap_socket(plain, server_hostname=self.host) as tls,
        ):
            tls.sendall(self.greeting(client_id, password))
            answer = tls.recv(4)
        assert answer == connack(answer[3])
        return answer[3]

    def send_event(
        self, device_id: str, credential: Credential | None, token: str | None = None
    ) -> requests.Response:
        """Send an event over HTTPS, as a device without MQTT does."""
        with requests.Session() as session:
            return session.post(
                f"https://{self.emulator.https_host}/devices/{device_id}/messages/events",
                params={"api-version": API_VERSION},
                data=json.dumps({"on": True}),
                headers={"Authorization": token} if token else None,
                verify=str(self.emulator.ca_file),
                cert=str(credential.client_file(self.folder)) if credential else None,
                timeout=10,
            )

    async def connect_by_web_socket(self, device_id: str, credential: Credential | None) -> int:
        """Connect over a WebSocket, and return the return code of the CONNACK."""
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(
                f"https://{self.emulator.https_host}/$iothub/websocket",
                protocols=("mqtt",),
                ssl=self.client_context(credential),
            ) as web_socket,
        ):
            await web_socket.send_bytes(self.greeting(device_id))
            answer = await web_socket.receive_bytes(timeout=10)
        assert answer == connack(answer[3])
        return answer[3]

    def client_context(self, credential: Credential | None) -> ssl.SSLContext:
        context = trust(self.emulator)
        if credential is not None:
            context.load_cert_chain(credential.client_file(self.folder))
        return context

    def greeting(self, client_id: str, password: str | None = None) -> bytes:
        user_name = f"{self.host}/{client_id}/?api-version={API_VERSION}"
        return connect(client_id, user_name, password)


@pytest.fixture(scope="module")
def hub(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("clients")
    authorities = (CA.certificate_file(folder),)
    with second_hub(emulator, authorities=authorities) as running, Service(running) as service:
        yield Hub(running, folder, service)


@pytest.fixture
def device_id() -> str:
    return f"x509-{uuid.uuid4().hex[:12]}"


def named_by(primary: str | None, secondary: str | None = None) -> dict[str, Any]:
    thumbprints = {"primaryThumbprint": primary, "secondaryThumbprint": secondary}
    return {"type": "selfSigned", "x509Thumbprint": thumbprints}


CA_SIGNED = {"type": "certificateAuthority"}

each_version = pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"]
)


@each_version
@pytest.mark.parametrize("by", [None, issue("Unknown", ca=True)], ids=["self-signed", "signed"])
def test_a_device_connects_with_a_certificate_that_its_identity_names(
    hub: Hub, device_id: str, by: Credential | None, version: ssl.TLSVersion
) -> None:
    credential, other = issue("any name", by=by), "0" * 40
    for thumbprint in (credential.sha1.upper(), credential.sha256.upper()):
        for thumbprints in ((thumbprint, other), (other, thumbprint)):
            hub.register(device_id, named_by(*thumbprints))
            assert hub.connect(device_id, credential, version=version) == ACCEPTED


@each_version
def test_a_device_connects_with_a_certificate_of_a_registered_ca(
    hub: Hub, device_id: str, version: ssl.TLSVersion
) -> None:
    hub.register(device_id, CA_SIGNED)
    assert hub.connect(device_id, issue(device_id, by=CA), version=version) == ACCEPTED
    intermediate = issue("Intermediate", by=CA, ca=True)
    credential = issue(device_id, by=intermediate, chain=(intermediate,))
    assert hub.connect(device_id, credential, version=version) == ACCEPTED


def test_modules_connect_with_certificates_of_their_own(hub: Hub, device_id: str) -> None:
    hub.register(device_id, {"type": "sas"})
    credential = issue("any name")
    hub.register(device_id, named_by(credential.sha1), "named")
    hub.register(device_id, CA_SIGNED, "signed")
    signed = issue(f"{device_id}/signed", by=CA)
    assert hub.connect(f"{device_id}/named", credential) == ACCEPTED
    assert hub.connect(f"{device_id}/signed", signed) == ACCEPTED
    assert hub.connect(f"{device_id}/named", signed) == NOT_AUTHORIZED
    assert hub.connect(f"{device_id}/signed", credential) == NOT_AUTHORIZED
    assert hub.connect(f"{device_id}/signed", issue(device_id, by=CA)) == NOT_AUTHORIZED
    assert hub.connect(device_id, credential) == NOT_AUTHORIZED


@each_version
def test_a_certificate_that_is_another_devices_is_not_authorized(
    hub: Hub, device_id: str, version: ssl.TLSVersion
) -> None:
    mine, theirs = issue("any name"), issue("any name")
    hub.register(device_id, named_by(mine.sha256))
    hub.register(f"{device_id}-2", named_by(theirs.sha256))
    hub.register(f"{device_id}-3", CA_SIGNED)
    signed = issue(f"{device_id}-3", by=CA)
    for name, shown in ((device_id, theirs), (device_id, signed), (f"{device_id}-3", mine)):
        assert hub.connect(name, shown, version=version) == NOT_AUTHORIZED
    assert hub.connect(f"{device_id}-3", issue(device_id, by=CA)) == NOT_AUTHORIZED


@pytest.mark.parametrize("authentication", [named_by("0" * 40), CA_SIGNED])
def test_an_x509_device_without_a_certificate_is_not_authorized(
    hub: Hub, device_id: str, authentication: dict[str, Any]
) -> None:
    hub.register(device_id, authentication)
    owner_key = hub.emulator.settings.key_pair("iothubowner")[0]
    resource = f"{hub.host}/devices/{device_id}"
    by_policy = sas_token(resource, owner_key, policy="iothubowner")
    for password in (None, "", sas_token(resource, owner_key), by_policy):
        assert hub.connect(device_id, None, password) == NOT_AUTHORIZED


def test_certificate_and_token_together_are_not_authorized(hub: Hub, device_id: str) -> None:
    device = Device.of(hub.emulator.register_device(device_id))
    token = sas_token(f"{hub.host}/devices/{device_id}", device.key)
    assert hub.connect(device_id, None, token) == ACCEPTED
    assert hub.connect(device_id, issue(device_id, by=CA), token) == NOT_AUTHORIZED
    named = issue("any name")
    hub.register(device_id, named_by(named.sha1))
    assert hub.connect(device_id, named, token) == NOT_AUTHORIZED
    assert hub.connect(device_id, named, "") == ACCEPTED


STRANGE = ("self-signed", "signed by a device", "of a CA with the same name", "expired", "early")


def strange(kind: str, device_id: str, named: Credential) -> Credential:
    """Make a certificate that no identity names, and that no registered CA signed for today."""
    if kind == "signed by a device":
        return issue(device_id, by=named, chain=(named,))
    if kind == "of a CA with the same name":
        return issue(device_id, by=issue("Root", ca=True))
    if kind in ("expired", "early"):
        dates = {"end": -DAY / 2} if kind == "expired" else {"start": DAY}
        return issue(device_id, by=CA, **dates)
    return issue(device_id)


@each_version
@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize("registered", [None, "named", "CA-signed", "sas"])
def test_a_certificate_that_no_identity_names_is_not_authorized(
    hub: Hub, device_id: str, version: ssl.TLSVersion, registered: str | None, kind: str
) -> None:
    named = issue("any name", ca=True)
    if registered:
        authentication = {"named": named_by(named.sha1), "CA-signed": CA_SIGNED}
        hub.register(device_id, authentication.get(registered, {"type": "sas"}))
    if registered == "named":
        assert hub.connect(device_id, named, version=version) == ACCEPTED
    shown = strange(kind, device_id, named)
    assert hub.connect(device_id, shown, version=version) == NOT_AUTHORIZED


@pytest.mark.parametrize("kind", STRANGE)
async def test_a_certificate_that_no_identity_names_is_refused_on_every_way_in(
    hub: Hub, device_id: str, kind: str
) -> None:
    named = issue("any name", ca=True)
    key = hub.emulator.register_device(device_id).partition(";SharedAccessKey=")[2]
    token = sas_token(f"{hub.host}/devices/{device_id}", key)
    shown = strange(kind, device_id, named)
    assert hub.send_event(device_id, None, token).status_code == 204
    # Also beside a token that is valid.
    assert hub.connect(device_id, shown, token) == NOT_AUTHORIZED
    for credentials in ((shown, None), (shown, token)):
        response = hub.send_event(device_id, *credentials)
        assert response.status_code == 401
        assert response.headers["iothub-errorcode"] == "IotHubUnauthorizedAccess"
    for authentication in (named_by(named.sha1), CA_SIGNED):
        hub.register(device_id, authentication)
        assert hub.send_event(device_id, shown).status_code == 401
        assert await hub.connect_by_web_socket(device_id, shown) == NOT_AUTHORIZED
    await asyncio.sleep(0.25)  # TLS connections end behind the session's back (aiohttp docs)


@each_version
def test_a_named_certificate_outside_its_dates_is_not_authorized(
    hub: Hub, device_id: str, version: ssl.TLSVersion
) -> None:
    for credential in (issue("any name", end=-DAY / 2), issue("any name", start=DAY)):
        hub.register(device_id, named_by(credential.sha1, credential.sha256))
        assert hub.connect(device_id, credential, version=version) == NOT_AUTHORIZED
        assert hub.send_event(device_id, credential).status_code == 401


def test_a_change_of_thumbprints_holds_from_the_next_connection(hub: Hub, device_id: str) -> None:
    old, new = issue("any name"), issue("any name")
    hub.register(device_id, named_by(old.sha1))
    assert hub.connect(device_id, old) == ACCEPTED
    hub.register(device_id, named_by(new.sha1, old.sha1))
    assert hub.connect(device_id, old) == ACCEPTED
    hub.register(device_id, named_by(new.sha1))
    assert hub.connect(device_id, new) == ACCEPTED
    assert hub.connect(device_id, old) == NOT_AUTHORIZED
    hub.service.request("DELETE", f"/devices/{device_id}", headers={"If-Match": "*"})
    assert hub.connect(device_id, new) == NOT_AUTHORIZED


async def test_a_certificate_counts_on_a_web_socket_too(hub: Hub, device_id: str) -> None:
    named, other = issue("any name"), issue("any name")
    hub.register(device_id, named_by(named.sha1))
    hub.register(f"{device_id}-2", named_by(other.sha1))
    for shown, code in ((named, ACCEPTED), (other, NOT_AUTHORIZED), (None, NOT_AUTHORIZED)):
        assert await hub.connect_by_web_socket(device_id, shown) == code
    await asyncio.sleep(0.25)  # TLS connections end behind the session's back (aiohttp docs)


def test_a_certificate_counts_over_https_too(hub: Hub, device_id: str) -> None:
    named = issue("any name")
    hub.register(device_id, named_by(named.sha1))
    assert hub.send_event(device_id, named).status_code == 204
    assert hub.send_event(device_id, None).status_code == 401
