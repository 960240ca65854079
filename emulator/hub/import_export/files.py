"""The files of import and export jobs: a line of JSON for each identity or configuration.

IoT Hub docs: import and export identities in bulk. The order of the members, and that properties
are there without their metadata, was seen on real hubs.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

from emulator.hub.configurations.records import FORM
from emulator.hub.core import limits
from emulator.hub.core.errors import DeserializationError, HubError, error_text
from emulator.hub.core.json import JsonObject, dumps, loads
from emulator.hub.registry import documents
from emulator.hub.registry.bulk import ITEM
from emulator.hub.registry.documents import TwinRow

# The first line of an export without credentials. A real hub writes such a line too (seen there);
# the words are ours. A program cannot parse it as an identity.
NO_KEYS_WARNING = (
    b"Warning: this file holds no credentials. Devices that are created from it get new keys.\n"
)

# Members of a configuration whose own members are spelled in PascalCase too.
_NESTED = ("content", "metrics", "systemMetrics")
# How many bytes of a line an error repeats.
_SHOWN = 1_000


def identity_line(row: TwinRow, *, with_keys: bool) -> bytes:
    """Return the line of a device or module, with its twin.

    The docs show no credentials of any kind where keys are excluded, so thumbprints are left out
    too. `managedBy` is not in the API's description of this format; an import needs it to create
    the same module.
    """
    identity, twin = row.identity, row.twin
    key = identity.key
    document = documents.identity(row)
    members = {
        "id": key.device_id,
        "moduleId": key.module_id,
        "eTag": identity.etag,
        "status": identity.status,
        "statusReason": identity.status_reason,
    }
    item: JsonObject = {name: value for name, value in members.items() if value is not None}
    item["authentication"] = document["authentication"] if with_keys else None
    item["twinETag"] = twin.etag
    item["tags"] = twin.tags
    item["properties"] = {"desired": twin.desired.values, "reported": twin.reported.values}
    for name in ("capabilities", "deviceScope", "parentScopes", "managedBy"):
        if document.get(name) is not None:
            item[name] = document[name]
    return dumps(item) + b"\n"


def configuration_line(document: JsonObject) -> bytes:
    """Return the line of a configuration: its document in PascalCase (seen on a real hub)."""
    nested = {name: _pascal(document[name]) for name in _NESTED if name in document}
    return dumps(_pascal({**document, **nested})) + b"\n"


def _pascal(members: JsonObject) -> JsonObject:
    return {
        "ETag" if name == "etag" else name[:1].upper() + name[1:]: value
        for name, value in members.items()
    }


def lines(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Return the lines of a file, also blank ones, each with the percentage of the file that is
    before it.
    """
    done = 0
    for text in io.BytesIO(content):
        yield text.strip(), done * 100 // len(content)
        done += len(text)


def read_identity(line: bytes) -> JsonObject:
    """Parse a line into an item for `Bulk.apply`.

    Empty tags and properties are left out: an export writes them for a twin without any.

    Raises:
        DeserializationError: the line is not a JSON object, or its id or status is missing. Each
            line needs a status, also to delete a device (seen on a real hub).
    """
    item = ITEM.read(_object(line, "device"))
    for name in ("id", "status"):
        if not isinstance(item.get(name), str):
            raise _invalid("device", line, f"Required property '{name}' not found in JSON")
    properties = item.get("properties")
    if isinstance(properties, dict):
        item["properties"] = {
            name: each
            for name, each in properties.items()
            if each != {} or name.lower() not in ("desired", "reported")  # others are an error
        }
    for name in ("tags", "properties"):
        if item.get(name) == {}:
            del item[name]
    return item


def read_configuration(line: bytes) -> JsonObject:
    """Parse a configuration into the body of a request.

    Raises:
        DeserializationError: the line is not a JSON object, or its id is missing.
    """
    item = FORM.read(_object(line, "configuration"))
    if not isinstance(item.get("id"), str):
        raise _invalid("configuration", line, "Required property 'id' not found in JSON")
    return item


def error_line(error: HubError, names: JsonObject | None = None) -> bytes:
    """Return the line of a refusal (seen on a real hub).

    Args:
        error: why the line was refused.
        names: the ids in the line; None if they could not be parsed.
    """
    status = error_text(error)
    return dumps({**(names or {}), "errorCode": error.code, "errorStatus": status}) + b"\n"


def _object(line: bytes, what: str) -> JsonObject:
    if len(line) > limits.IMPORT_LINE_BYTES:
        raise _invalid(what, line, f"It is over {limits.IMPORT_LINE_BYTES} bytes")
    try:
        value = loads(line)
    except ValueError as error:
        raise _invalid(what, line, str(error)) from None
    if not isinstance(value, dict):
        raise _invalid(what, line, "It is not an object")
    return value


def _invalid(what: str, line: bytes, why: str) -> DeserializationError:
    shown = line[:_SHOWN].decode(errors="replace")
    return DeserializationError(f"Invalid {what} format in line: {shown}. {why}.")
