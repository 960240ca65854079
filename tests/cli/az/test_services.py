"""`job`, `configuration`, `digital-twin`, `query` and tokens on a running hub."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from emulator import Emulator
from tests.cli.az.conftest import Run
from tests.http.support import new_id
from tests.support import Device, Service, fields_of, sas_token

CONTENT = json.dumps({"deviceContent": {"properties.desired.heating": {"on": True}}})


@pytest.fixture
def configuration(janitor: Service) -> Iterator[str]:
    name = new_id()
    yield name
    janitor.request("DELETE", f"/configurations/{name}", headers={"If-Match": "*"})


def test_a_job_updates_twins(az: Run, device: Device) -> None:
    job_id = new_id()
    condition = ("-q", f"deviceId = '{device.id}'")
    create = ("job", "create", "--job-id", job_id, "--jt", "scheduleUpdateTwin", *condition)
    job = az(*create, "--patch", '{"tags": {"done": true}}', "--wait").document
    assert (job["status"], job["deviceJobStatistics"]["succeededCount"]) == ("completed", 1)
    twin = az("device-twin", "show", "-d", device.id, "--query", "tags")
    assert twin.document == {"done": True}
    assert az("job", "show", "--job-id", job_id).document["status"] == "completed"
    listed = az("job", "list", "--jt", "scheduleUpdateTwin", "--query", "[].jobId").document
    assert job_id in listed
    assert job_id not in az("job", "list", "--js", "failed", "--query", "[].jobId").document
    assert az("job", "list", "--jt", "export").document == []
    cancel = az("job", "cancel", "--job-id", job_id)
    assert (cancel.status, len(cancel.errors)) == (1, 1)


def test_a_job_that_waits_is_cancelled(az: Run, device: Device) -> None:
    job_id, condition = new_id(), ("-q", f"deviceId = '{device.id}'")
    create = ("job", "create", "--job-id", job_id, "--jt", "scheduleDeviceMethod", *condition)
    begun = time.monotonic()
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    options = ("--mn", "m", "--start", later, "-w", "--duration", "1")
    assert az(*create, *options).document["status"] == "scheduled"
    assert time.monotonic() - begun < 10
    assert az("job", "cancel", "--job-id", job_id).document["status"] == "cancelled"


def test_an_unknown_job_is_missing(az: Run, emulator: Emulator) -> None:
    result = az("job", "show", "--job-id", "none")
    assert (result.status, result.output) == (3, "")
    assert result.errors == [f"emulator: {emulator.https_host} has no job 'none'."]


def test_the_life_of_a_configuration(az: Run, device: Device, configuration: str) -> None:
    az("device-twin", "update", "-d", device.id, "--tags", json.dumps({"of": configuration}))
    of = ("-c", configuration)
    create = ("configuration", "create", *of, "-k", CONTENT, "--tc", f"tags.of='{configuration}'")
    metric = f"on=select deviceId from devices where tags.of = '{configuration}'"
    created = az(*create, "--pri", "7", "--cmq", metric, "--cl", "a=b", "c=d e").document
    assert created["labels"] == {"a": "b", "c": "d e"}
    assert created["metrics"]["queries"] == dict([metric.split("=", 1)])
    assert az("configuration", "show", *of).document["priority"] == 7
    listed = az("configuration", "list", "--query", "[].id").document
    assert configuration in listed
    updated = az("configuration", "update", *of, "--set", "priority=8", "labels.a=e").document
    assert (updated["priority"], updated["labels"]["a"]) == (8, "e")
    assert updated["content"] == json.loads(CONTENT)
    for name, kind in (("on", "user"), ("targetedCount", "system")):
        found = az("configuration", "show-metric", *of, "-m", name, "--mt", kind).document
        assert [row["deviceId"] for row in found["result"]] == [device.id]
    unknown = az("configuration", "show-metric", *of, "-m", "off")
    assert (unknown.status, unknown.errors) == (
        3,
        ["emulator: Unknown user metric 'off'. There is on."],
    )
    nothing = az("configuration", "update", *of)
    assert (nothing.status, len(nothing.errors)) == (2, 1)
    nowhere = az("configuration", "update", *of, "--remove", "labels.none")
    assert (nowhere.status, nowhere.errors) == (
        2,
        [
            "emulator: Nothing to remove at 'labels.none'. Its parent has: a, c. "
            "--help shows the options."
        ],
    )
    assert az("configuration", "delete", *of) == (0, "", [])
    assert az("configuration", "show", *of).status == 3


def test_a_digital_twin_is_patched(az: Run, device: Device) -> None:
    of = ("-d", device.id)
    patch = json.dumps({"op": "add", "path": "/target", "value": 21})
    updated = az("digital-twin", "update", *of, "--patch", patch).document
    assert updated["$metadata"]["target"]["desiredValue"] == 21
    assert az("digital-twin", "show", *of).document == updated
    offline = az("digital-twin", "invoke-command", *of, "--cn", "reboot")
    assert (offline.status, len(offline.errors)) == (1, 1)
    assert "404 DeviceNotOnline" in offline.errors[0]


def test_a_query_that_is_wrong_is_one_line(az: Run) -> None:
    result = az("query", "-q", "select * from nothing")
    assert (result.status, result.output, len(result.errors)) == (1, "", 1)
    assert " answers 400 ArgumentInvalid: " in result.errors[0]


def test_tokens_are_those_of_the_service_or_a_device(
    az: Run, run_command: Run, device: Device, emulator: Emulator
) -> None:
    fields = fields_of(emulator.service_connection_string)
    host, key = fields["HostName"], fields["SharedAccessKey"]

    def expected(resource: str, key: str, text: str, policy: str | None = None) -> str:
        expiry = float(dict(part.split("=") for part in text.split("&"))["se"])
        return sas_token(resource, key, policy=policy, now=expiry, lifetime=0)

    sas = az("generate-sas-token", "--du", "60", "--query", "sas", "-o", "tsv").output.strip()
    assert sas == expected(host, key, sas, "iothubowner")
    assert 50 < int(sas.split("&")[2].removeprefix("se=")) - time.time() <= 60
    assert az("token").output.startswith("SharedAccessSignature sr=")
    resource = f"{emulator.host_name}/devices/{device.id}"
    sas = az("token", "-d", device.id).output.strip()
    assert sas == expected(resource, device.key, sas)
    # Without any hub.
    offline = run_command("token", "--cs", device.connection_string).output.strip()
    assert offline == expected(resource, device.key, offline)
    invalid = run_command("token", "--cs", "HostName=a;DeviceId=b;SharedAccessKey=%")
    assert (invalid.status, invalid.errors) == (
        2,
        ["emulator: --connection-string: Invalid key: it is not base64. --help shows the options."],
    )
    gone = az("token", "-d", "none")
    assert (gone.status, len(gone.errors)) == (3, 1)
