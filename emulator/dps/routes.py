"""The routes of the Device Provisioning Service: for programs of its owner, and for devices.

DPS REST docs: service and runtime registration. Errors have the form of the service.
"""

from __future__ import annotations

import base64
import functools
import logging
from collections.abc import Awaitable, Callable, Sequence

from aiohttp.web_response import Response, StreamResponse
from msgspec import Struct

from emulator.dps import bodies, limits
from emulator.dps.access import DEVICE_POLICY, Proof
from emulator.dps.entrance import FindToken
from emulator.dps.errors import TpmChallenge, Unauthorized, is_transient
from emulator.dps.names import ID_SCOPE
from emulator.dps.registration import ASSIGNING
from emulator.dps.service import ProvisioningService
from emulator.http.pages import page_request, page_response
from emulator.http.requests import Request, read_body, read_json
from emulator.http.responses import json_response
from emulator.hub.access.operations import Operation
from emulator.hub.core import errors, members
from emulator.hub.core.errors import ArgumentInvalid, HubError
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import JsonObject
from emulator.hub.core.printable import printable
from emulator.net.router import Router
from emulator.net.tls import Handshakes

log = logging.getLogger(__name__)

_QUERY = members.Form("query")
_EVERYTHING = "SELECT *"

Result = JsonObject | StreamResponse | None


class Call(Struct, frozen=True):
    """A request of a service or a device, with what its handler needs."""

    service: ProvisioningService
    handshakes: Handshakes
    session_token: FindToken
    request: Request

    @property
    def id(self) -> str:
        """The id in the path."""
        return self.request.names["id"]

    @property
    def if_match(self) -> IfMatch:
        """The condition on an etag: it comes bare, quoted, and with its own quotes."""
        header = self.request.headers.get("If-Match", "")
        return IfMatch.parse(header.replace('"', ""))

    @property
    def owner_token(self) -> str | None:
        """The SAS token of a program of the owner, or of the session of the page."""
        token = self.request.headers.get("Authorization")
        if token is None and "Cookie" in self.request.headers:
            return self.session_token(self.request)
        return token

    @property
    def proof(self) -> Proof:
        """The credentials of a device."""
        tls = self.request.get_extra_info("ssl_object")
        certificate = self.handshakes.client_certificate(tls)
        token = self.request.headers.get("Authorization")
        return Proof(token, certificate, self.handshakes.client_chain(tls))


Handler = Callable[[Call], Awaitable[Result]]


async def answer(
    service: ProvisioningService,
    handshakes: Handshakes,
    session_token: FindToken,
    request: Request,
    segments: Sequence[str],
) -> StreamResponse:
    """Answer a request whose path is the service's.

    Args:
        service: the service.
        handshakes: the handshakes of TLS, with the certificates of devices.
        session_token: returns the SAS token of a request with a cookie of the page.
        request: the request.
        segments: its path, decoded.
    """
    call = Call(service, handshakes, session_token, request)
    try:
        found = list(_router().find(segments))
        for each in found:
            if (route := each.verbs.get(request.method)) is not None:
                request.names = each.names
                result = await route(call, segments)
                if isinstance(result, StreamResponse):
                    return result
                return Response(status=204) if result is None else json_response(result)
        if not found:
            raise errors.GenericNotFound(f"The path {request.path} is unknown")
        raise errors.GenericMethodNotAllowed(f"{request.method} is not allowed here")
    except HubError as error:
        return _refusal(call, error)
    except Exception:
        log.exception("%r %r failed", request.method, request.path)
        return _refusal(call, errors.ServerError())


def _refusal(call: Call, error: HubError) -> Response:
    reason = error.__cause__ or error
    verb, path = call.request.method, call.request.path
    call.service.registrations.refusals.info(
        "Refused %s %r: %s", printable(verb), path, printable(reason), error=error
    )
    document = errors.error_document(error, call.service.clock.now())
    if document["info"] is None:
        del document["info"]
    headers = {"x-ms-error-code": str(error.code)}
    if is_transient(error):
        headers["Retry-After"] = str(limits.RETRY_AFTER)
    is_dropped = isinstance(error, errors.ConnectionForcefullyClosedOnFaultInjection)
    if is_dropped and call.request.transport is not None:
        call.request.transport.abort()  # the answer is not sent
    return json_response(document, status=error.status, headers=headers)


# --- programs of the owner


def _for_owner(
    operation: Operation, handler: Handler
) -> Callable[[Call, Sequence[str]], Awaitable[Result]]:
    async def checked(call: Call, segments: Sequence[str]) -> Result:
        host = call.request.host
        call.service.access.check_service(call.owner_token, segments, host, operation.right)
        _check_version(call.request)
        call.service.meter.enter(operation)
        return await handler(call)

    return checked


async def _get(call: Call, *, is_group: bool) -> JsonObject:
    return call.service.enrollments.get(call.id, is_group=is_group)


async def _put(call: Call, *, is_group: bool) -> JsonObject:
    body = await read_json(call.request)
    return call.service.enrollments.put(call.id, body, call.if_match, is_group=is_group)


async def _delete(call: Call, *, is_group: bool) -> None:
    call.service.enrollments.delete(call.id, call.if_match, is_group=is_group)


async def _attestation(call: Call, *, is_group: bool) -> JsonObject:
    return call.service.enrollments.attestation(call.id, is_group=is_group)


