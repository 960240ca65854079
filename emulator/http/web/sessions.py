"""The sessions of the page: a user signs in with the key of a policy, and gets a cookie.

A session holds a SAS token of its policy, as a service has one. It stands in for the header
`Authorization` of a request that comes from the page. So the gate checks each request of the page
as that of any service, with the rights of the policy.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Collection, Mapping

from aiohttp.web_response import Response

from emulator.connection_strings import sign
from emulator.http.requests import Request, read_json
from emulator.http.responses import json_response
from emulator.http.web.origin import check_host, check_page
from emulator.http.web.static import SAFE
from emulator.hub.access.keys import decode_key
from emulator.hub.access.policies import OF_THE_HUB, Policy, Right
from emulator.hub.core import members
from emulator.hub.core.clock import TimeSource
from emulator.hub.core.errors import ArgumentInvalid, IotHubUnauthorizedAccess
from emulator.hub.core.json import JsonObject

# A session ends this long after its sign-in.
_SESSION_SECONDS = 8 * 3600
# Beyond so many, the oldest session ends.
_SESSIONS = 100
# A token is short-lived: a new one is made when less than half of this is left.
_TOKEN_SECONDS = 600

_FORM = members.Form("key", "knownKey", closed=True)
_SHOWN = 100  # characters of a value that an error repeats


class Session:
    """The session of a user, with the rights of a policy.

    Args:
        policy: the policy.
        audience: the name of the hub, for which its tokens are.
        clock: the clock of the machine, by which tokens that arrive are judged.
    """

    def __init__(self, policy: Policy, audience: str, clock: TimeSource) -> None:
        self.policy = policy
        self._audience = audience
        self._clock = clock
        self._end = clock.monotonic() + _SESSION_SECONDS
        self._token, self._expiry = "", 0

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._clock.monotonic() >= self._end

    def end(self) -> None:
        """End it: no further request has its rights, and its streams end."""
        self._end = self._clock.monotonic()

    @property
    def is_owner(self) -> bool:
        """Whether it has every right of the hub."""
        return all(self.policy.allows(each) for each in OF_THE_HUB)

    def token(self) -> str:
        """Return a SAS token of the policy, which is valid for some minutes."""
        now = int(self._clock.now().timestamp())
        if self._expiry - now < _TOKEN_SECONDS / 2:
            self._expiry = now + _TOKEN_SECONDS
            self._token = _sign(self._audience, self.policy, self._expiry)
        return self._token

    def owner_token(self, policy: Policy) -> str | None:
        """Return a SAS token of a policy of another service; None if this is not an owner's.

        An owner has the keys of that policy in any case: they are in the snapshot of the hub.
        """
        expiry = int(self._clock.now().timestamp()) + _TOKEN_SECONDS
        return _sign(self._audience, policy, expiry) if self.is_owner else None

    def document(self, host_name: str) -> JsonObject:
        """Return what the page shows of it; it needs the hub's name for connection strings."""
        rights = [each for each in Right if self.policy.allows(each)]
        return {
            "hostName": host_name,
            "policy": self.policy.name,
            "rights": [
                str(each.name).replace("_", " ").title().replace(" ", "") for each in rights
            ],
        }


class Sessions:
    """The sessions of a hub, by the secret in the cookie of each; they end with the hub.

    Args:
        policies: returns the present shared access policies.
        names: the names of the hub.
        clock: the clock of the machine.
    """

    def __init__(
        self,
        policies: Callable[[], Mapping[str, Policy]],
        names: Collection[str],
        clock: TimeSource,
    ) -> None:
        self._policies = policies
        self._names = names
        self._clock = clock
        self._sessions: dict[bytes, Session] = {}

    def check(self, request: Request, *, changes: bool = False) -> None:
        """Check that a request comes from the page of this hub.

        Raises:
            GenericForbidden
        """
        check_host(request, self._names)
        check_page(request, changes=changes)

    def token(self, request: Request) -> str | None:
        """Return the SAS token of the session of a request; None without one.

        Raises:
            GenericForbidden: another page has sent the request.
        """
        session = self._find_checked(request)
        return None if session is None else session.token()

    def owner_token(self, request: Request, policy: Policy) -> str | None:
        """Return a SAS token of a policy of another service: see `Session.owner_token`.

        Raises:
            GenericForbidden: another page has sent the request.
        """
        session = self._find_checked(request)
        return None if session is None else session.owner_token(policy)

    def _find_checked(self, request: Request) -> Session | None:
        session = self.find(request)
        if session is not None:
            self.check(request, changes=request.method not in ("GET", "HEAD"))
        return session

    def begin(self, request: Request, policy: Policy) -> tuple[Session, str]:
        """Begin a session; return it with the cookie to set."""
        self.end(request)
        for secret in [each for each, session in self._sessions.items() if session.over]:
            del self._sessions[secret]
        while len(self._sessions) >= _SESSIONS:
            self._sessions.pop(next(iter(self._sessions))).end()
        session = Session(policy, next(iter(self._names)), self._clock)
        value = secrets.token_urlsafe(32)
        self._sessions[_digest(value)] = session
        return session, _cookie(request, value, _SESSION_SECONDS)

    def find(self, request: Request) -> Session | None:
        """Return the session of a request, if it has one that has not ended."""
        value = _cookie_value(request)
        session = self._sessions.get(_digest(value)) if value else None
        if session is None or session.over:
            return None
        # A hub that was restored can have other keys.
        return session if self._policies().get(session.policy.name) == session.policy else None

    def end(self, request: Request) -> str:
        """End the session of a request, if it has one; return the cookie that deletes its own."""
        if (value := _cookie_value(request)) and (
            session := self._sessions.pop(_digest(value), None)
        ):
            session.end()
        return _cookie(request, "", 0)


