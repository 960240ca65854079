"""`/_emulator/metrics`, as Prometheus reads it: each number against what clients have done."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from emulator import Emulator
from emulator.http.admin.prometheus import Metric, write
from tests.devices import connect_device
from tests.http.support import (
    ANY,
    MethodDevice,
    check_error,
    device_token,
    echo,
    invoke,
    policy_token,
    silence,
)
from tests.mqtt.raw import publish
from tests.processes import ROOT
from tests.support import PATIENCE, Device, Service, second_hub, send_events, trust, wait_until

PATH = "/_emulator/metrics"


class Scraper(NamedTuple):
    """What Prometheus is here: a GET with an Authorization header, and the official parser."""

    emulator: Emulator

    def get(self, token: str | None = None, **params: str) -> requests.Response:
        host = self.emulator.https_host
        return requests.get(
            f"https://{host}{PATH}",
            headers={"Authorization": token or policy_token(self.emulator, "registryRead")},
            params=params,
            verify=str(self.emulator.ca_file),
            timeout=PATIENCE,
        )

    def read(self) -> dict[str, float]:
        """Return each sample, by its name and the value of its label: `name{value}`."""
        return parse(self.get().text)


def parse(text: str) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.type in ("counter", "gauge")
        assert family.documentation
        for name, labels, value, *_ in family.samples:
            key = name + "".join(f"{{{each}}}" for each in labels.values())
            assert key not in found
            found[key] = value
    return found


@pytest.fixture
def hub(emulator: Emulator) -> Iterator[Emulator]:
    """A hub that no other test uses, with events of its own in its log."""
    with second_hub(emulator, devices=("a", "b"), events=("twinChangeEvents",)) as hub:
        yield hub


@pytest.fixture
def scraper(hub: Emulator) -> Scraper:
    return Scraper(hub)


def changes(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Return what the counters of the hub have counted; requests and connections are left out."""
    counted = {
        name: after[name] - before.get(name, 0)
        for name in after
        if name.startswith("iothub_") and name.partition("{")[0].endswith("_total")
    }
    assert min(counted.values()) >= 0
    return {name: value for name, value in counted.items() if value and "http_requests" not in name}


def test_it_is_the_text_format_of_prometheus(scraper: Scraper) -> None:
    answer = scraper.get()
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.text.endswith("\n")
    samples = parse(answer.text)
    for name in samples:
        assert name.startswith(("iothub_", "process_"))
    names = {line.split()[2] for line in answer.text.splitlines() if line.startswith("# TYPE")}
    page = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")
    page = page.replace("`…_ended_total`", "`iothub_cloud_to_device_messages_ended_total`")
    assert [each for each in names if each[:7] == "iothub_" and f"`{each}`" not in page] == []
    assert all(line.startswith("#") or line.count(" ") == 1 for line in answer.text.splitlines())


def test_it_shows_what_is_registered_and_connected(
    hub: Emulator, scraper: Scraper, device: Device
) -> None:
    with Service(hub) as service:
        body = {"deviceId": "b", "status": "disabled"}
        assert service.request("PUT", "/devices/b", json=body, headers=ANY).status_code == 200
        module = {"deviceId": "a", "moduleId": "m"}
        assert service.request("PUT", "/devices/a/modules/m", json=module).status_code == 200
    assert scraper.read()["iothub_connected_devices{MQTT}"] == 0
    with connect_device(hub.device_connection_string("a"), hub.mqtt_port, trust(hub)):
        found = scraper.read()
    assert found["iothub_devices{enabled}"] == 1
    assert found["iothub_devices{disabled}"] == 1
    assert found["iothub_modules"] == 1
    assert found["iothub_connected_devices{MQTT}"] == 1
    assert found["iothub_connected_devices{AMQP}"] == 0
    assert found["iothub_connected_modules{MQTT}"] == 0
    assert found["iothub_open_connections{mqtt}"] == 1
    assert found["iothub_open_connections{https}"] >= 1
    wait_until(lambda: scraper.read()["iothub_connected_devices{MQTT}"] == 0)
    wait_until(lambda: scraper.read()["iothub_open_connections{mqtt}"] == 0)


