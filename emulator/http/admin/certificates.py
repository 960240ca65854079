"""The CAs that are registered with the hub: `/_emulator/certificates`.

On a real hub these are routes of Azure Resource Manager, with the same documents
(`Microsoft.Devices/IotHubs/certificates`). There, a change of an existing one needs an etag.
"""

from __future__ import annotations

from aiohttp.web_response import Response

from emulator.http.admin.parameters import check_parameters
from emulator.http.requests import Request, if_match, read_json
from emulator.http.responses import json_response
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core.json import JsonObject
from emulator.hub.hub import IotHub


async def list_certificates(hub: IotHub, request: Request) -> JsonObject:
    """`GET /_emulator/certificates`: 200 with `{"value": [certificate, …]}`."""
    check_parameters(request)
    return {"value": hub.authorities.documents()}


async def get_certificate(hub: IotHub, request: Request) -> JsonObject:
    """`GET /_emulator/certificates/{name}`: 200 with a certificate."""
    check_parameters(request)
    return hub.authorities.get(request.names["name"])


async def put_certificate(hub: IotHub, request: Request) -> Response:
    """`PUT /_emulator/certificates/{name}`: register a CA, 201, or change it, 200.

    The body is `{"properties": {"certificate", "isVerified"}}`.
    """
    check_parameters(request)
    body, name = await read_json(request), request.names["name"]
    status = 200 if hub.authorities.has(name) else 201
    return json_response(hub.authorities.put(name, body, if_match(request)), status=status)


async def delete_certificate(hub: IotHub, request: Request) -> None:
    """`DELETE /_emulator/certificates/{name}`: remove a CA; 204."""
    check_parameters(request)
    hub.authorities.delete(request.names["name"], if_match(request))


async def generate_code(hub: IotHub, request: Request) -> JsonObject:
    """`POST /_emulator/certificates/{name}/generateVerificationCode`: 200 with the code."""
    check_parameters(request)
    return hub.authorities.generate_code(request.names["name"], if_match(request))


async def verify(hub: IotHub, request: Request) -> JsonObject:
    """`POST /_emulator/certificates/{name}/verify`: 200 with the verified certificate.

    The body is `{"certificate"}`, a certificate of the CA with the code as its common name.
    """
    check_parameters(request)
    body = await read_json(request)
    return hub.authorities.verify(request.names["name"], body, if_match(request))


_READ, _WRITE = Operation.READ_AUTHORITIES, Operation.WRITE_AUTHORITIES
_ALL = "/_emulator/certificates"
_ONE = _ALL + "/{name}"

ROUTES = tuple(
    Route(verb, path, operation, handler, versioned=False)
    for verb, path, operation, handler in (
        ("GET", _ALL, _READ, list_certificates),
        ("GET", _ONE, _READ, get_certificate),
        ("PUT", _ONE, _WRITE, put_certificate),
        ("DELETE", _ONE, _WRITE, delete_certificate),
        ("POST", _ONE + "/generateVerificationCode", _WRITE, generate_code),
        ("POST", _ONE + "/verify", _WRITE, verify),
    )
)
