"""An emulator whose state lasts, as a process that a test kills."""

from __future__ import annotations

import json
import ssl
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.devices import greeting
from tests.mqtt import raw
from tests.mqtt.raw import Wire
from tests.processes import Console
from tests.support import Device, Service

DEVICES = ("reporter", "sender", "receiver", "subscriber", "worker")


class _Provisioning(NamedTuple):
    """What a service has to know of the provisioning service."""

    service_connection_string: str
    ca_file: Path


class Run:
    """An emulator as a process, until it is killed."""

    def __init__(self, host: str, folder: Path) -> None:
        ports = ("mqtt", "https", "amqps", "amqp", "uploads")
        options = [word for port in ports for word in (f"--{port}-port", "0")]
        options += [word for device in DEVICES for word in ("--device", device)]
        self._console = Console(
            *("-m", "emulator", "--json", "--host", host, "--data-dir", folder, *options)
        )
        document = json.loads(self._console.wait_for(r"\{.*\}"))
        self.service_connection_string: str = document["serviceConnectionString"]
        self.dps_connection_string: str = document["dpsConnectionString"]
        self.ca_file = Path(document["environment"]["SSL_CERT_FILE"])
        self.trust = ssl.create_default_context(cafile=str(self.ca_file))
        self.devices = {
            name: Device.of(text) for name, text in document["deviceConnectionStrings"].items()
        }
        self.address = host, document["mqttPort"]
        self.uploads = folder / "uploads" / host
        """The folder with the files that devices upload."""

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self._console.pid

    @property
    def errors(self) -> list[str]:
        return self._console.errors

    def service(self) -> Service:
        return Service(self)

    def owner(self) -> Service:
        """Return a program of the owner of the provisioning service."""
        return Service(_Provisioning(self.dps_connection_string, self.ca_file))

    def connect(self, name: str, *filters: str) -> tuple[Wire, bool]:
        """Connect a device with clean session 0; return whether it has its session."""
        with ExitStack() as stack:
            wire = stack.enter_context(Wire(self.address, self.trust))
            wire.send(greeting(self.address[0], name, self.devices[name].key, clean=False))
            connack = wire.receive()
            assert connack[3] == 0
            if filters:
                wire.send(raw.subscribe(1, *filters))
                wire.expect(raw.suback(1, *[0] * len(filters)))
            stack.pop_all()
        return wire, bool(connack[2])

    def kill(self) -> None:
        self._console._process.kill()
        self._console.wait()
        assert "Traceback" not in self._console.output
