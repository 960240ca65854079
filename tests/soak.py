"""A soak test: is the emulator's memory flat while devices come and go for minutes?

    python -m tests.soak [--minutes 10]

It starts `python -m emulator` on a loopback address of its own. Devices connect to it, over TLS and
over WebSockets, subscribe, send telemetry, read and patch their twins, answer direct methods, and
leave: half of them without a DISCONNECT, some with bytes that are no MQTT. A service asks expensive
queries all the time, and reads the whole event log. Meanwhile a device reads its twin.

The first third of the time is warm-up. It fails (exit status 1) if the median memory of the last
third is more than 5 % above that of the second third, if 1 % of the reads took over 50 ms, or if
the emulator logged anything. pytest does not collect it.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import requests

from emulator.testing.addresses import free_loopback_address
from tests.devices import greeting
from tests.mqtt import raw
from tests.mqtt.web_socket import WebSocketWire
from tests.processes import EmulatorConsole, clean_environment
from tests.support import Service, fields_of, trust

_METHODS = "$iothub/methods/POST/#"
_TWIN_ANSWERS = "$iothub/twin/res/#"
_DESIRED = "$iothub/twin/PATCH/properties/desired/#"

_WORKERS = 4
_DEVICES_PER_WORKER = 8

# More than the event log holds, sent at once: else it would still be filling after the warm-up.
_EVENTS_AT_FIRST = 11_000

# glibc keeps what was freed between blocks that are in use: after ten minutes that is some 15 MB,
# which a malloc_trim(0) gives back. Large blocks, as TLS has them for each connection, are had from
# the system and given back to it instead, so that what is measured is what is in use.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "16384", "MALLOC_TRIM_THRESHOLD_": "65536"}

_HEALTHY_SECONDS = 0.05

_SAMPLE_SECONDS = 1.0
_PROGRESS_SECONDS = 30.0
_GROWTH_ALLOWED = 1.05


class Hub:
    """The emulator as a process, and what its clients need to know."""

    def __init__(self, console: EmulatorConsole, host: str) -> None:
        self.host = host
        self.key = fields_of(console.service_connection_string)["SharedAccessKey"]
        self.trust = trust(console)
        self.service = Service(console, lifetime=86400)
        self.https_port = int(self.service.url.rpartition(":")[2])

    def dial(self, *, web_socket: bool) -> raw.Wire:
        """Open a device's connection."""
        if web_socket:
            return WebSocketWire(self.host, self.https_port, self.trust)
        return raw.Wire((self.host, 8883), self.trust)


