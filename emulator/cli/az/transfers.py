"""`device-identity export` and `import`: all devices, to a container and from one."""

from __future__ import annotations

import argparse
from typing import Any

from emulator.cli.az import options as o
from emulator.cli.az.command import Command
from emulator.cli.az.session import Hub

_SYSTEM = "[system]"


def export(hub: Hub, options: argparse.Namespace) -> Any:
    """Start an export; return its job."""
    keys = {"excludeKeysInExport": not options.include_keys}
    output = {"outputBlobContainerUri": options.blob_container_uri}
    return _start(hub, options, {"type": "export", **output, **keys})


def import_devices(hub: Hub, options: argparse.Namespace) -> Any:
    """Start an import; return its job."""
    containers = {
        "inputBlobContainerUri": options.input_blob_container_uri,
        "outputBlobContainerUri": options.output_blob_container_uri,
    }
    return _start(hub, options, {"type": "import", **containers})


def _start(hub: Hub, options: argparse.Namespace, document: dict[str, Any]) -> Any:
    identity = options.identity
    document["storageAuthenticationType"] = "identityBased" if identity else "keyBased"
    if identity and identity != _SYSTEM:
        document["identity"] = {"userAssignedIdentity": identity}
    return hub.send("POST", "jobs", "create", body=document).json()


COMMANDS: tuple[Command, ...] = (
    Command(
        "device-identity export",
        "start a job that exports all devices",
        export,
        (o.BLOBS, o.INCLUDE_KEYS, o.STORAGE_IDENTITY),
        "--bcu https://localhost/devices --ik",
    ),
    Command(
        "device-identity import",
        "start a job that imports devices",
        import_devices,
        (o.INPUT_BLOBS, o.OUTPUT_BLOBS, o.STORAGE_IDENTITY),
        "--ibcu https://localhost/in --obcu https://localhost/out",
    ),
)
