"""The service beside its hub: its start, its end, its state, and a reset."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator import Emulator
from emulator.cli.watch import describe
from emulator.http.web.changes import document
from emulator.hub.feed import Change, ServiceChange
from tests.clock import START
from tests.dps.software_tpm import a_tpm
from tests.dps.support import KEY, Owner, Registrant, derived, new_id, pem
from tests.processes import ROOT, clean_environment
from tests.support import Service, second_hub
from tests.x509 import issue

_LATE = """
import sys
from pathlib import Path
from emulator import Emulator, Settings

folder = Path(sys.argv[1])
with Emulator(Settings(host="127.0.0.1", mqtt_port=0, https_port=0, cert_dir=folder)) as hub:
    assert hub.dps_connection_string
    names = [name for name in sys.modules if name.startswith("emulator.dps.")]
    print(*sorted(names))
"""


def test_a_start_imports_its_entrance_alone(emulator: Emulator) -> None:
    folder = str(emulator.settings.cert_dir)
    printed = subprocess.run(
        [sys.executable, "-c", _LATE, folder],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    assert printed.stdout.split() == ["emulator.dps.entrance", "emulator.dps.names"]


def fill(hub: Emulator) -> tuple[str, str, dict[str, Any]]:
    """Enroll a device, a group and certificates, and register a device of the group."""
    group, name = new_id("group"), new_id()
    with Owner(hub) as owner:
        twin = {"properties": {"desired": {"number": 1.50}}}
        owner.enroll_group(group, initialTwin=twin)
        pair = {"primary": {"certificate": pem(issue("own"))}}
        attestation = {"type": "x509", "x509": {"clientCertificates": pair}}
        owner.enroll("own", attestation, optionalDeviceInformation={"a": [1.0]})
        owner.enroll("tpm", {"type": "tpm", "tpm": a_tpm().document})
        Registrant(hub, name, derived(KEY, name)).register()
        return group, name, read(owner, group, name)


def read(owner: Owner, group: str, name: str) -> dict[str, Any]:
    paths = (
        *(f"/enrollmentGroups/{group}", "/enrollments/own", "/enrollments/tpm"),
        f"/registrations/{name}",
    )
    return {path: owner.call("GET", path) for path in paths}


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {"data_dir": tmp_path}


def test_its_state_lasts(emulator: Emulator, options: dict[str, Any]) -> None:
    with second_hub(emulator, **options) as hub:
        group, name, before = fill(hub)
    with second_hub(emulator, **options) as hub, Owner(hub) as owner:
        assert read(owner, group, name) == before
        mechanism = owner.call("POST", f"/enrollmentGroups/{group}/attestationmechanism")
        assert mechanism["symmetricKey"]["primaryKey"] == KEY
        # What has ended before is found.
        device = Registrant(hub, name, derived(KEY, name))
        assert device.send("POST", "", {}).json()["deviceId"] == name
        assert device.register()["status"] == "assigned"


def test_a_reset_empties_it_and_it_goes_on(emulator: Emulator, tmp_path: Path) -> None:
    with second_hub(emulator) as hub:
        group, name, _ = fill(hub)
        key = hub.dps_connection_string
        hub.snapshot(tmp_path / "before")
        hub.reset()
        assert hub.dps_connection_string == key
        with Owner(hub) as owner:
            owner.refuse("GET", f"/enrollmentGroups/{group}", 404202)
            owner.refuse("GET", f"/registrations/{name}", 404203)
            owner.enroll(name)
            Registrant(hub, name).register()
            with Service(hub) as service:
                assert service.request("GET", f"/devices/{name}").ok
            hub.restore(tmp_path / "before")
            assert owner.call("GET", f"/enrollmentGroups/{group}")["enrollmentGroupId"] == group
            owner.refuse("GET", f"/enrollments/{name}", 404201)


@pytest.fixture
def silent_webhook() -> Iterator[str]:
    """The URL of a program that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


def test_it_stops_while_a_webhook_works(emulator: Emulator, silent_webhook: str) -> None:
    name = new_id()
    with second_hub(emulator) as hub, Owner(hub) as owner:
        webhook = {"webhookUrl": silent_webhook, "apiVersion": ""}
        owner.enroll(name, allocationPolicy="custom", customAllocationDefinition=webhook)
        device = Registrant(hub, name)
        operation = device.begin().json()["operationId"]
        assert device.send("GET", f"/operations/{operation}").status_code == 202
        # A newer registration ends the older one, a reset the newer one.
        newer = device.begin().json()["operationId"]
        assert device.send("GET", f"/operations/{operation}").status_code == 404
        assert device.send("GET", f"/operations/{newer}").status_code == 202
        hub.reset()
        owner.enroll(name, allocationPolicy="custom", customAllocationDefinition=webhook)
        assert device.send("GET", f"/operations/{newer}").status_code == 404
        device.begin()


def test_what_happens_is_published_on_the_feed_of_the_hub(emulator: Emulator) -> None:
    name, group = new_id(), new_id("group")
    with second_hub(emulator) as hub, Owner(hub) as owner:
        changes: list[ServiceChange] = []
        hub.follow(lambda each: each.feed.subscribe(Change, changes.append))
        owner.enroll_group(group)
        owner.enroll(name, deviceId="d1")
        Registrant(hub, name).register()
        owner.change(name, provisioningStatus="disabled")
        Registrant(hub, name).register()
        owner.call("DELETE", f"/registrations/{name}", status=204)
        owner.call("DELETE", f"/enrollments/{name}", status=204)
        host = hub.host_name
    found = [each for each in changes if isinstance(each, ServiceChange)]
    assert [(type(each).__name__, each.subject, each.what) for each in found] == [
        ("EnrollmentChanged", group, "enrolled, as a group"),
        ("EnrollmentChanged", name, "enrolled"),
        ("RegistrationChanged", name, f"assigned to {host} as d1"),
        ("EnrollmentChanged", name, "enrollment changed"),
        ("RegistrationChanged", name, "not assigned: its enrollment is disabled"),
        ("RegistrationChanged", name, "registration deleted"),
        ("EnrollmentChanged", name, "enrollment deleted"),
    ]
    assert describe(found[1]) == f"{name!r}: enrolled"
    assert document(found[1], START) == {
        "type": "EnrollmentChanged",
        "time": "2026-01-31T14:46:08Z",
        "subject": name,
        "what": "enrolled",
    }
