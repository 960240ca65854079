"""`/_emulator/info` and `/_emulator/health`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from emulator import Emulator
from tests.http.support import (
    MOMENT,
    check_error,
    https_connection,
    policy_token,
    registered,
)
from tests.support import Service


def test_info_says_what_runs_where_and_since_when(emulator: Emulator, service: Service) -> None:
    with registered(emulator, service):
        response = service.request("GET", "/_emulator/info", params={})
    assert response.status_code == 200
    info = response.json()
    assert info["hostName"] == emulator.host_name
    assert info["ports"]["mqtt"] == emulator.mqtt_port
    assert info["ports"]["https"] == emulator.https_port
    assert MOMENT.fullmatch(info["startedTime"])
    assert MOMENT.fullmatch(info["clock"]["now"])
    started = datetime.fromisoformat(info["startedTime"])
    up = timedelta(seconds=info["uptimeSeconds"])
    assert abs(datetime.now(UTC) - started - up) < timedelta(seconds=5)
    assert info["clock"]["advancedBy"] == 0
    assert info["devices"]["totalDeviceCount"] >= 1
    assert info["devices"]["connectedDeviceCount"] >= 0
    assert info["eventCount"] >= 0
    assert info["faults"] == []
    assert info["version"]


@pytest.mark.parametrize(
    ("policy", "status"), [("service", 200), ("registryRead", 200), ("device", 401)]
)
def test_info_needs_the_right_of_a_service(
    emulator: Emulator, service: Service, policy: str, status: int
) -> None:
    headers = {"Authorization": policy_token(emulator, policy)}
    assert service.request("GET", "/_emulator/info", headers=headers).status_code == status
    missing = service.request("GET", "/_emulator/info", headers={"Authorization": None})
    check_error(missing, 401, "IotHubUnauthorizedAccess")


def test_health_needs_no_token(emulator: Emulator) -> None:
    connection = https_connection(emulator)
    connection.request("GET", "/_emulator/health")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b'{"status":"healthy"}')
    connection.request("HEAD", "/_emulator/health")  # as `wget --spider` does
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"")
    connection.close()


def test_health_refuses_what_it_does_not_know(emulator: Emulator, service: Service) -> None:
    answer = service.request("GET", "/_emulator/health", params={"x": "1"})
    assert "Unknown parameter: x" in check_error(answer, 400, "ArgumentInvalid")
