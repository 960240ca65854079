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

from emulator.dps import (
    allocation,
    certificates,
    enrollment,
    errors,
    issuer,
    registration,
    tpm_keys,
)
from emulator.dps.access import Access, Admitted, Proof, self_signed
from emulator.dps.allocation import Allocation
from emulator.dps.assignment import Assignments
from emulator.dps.attestation import TPM, X509
from emulator.dps.enrollment import CUSTOM
from emulator.dps.meter import Meter
from emulator.dps.registration import (
    ASSIGNED,
    ASSIGNING,
    DISABLED,
    FAILED,
    Registration,
    RegistrationChanged,
)
from emulator.dps.tpm_keys import Tpm
from emulator.hub.access.operations import Operation
from emulator.hub.access.refusals import Refusals
from emulator.hub.core import members
from emulator.hub.core.clock import Clock
from emulator.hub.core.errors import ArgumentInvalid, HubError, ServerError
from emulator.hub.core.json import JsonObject
from emulator.hub.core.printable import printable
from emulator.hub.core.store import Store
from emulator.hub.core.turns import Turns
from emulator.hub.feed import Feed

log = logging.getLogger(__name__)

_FORM = members.Form("registrationId", "payload", "csr", tpm=tpm_keys.FORM)

# Ours: of so many devices without an enrollment, the last registrations are known.
_UNENROLLED = 1_000


class Request(Struct, frozen=True):
    """What a device sends to register.

    Args:
        id: its registration id.
        admitted: its enrollment, and how it authenticates at its hub.
        operation_id: the id of the operation.
        proof: its credentials.
        payload: what it sends to the webhook of its enrollment.
        issued: the certificate that it asked for, and the one that signed it, DER.
        sealed: its key for the hub, sealed for its TPM; None if it has none.
    """

    id: str
    admitted: Admitted
    operation_id: str
    proof: Proof
    payload: Any = None
    issued: tuple[bytes, ...] = ()
    sealed: str | None = None