def test_it_counts_messages_of_devices_and_events_of_the_hub(
    hub: Emulator, scraper: Scraper
) -> None:
    before = scraper.read()
    a, b = (Device.of(hub.device_connection_string(each)) for each in "ab")
    send_events(hub, a, "1", "2")
    with connect_device(b.connection_string, hub.mqtt_port, trust(hub)) as wire:
        for packet_id in (1, 2, 3):
            wire.send(publish("devices/b/messages/events/", b"x", packet_id=packet_id))
        with Service(hub) as service:
            patch = {"tags": {"floor": 1}, "properties": {"desired": {"n": 1}}}
            assert service.request("PATCH", "/twins/a", json=patch).status_code == 200
        wait_until(lambda: scraper.read()["iothub_event_log_events"] == 6)
    wait_until(lambda: "iothub_device_disconnections_total{DeviceNotOnline}" in scraper.read())
    after = scraper.read()
    counted = changes(before, after)
    events = {name: counted.pop(name) for name in [*counted] if name.startswith("iothub_events")}
    assert sum(events.values()) == 6  # and one is that of the twin
    partition = {each: hub.hub.events.partition_of(each).id for each in "ab"}
    by_partition = {partition["a"]: 0, partition["b"]: 0}
    by_partition[partition["a"]] += 3
    by_partition[partition["b"]] += 3
    assert events == {f"iothub_events_total{{{i}}}": n for i, n in by_partition.items()}
    assert counted == {
        "iothub_device_to_cloud_messages_total": 5,
        "iothub_device_connections_total": 1,
        "iothub_device_disconnections_total{DeviceNotOnline}": 1,
        "iothub_twin_writes_total{tags}": 1,
        "iothub_twin_writes_total{desired}": 1,
    }


def test_it_counts_methods_by_outcome(hub: Emulator, scraper: Scraper) -> None:
    before = scraper.read()
    a, b = (Device.of(hub.device_connection_string(each)) for each in "ab")
    with Service(hub) as service, MethodDevice(hub, a, echo), MethodDevice(hub, b, silence) as slow:
        for status in (200, 200):
            assert invoke(service, "a", payload=1).status_code == status
        assert invoke(service, "b", responseTimeoutInSeconds=5).status_code == 504
        slow.report('{"n": 1}')
        assert invoke(service, "nowhere").status_code == 404
    counted = changes(before, scraper.read())
    assert counted["iothub_direct_methods_total{Answered}"] == 2
    assert counted["iothub_direct_methods_total{GatewayTimeout}"] == 1
    assert counted["iothub_twin_writes_total{reported}"] == 1
    assert scraper.read()["iothub_direct_methods_in_flight"] == 0


def test_it_counts_messages_to_devices_by_outcome(hub: Emulator, scraper: Scraper) -> None:
    before = scraper.read()
    with Service(hub) as service:
        for device_id in ("a", "a", "b"):
            path = f"/_emulator/devices/{device_id}/messages"
            assert service.request("POST", path, json={"body": "x"}).status_code == 204
        assert service.request("DELETE", "/devices/a/commands").status_code == 200
        token = device_token(hub, Device.of(hub.device_connection_string("b")))
        bound = "/devices/b/messages/deviceBound"
        found = service.request("GET", bound, headers={"Authorization": token})
        lock = found.headers["ETag"].strip('"')
        done = service.request("DELETE", f"{bound}/{lock}", headers={"Authorization": token})
        assert done.status_code == 204
    counted = changes(before, scraper.read())
    assert counted["iothub_cloud_to_device_messages_sent_total"] == 3
    assert counted["iothub_cloud_to_device_messages_ended_total{Purged}"] == 2
    assert counted["iothub_cloud_to_device_messages_ended_total{Success}"] == 1


def test_it_counts_identities_and_refusals(hub: Emulator, scraper: Scraper) -> None:
    before = scraper.read()
    with Service(hub) as service:
        for verb, headers in (("PUT", {}), ("PUT", ANY), ("DELETE", ANY)):
            body = {"deviceId": "c"}
            answer = service.request(verb, "/devices/c", json=body, headers=headers)
            assert answer.status_code in (200, 204)
    assert scraper.get("SharedAccessSignature sr=x").status_code == 401
    string = hub.device_connection_string("a").replace("DeviceId=a", "DeviceId=stolen")
    with pytest.raises(AssertionError):
        connect_device(string, hub.mqtt_port, trust(hub))
    assert changes(before, scraper.read()) == {
        "iothub_identity_changes_total{created}": 1,
        "iothub_identity_changes_total{updated}": 1,
        "iothub_identity_changes_total{deleted}": 1,
        "iothub_refusals_total{IotHubUnauthorizedAccess}": 2,
    }


