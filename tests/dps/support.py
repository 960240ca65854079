"""Programs of a service's owner, and devices that register over HTTPS, without an SDK."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
from pathlib import Path
from typing import Any

import requests

from emulator import Emulator
from tests.support import PATIENCE, Service, sas_token, wait_until
from tests.x509 import Credential

ID_SCOPE = "0ne00010CA1"
API_VERSION = "2021-10-01"
VERSION = {"api-version": API_VERSION}

KEY = base64.b64encode(b"the primary key of a test device").decode()
OTHER_KEY = base64.b64encode(b"the secondary key of some device").decode()
KEYS = {"primaryKey": KEY, "secondaryKey": OTHER_KEY}
SYMMETRIC = {"type": "symmetricKey", "symmetricKey": KEYS}

_numbers = itertools.count(1)


def new_id(name: str = "reg") -> str:
    """Return an id that no other test uses."""
    return f"{name}-{next(_numbers)}-{id(_numbers):x}"


def derived(key: str, registration_id: str) -> str:
    """Derive the key of a device of a group, as the documentation shows."""
    digest = hmac.new(base64.b64decode(key), registration_id.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def pem(credential: Credential) -> str:
    """Return a certificate as the SDKs send it."""
    return base64.b64encode(credential.der).decode()


class Owner(Service):
    """A program of the owner of the service: plain HTTPS with every right."""

    def __init__(self, emulator: Emulator) -> None:
        assert emulator.dps_connection_string is not None
        self.service_connection_string = emulator.dps_connection_string
        self.ca_file = emulator.ca_file
        self.enrolled: list[str] = []
        super().__init__(self)

    def call(
        self,
        verb: str,
        path: str,
        json: object = None,
        status: int = 200,
        **headers: str,
    ) -> Any:
        """Send a request, which has this status, and return the JSON of its answer."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.request(verb, path, json=json, params=VERSION, headers=named or None)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    def refuse(
        self, verb: str, path: str, code: int, json: object = None, **headers: str
    ) -> dict[str, Any]:
        """Send a request that has this error, and return its body."""
        body = self.call(verb, path, json, status=code // 1000, **headers)
        assert body["errorCode"] == code, body
        assert {*body} >= {"errorCode", "trackingId", "message", "timestampUtc"}
        return dict(body)

    def enroll(self, registration_id: str, attestation: object = SYMMETRIC, **more: Any) -> Any:
        """Create an individual enrollment."""
        body = {"registrationId": registration_id, "attestation": attestation, **more}
        self.enrolled.append(registration_id)
        return self.call("PUT", f"/enrollments/{registration_id}", body)

    def forget(self) -> None:
        """Delete the individual enrollments that were created."""
        for each in self.enrolled:
            self.request("DELETE", f"/enrollments/{each}", params=VERSION)
        self.enrolled.clear()

    def change(self, registration_id: str, **more: Any) -> Any:
        """Change members of an individual enrollment."""
        body = {**self.call("GET", f"/enrollments/{registration_id}"), **more}
        return self.call("PUT", f"/enrollments/{registration_id}", body, If_Match="*")

    def enroll_group(self, group_id: str, attestation: object = SYMMETRIC, **more: Any) -> Any:
        """Create an enrollment group."""
        body = {"enrollmentGroupId": group_id, "attestation": attestation, **more}
        return self.call("PUT", f"/enrollmentGroups/{group_id}", body)


class Registrant:
    """A device that registers over HTTPS.

    Args:
        emulator: where it registers.
        registration_id: its id.
        key: its key; None for a device with a certificate.
        certificate: the file of its certificate and key.
    """

    def __init__(
        self,
        emulator: Emulator,
        registration_id: str,
        key: str | None = KEY,
        certificate: Path | None = None,
        *,
        scope: str = ID_SCOPE,
        **token: Any,
    ) -> None:
        resource = f"{scope}/registrations/{registration_id}"
        self.url = f"https://{emulator.https_host}/{resource}"
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = str(emulator.ca_file)
        if key is not None:
            token = {"policy": "registration", **token}
            self._session.headers["Authorization"] = sas_token(resource, key, **token)
        if certificate is not None:
            self._session.cert = str(certificate)
        self._id = registration_id

    def send(self, verb: str, path: str = "", body: object = None) -> requests.Response:
        """Send a request."""
        with self._session as session:
            return session.request(
                verb, self.url + path, json=body, params=VERSION, timeout=PATIENCE
            )

    def begin(self, **members: Any) -> requests.Response:
        """Send the first request."""
        return self.send("PUT", "/register", {"registrationId": self._id, **members})

    def register(self, **members: Any) -> dict[str, Any]:
        """Register, and return the last answer."""
        first = self.begin(**members)
        assert first.status_code == 202, first.text
        path = f"/operations/{first.json()['operationId']}"
        answers: list[requests.Response] = []

        def has_ended() -> bool:
            answers.append(self.send("GET", path))
            return answers[-1].status_code != 202

        wait_until(has_ended)
        assert answers[-1].status_code == 200, answers[-1].text
        return dict(answers[-1].json())

    def refused(self, **members: Any) -> int:
        """Try to register, and return the code of the error."""
        answer = self.begin(**members)
        assert answer.status_code >= 400, answer.text
        code = answer.json()["errorCode"]
        assert answer.headers["x-ms-error-code"] == str(code)
        return int(code)