class Registrations:
    """Registers devices.

    Args:
        store: the store of enrollments and registrations.
        access: the check of credentials.
        assignments: what is written in the hub.
        feed: the feed of the hub.
        clock: the clock of the hub.
        linked: the host name of the hub that is linked with the service.
        refusals: those of the hub: a person sees the refusals of both in one place.
        meter: what every request passes.
        turns: those of the hub: assignments share the event loop with connections.
    """

    def __init__(
        self,
        store: Store,
        access: Access,
        assignments: Assignments,
        feed: Feed,
        clock: Clock,
        linked: str,
        refusals: Refusals,
        meter: Meter,
        turns: Turns,
    ) -> None:
        self.refusals = refusals
        self._store = store
        self._access = access
        self._assignments = assignments
        self._feed = feed
        self._clock = clock
        self._linked = linked
        # The last operation of each device whose webhook has not answered yet.
        self._open: dict[str, tuple[str, asyncio.Task[None]]] = {}
        self._meter = meter
        self._turns = turns
        # Devices with a TPM, and without an enrollment: their last operations failed.
        self._unenrolled: dict[str, tuple[Tpm, Registration]] = {}

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
            TpmChallenge: see `Access.admit`.
            ArgumentInvalid, DeserializationError: the id or the body is invalid.
            ThrottlingException: it registers too often.
        """
        enrollment.check_id(registration_id)
        fields, flaw = _read(body, registration_id)
        if proof.tpm is None:
            proof = proof._replace(tpm=Tpm.parse(members.block(fields, TPM)))
        try:
            admitted = self._access.admit(registration_id, proof)
        except errors.EnrollmentNotFound as error:
            self._meter.enter(Operation.REGISTER, registration_id)
            return self._fail(registration_id, proof, error)
        if flaw is not None:
            raise flaw
        self._meter.enter(Operation.REGISTER, registration_id)
        sealed = None
        if admitted.tpm is not None:
            sealed = self._access.seal(registration_id, admitted.tpm)
        issued: tuple[bytes, ...] = ()
        if (csr := fields.get("csr")) is not None and admitted.failure is None:
            now = self._clock.machine.now()
            issued = issuer.issue(self._store, csr, registration_id, now)
            own = self_signed(hashlib.sha256(issued[0]).hexdigest())
            admitted = admitted._replace(authentication=own)
        operation_id, payload = _new_operation(), fields.get("payload")
        request = Request(registration_id, admitted, operation_id, proof, payload, issued, sealed)
        self._forget(registration_id)
        late = self._meter.fault("delay-registration", registration_id)
        if late is not None or self._asks(request):
            task = asyncio.ensure_future(self._assign(request, late.delay if late else 0))
            self._open[registration_id.lower()] = operation_id, task
        else:
            self._end(request, self._choose(request))
        return {"operationId": operation_id, "status": ASSIGNING}

    def status(self, registration_id: str, proof: Proof, operation_id: str) -> JsonObject:
        """Return the state of an operation: `status` is assigning until it has ended.

        Raises:
            Unauthorized, InvalidCertificate: the credentials are wrong.
            OperationNotFound: another operation began since, or none has this id.
            ThrottlingException: it asks too often.
        """
        unenrolled = self._unenrolled.get(registration_id.lower())
        if proof.tpm is None and unenrolled is not None:
            proof = proof._replace(tpm=unenrolled[0])
        try:
            self._access.admit(registration_id, proof)
        except errors.EnrollmentNotFound:
            self._meter.enter(Operation.POLL_REGISTRATION, registration_id)
            if unenrolled is None or unenrolled[1].operation_id != operation_id:
                raise errors.OperationNotFound from None
            return _final(unenrolled[1])
        self._meter.enter(Operation.POLL_REGISTRATION, registration_id)
        opened = self._open.get(registration_id.lower())
        if opened is not None and opened[0] == operation_id:
            state: JsonObject = {"registrationId": registration_id, "status": ASSIGNING}
            return {"operationId": operation_id, "status": ASSIGNING, "registrationState": state}
        found = self._find(registration_id)
        if found is None or found.operation_id != operation_id:
            raise errors.OperationNotFound
        return _final(found)

    def look_up(self, registration_id: str, proof: Proof, body: object) -> JsonObject:
        """Return the registration of a device.

        Raises:
            Unauthorized, InvalidCertificate: the credentials are wrong.
            ArgumentInvalid, DeserializationError: the body is invalid, or has a csr.
            RegistrationNotFound
            ThrottlingException: it asks too often.
        """
        self._access.admit(registration_id, proof)
        self._meter.enter(Operation.POLL_REGISTRATION, registration_id)
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
        self._unenrolled.pop(registration_id.lower(), None)
        _, task = self._open.pop(registration_id.lower(), (None, None))
        if task is not None:
            task.cancel()

    def _fail(self, registration_id: str, proof: Proof, error: HubError) -> JsonObject:
        """Begin an operation that has failed: the TPM of a device has no enrollment.

        Nothing is stored for it (seen on the service: C#'s end-to-end tests).
        """
        if proof.tpm is None:
            raise error
        self._forget(registration_id)
        self.refusals.info("Can't assign %r: no enrollment has its TPM", registration_id)
        now = self._clock.now()
        record = Registration(
            id=registration_id,
            operation_id=_new_operation(),
            status=FAILED,
            etag=enrollment.new_etag(),
            created=now,
            updated=now,
            attestation=TPM,
            error_code=error.code,
            error_message=error.text,
        )
        if len(self._unenrolled) >= _UNENROLLED:
            del self._unenrolled[next(iter(self._unenrolled))]
        self._unenrolled[registration_id.lower()] = proof.tpm, record
        return {"operationId": record.operation_id, "status": ASSIGNING}

    def _asks(self, request: Request) -> bool:
        """Return whether a webhook chooses the hub: not if the device stays where it is."""
        before = self._find(request.id)
        found = request.admitted.enrollment
        may_move = before is None or before.hub is None or found.update_assignment
        is_custom = found.allocation == CUSTOM and request.admitted.failure is None
        return found.enabled and is_custom and may_move

    def _choose(self, request: Request) -> Allocation | HubError:
        """Choose the hub without a webhook, unless the registration fails."""
        admitted = request.admitted
        return admitted.failure or allocation.choose(admitted.enrollment, request.id, self._linked)

    async def _assign(self, request: Request, delay: float) -> None:
        """Choose the hub after a delay, and end the operation."""
        if delay:
            await self._clock.sleep(delay)
        await self._turns.take()  # very many devices can come at once
        result = await self._ask(request) if self._asks(request) else self._choose(request)
        await self._turns.take()
        self._open.pop(request.id.lower(), None)
        try:
            request = self._admit_again(request)
        except HubError as error:  # the device gets the same error when it asks
            reason = error.__cause__ or error
            self.refusals.info("Can't assign %r: %s", request.id, printable(reason), error=error)
            return
        try:
            self._end(request, request.admitted.failure or result)
        except HubError as error:  # the store can't write: the device finds no operation
            log.warning("Can't store the registration of %r: %s", request.id, printable(error))

    def _admit_again(self, request: Request) -> Request:
        """Check the proof of a device once more: its enrollment may have changed meanwhile.

        Raises:
            Unauthorized, InvalidCertificate, EnrollmentNotFound: it is deleted, or has other keys.
        """
        admitted = self._access.admit(request.id, request.proof)
        if request.issued:
            admitted = admitted._replace(authentication=request.admitted.authentication)
        return replace(request, admitted=admitted)

    async def _ask(self, request: Request) -> Allocation | HubError:
        """Ask the webhook."""
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
        try:
            return await allocation.ask(found, context, self._linked)
        except HubError as error:
            return error
        except Exception:
            log.exception("The webhook of %r failed", found.id)
            return ServerError()

    def _end(self, request: Request, result: Allocation | HubError) -> None:
        """End an operation: assign the device, and store its registration."""
        found = request.admitted.enrollment
        now, before = self._clock.now(), self._find(request.id)
        record = Registration(
            id=_spelling(request, before),
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
                if self._meter.fault("fail-registration", request.id):
                    raise errors.HubRefused("ErrorCode:ServiceUnavailable;A fault refused it.")
                assigned = self._assignments.assign(
                    record.id, found, request.admitted.authentication, result, before
                )
                record = replace(
                    record,
                    status=ASSIGNED,
                    hub=assigned.hub,
                    device_id=assigned.device_id,
                    substatus=assigned.substatus,
                    payload=result.payload,
                    issued=issuer.as_text(request.issued),
                    sealed=request.sealed,
                )
            except HubError as error:
                self.refusals.info("Can't assign %r: %s", request.id, printable(error), error=error)
                record = replace(
                    record, status=FAILED, error_code=error.code, error_message=error.text
                )
        self._store.commit(put=(record,))
        self._feed.publish(RegistrationChanged(record.id, _outcome(record)))


def _outcome(record: Registration) -> str:
    if record.status == ASSIGNED:
        return f"assigned to {record.hub} as {record.device_id}"
    if record.status == DISABLED:
        return "not assigned: its enrollment is disabled"
    return f"not assigned: {record.error_message}"


def _spelling(request: Request, before: Registration | None) -> str:
    """Return the id of a device in its own letter case, which names its device in the hub too.

    A registration id has no letter case, and an id in a hub has. So a device that writes its id in
    another way stays the same device.
    """
    if not (found := request.admitted.enrollment).is_group:
        return found.id
    return before.id if before is not None else request.id


def _new_operation() -> str:
    return f"5.{secrets.token_hex(8)}.{uuid.uuid4()}"


def _final(record: Registration) -> JsonObject:
    """Return the last answer to a device."""
    return {
        "operationId": record.operation_id,
        "status": record.status,
        "registrationState": record.document(for_device=True),
    }


def _read(body: object, registration_id: str) -> tuple[JsonObject, HubError | None]:
    """Return the members of a request, or its flaw: only a device that is admitted gets it."""
    try:
        return _parse(body, registration_id), None
    except HubError as flaw:
        return {}, flaw


def _parse(body: object, registration_id: str) -> JsonObject:
    """Return the members of a request, whose body may be empty (the newest SDKs)."""
    parsed = members.document({} if body is None else body, _FORM)
    named = members.text(parsed, "registrationId")
    if named is not None and named.lower() != registration_id.lower():
        raise ArgumentInvalid("registrationId in the body is that of another device")
    return parsed