def test_no_counter_falls_at_a_reset_and_a_restore(
    hub: Emulator, scraper: Scraper, tmp_path: object
) -> None:
    a = Device.of(hub.device_connection_string("a"))
    send_events(hub, a, "1", "2")
    snapshot = f"{tmp_path}/state"
    hub.snapshot(snapshot)
    for begin in (hub.reset, lambda: hub.restore(snapshot), lambda: hub.reset(events_only=True)):
        before = scraper.read()
        begin()
        after = scraper.read()
        assert changes(before, after) == {}
        send_events(hub, a, "3")
        counted = changes(after, scraper.read())
        assert counted["iothub_device_to_cloud_messages_total"] == 1
        assert scraper.read()["iothub_event_log_events"] in (1, 3)


def test_events_of_the_first_devices_are_no_messages_after_a_reset(emulator: Emulator) -> None:
    with second_hub(emulator, devices=("a", "b"), events=("deviceLifecycleEvents",)) as hub:
        scraper = Scraper(hub)
        hub.reset()
        found = scraper.read()
        assert found["iothub_device_to_cloud_messages_total"] == 0
        send_events(hub, Device.of(hub.device_connection_string("a")), "1")
        assert scraper.read()["iothub_device_to_cloud_messages_total"] == 1


def test_what_a_client_chooses_is_no_label(hub: Emulator, scraper: Scraper) -> None:
    string = hub.register_device("chosen-device")
    device = Device.of(string)
    send_events(hub, device, "chosen-body", chosen="chosen")
    with Service(hub) as service, MethodDevice(hub, device, lambda _: (299, b'"chosen-answer"')):
        assert invoke(service, device.id, methodName="chosen-method").json()["status"] == 299
    with pytest.raises(AssertionError):
        connect_device(string.replace("chosen", "chosen-other"), hub.mqtt_port, trust(hub))
    text = scraper.get().text
    assert "chosen" not in text
    assert '"299"' not in text  # a number can have these digits by chance


def test_it_shows_the_process(scraper: Scraper) -> None:
    found = scraper.read()
    assert found["process_cpu_seconds_total"] > 0
    if sys.platform == "linux":
        assert found["process_resident_memory_bytes"] > 10_000_000
        assert found["process_virtual_memory_bytes"] > found["process_resident_memory_bytes"]
        assert 10 < found["process_open_fds"] < found["process_max_fds"]
        assert time.time() - 24 * 3600 < found["process_start_time_seconds"] < time.time()


def test_it_needs_the_right_of_a_service(hub: Emulator, scraper: Scraper) -> None:
    for policy, status in (("registryRead", 200), ("service", 200), ("device", 401)):
        assert scraper.get(policy_token(hub, policy)).status_code == status
    expired = policy_token(hub, "service", lifetime=-60)
    for token in (expired, "Bearer x", "Basic eDp4"):
        check_error(scraper.get(token), 401, "IotHubUnauthorizedAccess")
    missing = requests.get(
        f"https://{hub.https_host}{PATH}", verify=str(hub.ca_file), timeout=PATIENCE
    )
    check_error(missing, 401, "IotHubUnauthorizedAccess")


def test_it_refuses_an_unknown_parameter_and_another_method(
    hub: Emulator, scraper: Scraper
) -> None:
    text = check_error(scraper.get(**{"name[]": "x"}), 400, "ArgumentInvalid")
    assert "Unknown parameter: name[]" in text
    with Service(hub) as service:
        assert service.request("POST", PATH, json={}).status_code == 405


def test_texts_are_escaped() -> None:
    text = 'a "quoted" \\ back\nslash'
    written = write([Metric("iothub_x_total", text, {text: 1.5, "b": 2}, "error")]).decode()
    assert written.count("\n") == 4
    (family,) = text_string_to_metric_families(written)
    assert family.type == "counter"
    assert family.documentation == text
    assert [sample.labels for sample in family.samples] == [{"error": text}, {"error": "b"}]
    assert [sample.value for sample in family.samples] == [1.5, 2]