class Worker:
    """Lives the lives of a few devices, one after the other, until it is told to stop."""

    def __init__(self, hub: Hub, number: int, callers: ThreadPoolExecutor) -> None:
        self.lives: collections.Counter[str] = collections.Counter()
        self._hub = hub
        self._number = number
        self._callers = callers
        self._chance = random.Random(number)

    def run(self, stop: threading.Event) -> None:
        """Go on until `stop`; what a device finds wrong ends the soak test."""
        for index in range(_DEVICES_PER_WORKER):
            self._register(self._device_id(index))
        while not stop.is_set():
            self._live(self._device_id(self._chance.randrange(_DEVICES_PER_WORKER)))

    def _device_id(self, index: int) -> str:
        return f"soak-{self._number}-{index}"

    def _register(self, device_id: str) -> None:
        keys = {"primaryKey": self._hub.key, "secondaryKey": self._hub.key}
        body = {"deviceId": device_id, "authentication": {"type": "sas", "symmetricKey": keys}}
        response = self._hub.service.request("PUT", f"/devices/{device_id}", json=body)
        assert response.status_code == 200, response.text

    def _live(self, device_id: str) -> None:
        """One life of a device, from its connection to its end."""
        chance = self._chance
        web_socket = chance.random() < 0.2
        with self._hub.dial(web_socket=web_socket) as wire:
            if chance.random() < 0.1:
                wire.send_what_goes(chance.randbytes(chance.randrange(1, 500)))
                self.lives["malformed first packet"] += 1
                return
            if chance.random() < 0.1:
                wire.send(self._greeting(device_id, "AAAA" * 11))
                wire.expect(raw.connack(5))
                self.lives["refused"] += 1
                return
            wire.send(self._greeting(device_id, self._hub.key))
            assert wire.receive()[0] == 0x20
            wire.send(raw.subscribe(1, _METHODS, _TWIN_ANSWERS, _DESIRED))
            wire.expect(raw.suback(1, 0, 0, 0))
            for _ in range(chance.randrange(1, 4)):
                chance.choice(
                    (self._send_events, self._use_twin, self._answer_method, self._hear_desired)
                )(wire, device_id)
            self._leave(wire, device_id)
        if chance.random() < 0.02:
            path, any_etag = f"/devices/{device_id}", {"If-Match": "*"}
            response = self._hub.service.request("DELETE", path, headers=any_etag)
            assert response.status_code == 204
            self._register(device_id)
            self.lives["deleted"] += 1
        self.lives["over a WebSocket" if web_socket else "over TLS"] += 1

    def _greeting(self, device_id: str, key: str) -> bytes:
        will = (f"devices/{device_id}/messages/events/", b"gone")
        clean = self._chance.random() < 0.5
        return greeting(self._hub.host, device_id, key, clean=clean, will=will)

    def _leave(self, wire: raw.Wire, device_id: str) -> None:
        way = self._chance.random()
        if way < 0.5:
            wire.send(raw.DISCONNECT)
            wire.expect_closed()
        elif way < 0.6:
            wire.send_what_goes(b"\xf0" + self._chance.randbytes(50))
            wire.expect_closed()
        elif way < 0.7:  # in the middle of a packet
            wire.send(raw.publish("$iothub/twin/GET/?$rid=9", bytes(1000))[:-500])
        elif way < 0.8:  # during a call, whose caller gets an error
            call = self._invoke(device_id)
            wire.expect_method("reboot")
            wire.close()
            assert call.result().status_code == 404, call.result().text

    def _send_events(self, wire: raw.Wire, device_id: str) -> None:
        for packet_id in range(1, 21):
            topic = f"devices/{device_id}/messages/events/n={packet_id}"
            wire.send(raw.publish(topic, self._chance.randbytes(100), packet_id=packet_id))
        wire.expect(*map(raw.puback, range(1, 21)))

    def _use_twin(self, wire: raw.Wire, _: str) -> None:
        patch = json.dumps({f"p{self._chance.randrange(10)}": self._chance.random()}).encode()
        wire.send(raw.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", patch))
        topic, _body = wire.receive_publish()
        assert topic.startswith("$iothub/twin/res/204/?$rid=1"), topic
        wire.send(raw.publish("$iothub/twin/GET/?$rid=2"))
        wire.expect_publish("$iothub/twin/res/200/?$rid=2")
        wire.send(raw.PINGREQ)
        wire.expect(raw.PINGRESP)

    def _answer_method(self, wire: raw.Wire, device_id: str) -> None:
        call = self._invoke(device_id)
        request_id = wire.expect_method("reboot")
        wire.send(raw.publish(f"$iothub/methods/res/200/?$rid={request_id}", b'"done"'))
        assert call.result().json() == {"status": 200, "payload": "done"}

    def _invoke(self, device_id: str) -> Future[requests.Response]:
        body = {"methodName": "reboot", "payload": {"n": 1}, "responseTimeoutInSeconds": 20}
        path = f"/twins/{device_id}/methods"
        return self._callers.submit(self._hub.service.request, "POST", path, json=body)

    def _hear_desired(self, wire: raw.Wire, device_id: str) -> None:
        body = {
            "properties": {"desired": {f"d{self._chance.randrange(10)}": self._chance.random()}}
        }
        response = self._hub.service.request("PATCH", f"/twins/{device_id}", json=body)
        assert response.status_code == 200
        topic, _body = wire.receive_publish()
        assert topic.startswith("$iothub/twin/PATCH/properties/desired/"), topic


def burden(hub: Hub, stop: threading.Event) -> None:
    """Ask what costs the most, one request after the other."""
    words = "SELECT deviceId FROM devices WHERE 1"
    queries = (
        words + "+1" * 2_000 + " = 0",
        "SELECT deviceId, COUNT() AS n FROM devices GROUP BY deviceId",
    )
    while not stop.is_set():
        for query in queries:
            answer = hub.service.request("POST", "/devices/query", json={"query": query})
            assert answer.status_code == 200
        assert hub.service.request("GET", "/_emulator/events").status_code == 200
        assert hub.service.request("GET", "/devices").status_code == 200


def watch(hub: Hub, device_id: str, stop: threading.Event) -> list[float]:
    """Read the twin of a device now and then; return how long each read took, in seconds."""
    taken = []
    with hub.dial(web_socket=False) as wire:
        wire.begin(greeting(hub.host, device_id, hub.key), _TWIN_ANSWERS)
        while not stop.wait(0.02):
            before = time.perf_counter()
            wire.send(raw.publish("$iothub/twin/GET/?$rid=1"))
            wire.receive_publish()
            taken.append(time.perf_counter() - before)
    return taken


def fill_event_log(hub: Hub) -> None:
    """Send more events than the log holds."""
    device_id = "soak-filler"
    body = {
        "deviceId": device_id,
        "authentication": {"symmetricKey": {"primaryKey": hub.key, "secondaryKey": hub.key}},
    }
    response = hub.service.request("PUT", f"/devices/{device_id}", json=body)
    assert response.status_code == 200, response.text
    with hub.dial(web_socket=False) as wire:
        wire.begin(greeting(hub.host, device_id, hub.key))
        event = raw.publish(f"devices/{device_id}/messages/events/n=1", bytes(100))
        wire.send(event * _EVENTS_AT_FIRST)
        wire.expect_nothing()


def soak(hub: Hub, process: psutil.Process, seconds: float) -> tuple[list[float], float]:
    """Keep the hub busy; gives its memory in MB, once a second, and the 99th percentile of the time
    of a healthy device's reads, in seconds.

    Raises:
        AssertionError, OSError: a device or a service found something wrong.
    """
    fill_event_log(hub)
    stop, samples = threading.Event(), []
    with ThreadPoolExecutor(2 * _WORKERS + 2) as threads, ThreadPoolExecutor(_WORKERS) as callers:
        workers = [Worker(hub, number, callers) for number in range(_WORKERS)]
        running = [threads.submit(worker.run, stop) for worker in workers]
        running.append(threads.submit(burden, hub, stop))
        watching = threads.submit(watch, hub, "soak-filler", stop)
        started = time.monotonic()
        progress = started + _PROGRESS_SECONDS
        try:
            while (now := time.monotonic()) < started + seconds:
                if any(each.done() for each in running):
                    break
                samples.append(process.memory_info().rss / 1e6)
                if now >= progress:
                    progress += _PROGRESS_SECONDS
                    lives = sum((worker.lives for worker in workers), collections.Counter())
                    print(
                        f"{now - started:5.0f} s  {samples[-1]:6.1f} MB  {dict(lives)}", flush=True
                    )
                time.sleep(_SAMPLE_SECONDS)
        finally:
            stop.set()
        for each in running:
            each.result()
    return samples, statistics.quantiles(watching.result(), n=100)[98]


def main() -> int:
    """Run the soak test; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Run the soak test.")
    parser.add_argument("--minutes", type=float, default=10)
    seconds = parser.parse_args().minutes * 60
    host = free_loopback_address()
    with tempfile.TemporaryDirectory() as folder:
        options = ("--host", host, "--https-port", "0", "--data-dir", Path(folder))
        with EmulatorConsole(*options, environment={**clean_environment(), **_MALLOC}) as console:
            samples, slow = soak(Hub(console, host), psutil.Process(console.pid), seconds)
            console.terminate()
    third = len(samples) // 3
    before, after = (statistics.median(samples[n * third : (n + 1) * third]) for n in (1, 2))
    growth = after / before - 1
    print(f"second third {before:.1f} MB, last third {after:.1f} MB, growth {growth:+.1%}")
    print(f"a healthy device waits {1000 * slow:.0f} ms (99 %)")
    for line in console.errors:
        print(f"the emulator logged: {line}")
    bad = growth > _GROWTH_ALLOWED - 1 or slow > _HEALTHY_SECONDS or bool(console.errors)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
