"""The end of the process at any moment: what was answered is there at the next start.

Clients of each kind use an emulator until `kill -9` ends it. They note what they ask for, and what
is answered. Then the emulator starts again with the same folder, and the test compares.

`KILLS=1000` kills it more often.
"""

from __future__ import annotations

import json
import os
import random
import ssl
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from emulator.testing.addresses import free_loopback_address
from tests.dps.support import ID_SCOPE, KEY
from tests.lasting import Run
from tests.mqtt import raw
from tests.support import Service, fields_of, sas_token, wait_until

_KILLS = int(os.environ.get("KILLS", "100"))
_KILLS_PER_TEST = 5
_SECONDS = (0.02, 0.5)  # how long the load runs
_METHODS, _ANSWERS = "$iothub/methods/POST/#", "$iothub/twin/res/#"

_ATTESTATION = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}

# How a client notices that the emulator has ended.
_ENDED = (requests.RequestException, OSError, ssl.SSLError, AssertionError)

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no kill -9"),
    pytest.mark.timeout(300),
    # Python leaves the socket of a handshake open in some cases in which the peer ends.
    pytest.mark.filterwarnings("ignore:.*SSLSocket:pytest.PytestUnraisableExceptionWarning"),
]


class Ledger:
    """What clients asked for, and what was answered, over all runs."""

    def __init__(self) -> None:
        self.etags: dict[str, str] = {}  # of devices whose creation was answered
        self.deleted: set[str] = set()
        self.unsure: set[str] = set()  # devices with a request that was not answered
        self.desired = [0, 0]  # the last value that was answered, and that was sent
        self.reported = [0, 0]
        self.version = 1
        self.sent: list[str] = []  # telemetry
        self.acknowledged: list[str] = []
        self.queued: set[str] = set()  # cloud-to-device messages
        self.maybe_queued: set[str] = set()
        self.completed: set[str] = set()
        self.maybe_completed: set[str] = set()
        self.uploaded: set[str] = set()  # files whose success was reported
        self.maybe_uploaded: set[str] = set()
        self.notified: set[str] = set()
        self.enrolled: set[str] = set()
        self.operations: dict[str, str] = {}  # by the path of a registration
        self.jobs: list[str] = []
        self.subscribed = False
        self.clock_ahead = 0
        self.offsets: dict[str, str] = {}  # of events, by their bodies
        self.service_connection_string = ""

    @property
    def complete(self) -> bool:
        """Whether requests of each kind were answered."""
        answers = (self.etags, self.desired[0], self.reported[0], self.acknowledged, self.queued)
        more = (self.completed, self.uploaded, self.operations, self.jobs, self.subscribed)
        return all((*answers, *more))


def create(run: Run, ledger: Ledger) -> None:
    with run.service() as service:
        while True:
            name = f"device-{uuid.uuid4().hex[:8]}"
            ledger.unsure.add(name)
            answer = service.request("PUT", f"/devices/{name}", json={"deviceId": name})
            assert answer.status_code == 200, answer.text
            ledger.etags[name] = answer.json()["etag"]
            ledger.unsure.discard(name)
            if random.random() < 0.3:
                ledger.unsure.add(name)
                headers: dict[str, str | None] = {"If-Match": "*"}
                answer = service.request("DELETE", f"/devices/{name}", headers=headers)
                assert answer.status_code == 204, answer.text
                ledger.deleted.add(name)
                ledger.unsure.discard(name)


def patch(run: Run, ledger: Ledger) -> None:
    with run.service() as service:
        while True:
            ledger.desired[1] += 1
            body = {"properties": {"desired": {"n": ledger.desired[1]}}}
            answer = service.request("PATCH", "/twins/worker", json=body)
            assert answer.status_code == 200, answer.text
            ledger.desired[0] = ledger.desired[1]


def report(run: Run, ledger: Ledger) -> None:
    wire, _ = run.connect("reporter", _ANSWERS)
    with wire:
        while True:
            ledger.reported[1] += 1
            topic = f"$iothub/twin/PATCH/properties/reported/?$rid={ledger.reported[1]}"
            wire.send(raw.publish(topic, json.dumps({"n": ledger.reported[1]}).encode()))
            topic, _ = wire.receive_publish()
            assert topic.startswith("$iothub/twin/res/204/"), topic
            ledger.reported[0] = ledger.reported[1]
            ledger.version = int(topic.partition("$version=")[2])


