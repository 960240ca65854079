"""A service over plain HTTPS, with the standard library alone: for the command and for test kits.

Every failure is a `ClientError` with one line that says what to do.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import json
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from msgspec import Struct

from emulator.connection_strings import fields_of, sign
from emulator.errors import ClientError, ConnectionStringError
from emulator.program import program

API_VERSION = "2021-04-12"

_TOKEN_SECONDS = 3600
# A stream is silent for at most 15 s: see `/_emulator/events`.
_TIMEOUT_SECONDS = 60.0
_FORM = "HostName=<host>;SharedAccessKeyName=<policy>;SharedAccessKey=<key>"
# `ErrorCode:DeviceNotFound;text`, the usual form of an error of the service.
_ERROR = re.compile(r"(?:ErrorCode:)?(?P<code>\w+);(?P<text>.*)", re.DOTALL)
_ERROR_HEADERS = "iothub-errorcode", "x-ms-error-code"
_UNAUTHORIZED = 401
# Those of a hub without --host.
_DEFAULT_ADDRESSES = ("127.0.0.1", "::1")
_SHOWN = 300  # characters of an answer that is not in this form


class Response(Struct, frozen=True):
    """The answer to a request."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the document in the body; None without a body.

        Raises:
            ClientError: the body is not JSON.
        """
        try:
            return json.loads(self.body) if self.body else None
        except (ValueError, RecursionError):
            shown = self.body[:_SHOWN].decode(errors="replace")
            raise ClientError(f"The answer is not JSON: {shown!r}.", status=self.status) from None


class Client:
    """A service with the rights of a connection string; one connection for each request.

    Args:
        connection_string: `HostName=…;SharedAccessKeyName=…;SharedAccessKey=…`.
        trust: a PEM file of certificates to trust beside those of the system and of SSL_CERT_FILE.
        timeout: how many seconds an answer, and each part of it, may take.
        certificate: the files of a client's certificate and of its key, and the passphrase of the
            key or None.
        source: the option or the variable that has the connection string; "" without any.

    Raises:
        ConnectionStringError: it is malformed.
        ClientError: a file can't be read.
    """

    def __init__(
        self,
        connection_string: str,
        *,
        trust: Path | None = None,
        timeout: float = _TIMEOUT_SECONDS,
        certificate: tuple[str, str, str | None] | None = None,
        source: str = "",
    ) -> None:
        fields = fields_of(connection_string)
        try:
            self.host = fields["HostName"]
            self.policy, self.key = fields["SharedAccessKeyName"], fields["SharedAccessKey"]
            base64.b64decode(self.key, validate=True)
            self._address, self._port = _address(self.host)
        except (KeyError, ValueError):
            text = f"Invalid connection string of a service. Use {_FORM}."
            raise ConnectionStringError(text) from None
        self.connection_string = connection_string
        self.trust = trust
        self._timeout = timeout
        self._source = source
        self._context = self.tls_context()
        if certificate is not None:
            _show(certificate, self._context)

    def get(self, path: str, **parameters: str) -> Any:
        """Return the document at a path.

        Raises:
            ClientError
        """
        return self.request("GET", path, parameters=parameters).json()

    def post(self, path: str, body: object = None, **parameters: str) -> Any:
        """Post a document, or bytes; return the document in the answer.

        Raises:
            ClientError
        """
        return self.request("POST", path, body, parameters=parameters).json()

    def request(
        self,
        verb: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str | None] | None = None,
        parameters: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request, and return the answer.

        Args:
            verb: the HTTP method.
            path: the path, encoded.
            body: a document for JSON; bytes as they are; None for no body.
            headers: further headers; None leaves out one of every request.
            parameters: parameters for the query of the URL, beside the api-version.

        Raises:
            ClientError: the hub can't be reached, or refuses the request.
        """
        with self._sent(verb, path, body, headers or {}, parameters or {}) as answer:
            return Response(answer.status, dict(answer.headers), answer.read())

    def stream(self, path: str, **parameters: str) -> Iterator[Any]:
        """Return the documents of server-sent events as they come, without an end.

        Raises:
            ClientError
        """
        accept = {"Accept": "text/event-stream"}
        with self._sent("GET", path, None, accept, parameters) as answer:
            for line in answer:
                if line.startswith(b"data:"):
                    yield json.loads(line[len(b"data:") :])

    def token(self, lifetime: float = _TOKEN_SECONDS) -> str:
        """Return a SAS token for the hub."""
        return sas_token(self.host, self.key, lifetime, self.policy)

    def tls_context(self) -> ssl.SSLContext:
        """Return a new TLS context that trusts what this client trusts.

        Raises:
            ClientError: the file of certificates can't be read.
        """
        context = ssl.create_default_context()
        if self.trust is not None:
            try:
                context.load_verify_locations(self.trust)
            except (OSError, ssl.SSLError) as error:
                raise ClientError(
                    f"Can't read the certificates in {self.trust}: {error}."
                ) from None
        return context

    @contextmanager
    def _sent(
        self,
        verb: str,
        path: str,
        body: object,
        headers: Mapping[str, str | None],
        parameters: Mapping[str, str],
    ) -> Iterator[http.client.HTTPResponse]:
        query = urlencode({"api-version": API_VERSION, **parameters})
        content, kind = _encode(body)
        sent = {"Authorization": self.token(), "Host": self.host, **kind, **headers}
        connection = http.client.HTTPSConnection(
            self._address, self._port, timeout=self._timeout, context=self._context
        )
        try:
            connection.request(
                verb,
                f"{path}?{query}",
                body=content,
                headers={name: value for name, value in sent.items() if value is not None},
            )
            answer = connection.getresponse()
            if answer.status >= 400:
                # The second is that of the Device Provisioning Service: a number.
                code = next(filter(None, map(answer.headers.get, _ERROR_HEADERS)), "")
                refusal = _refusal(self.host, path, answer.status, code, answer.read())
                raise self._what_to_check(refusal)
            yield answer
        except (OSError, http.client.HTTPException) as error:
            raise ClientError(self._explain(error)) from error
        finally:
            connection.close()

    def _explain(self, error: Exception) -> str:
        where = f"Can't reach the hub at {self.host}"
        if isinstance(error, ssl.SSLCertVerificationError):
            return (
                f"{where}: its certificate is not trusted ({error.verify_message}). Set "
                "SSL_CERT_FILE to the ca-bundle.pem of the hub."
            )
        if isinstance(error, ConnectionRefusedError):
            return f"{where}: connection refused. Start it: {program()}{self._host_option()}"
        if isinstance(error, socket.gaierror):
            return (
                f"{where}: {error.strerror}. Use a name or an address of the hub that this machine "
                "can resolve."
            )
        if isinstance(error, TimeoutError):
            return f"{where}: no answer within {self._timeout:g} s."
        reason = error.strerror if isinstance(error, OSError) else None
        return f"{where}: {reason or error or type(error).__name__}."

    def _host_option(self) -> str:
        """Return the option with which a hub has this address; "" for the default one."""
        try:
            address = ipaddress.ip_address(self._address)
        except ValueError:
            return ""  # a name: localhost, or that of another machine
        return "" if self._address in _DEFAULT_ADDRESSES else f" --host {address}"

    def _what_to_check(self, error: ClientError) -> ClientError:
        """Return a refusal with what to do, if a user gave the key that was refused."""
        if error.status != _UNAUTHORIZED or not self._source:
            return error
        text = f"{error} Check {self._source}; the window of a local hub says why."
        return ClientError(text, status=error.status, code=error.code)


