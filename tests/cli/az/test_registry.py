"""`device-identity`, `module-identity`, `device-twin`, `module-twin` on a running hub."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator import Emulator
from emulator.cli.az import identities
from tests.cli.az.conftest import Run
from tests.http.support import new_id
from tests.support import Device, Service, fields_of, own

KEY, OTHER_KEY = (base64.b64encode(each * 32).decode() for each in (b"k", b"o"))


@pytest.fixture
def name(janitor: Service) -> Iterator[str]:
    """The id of a device that a test creates."""
    device_id = new_id()
    yield device_id
    janitor.request("DELETE", f"/devices/{device_id}", headers={"If-Match": "*"})


def test_the_life_of_a_device(az: Run, name: str) -> None:
    created = az("device-identity", "create", "-d", name, "--sta", "disabled", "--star", "new")
    assert created.status == 0
    assert created.document["statusReason"] == "new"
    again = az("device-identity", "create", "-d", name)
    assert (again.status, again.output, len(again.errors)) == (1, "", 1)
    assert "answers 409 DeviceAlreadyExists: " in again.errors[0]

    shown = az("device-identity", "show", "--device-id", name).document
    assert shown["etag"] == created.document["etag"]
    updated = az("device-identity", "update", "-d", name, "--sta", "enabled", "--ee", "true")
    assert updated.document["status"] == "enabled"
    assert updated.document["capabilities"] == {"iotEdge": True}
    stale = az("device-identity", "update", "-d", name, "--set", "status=disabled", "-e", "x")
    assert (stale.status, len(stale.errors)) == (1, 1)
    assert "412 PreconditionFailed" in stale.errors[0]
    options = ("--set", "statusReason=why", "capabilities.iotEdge=false", "-e")
    result = az("device-identity", "update", "-d", name, *options, updated.document["etag"])
    assert result.document["statusReason"] == "why"
    assert result.document["capabilities"] == {"iotEdge": False}

    assert az("device-identity", "delete", "-d", name) == (0, "", [])
    gone = az("device-identity", "show", "-d", name)
    assert (gone.status, gone.output, len(gone.errors)) == (3, "", 1)
    assert gone.errors[0].endswith(f"answers 404 DeviceNotFound: {name}.")


def test_the_credentials_of_a_device(az: Run, name: str) -> None:
    create = ("device-identity", "create", "-d", name)
    keys = az(*create, "--pk", KEY, "--sk", OTHER_KEY).document["authentication"]
    assert keys["symmetricKey"] == {"primaryKey": KEY, "secondaryKey": OTHER_KEY}
    swap = ("device-identity", "renew-key", "-d", name, "--kt", "swap")
    swapped = az(*swap).document["authentication"]
    assert swapped["symmetricKey"] == {"primaryKey": OTHER_KEY, "secondaryKey": KEY}
    renew = ("device-identity", "renew-key", "-d", name, "--kt", "secondary")
    renewed = az(*renew).document["authentication"]["symmetricKey"]
    assert renewed["primaryKey"] == OTHER_KEY
    assert renewed["secondaryKey"] not in (KEY, OTHER_KEY)
    update = ("device-identity", "update", "-d", name)
    thumbprint = az(*update, "--am", "x509_thumbprint", "--ptp", "A" * 40).document
    assert thumbprint["authentication"]["type"] == "selfSigned"
    assert thumbprint["authentication"]["x509Thumbprint"]["primaryThumbprint"] == "A" * 40
    failed = az(*swap)
    assert (failed.status, failed.output) == (1, "")
    assert failed.errors == [f"emulator: '{name}' has no key: it authenticates by selfSigned."]
    shown = az("device-identity", "connection-string", "show", "-d", name, "-o", "tsv")
    assert shown.output.endswith(f";DeviceId={name};x509=true\n")


def test_a_certificate_is_made_for_a_device(az: Run, name: str, tmp_path: Path) -> None:
    create = ("device-identity", "create", "-d", name, "--am", "x509_thumbprint")
    output = ("--od", str(tmp_path), "--vd", "3")
    device = az(*create, *output).document["authentication"]
    files = sorted(each.name for each in tmp_path.iterdir())
    assert files == [f"{name}-cert.pem", f"{name}-key.pem"]
    assert len(device["x509Thumbprint"]["primaryThumbprint"]) == 64
    again = az(*create, *output)
    assert (again.status, again.output) == (1, "")
    assert again.errors[0].endswith("-cert.pem is there already. Use another --output-dir.")
    # The hub refuses the device: no files stay.
    folder = tmp_path / "other"
    folder.mkdir()
    assert az(*create, "--od", str(folder)).status == 1
    assert list(folder.iterdir()) == []
    missing = az(*create, "--od", str(tmp_path / "none"))
    assert missing.errors[0].endswith("No such file or directory.")


def test_the_connection_string_is_that_of_the_device(
    az: Run, device: Device, emulator: Emulator
) -> None:
    for words in (("connection-string",), ("connection-string", "show")):
        result = az("device-identity", *words, "-d", device.id)
        assert result.document == {"connectionString": device.connection_string}
    second = az("device-identity", "connection-string", "-d", device.id, "--kt", "secondary")
    key = fields_of(second.document["connectionString"])["SharedAccessKey"]
    assert key != device.key


def test_devices_are_listed_from_all_pages(
    az: Run, device: Device, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = new_id()
    names = [f"{prefix}-{number}" for number in range(250)]
    documents = [
        {"id": each, "importMode": "create", "capabilities": {"iotEdge": each.endswith("-7")}}
        for each in names
    ]
    for start in range(0, 250, 100):
        service.request("POST", "/devices", json=documents[start : start + 100])
    try:
        listed = az("device-identity", "list", "--query", "[].deviceId", "--top", "-1").document
        assert set(names) <= set(listed)
        text = f"select deviceId from devices where startswith(deviceId, '{prefix}-')"
        assert len(az("query", "-q", text).document) == 250
        assert len(az("query", "-q", text, "--top", "120").document) == 120
        edge = az("device-identity", "list", "--ee", "--query", "[].deviceId").document
        assert f"{prefix}-7" in edge
        assert f"{prefix}-8" not in edge
        table = az("device-identity", "list", "--top", "2", "-o", "table").output.splitlines()
        assert table[0].split() == [
            *("DeviceId", "Status", "ConnectionState", "LastActivityTime", "AuthenticationType")
        ]
        assert len(table) == 4
        # New keys for more devices than one request takes.
        monkeypatch.setattr(identities, "_MOST_KEYS", 40)
        renewed = az("device-identity", "renew-key", "-d", *names[:90], "--kt", "both").document
        assert [each["id"] for each in renewed["rotatedKeys"]] == names[:90]
        assert renewed["errors"] == []
    finally:
        ends = [{"id": each, "importMode": "delete"} for each in names]
        for start in range(0, 250, 100):
            service.request("POST", "/devices", json=ends[start : start + 100])


def test_the_life_of_a_module(az: Run, device: Device) -> None:
    of = ("-d", device.id, "-m", "camera")
    created = az("module-identity", "create", *of, "--pk", KEY, "--sk", OTHER_KEY)
    assert created.document["authentication"]["symmetricKey"]["primaryKey"] == KEY
    assert (
        az("module-identity", "update", *of, "--set", "managedBy=me").document["managedBy"] == "me"
    )
    listed = az("module-identity", "list", "-d", device.id, "--query", "[].moduleId", "-o", "tsv")
    assert listed.output == "camera\n"
    text = az("module-identity", "connection-string", *of).document["connectionString"]
    assert text.endswith(f";DeviceId={device.id};ModuleId=camera;SharedAccessKey={KEY}")
    renew = ("module-identity", "renew-key", "-d", device.id)
    assert az(*renew, "-m", "camera", "--kt", "primary").document["moduleId"] == "camera"
    every = az(*renew, "-m", "*", "--kt", "both").document
    assert [each["moduleId"] for each in every["rotatedKeys"]] == ["camera"]
    device_too = az(
        "device-identity", "renew-key", "-d", device.id, "--kt", "primary", "--im"
    ).document
    assert [each["moduleId"] for each in device_too["rotatedKeys"]] == [None, "camera"]
    swapped = az(*renew, "-m", "camera", "--kt", "swap").document
    assert swapped["authentication"]["type"] == "sas"
    assert az("module-identity", "delete", *of).status == 0
    assert az("module-identity", "show", *of).status == 3


@pytest.mark.parametrize("kind", ["device", "module"])
def test_a_twin_is_merged_and_replaced(kind: str, az: Run, device: Device) -> None:
    of = ("-d", device.id)
    if kind == "module":
        of = (*of, "-m", "camera")
        az("module-identity", "create", *of)
    update = (f"{kind}-twin", "update", *of)
    first = az(*update, "--desired", '{"interval": 5, "x": {"y": 1}}', "--tags", '{"floor": 1}')
    assert own(first.document["properties"]["desired"]) == {"interval": 5, "x": {"y": 1}}
    second = az(
        *update,
        *("--set", "tags.room=kitchen", "properties.desired.x.z=[1, 2]", "tags.n='1'"),
        *("--remove", "properties.desired.x.y", "tags.floor"),
    ).document
    assert own(second["properties"]["desired"]) == {"interval": 5, "x": {"z": [1, 2]}}
    assert second["tags"] == {"room": "kitchen", "n": "'1'"}
    assert az(f"{kind}-twin", "show", *of).document == second
    stale = az(*update, "--tags", '{"a": 1}', "-e", "AAAA")
    assert (stale.status, len(stale.errors)) == (1, 1)
    replaced = az(f"{kind}-twin", "replace", *of, "-j", json.dumps({"tags": {"a": 1}})).document
    assert replaced["tags"] == {"a": 1}
    assert own(replaced["properties"]["desired"]) == {}


def test_what_the_hub_refuses_is_one_line(az: Run, device: Device) -> None:
    result = az("device-twin", "update", "-d", device.id, "--tags", '{"a.b": 1}')
    assert (result.status, result.output, len(result.errors)) == (1, "", 1)
    assert " answers 400 " in result.errors[0]


def test_an_export_is_a_job(az: Run, emulator: Emulator) -> None:
    result = az("device-identity", "export", "--bcu", "https://elsewhere.example/c", "--ik")
    assert (result.status, len(result.errors)) == (1, 1)  # no storage of this hub
    output = ("--obcu", "https://elsewhere.example/c")
    result = az("device-identity", "import", "--ibcu", "https://elsewhere.example/c", *output)
    assert (result.status, len(result.errors)) == (1, 1)


def test_an_id_of_any_letters(az: Run, janitor: Service) -> None:
    name = "a:b,c=d@e$f+g'h_%i"
    try:
        assert az("device-identity", "create", "-d", name).document["deviceId"] == name
        assert az("device-twin", "show", "-d", name).document["deviceId"] == name
    finally:
        with contextlib.suppress(OSError):
            az("device-identity", "delete", "-d", name)
    refused = az("device-identity", "create", "-d", "a b")
    assert (refused.status, len(refused.errors)) == (1, 1)
    assert "400 ArgumentInvalid" in refused.errors[0]