def telemetry(run: Run, ledger: Ledger) -> None:
    wire, _ = run.connect("sender")
    with wire:
        while True:
            bodies = [uuid.uuid4().hex for _ in range(random.randrange(1, 40))]
            ledger.sent += bodies
            topic = "devices/sender/messages/events/"
            packets = [raw.publish(topic, b.encode(), packet_id=n) for n, b in enumerate(bodies, 1)]
            wire.send(*packets)
            for number, body in enumerate(bodies):
                wire.expect(raw.puback(number + 1))
                ledger.acknowledged.append(body)


def send_commands(run: Run, ledger: Ledger) -> None:
    with run.service() as service:
        while True:
            body = uuid.uuid4().hex
            ledger.maybe_queued.add(body)
            answer = service.request(
                "POST", "/_emulator/devices/receiver/messages", json={"body": body}, params={}
            )
            if answer.status_code == 403:  # the queue is full
                ledger.maybe_queued.discard(body)
                time.sleep(0.01)
                continue
            assert answer.ok, answer.text
            ledger.queued.add(body)


def _device_bound(run: Run, service: Service, verb: str, lock: str = "") -> requests.Response:
    host = fields_of(run.service_connection_string)["HostName"]
    token = sas_token(f"{host}/devices/receiver", run.devices["receiver"].key)
    path = f"/devices/receiver/messages/deviceBound{lock and '/' + lock}"
    return service.request(verb, path, headers={"Authorization": token})


def complete_commands(run: Run, ledger: Ledger) -> None:
    with run.service() as service:
        while True:
            answer = _device_bound(run, service, "GET")
            if answer.status_code == 204:
                time.sleep(0.01)
                continue
            assert answer.status_code == 200, answer.text
            assert answer.text not in ledger.completed
            ledger.maybe_completed.add(answer.text)
            done = _device_bound(run, service, "DELETE", answer.headers["ETag"].strip('"'))
            assert done.status_code == 204, done.text
            ledger.completed.add(answer.text)


def upload(run: Run, ledger: Ledger) -> None:
    host = fields_of(run.service_connection_string)["HostName"]
    token = sas_token(f"{host}/devices/sender", run.devices["sender"].key)
    headers: dict[str, str | None] = {"Authorization": token}
    with run.service() as service, requests.Session() as storage:
        storage.trust_env, storage.verify = False, str(run.ca_file)
        while True:
            name, path = uuid.uuid4().hex, "/devices/sender/files"
            answer = service.request("POST", path, json={"blobName": name}, headers=headers)
            assert answer.status_code == 200, answer.text
            place = answer.json()
            url = "https://{hostName}/{containerName}/{blobName}{sasToken}".format(**place)
            written = storage.put(url, name, headers={"x-ms-blob-type": "BlockBlob"}, timeout=60)
            assert written.status_code == 201, written.text
            ledger.maybe_uploaded.add(name)
            report = {"correlationId": place["correlationId"], "isSuccess": True}
            path += "/notifications"
            answer = service.request("POST", path, json=report, headers=headers)
            assert answer.status_code == 204, answer.text
            ledger.uploaded.add(name)


def provision(run: Run, ledger: Ledger) -> None:
    with run.owner() as owner:
        while True:
            names = [f"provisioned-{uuid.uuid4().hex[:8]}" for _ in range(3)]
            items = [{"registrationId": name, "attestation": _ATTESTATION} for name in names]
            body = {"mode": "create", "enrollments": items}
            answer = owner.request("POST", "/enrollments", json=body)
            assert answer.json() == {"isSuccessful": True, "errors": []}, answer.text
            ledger.enrolled |= set(names)
            for name in names:
                path, headers = _registration(name)
                answer = owner.request("PUT", f"{path}/register", headers=headers)
                assert answer.status_code == 202, answer.text
                ledger.operations[name] = answer.json()["operationId"]


