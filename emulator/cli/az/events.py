"""`monitor-events`: what devices send, as it comes."""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import queue
import re
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from emulator.cli.az import options as o
from emulator.cli.az.command import Command
from emulator.cli.az.output import picker, show
from emulator.cli.az.session import Hub
from emulator.cli.az.values import parse_json
from emulator.errors import ClientError


def monitor(hub: Hub, options: argparse.Namespace) -> None:
    """Print events until Ctrl-C, until none came for a time, or until enough came."""
    pick = picker(options.query)
    devices = None
    if options.device_query:
        devices = {row.get("deviceId") for row in hub.query(options.device_query)}
    source, count = _source(hub, options), 0
    if sys.stderr.isatty():
        of = f" of {options.device_id}" if options.device_id else ""
        print(f"Waiting for events{of}. Ctrl-C ends it.", file=sys.stderr)
    for event in _until_silent(source, options.timeout):
        if not _is_wanted(event, options, devices):
            continue
        show(pick({"event": _document(event, options)}), options.output)
        count += 1
        if count == options.message_count:
            return


def _source(hub: Hub, options: argparse.Namespace) -> Callable[[], Iterator[dict[str, Any]]]:
    """Return what reads the events of a hub, in the form of the emulator's route."""
    if hub.emulator is not None:
        return lambda: _events(hub, options)
    # Imported here: it needs the SDKs of an extra.
    from emulator.cli.az.real_hub import events

    return lambda: events(hub.client, options.consumer_group, options.enqueued_time)


def _events(hub: Hub, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Return the events of the emulator, without an end."""
    since, device_id = options.enqueued_time, options.device_id
    exact = {"device": device_id} if device_id and not re.search(r"[*?\[]", device_id) else {}
    start = {"from": "end" if since is None else "0"}
    for event in hub.client.stream("/_emulator/events", **start, **exact):
        enqueued = datetime.fromisoformat(event["enqueuedTime"]).timestamp()
        if since is None or enqueued * 1000 >= since:
            yield event


def _until_silent(
    source: Callable[[], Iterator[dict[str, Any]]], seconds: float
) -> Iterator[dict[str, Any]]:
    """Return the items of a source, which waits in a thread, until none came for a time."""
    items: queue.SimpleQueue[dict[str, Any] | Exception] = queue.SimpleQueue()

    def read() -> None:
        try:
            for item in source():
                items.put(item)
            items.put(ClientError("The hub closed the stream of events."))
        except Exception as error:  # noqa: BLE001 - raised again in the other thread
            items.put(error)

    threading.Thread(target=read, daemon=True).start()
    with contextlib.suppress(queue.Empty):
        while True:
            item = items.get(timeout=seconds or None)
            if isinstance(item, Exception):
                raise item
            yield item


def _is_wanted(
    event: dict[str, Any], options: argparse.Namespace, devices: set[str] | None
) -> bool:
    device, module = event["deviceId"] or "", event["moduleId"] or ""
    interface = event["annotations"].get("dt-dataschema", "")
    return (
        (options.device_id is None or fnmatch.fnmatchcase(device, options.device_id))
        and (options.module_id is None or fnmatch.fnmatchcase(module, options.module_id))
        and (options.interface in (None, interface))
        and (devices is None or device in devices)
    )


def _document(event: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Return an event as az prints it (azure-iot-cli-extension: common_parser.py)."""
    annotations, wanted = event["annotations"], options.properties
    system = {name.replace("-", "_"): value for name, value in event["systemProperties"].items()}
    document = {
        "origin": event["deviceId"] or "",
        "module": event["moduleId"] or "",
        "interface": annotations.get("dt-dataschema", ""),
        "component": annotations.get("dt-subject", ""),
    }
    properties = {}
    if "sys" in wanted or "all" in wanted:
        properties["system"] = system
    if "app" in wanted or "all" in wanted:
        properties["application"] = event["properties"]
    if wanted:
        document["properties"] = properties
    if "anno" in wanted or "all" in wanted:
        document["annotations"] = annotations
    kind = options.content_type or system.get("content_type") or ""
    document["payload"] = _payload(event, kind)
    return document


def _payload(event: dict[str, Any], kind: str) -> Any:
    body = event["body"] if "body" in event else event["bodyBase64"]
    if "json" in kind.lower() and isinstance(body, str):
        with contextlib.suppress(ValueError):
            return parse_json(body)
    return body


COMMANDS: tuple[Command, ...] = (
    Command(
        "monitor-events",
        "show what devices send, as it comes",
        monitor,
        (o.ANY_DEVICE, o.ANY_MODULE, *o.MONITOR),
        "-d kitchen --properties sys app",
    ),
)