def _show(certificate: tuple[str, str, str | None], context: ssl.SSLContext) -> None:
    """Show a client's certificate in handshakes.

    Raises:
        ClientError: a file can't be read, or is wrong.
    """
    file, key, passphrase = certificate
    try:
        # Without a passphrase, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(file, key, passphrase or "")
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or error
        raise ClientError(
            f"Can't use the certificate {file} with the key {key}: {reason}."
        ) from None


def sas_token(resource: str, key: str, lifetime: float, policy: str | None = None) -> str:
    """Return a SAS token (IoT Hub docs: control access with SAS).

    Args:
        resource: the host of the hub, with the path of a device or a module if it is theirs.
        key: the key, base64.
        lifetime: in seconds.
        policy: the policy that has the key; None for the key of a device or a module.

    Raises:
        ClientError: the key is not base64.
    """
    try:
        secret = base64.b64decode(key, validate=True)
    except ValueError:
        raise ClientError("Invalid key: it is not base64.") from None
    return sign(resource, secret, int(time.time() + lifetime), policy)


def _address(host: str) -> tuple[str, int]:
    """Return the name and the port of a host; raise ValueError if it is malformed."""
    parts = urlsplit(f"//{host}")
    if not parts.hostname or parts.path:
        raise ValueError(host)
    return parts.hostname, parts.port or 443


def _encode(body: object) -> tuple[bytes | None, dict[str, str]]:
    """Return the bytes of a body, and its header."""
    if body is None:
        return None, {}
    if isinstance(body, bytes):
        return body, {"Content-Type": "application/octet-stream"}
    return json.dumps(body).encode(), {"Content-Type": "application/json; charset=utf-8"}


def _refusal(host: str, path: str, status: int, code: str, body: bytes) -> ClientError:
    text = body[:_SHOWN].decode(errors="replace")
    with suppress(ValueError, TypeError, AttributeError):
        text = _message(body) or text
        # For direct methods, the text is a document of its own.
        text = _message(text) or text
    if found := _ERROR.fullmatch(text):
        code, text = code or found["code"], found["text"]
    if path.startswith("/_emulator/") and not code and status in (404, 405):
        return ClientError(f"{host} is not an emulator, or an older one: no {path}.", status=status)
    line = " ".join(text.split()).rstrip(".")
    reason = f"{status} {code}".rstrip()
    return ClientError(f"{host} answers {reason}: {line}.", status=status, code=code)


def _message(document: bytes | str) -> str:
    fields = json.loads(document)
    return str(fields.get("Message") or fields.get("message") or "")