def schedule(run: Run, ledger: Ledger) -> None:
    with run.service() as service:
        while True:
            name = uuid.uuid4().hex
            body = {
                "jobId": name,
                "type": "scheduleUpdateTwin",
                "queryCondition": "deviceId IN ['sender', 'reporter']",
                "updateTwin": {"etag": "*", "tags": {"job": name}},
            }
            answer = service.request("PUT", f"/jobs/v2/{name}", json=body)
            assert answer.status_code == 200, answer.text
            ledger.jobs.append(name)
            time.sleep(0.02)


def subscribe(run: Run, ledger: Ledger) -> None:
    while True:
        wire, session = run.connect("subscriber", *(() if ledger.subscribed else (_ANSWERS,)))
        with wire:
            assert session is ledger.subscribed or not ledger.subscribed
            ledger.subscribed = True
            wire.send(raw.subscribe(2, _METHODS))
            wire.expect(raw.suback(2, 0))
            wire.send(raw.unsubscribe(3, _METHODS))
            wire.expect(raw.unsuback(3))


_LOAD: tuple[Callable[[Run, Ledger], None], ...] = (
    *(
        create,
        patch,
        report,
        telemetry,
        send_commands,
        complete_commands,
        upload,
        provision,
        schedule,
        subscribe,
    ),
)


def load(run: Run, ledger: Ledger, *, complete: bool) -> list[str]:
    """Use an emulator, kill it at a random moment, and return what went wrong before.

    If `complete`, requests of each kind were answered by then, also on a slow machine.
    """
    killed, wrong = threading.Event(), list[str]()

    def use(client: Callable[[Run, Ledger], None]) -> None:
        try:
            client(run, ledger)
        except _ENDED as error:
            if not killed.is_set():
                wrong.append(f"{client.__name__}: {error!r}")

    threads = [threading.Thread(target=use, args=(client,)) for client in _LOAD]
    for thread in threads:
        thread.start()
    if complete:
        wait_until(lambda: ledger.complete or bool(wrong))
    time.sleep(random.uniform(*_SECONDS))
    killed.set()
    run.kill()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return wrong


def compare(run: Run, ledger: Ledger) -> None:
    """Compare what is there with what was answered."""
    with run.service() as service:

        def read(path: str) -> Any:
            answer = service.request("GET", path)
            return answer.json() if answer.ok else answer.status_code

        for name, etag in ledger.etags.items():
            if name in ledger.unsure:
                continue
            found, twin = read(f"/devices/{name}"), read(f"/twins/{name}")
            if name in ledger.deleted:
                assert found == twin == 404
            else:
                assert (found["etag"], twin["deviceId"]) == (etag, name)
        for name in ledger.unsure:  # done, or not: never a half
            assert (read(f"/devices/{name}") == 404) == (read(f"/twins/{name}") == 404)

        answered, sent = ledger.desired
        desired = read("/twins/worker")["properties"]["desired"]
        assert answered <= desired.get("n", 0) <= sent
        reported = read("/twins/reporter")["properties"]["reported"]
        assert ledger.reported[0] <= reported.get("n", 0) <= ledger.reported[1]
        assert ledger.version <= reported["$version"] <= ledger.version + 1
        ledger.version = reported["$version"]

        _compare_events(service, ledger)
        _compare_commands(run, service, ledger)
        _compare_uploads(run, service, ledger)
        _compare_registrations(run, service, ledger)

        for name in ledger.jobs:
            wait_until(lambda name=name: read(f"/jobs/v2/{name}")["status"] == "completed")  # type: ignore[misc]
        statistics = {"deviceCount": 2, "failedCount": 0, "succeededCount": 2}
        for name in ledger.jobs:
            found = read(f"/jobs/v2/{name}")["deviceJobStatistics"]
            assert {each: found[each] for each in statistics} == statistics

    wire, session = run.connect("subscriber")
    with wire:
        assert session or not ledger.subscribed
        if ledger.subscribed:
            wire.send(raw.publish("$iothub/twin/GET/?$rid=1"))
            wire.expect_publish("$iothub/twin/res/200/?$rid=1")


