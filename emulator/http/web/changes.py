"""Changes and events of a hub as JSON documents, without keys; long contents are cut."""

from __future__ import annotations

import base64
import codecs
from datetime import datetime
from typing import Any

from emulator.hub.access.refusals import Refused
from emulator.hub.core.errors import HubError, error_text
from emulator.hub.core.json import JsonObject, WrittenJson, dumps
from emulator.hub.core.times import iso
from emulator.hub.faults.faults import FaultAdded, FaultEnded, FaultHit
from emulator.hub.feed import Change, ServiceChange
from emulator.hub.identities.identity import IdentityChanged, IdentityCreated, IdentityKey
from emulator.hub.jobs.changes import JobEnded, JobStarted
from emulator.hub.links.link import Connected, Disconnected
from emulator.hub.messages.cloud_to_device import CommandEnded, CommandSent
from emulator.hub.messages.event import Event
from emulator.hub.methods.methods import MethodCalled, MethodEnded
from emulator.hub.methods.request import MethodResult
from emulator.hub.twins.twin import TwinChanged
from emulator.hub.uploads.notifications import FileNotificationQueued
from emulator.hub.uploads.upload import UploadEnded, UploadStarted

# How much of a body is shown, and how large a patch.
_BODY_BYTES = 4 * 1024
_PATCH_BYTES = 16 * 1024


def key_of(change: Change) -> IdentityKey | None:
    """Return the device or module that a change is about; None if it is about none."""
    match change:
        case Connected():
            return change.admission.key
        case Disconnected():
            return change.link.key
        case CommandSent():
            return IdentityKey(change.device_id)
        case CommandEnded():
            return IdentityKey(change.outcome.device_id)
        case UploadStarted() | UploadEnded():
            return IdentityKey(change.upload.device_id)
        case FileNotificationQueued():
            return IdentityKey(change.notification.device_id)
        case FaultAdded() | FaultEnded():
            fault = change.fault
            return None if fault.device is None else IdentityKey(fault.device, fault.module)
    key = getattr(change, "key", None)
    return key if isinstance(key, IdentityKey) else None


def document(change: Change, time: datetime) -> JsonObject:
    """Return a change as JSON: its type, its time, its device or module, and its details."""
    head: JsonObject = {"type": type(change).__name__, "time": iso(time)}
    if (key := key_of(change)) is not None:
        head |= {"deviceId": key.device_id, "moduleId": key.module_id}
    return {**head, **_details(change)}


def _details(change: Change) -> JsonObject:
    match change:
        case Refused():
            return {"text": change.text}
        case IdentityCreated() | IdentityChanged():
            return {"status": change.identity.status}
        case TwinChanged():
            return {
                "version": change.twin.version,
                "tags": _patch(change.tags),
                "desired": _patch(change.desired),
                "reported": _patch(change.reported),
                "replaced": change.replaced,
                "before": {
                    "tags": _former(change.before.tags, change.tags),
                    "desired": _former(change.before.desired.values, change.desired),
                    "reported": _former(change.before.reported.values, change.reported),
                },
            }
        case Disconnected():
            return {"reason": change.reason.name, "text": error_text(change.reason)}
        case MethodCalled():
            request = change.request
            return {
                "requestId": change.request_id,
                "name": request.name,
                "payload": _text(request.payload),
                "timeout": request.response_timeout,
            }
        case MethodEnded():
            return {
                "requestId": change.request_id,
                "name": change.name,
                **_outcome(change.outcome),
            }
        case CommandSent():
            message = change.command.message
            return {
                "messageId": message.system.get("message-id"),
                "properties": dict(message.properties),
                "body": _text(message.body),
            }
        case CommandEnded():
            return {"messageId": change.outcome.message_id, "status": change.outcome.status}
        case UploadStarted():
            return {"blobName": change.upload.blob_name}
        case UploadEnded():
            report = change.report
            return {
                "blobName": change.upload.blob_name,
                "isSuccess": report.is_success,
                "statusCode": report.status_code,
                "text": report.status_description,
            }
        case FileNotificationQueued():
            return {"blobName": change.notification.blob_name}
        case FaultAdded() | FaultHit() | FaultEnded():
            return {"faultId": change.id, "kind": change.fault.kind}
        case ServiceChange():
            return {"subject": change.subject, "what": change.what}
        case JobStarted() | JobEnded():
            job = change.job
            return {"jobId": job.key.id, "jobType": job.type.value, "status": job.status.value}
    return {}


def _outcome(outcome: MethodResult | HubError | None) -> JsonObject:
    match outcome:
        case MethodResult():
            return {"status": outcome.status, "payload": _text(outcome.payload)}
        case HubError():
            return {"error": outcome.name, "text": error_text(outcome)}
    return {"error": "CallerLeft", "text": "The caller left before the answer."}


def event_document(event: Event) -> JsonObject:
    """Return a message of a device as JSON."""
    key = event.origin.key
    return {
        "type": "Telemetry",
        "time": iso(event.enqueued),
        "deviceId": key and key.device_id,
        "moduleId": key and key.module_id,
        "sequenceNumber": event.number,
        "systemProperties": dict(event.message.system),
        "properties": dict(event.message.properties),
        "body": _text(event.message.body),
    }


def _text(content: bytes) -> JsonObject:
    """Return a body as `{"text", "size"}`, or `{"base64", "size"}` if it is not UTF-8."""
    shown, cut = content[:_BODY_BYTES], len(content) > _BODY_BYTES
    try:
        # The last character can be cut.
        text = codecs.getincrementaldecoder("utf-8")().decode(shown, not cut)
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(shown).decode(), "size": len(content)}
    return {"text": text, "size": len(content)}


def _former(values: JsonObject, patch: JsonObject | None) -> Any:
    """Return what the members of a patch were before it; new ones are left out."""
    return None if patch is None else _patch(_below(values, patch))


def _below(values: JsonObject, patch: JsonObject) -> JsonObject:
    former: JsonObject = {}
    for name in patch.keys() & values.keys():
        old, new = values[name], patch[name]
        both = isinstance(old, dict) and isinstance(new, dict)
        former[name] = _below(old, new) if both else old
    return former


def _patch(patch: JsonObject | None) -> Any:
    if patch is None:
        return None
    text = dumps(patch)
    return WrittenJson(text) if len(text) <= _PATCH_BYTES else {"$tooLarge": len(text)}
