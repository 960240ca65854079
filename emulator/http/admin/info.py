"""What runs, and whether it does: `/_emulator/info` and `/_emulator/health`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from aiohttp.web_response import Response

from emulator.http.admin.parameters import check_parameters
from emulator.http.requests import Request
from emulator.http.responses import json_response
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core.json import JsonObject
from emulator.hub.core.times import iso
from emulator.hub.hub import IotHub

_UNAVAILABLE = 503


class Host:
    """What an emulator shows of itself.

    Args:
        name: the name of the hub in connection strings.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.ports: Mapping[str, int] = {}
        """By the names of their settings."""
        self.started: datetime | None = None
        """When all listeners accepted, by the clock of the machine; None before."""
        self.stopping = False
        """Whether listeners close."""

    def set_started(self, ports: Mapping[str, int], now: datetime) -> None:
        """Note that all listeners accept, and their ports."""
        self.ports = ports
        self.started = now

    def set_stopping(self) -> None:
        """Note that listeners close from now on."""
        self.stopping = True

    def health(self) -> Response:
        """Return 200 if every listener accepts, and 503 before and after that."""
        if self.started is None:
            return json_response({"status": "starting"}, status=_UNAVAILABLE)
        if self.stopping:
            return json_response({"status": "stopping"}, status=_UNAVAILABLE)
        return json_response({"status": "healthy"})


def routes(host: Host) -> tuple[Route, ...]:
    """Return the routes about an emulator."""

    async def get_info(hub: IotHub, request: Request) -> JsonObject:
        """`GET /_emulator/info`: 200 with the version, the time, the ports and the numbers."""
        # Imported here: it takes a part of the start.
        from importlib.metadata import version

        check_parameters(request)
        machine = hub.clock.machine.now()
        started = host.started or machine
        return {
            "version": version("local-iot-hub"),
            "startedTime": iso(started),
            "uptimeSeconds": round((machine - started).total_seconds(), 3),
            "hostName": host.name,
            "ports": {name.removesuffix("_port"): port for name, port in host.ports.items()},
            "devices": {
                **await hub.identities.device_statistics(),
                **hub.identities.service_statistics(),
            },
            "eventCount": hub.events.end - hub.events.begin,
            "clock": {"now": iso(hub.clock.now()), "advancedBy": hub.clock.ahead},
            "faults": hub.faults.list(),
        }

    async def get_health(_: IotHub, request: Request) -> Response:
        """`GET` or `HEAD /_emulator/health`, without a token: 200 if all ports accept, or 503."""
        check_parameters(request)
        return host.health()

    return (
        Route("GET", "/_emulator/info", Operation.READ_INFO, get_info, versioned=False),
        Route("GET", "/_emulator/health", None, get_health, versioned=False),
        Route("HEAD", "/_emulator/health", None, get_health, versioned=False),  # `wget --spider`
    )