def _compare_events(service: Service, ledger: Ledger) -> None:
    events = service.request("GET", "/_emulator/events", params={}).json()
    numbers = [each["sequenceNumber"] for each in events]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
    bodies = [each["body"] for each in events]
    assert [each for each in Counter(bodies).items() if each[1] > 1] == []
    kept = set(bodies)
    # The log is bounded: the first that it has is the first that must be there.
    expected = ledger.acknowledged[-8_000:]
    assert [each for each in expected if each not in kept] == []
    assert kept <= set(ledger.sent)
    offsets = {each["body"]: each["offset"] for each in events}
    assert all(offsets[body] == was for body, was in ledger.offsets.items() if body in offsets)
    assert [*map(int, offsets.values())] == sorted(map(int, offsets.values()))  # of one device
    ledger.offsets |= offsets


def _compare_commands(run: Run, service: Service, ledger: Ledger) -> None:
    """Receive all messages, also those that were locked when the hub was killed."""
    # The clock of the killed hub was ahead, so its locks lapse later: each time by one lock more.
    ledger.clock_ahead += 61
    advance = {"advance": ledger.clock_ahead}
    lapsed = service.request("POST", "/_emulator/clock", params={}, json=advance)
    assert lapsed.status_code == 200, lapsed.text
    waiting = set()
    while (answer := _device_bound(run, service, "GET")).status_code == 200:
        assert answer.text not in waiting
        waiting.add(answer.text)
        lock = answer.headers["ETag"].strip('"')
        assert _device_bound(run, service, "DELETE", lock).status_code == 204
    assert answer.status_code == 204, answer.text
    assert waiting & ledger.completed == set()
    assert waiting <= ledger.maybe_queued
    lost = ledger.queued - waiting - ledger.completed - ledger.maybe_completed
    assert lost == set()
    ledger.completed |= waiting
    ledger.maybe_completed |= waiting


def _compare_uploads(run: Run, service: Service, ledger: Ledger) -> None:
    path, notified = "/messages/serviceBound/filenotifications", set()
    while (answer := service.request("GET", path)).status_code == 200:
        name = answer.json()["blobName"].removeprefix("sender/")
        assert (run.uploads / "sender" / name).read_text() == name
        assert name not in notified | ledger.notified
        notified.add(name)
        lock = answer.headers["iothub-messagelocktoken"]
        assert service.request("DELETE", f"{path}/{lock}").status_code == 204
    assert notified <= ledger.maybe_uploaded
    ledger.notified |= notified
    assert ledger.uploaded <= ledger.notified


def _registration(name: str) -> tuple[str, dict[str, str | None]]:
    """Return the path of a registration, and the headers of its device."""
    resource = f"{ID_SCOPE}/registrations/{name}"
    return f"/{resource}", {"Authorization": sas_token(resource, KEY)}


def _compare_registrations(run: Run, service: Service, ledger: Ledger) -> None:
    with run.owner() as owner:
        for name in ledger.enrolled:
            assert owner.request("GET", f"/enrollments/{name}").ok
        for name, operation in ledger.operations.items():
            path, headers = _registration(name)
            answer = owner.request("GET", f"{path}/operations/{operation}", headers=headers)
            assert (answer.status_code, answer.json()["status"]) == (200, "assigned")
            found = service.request("GET", f"/devices/{name}").json()
            assert found["authentication"]["symmetricKey"]["primaryKey"] == KEY


@pytest.mark.parametrize("number", range(-(-_KILLS // _KILLS_PER_TEST)))
def test_what_was_answered_is_there_after_a_kill(number: int, tmp_path: Path) -> None:
    host, ledger = free_loopback_address(), Ledger()
    with ExitStack() as stack:
        for left in reversed(range(min(_KILLS, _KILLS_PER_TEST))):
            run = Run(host, tmp_path)
            stack.callback(run._console.__exit__, None, None, None)
            compare(run, ledger)
            assert load(run, ledger, complete=not left) == []
        run = Run(host, tmp_path)
        stack.callback(run._console.__exit__, None, None, None)
        compare(run, ledger)
    assert ledger.complete