async def read_credentials(
    request: Request, policies: Mapping[str, Policy], owner: Policy | None
) -> Policy:
    """Return the policy whose key a request to sign in has.

    The body is `{"key": "…"}`, with a key or a connection string, or `{"knownKey": true}`.

    Args:
        request: the request.
        policies: the policies of the hub.
        owner: the policy of the well-known key; None if that key is not in use.

    Raises:
        ArgumentInvalid: the body names no policy.
        IotHubUnauthorizedAccess: the key is wrong.
        DeserializationError, MessageTooLarge, ClientClosedRequest
    """
    body = members.document(await read_json(request), _FORM)
    if body.get("knownKey") is True:
        if owner is not None:
            return owner
        raise IotHubUnauthorizedAccess(
            "The well-known keys are not in use here. Sign in with the key of a policy"
        )
    text = (members.text(body, "key") or "").strip()
    if not text:
        raise ArgumentInvalid("The key is missing. Paste a key or a connection string")
    fields = _fields(text)
    if fields is None:
        return _policy_of_key(text, policies.values())
    name = fields.get("sharedaccesskeyname")
    if name is None:
        kind = "a device" if "deviceid" in fields else "no policy"
        raise ArgumentInvalid(
            f"This is the connection string of {kind}. Use that of a policy: "
            "HostName=...;SharedAccessKeyName=iothubowner;SharedAccessKey=..."
        )
    policy = policies.get(name)
    if policy is None:
        raise IotHubUnauthorizedAccess(
            f"Unknown policy '{name[:_SHOWN]}'. This hub has {', '.join(policies)}"
        )
    return _policy_of_key(fields.get("sharedaccesskey", ""), [policy])


def session_response(document: JsonObject, cookie: str | None = None) -> Response:
    """Return an answer about the session."""
    headers = dict(SAFE) if cookie is None else {**SAFE, "Set-Cookie": cookie}
    return json_response(document, headers=headers)


def _fields(text: str) -> dict[str, str] | None:
    """Return the fields of a connection string, in lower case; None if a text is a key alone."""
    parts = [part.partition("=") for part in text.split(";") if part.strip()]
    fields = {name.strip().lower(): value.strip() for name, _, value in parts}
    return fields if fields.keys() & {"hostname", "sharedaccesskeyname", "endpoint"} else None


def _policy_of_key(key: str, policies: Collection[Policy]) -> Policy:
    """Return the first policy with a key; the time shows nothing about the right one."""
    found = [
        policy
        for policy in policies
        for each in (policy.keys.primary, policy.keys.secondary)
        if hmac.compare_digest(each.encode(), key.encode())
    ]
    if not found:
        names = ", ".join(policy.name for policy in policies)
        raise IotHubUnauthorizedAccess(
            f"Wrong key for {names}. The window of the hub shows the right one: "
            "IOTHUB_CONNECTION_STRING"
        )
    return found[0]


def _sign(audience: str, policy: Policy, expiry: int) -> str:
    return sign(audience, decode_key(policy.keys.primary), expiry, policy.name)


def _digest(value: str) -> bytes:
    # The search for a session compares digests, so its time shows nothing about a secret.
    return hashlib.sha256(value.encode(errors="replace")).digest()


def _cookie_name(request: Request) -> str:
    """Return the name of the cookie; hubs on other ports of a host have others.

    A browser takes a name with this prefix only from the host itself, over HTTPS, for all paths
    (RFC 6265bis).
    """
    port = request.host.rpartition(":")[2]
    return f"__Host-iothub-{port if port.isascii() and port.isdigit() else 443}"


def _cookie(request: Request, value: str, seconds: int) -> str:
    name = _cookie_name(request)
    return f"{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; Secure; SameSite=Strict"


def _cookie_value(request: Request) -> str | None:
    # Not http.cookies: it reads nothing if another server on this host name has set a cookie that
    # browsers send, but no standard allows, such as one with JSON (RFC 6265, section 5.4).
    wanted = _cookie_name(request)
    for each in request.headers.get("Cookie", "").split(";"):
        name, _, value = each.strip().partition("=")
        if name == wanted:
            return value
    return None
