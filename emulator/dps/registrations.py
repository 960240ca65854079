"""The registration of devices: an operation that begins, and whose end a device asks for."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import uuid
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from emulator.dps import allocation, certificates, enrollment, errors, issuer, registration
from emulator.dps.access import Access, Admitted, Proof, self_signed
from emulator.dps.allocation import Allocation
from emulator.dps.assignment import Assignments
from emulator.dps.attestation import X509
from emulator.dps.enrollment import CUSTOM, Enrollment
from emulator.dps.registration import ASSIGNED, ASSIGNING, DISABLED, FAILED, Registration
from emulator.hub.access.refusals import Refusals
from emulator.hub.core import members
from emulator.hub.core.clock import Clock
from emulator.hub.core.errors import ArgumentInvalid, HubError, ServerError
from emulator.hub.core.json import JsonObject
from emulator.hub.core.printable import printable
from emulator.hub.core.store import Store

log = logging.getLogger(__name__)

_FORM = members.Form("registrationId", "payload", "csr", "tpm")


class Request(Struct, frozen=True):
    """What a device sends to register.

    Args:
        id: its registration id.
        admitted: its enrollment, and how it authenticates at its hub.
        operation_id: the id of the operation.
        proof: its credentials.
        payload: what it sends to the webhook of its enrollment.
        issued: the certificate that it asked for, and the one that signed it, DER.
    """

    id: str
    admitted: Admitted
    operation_id: str
    proof: Proof
    payload: Any = None
    issued: tuple[bytes, ...] = ()


class Registrations:
    """Registers devices.

    Args:
        store: the store of enrollments and registrations.
        access: the check of credentials.
        assignments: what is written in the hub.
        clock: the clock of the hub.
        linked: the host name of the hub that is linked with the service.
        refusals: those of the hub: a person sees the refusals of both in one place.
    """

    def __init__(
        self,
        store: Store,
        access: Access,
        assignments: Assignments,
        clock: Clock,
        linked: str,
        refusals: Refusals,
    ) -> None:
        self.refusals = refusals
        self._store = store
        self._access = access
        self._assignments = assignments
        self._clock = clock
        self._linked = linked
        # The last operation of each device whose webhook has not answered yet.
        self._open: dict[str, tuple[str, asyncio.Task[None]]] = {}

    def register(self, registration_id: str, proof: Proof, body: object) -> JsonObject:
        """Begin to register a device. Call it on the event loop.

        Args:
            registration_id: the id that the device claims.
            proof: its credentials.
            body: the body of its request; None if it is empty.

        Returns:
            The first answer: it is always pending (the SDKs demand it).

        Raises:
            Unauthorized, InvalidCertificate: the credentials are wrong.
            ArgumentInvalid, DeserializationError: the id or the body is invalid.
        """
        enrollment.check_id(registration_id)
        admitted = self._access.admit(registration_id, proof)
        fields = _parse(body, registration_id)
        issued: tuple[bytes, ...] = ()
        if (csr := fields.get("csr")) is not None:
            now = self._clock.machine.now()
            issued = issuer.issue(self._store, csr, registration_id, now)
            own = self_signed(hashlib.sha256(issued[0]).hexdigest())
            admitted = admitted._replace(authentication=own)
        operation_id = f"5.{secrets.token_hex(8)}.{uuid.uuid4()}"
        payload = fields.get("payload")
        request = Request(registration_id, admitted, operation_id, proof, payload, issued)
        self._forget(registration_id)
        found = admitted.enrollment
        if found.enabled and found.allocation == CUSTOM and self._may_move(request):
            task = asyncio.ensure_future(self._ask(request))
            self._open[registration_id.lower()] = operation_id, task
        else:
            self._end(request, allocation.choose(found, registration_id, self._linked))
        return {"operationId": operation_id, "status": ASSIGNING}

    def status(self, registration_id: str, proof: Proof, operation_id: str) -> JsonObject:
        """Return the state of an operation: `status` is assigning until it has ended.

        Raises:
            Unauthorized, InvalidCertificate: the credentials are wrong.
            OperationNotFound: another operation began since, or none has this id.
        """
        self._access.admit(registration_id, proof)
        opened = self._open.get(registration_id.lower())
        if opened is not None and opened[0] == operation_id:
            state: JsonObject = {"registrationId": registration_id, "status": ASSIGNING}
            return {"operationId": operation_id, "status": ASSIGNING, "registrationState": state}
        found = self._find(registration_id)
        if found is None or found.operation_id != operation_id:
            raise errors.OperationNotFound
        return {
            "operationId": operation_id,
            "status": found.status,
            "registrationState": found.document(for_device=True),
        }

    def look_up(self, registration_id: str, proof: Proof, body: object) -> JsonObject:
        """Return the registration of a device.

        Raises:
            Unauthorized, InvalidCertificate: the credentials are wrong.
            ArgumentInvalid, DeserializationError: the body is invalid, or has a csr.
            RegistrationNotFound
        """
        self._access.admit(registration_id, proof)
        if _parse(body, registration_id).get("csr") is not None:
            raise ArgumentInvalid("A look-up has no csr")
        found = self._find(registration_id)
        if found is None:
            raise errors.RegistrationNotFound
        return found.document(for_device=True)

    async def stop(self) -> None:
        """End the operations that wait for a webhook."""
        tasks = [task for _, task in self._open.values()]
        self._open.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _find(self, registration_id: str) -> Registration | None:
        return self._store.get(Registration, registration.key(registration_id))

    def _forget(self, registration_id: str) -> None:
        """End an older operation of a device that registers again."""
        _, task = self._open.pop(registration_id.lower(), (None, None))
        if task is not None:
            task.cancel()

    def _may_move(self, request: Request) -> bool:
        """Return whether the device can be assigned to another hub than before."""
        before = self._find(request.id)
        found = request.admitted.enrollment
        return before is None or before.hub is None or found.update_assignment

    async def _ask(self, request: Request) -> None:
        """Ask the webhook, and end the operation."""
        found, before = request.admitted.enrollment, self._find(request.id)
        context: JsonObject = {"registrationId": request.id, found.attestation.type: {}}
        if found.attestation.type == X509 and request.proof.chain:
            # Ours: what the service sends of a certificate is unknown.
            own = certificates.describe(request.proof.chain[0])
            context[X509] = {"clientCertificate": {"info": own}}
        if before is not None and before.hub is not None:
            context |= {"currentIotHubHostName": before.hub, "currentDeviceId": before.device_id}
        if request.payload is not None:
            context["payload"] = request.payload
        result: Allocation | HubError
        try:
            result = await allocation.ask(found, context, self._linked)
        except HubError as error:
            result = error
        except Exception:
            log.exception("The webhook of %r failed", found.id)
            result = ServerError()
        self._open.pop(request.id.lower(), None)
        try:
            self._end(request, result)
        except HubError as error:  # the store can't write: the device finds no operation
            log.warning("Can't store the registration of %r: %s", request.id, printable(error))

    def _end(self, request: Request, result: Allocation | HubError) -> None:
        """End an operation: assign the device, and store its registration."""
        # The enrollment may have changed while the webhook worked.
        found = self._current(request.admitted.enrollment)
        now, before = self._clock.now(), self._find(request.id)
        record = Registration(
            id=before.id if before is not None else request.id,
            operation_id=request.operation_id,
            status=DISABLED,
            etag=enrollment.new_etag(),
            created=before.created if before is not None else now,
            updated=now,
            attestation=found.attestation.type,
            group_id=found.id if found.is_group else None,
            hub=before.hub if before is not None else None,
            device_id=before.device_id if before is not None else None,
            substatus=before.substatus if before is not None else None,
        )
        if found.enabled:
            try:
                if isinstance(result, HubError):
                    raise result
                assigned = self._assignments.assign(
                    request.id, found, request.admitted.authentication, result, before
                )
                record = replace(
                    record,
                    status=ASSIGNED,
                    hub=assigned.hub,
                    device_id=assigned.device_id,
                    substatus=assigned.substatus,
                    payload=result.payload,
                    issued=issuer.as_text(request.issued),
                )
            except HubError as error:
                self.refusals.info("Can't assign %r: %s", request.id, printable(error), error=error)
                record = replace(
                    record, status=FAILED, error_code=error.code, error_message=error.text
                )
        self._store.commit(put=(record,))
        if record.status == ASSIGNED:
            log.info("Assigned %r to %r as %r", request.id, record.hub, record.device_id)

    def _current(self, found: Enrollment) -> Enrollment:
        return self._store.get(Enrollment, found.key) or replace(found, enabled=False)


def _parse(body: object, registration_id: str) -> JsonObject:
    """Return the members of a request, whose body may be empty (the newest SDKs)."""
    parsed = members.document({} if body is None else body, _FORM)
    named = members.text(parsed, "registrationId")
    if named is not None and named.lower() != registration_id.lower():
        raise ArgumentInvalid("registrationId in the body is that of another device")
    return parsed
