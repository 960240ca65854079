"""The service over enrollments and registrations, for the programs of their owner."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from emulator.dps import enrollment, errors, limits, queries, registration
from emulator.dps.attestation import KEY
from emulator.dps.enrollment import Enrollment, EnrollmentChanged
from emulator.dps.registration import Registration, RegistrationChanged
from emulator.hub.core import members
from emulator.hub.core.clock import Clock
from emulator.hub.core.errors import ArgumentInvalid, HubError, TooManyDevices
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import JsonObject
from emulator.hub.core.slices import Slices
from emulator.hub.core.store import Deletion, Store
from emulator.hub.feed import Feed
from emulator.hub.query.continuations import Page

_BULK = members.Form("mode", "enrollments")
_OWN_ETAG = "updateIfMatchETag"
_MODES = "create", "update", _OWN_ETAG, "delete"


class Enrollments:
    """The enrollments of a service, and what became of their devices."""

    def __init__(self, store: Store, feed: Feed, clock: Clock, slices: Slices) -> None:
        self._store = store
        self._feed = feed
        self._clock = clock
        self._slices = slices
        # How many individual enrollments there are: they can be too many to be counted each time.
        self._individual = len(store.scan(Enrollment, ("individual",)))

    # --- enrollments

    def get(self, identifier: str, *, is_group: bool) -> JsonObject:
        """Return an enrollment without its keys.

        Raises:
            EnrollmentNotFound, EnrollmentGroupNotFound
        """
        return self._document(self._find(identifier, is_group))

    def attestation(self, identifier: str, *, is_group: bool) -> JsonObject:
        """Return the attestation of an enrollment with its keys.

        Raises:
            EnrollmentNotFound, EnrollmentGroupNotFound
        """
        return self._find(identifier, is_group).attestation.document(with_keys=True)

    def put(
        self, identifier: str, body: object, if_match: IfMatch, *, is_group: bool
    ) -> JsonObject:
        """Create an enrollment; with `If-Match` replace it. The answer has its keys.

        Raises:
            EnrollmentAlreadyExists, EnrollmentGroupAlreadyExists: a request without `If-Match` is
                for a new one (azure-iot-sdk-csharp#3076).
            EnrollmentNotFound, EnrollmentGroupNotFound, StaleEtag
            ArgumentInvalid, DeserializationError, MessageTooLarge: the body is invalid.
            TooManyDevices: a limit of the service is reached.
        """
        before = self._store.get(Enrollment, enrollment.key(identifier, is_group=is_group))
        if if_match.absent and before is not None:
            raise (
                errors.EnrollmentGroupAlreadyExists if is_group else errors.EnrollmentAlreadyExists
            )
        if not if_match.absent:
            if before is None and if_match.etag != "*":
                raise _missing(is_group)
            _check_etag(if_match, before)
        written = enrollment.write(identifier, body, before, self._clock.now(), is_group=is_group)
        if before is None:
            self._check_room(written)
        self._store.commit(put=(written,))
        self._individual += before is None and not is_group
        self._publish(written, "enrolled" if before is None else "enrollment changed")
        return self._document(written, with_keys=True)

    def delete(self, identifier: str, if_match: IfMatch, *, is_group: bool) -> None:
        """Delete an enrollment with its registrations; its devices stay in their hubs.

        Raises:
            EnrollmentNotFound, EnrollmentGroupNotFound, StaleEtag
        """
        found = self._find(identifier, is_group)
        _check_etag(if_match, found)
        gone: list[Deletion] = [(Registration, each.key) for each in self._registrations_of(found)]
        self._store.commit(delete=((Enrollment, found.key), *gone))
        self._individual -= not is_group
        self._publish(found, "enrollment deleted")

    def bulk(self, body: object) -> JsonObject:
        """Create, update or delete individual enrollments; each of them alone can fail.

        Raises:
            ArgumentInvalid, DeserializationError: the body is invalid.
        """
        body = members.document(body, _BULK)
        mode, items = members.text(body, "mode"), body.get("enrollments")
        if mode not in _MODES:
            raise ArgumentInvalid(f"Invalid mode: {mode}. Use {', '.join(_MODES)}")
        if not isinstance(items, list) or not 0 < len(items) <= limits.BULK_ENROLLMENTS:
            raise ArgumentInvalid(
                f"enrollments is not a list of 1 to {limits.BULK_ENROLLMENTS} enrollments"
            )
        documents = [members.document(item, enrollment.FORM) for item in items]
        named = [(members.text(each, "registrationId") or "", each) for each in documents]
        failed = []
        for identifier, parsed in named:
            try:
                self._carry_out(mode, identifier, parsed)
            except HubError as error:
                failed.append(
                    {
                        "registrationId": identifier,
                        "errorCode": error.code,
                        "errorStatus": error.text,
                    }
                )
        return {"isSuccessful": not failed, "errors": failed}

    def _carry_out(self, mode: str, identifier: str, item: JsonObject) -> None:
        """Carry out one item of a bulk call."""
        etag = (members.text(item, "etag") or "").strip('"')
        if mode == "delete":
            self.delete(identifier, IfMatch(etag or None), is_group=False)
        elif mode == "create":
            self.put(identifier, item, IfMatch(None), is_group=False)
        else:
            self._find(identifier, is_group=False)
            wanted = etag if mode == _OWN_ETAG else "*"
            self.put(identifier, item, IfMatch(wanted), is_group=False)

    async def query(
        self, text: str, *, is_group: bool, size: int, continuation: str | None
    ) -> Page:
        """Return a page of enrollments without their keys.

        Raises:
            ArgumentInvalid: the query or the continuation is invalid.
        """
        found = self._store.scan(Enrollment, ("group" if is_group else "individual",))
        kind = "EnrollmentGroup" if is_group else "Enrollment"
        return await self._page(found, self._document, kind, text, size, continuation)

    # --- registrations

    def registration(self, identifier: str) -> JsonObject:
        """Return the registration of a device.

        Raises:
            RegistrationNotFound
        """
        return self._registration(identifier).document()

    def delete_registration(self, identifier: str, if_match: IfMatch) -> None:
        """Delete the registration of a device: the next one is its first.

        Raises:
            RegistrationNotFound, StaleEtag
        """
        found = self._registration(identifier)
        if not if_match.allows(found.tag):
            raise errors.StaleEtag
        self._store.commit(delete=((Registration, found.key),))
        self._feed.publish(RegistrationChanged(found.id, "registration deleted"))

    async def query_registrations(
        self, group_id: str, text: str, *, size: int, continuation: str | None
    ) -> Page:
        """Return a page of the registrations of a group.

        Raises:
            EnrollmentGroupNotFound
            ArgumentInvalid: the query or the continuation is invalid.
        """
        found = self._registrations_of(self._find(group_id, is_group=True))
        kind = "DeviceRegistration"
        return await self._page(found, Registration.document, kind, text, size, continuation)

    def _registration(self, identifier: str) -> Registration:
        found = self._store.get(Registration, registration.key(identifier))
        if found is None:
            raise errors.RegistrationNotFound
        return found

    # --- both

    def _publish(self, changed: Enrollment, what: str) -> None:
        self._feed.publish(
            EnrollmentChanged(changed.id, f"{what}, as a group" if changed.is_group else what)
        )

    async def _page(
        self,
        records: Sequence[queries.R],
        write: Callable[[queries.R], JsonObject],
        kind: str,
        text: str,
        size: int,
        continuation: str | None,
    ) -> Page:
        work = await self._slices.begin()
        return await queries.page(
            records, write, kind, text, size=size, continuation=continuation, work=work
        )

    def _find(self, identifier: str, is_group: bool) -> Enrollment:
        found = self._store.get(Enrollment, enrollment.key(identifier, is_group=is_group))
        if found is None:
            raise _missing(is_group)
        return found

    def _document(self, found: Enrollment, *, with_keys: bool = False) -> JsonObject:
        document = found.document(with_keys=with_keys)
        if not found.is_group:
            state = self._store.get(Registration, registration.key(found.id))
            if state is not None:
                document["registrationState"] = state.document()
        return document

    def _registrations_of(self, found: Enrollment) -> list[Registration]:
        if found.is_group:
            group_id = found.id
            every = self._store.scan(Registration)
            return [each for each in every if each.group_id == group_id]
        own = self._store.get(Registration, registration.key(found.id))
        return [] if own is None else [own]

    def _check_room(self, new: Enrollment) -> None:
        if not new.is_group:
            if self._individual >= limits.ENROLLMENTS:
                raise TooManyDevices("The service has reached its limit of enrollments.")
            return
        others = self._store.scan(Enrollment, (new.key[0],))
        with_keys = new.attestation.type == KEY
        alike = [each for each in others if (each.attestation.type == KEY) == with_keys]
        if len(alike) >= limits.GROUPS_OF_A_KIND:
            raise TooManyDevices(
                f"The service has reached its limit of {limits.GROUPS_OF_A_KIND} enrollment "
                "groups of this kind."
            )


def _missing(is_group: bool) -> HubError:
    return errors.EnrollmentGroupNotFound() if is_group else errors.EnrollmentNotFound()


def _check_etag(if_match: IfMatch, found: Enrollment | None) -> None:
    if found is not None and not if_match.allows(found.etag):
        raise errors.StaleEtag
