"""`enrollment`, `enrollment-group` and `registration` on a running hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from emulator import Emulator
from emulator.settings import user_folder
from tests.cli.az.conftest import Result, Run
from tests.dps.support import ID_SCOPE, KEY, OTHER_KEY, derived, new_id
from tests.processes import posix_only
from tests.support import Service, second_hub
from tests.x509 import Credential, issue

SCOPE = ("--id-scope", ID_SCOPE)


@pytest.fixture(scope="module")
def hub(emulator: Emulator) -> Iterator[Emulator]:
    """A hub of its own: groups of other tests could admit the devices."""
    with second_hub(emulator, devices=()) as running:
        yield running


@pytest.fixture
def dps(run_command: Run, hub: Emulator) -> Run:
    """Runs a command on the service of this hub."""
    assert hub.dps_connection_string

    def run(*arguments: str) -> Result:
        return run_command(*arguments, "--login", str(hub.dps_connection_string))

    return run


@pytest.fixture
def service(hub: Emulator) -> Iterator[Service]:
    with Service(hub) as client:
        yield client


@pytest.fixture
def name(dps: Run) -> Iterator[str]:
    """The id of an enrollment or of a group, which is deleted afterwards."""
    name = new_id()
    yield name
    dps("enrollment", "delete", "--eid", name)
    dps("enrollment-group", "delete", "--gid", name)


def test_an_enrollment_from_its_creation_to_its_deletion(dps: Run, name: str) -> None:
    one = ("--eid", name)
    made = dps(
        *("enrollment", "create", *one, "--at", "symmetricKey", "--pk", KEY, "--sk", OTHER_KEY),
        *("-d", "boiler", "--tags", '{"floor": 1}', "--props", '{"interval": 5}', "--ee"),
        *("--rp", "never", "--ap", "static", "--ih", "other.hub", "--info", '{"note": 1}'),
    ).document
    assert made["attestation"]["symmetricKey"] == {"primaryKey": KEY, "secondaryKey": OTHER_KEY}
    assert made["initialTwin"] == {"tags": {"floor": 1}, "properties": {"desired": {"interval": 5}}}
    assert made["reprovisionPolicy"] == {"updateHubAssignment": False, "migrateDeviceData": False}
    assert (made["deviceId"], made["capabilities"]) == ("boiler", {"iotEdge": True})
    assert (made["allocationPolicy"], made["iotHubs"]) == ("static", ["other.hub"])
    assert made["optionalDeviceInformation"] == {"note": 1}

    shown = dps("enrollment", "show", *one).document
    assert "symmetricKey" not in shown["attestation"]
    with_keys = dps("enrollment", "show", *one, "--keys").document["attestation"]
    assert with_keys["symmetricKey"]["primaryKey"] == KEY
    listed = dps("enrollment", "list", "--query", "[].registrationId").document
    assert name in listed
    assert len(dps("enrollment", "list", "--top", "1").document) == 1

    changed = dps("enrollment", "update", *one, "--ps", "disabled", "--sk", KEY).document
    assert changed["provisioningStatus"] == "disabled"
    for member in ("deviceId", "initialTwin", "reprovisionPolicy", "iotHubs", "capabilities"):
        assert changed[member] == made[member]
    keys = dps("enrollment", "show", *one, "--keys").document["attestation"]["symmetricKey"]
    assert keys == {"primaryKey": KEY, "secondaryKey": KEY}
    stale = dps("enrollment", "update", *one, "--ps", "enabled", "-e", made["etag"].strip('"'))
    assert (stale.status, len(stale.errors)) == (1, 1)
    assert dps("enrollment", "delete", *one).status == 0
    for word in ("show", "update", "delete"):
        result = dps("enrollment", word, *one)
        assert (result.status, result.output) == (3, "")
        assert result.errors[0].endswith("answers 404 404201: Enrollment not found.")


def test_certificates_are_exchanged(dps: Run, name: str, tmp_path: Path) -> None:
    first, second = issue(name), issue(name)
    files = [str(each.certificate_file(tmp_path)) for each in (first, second)]
    one, info = ("--eid", name), "attestation.x509.clientCertificates"

    def prints(*command: str) -> dict[str, str]:
        pair = dps("enrollment", *command, *one, "--query", info).document
        return {slot: each["info"]["sha1Thumbprint"].lower() for slot, each in pair.items()}

    assert prints("create", "--at", "x509", "--cp", files[0]) == {"primary": first.sha1}
    both = {"primary": first.sha1, "secondary": second.sha1}
    assert prints("update", "--scp", files[1]) == both
    assert prints("update", "--ps", "disabled") == both
    assert prints("update", "--rc") == {"secondary": second.sha1}
    none = dps("enrollment", "update", *one, "--rsc")
    assert (none.status, len(none.errors)) == (2, 1)
    assert none.errors[0].startswith(
        "emulator: No certificate would be left. Use --certificate-path"
    )


def test_groups(dps: Run, name: str, tmp_path: Path) -> None:
    one, file = ("--gid", name), str(issue("Root", ca=True).certificate_file(tmp_path))
    made = dps("enrollment-group", "create", *one, "--ca-name", "factory").document
    assert made["attestation"]["x509"] == {"caReferences": {"primary": "factory"}}
    query = ("--query", "attestation.x509")
    changed = dps("enrollment-group", "update", *one, "--scn", "other", *query).document
    assert changed == {"caReferences": {"primary": "factory", "secondary": "other"}}
    changed = dps("enrollment-group", "update", *one, "--rc", *query).document
    assert changed == {"caReferences": {"secondary": "other"}}
    changed = dps("enrollment-group", "update", *one, "--cp", file, *query).document
    assert list(changed) == ["signingCertificates"]
    table = dps("enrollment-group", "list", "-o", "table").output
    assert name in table
    assert dps("enrollment-group", "show", *one).document["enrollmentGroupId"] == name
    assert dps("enrollment-group", "delete", *one).status == 0
    assert dps("enrollment-group", "show", *one).status == 3


def test_the_key_of_a_device_of_a_group(dps: Run, name: str) -> None:
    dps("enrollment-group", "create", "--gid", name, "--pk", KEY, "--sk", OTHER_KEY)
    wanted = derived(KEY, "boiler-1")
    compute = ("enrollment-group", "compute-device-key", "--rid", "boiler-1")
    assert dps(*compute, "--gid", name).document == wanted
    assert dps(*compute, "--key", KEY, "-o", "tsv").output == f"{wanted}\n"


# --- registrations


def test_a_device_registers_with_the_key_of_its_enrollment(dps: Run, name: str) -> None:
    dps("enrollment", "create", "--eid", name, "--at", "symmetricKey", "--pk", KEY, "--sk", KEY)
    for more in ((), ("--key", KEY)):
        state = dps("registration", "create", "--rid", name, *SCOPE, *more).document
        assert (state["status"], state["registrationState"]["deviceId"]) == ("assigned", name)
    wrong = dps("registration", "create", "--rid", name, *SCOPE, "--key", OTHER_KEY)
    assert (wrong.status, len(wrong.errors)) == (1, 1)
    assert " answers 401 401000: Unauthorized" in wrong.errors[0]
    assert dps("enrollment", "registration", "show", "--eid", name).document["status"] == "assigned"
    dps("enrollment", "update", "--eid", name, "--ps", "disabled")
    refused = dps("registration", "create", "--rid", name, *SCOPE)
    said = "emulator: The registration is disabled: the enrollment is not enabled."
    assert (refused.status, refused.errors) == (1, [said])
    assert dps("enrollment", "registration", "delete", "--eid", name).status == 0
    assert dps("enrollment", "registration", "show", "--eid", name).status == 3


def test_devices_of_a_group_register(dps: Run, name: str) -> None:
    dps("enrollment-group", "create", "--gid", name, "--pk", KEY, "--sk", OTHER_KEY)
    first, second = new_id(), new_id()
    create = ("registration", "create", *SCOPE)
    assert dps(*create, "--rid", first, "--gid", name).document["status"] == "assigned"
    keys = ("--key", OTHER_KEY, "--compute-key")
    assert dps(*create, "--rid", second, *keys).document["status"] == "assigned"
    registration = ("enrollment-group", "registration")
    rows = dps(*registration, "list", "--gid", name, "--query", "[].registrationId").document
    assert sorted(rows) == sorted([first, second])
    assert dps(*registration, "show", "--rid", first).document["status"] == "assigned"
    assert dps(*registration, "delete", "--rid", first).status == 0
    assert len(dps(*registration, "list", "--gid", name).document) == 1


def test_a_device_registers_with_a_certificate(
    dps: Run, service: Service, name: str, tmp_path: Path
) -> None:
    root = issue("Plant", ca=True)
    dps("enrollment-group", "create", "--gid", name, "--ca-name", "plant")
    path = "/_emulator/certificates/plant"
    pem = root.certificate.public_bytes(Encoding.PEM).decode()
    own = issue(f"{name}-1", by=root)
    certificate = files_of(own, tmp_path)
    create = ("registration", "create", "--rid", f"{name}-1", *SCOPE, *certificate)
    refused = dps(*create)
    assert (refused.status, " answers 401 401002: " in refused.errors[0]) == (1, True)
    body = {"properties": {"certificate": pem, "isVerified": True}}
    assert service.request("PUT", path, json=body).ok
    assert dps(*create).document["status"] == "assigned"
    assert service.request("DELETE", path).ok
    assert dps(*create).status == 1


def files_of(own: Credential, folder: Path) -> tuple[str, ...]:
    key = folder / "key.pem"
    key.write_bytes(own.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return "--cp", str(own.certificate_file(folder)), "--kp", str(key)


def test_a_wrong_certificate_is_one_line(dps: Run, tmp_path: Path) -> None:
    _, certificate, _, key = files_of(issue("a"), tmp_path)
    missing = str(tmp_path / "none.pem")
    create = ("registration", "create", "--rid", "a", *SCOPE)
    for files in (("--cp", certificate, "--kp", missing), ("--cp", key, "--kp", key)):
        result = dps(*create, *files)
        assert (result.status, result.output, len(result.errors)) == (1, "", 1)
        assert result.errors[0].startswith("emulator: Can't use the certificate ")


# --- what is wrong

ONE, AT = ("--eid", "x"), ("enrollment", "create", "--eid", "x", "--at")
GROUP = ("enrollment-group", "create", "--gid", "x")
REGISTER = ("registration", "create", "--rid", "x")
WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "a TPM without its key": ((*AT, "tpm"), "--endorsement-key is missing. tpm needs it"),
    "x509 without a certificate": ((*AT, "x509"), "--certificate-path is missing. x509 needs it"),
    "the key of another attestation": (
        (*AT, "x509", "--pk", KEY),
        "--primary-key does not fit: the attestation is x509, not symmetricKey",
    ),
    "a certificate and a CA": (
        (*GROUP, "--cp", __file__, "--cn", "a"),
        "--certificate-path and --root-ca-name contradict each other",
    ),
    "hubs without a policy": (
        (*GROUP, "--ih", "a"),
        "--iot-hubs needs --allocation-policy",
    ),
    "several hubs": (
        (*GROUP, "--ap", "static", "--ih", "a", "b"),
        "--iot-hubs has 2 hubs. --allocation-policy static needs one",
    ),
    "custom without a webhook": (
        (*GROUP, "--ap", "custom", "--wh", "https://localhost/x"),
        "--allocation-policy custom needs --webhook-url and --api-version",
    ),
    "a webhook without custom": (
        (*GROUP, "--wh", "https://localhost/x"),
        "--webhook-url and --api-version need --allocation-policy custom",
    ),
    "no group": (
        ("enrollment-group", "compute-device-key", "--rid", "x"),
        "--enrollment-id is missing. Name the group, or --symmetric-key",
    ),
    "a key that is not base64": (
        ("enrollment-group", "compute-device-key", "--rid", "x", "--key", "%"),
        "argument --symmetric-key/--key: Invalid key: it is not base64",
    ),
    "half a certificate": (
        (*REGISTER, "--cp", "x"),
        "--certificate-file-path and --key-file-path belong together",
    ),
    "two proofs": (
        (*REGISTER, "--cp", "x", "--kp", "x", "--key", KEY),
        "--symmetric-key and --certificate-file-path contradict each other",
    ),
    "a group's key that is missing": (
        (*REGISTER, "--ck"),
        "--compute-key needs --symmetric-key, the key of the group",
    ),
    "no scope": (REGISTER, "--id-scope is missing. A connection string does not have it"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_use_is_one_line(dps: Run, kind: str) -> None:
    arguments, said = WRONG[kind]
    result = dps(*arguments)
    assert (result.status, result.output) == (2, "")
    assert result.errors == [f"emulator: {said}. --help shows the options."]


def test_x509_has_no_key(dps: Run, name: str, tmp_path: Path) -> None:
    file = str(issue(name).certificate_file(tmp_path))
    dps("enrollment", "create", "--eid", name, "--at", "x509", "--cp", file)
    result = dps("registration", "create", "--rid", name, *SCOPE)
    said = f"emulator: '{name}' has no key: its attestation is x509."
    assert (result.status, result.errors) == (1, [said])


# --- how the service is found


def announce(folder: Path, hub: Emulator, environment: dict[str, str]) -> None:
    """Write the file by which commands find a hub, as a hub of the command does."""
    document: dict[str, Any] = {
        "pid": 1,
        "host": hub.settings.host,
        "connectionString": hub.service_connection_string,
        "port": hub.https_port,
        "ca": str(hub.ca_file),
        "environment": environment,
    }
    (folder / "a.hub.json").write_text(json.dumps(document))


def test_the_service_is_found_by_the_file_of_a_hub(
    run_command: Run, hub: Emulator, name: str, tmp_path: Path
) -> None:
    announce(tmp_path, hub, hub.environment())
    data = ("--data-dir", str(tmp_path))
    run_command("enrollment", "create", "--eid", name, "--at", "symmetricKey", *data)
    state = run_command("registration", "create", "--rid", name, *data).document
    assert state["status"] == "assigned"
    announce(tmp_path, hub, {})
    result = run_command("enrollment", "list", *data)
    assert (result.status, len(result.errors)) == (1, 1)
    assert result.errors[0].endswith("no Device Provisioning Service. Start it without --no-dps.")


@posix_only
def test_the_id_scope_is_not_that_of_another_service(
    run_command: Run, hub: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub runs, but a variable names the service, and none its id scope."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = user_folder()
    folder.mkdir(parents=True)
    announce(folder, hub, hub.environment())
    created = "registration", "create", "--rid", "x", "--key", KEY
    assert "--id-scope is missing" not in "".join(run_command(*created).errors)
    string = hub.dps_connection_string
    monkeypatch.setenv("PROVISIONING_CONNECTION_STRING", str(string))
    assert "--id-scope is missing" in run_command(*created).errors[0]


def test_the_service_is_found_by_variables(
    run_command: Run, hub: Emulator, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in hub.environment().items():
        monkeypatch.setenv(variable, value)
    run_command("enrollment", "create", "--eid", name, "--at", "symmetricKey")
    assert run_command("registration", "create", "--rid", name).document["status"] == "assigned"