async def _query(call: Call, *, is_group: bool) -> Response:
    text, size, continuation = await _query_request(call.request)
    return page_response(
        await call.service.enrollments.query(
            text, is_group=is_group, size=size, continuation=continuation
        )
    )


async def _bulk(call: Call) -> JsonObject:
    return call.service.enrollments.bulk(await read_json(call.request))


async def _get_registration(call: Call) -> JsonObject:
    return call.service.enrollments.registration(call.id)


async def _delete_registration(call: Call) -> None:
    call.service.enrollments.delete_registration(call.id, call.if_match)


async def _query_registrations(call: Call) -> Response:
    # The REST API has no body here, and az sends none.
    text, size, continuation = await _query_request(call.request, required=False)
    return page_response(
        await call.service.enrollments.query_registrations(
            call.id, text, size=size, continuation=continuation
        )
    )


async def _query_request(request: Request, *, required: bool = True) -> tuple[str, int, str | None]:
    """Return the query, the size of a page, and the token of the page.

    Args:
        request: the request.
        required: whether it must have a query.

    Raises:
        ArgumentInvalid: the query is missing, or the size is invalid.
    """
    body = await read_json(request, optional=True)
    if body is None and not required:
        text: str | None = _EVERYTHING
    else:
        text = members.text(members.document(body, _QUERY), "query")
    if not text:
        raise ArgumentInvalid("The body has no query")
    return text, *page_request(request, limits.QUERY_PAGE)


# --- devices


def _for_device(handler: Handler) -> Callable[[Call, Sequence[str]], Awaitable[Result]]:
    async def checked(call: Call, segments: Sequence[str]) -> Result:
        scope = call.request.names["scope"]
        if scope.lower() != ID_SCOPE.lower():
            raise Unauthorized from ValueError(f"the id scope is {scope!r}, not {ID_SCOPE}")
        _check_version(call.request)
        return await handler(call)

    return checked


async def _register(call: Call) -> Response:
    body = await _device_body(call.request)
    try:
        pending = call.service.registrations.register(call.id, call.proof, body)
    except TpmChallenge as challenge:
        # The SDKs read these three members, in place of an error.
        key = base64.b64encode(challenge.sealed).decode()
        document = {"message": "Unauthorized", "authenticationKey": key, "keyName": DEVICE_POLICY}
        return json_response(document, status=challenge.status)
    location = (
        f"https://{call.request.host}/{ID_SCOPE}/registrations/{call.id}/operations/"
        f"{pending['operationId']}"
    )
    return _pending(pending, {"Location": location})


async def _status(call: Call) -> Response:
    operation_id = call.request.names["operation_id"]
    state = call.service.registrations.status(call.id, call.proof, operation_id)
    return _pending(state, {}) if state["status"] == ASSIGNING else json_response(state)


async def _look_up(call: Call) -> JsonObject:
    body = await _device_body(call.request)
    return call.service.registrations.look_up(call.id, call.proof, body)


async def _device_body(request: Request) -> object:
    return bodies.parse(await read_body(request))


def _pending(state: JsonObject, headers: dict[str, str]) -> Response:
    headers = {**headers, "Retry-After": str(limits.RETRY_AFTER)}
    return json_response(state, status=202, headers=headers)


# --- all


def _check_version(request: Request) -> None:
    """Check that an api-version is named; the SDKs send many, also of the future.

    Raises:
        InvalidProtocolVersion
    """
    if not any(name.lower() == "api-version" and value for name, value in request.query.items()):
        raise errors.InvalidProtocolVersion


@functools.cache
def _router() -> Router[Callable[[Call, Sequence[str]], Awaitable[Result]]]:
    router: Router[Callable[[Call, Sequence[str]], Awaitable[Result]]] = Router()
    for family, is_group in (("/enrollments", False), ("/enrollmentGroups", True)):
        for verb, tail, operation, handler in (
            ("GET", "/{id}", Operation.READ_ENROLLMENT, _get),
            ("PUT", "/{id}", Operation.WRITE_ENROLLMENT, _put),
            ("DELETE", "/{id}", Operation.WRITE_ENROLLMENT, _delete),
            # Ours: which right shows keys is unknown.
            ("POST", "/{id}/attestationmechanism", Operation.READ_ENROLLMENT, _attestation),
            ("POST", "/query", Operation.READ_ENROLLMENT, _query),
        ):
            served = functools.partial(handler, is_group=is_group)
            router.add(verb, family + tail, _for_owner(operation, served))
    for verb, path, operation, own in (
        ("POST", "/enrollments", Operation.WRITE_ENROLLMENT, _bulk),
        ("GET", "/registrations/{id}", Operation.READ_REGISTRATION, _get_registration),
        ("DELETE", "/registrations/{id}", Operation.DELETE_REGISTRATION, _delete_registration),
        ("POST", "/registrations/{id}/query", Operation.READ_REGISTRATION, _query_registrations),
    ):
        router.add(verb, path, _for_owner(operation, own))
    device = "/{scope}/registrations/{id}"
    router.add("PUT", f"{device}/register", _for_device(_register))
    router.add("GET", f"{device}/operations/{{operation_id}}", _for_device(_status))
    router.add("POST", device, _for_device(_look_up))
    return router
