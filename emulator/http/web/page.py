"""The page at `/`, by which a person sees the hub live.

A start imports this module alone; the others are imported when the first browser comes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

from aiohttp.web_response import Response, StreamResponse

from emulator.http.requests import Request, read_json
from emulator.http.route import Result, Route
from emulator.hub.access.operations import Operation
from emulator.hub.access.policies import Policy
from emulator.hub.core.json import JsonObject
from emulator.hub.hub import IotHub

if TYPE_CHECKING:
    from emulator.http.web.live import Recorder
    from emulator.http.web.sessions import Session, Sessions

_PAGE = "/_page"
_SESSION = "/_page/session"
# The policy of one click: it has every right.
_OWNER = "iothubowner"


class Provisioning(NamedTuple):
    """The Device Provisioning Service that shares the ports of the hub.

    Args:
        id_scope: its id scope.
        policy: returns its present policy, which has every right there.
    """

    id_scope: str
    policy: Callable[[], Policy]


class Page:
    """The page of a hub, with the sessions of its users.

    Args:
        policies: returns the present shared access policies; a user signs in with a key of one.
        names: the names of the hub, by which a browser can reach it beside loopback addresses.
        host_name: the host that device connection strings name.
        known_key: the key that signs in by one click where it is in use; None offers this never.
        provisioning: the Device Provisioning Service; None if the hub has none.
    """

    def __init__(
        self,
        policies: Callable[[], Mapping[str, Policy]],
        names: Collection[str],
        *,
        host_name: str,
        known_key: str | None,
        provisioning: Provisioning | None,
    ) -> None:
        self._policies = policies
        self._names = names
        self._known_key = known_key
        self._host_name = host_name
        self._provisioning = provisioning
        self._sessions: Sessions | None = None
        self._recorder: Recorder | None = None

    @property
    def routes(self) -> tuple[Route, ...]:
        """The routes of the page; the gate checks those that show the hub."""
        watch = Operation.OBSERVE
        return (
            Route("GET", "/", None, self._index, versioned=False),
            Route("GET", f"{_PAGE}/{{file}}", None, self._file, versioned=False),
            Route("GET", _SESSION, None, self._about_session, versioned=False),
            Route("POST", _SESSION, None, self._sign_in, versioned=False),
            Route("DELETE", _SESSION, None, self._sign_out, versioned=False),
            Route("GET", "/_emulator/changes", watch, self._changes, versioned=False),
            Route("GET", "/_emulator/refusals", watch, _refusals, versioned=False),
            Route("POST", "/_page/protocols", watch, _protocols, versioned=False),
            Route("POST", "/_page/search", Operation.QUERY, _search, versioned=False),
        )

    def token(self, request: Request) -> str | None:
        """Return the SAS token of the session that the cookie of a request names; None without one.

        Raises:
            GenericForbidden: another page has sent the request.
        """
        return None if self._sessions is None else self._sessions.token(request)

    def provisioning_token(self, request: Request) -> str | None:
        """Return the SAS token of a request's session for the Device Provisioning Service.

        None without a session, and for one that has not every right of the hub.

        Raises:
            GenericForbidden: another page has sent the request.
        """
        if self._sessions is None or self._provisioning is None:
            return None
        return self._sessions.owner_token(request, self._provisioning.policy())

    def follow(self, hub: IotHub) -> None:
        """Show another hub, which is in the place of the one before: streams begin anew."""
        if self._recorder is not None:
            self._recorder.over = True
            self._recorder = None

    # --- files

    async def _index(self, _: IotHub, request: Request) -> Response:
        """`GET /`: the page."""
        return self._serve(request, "index.html")

    async def _file(self, _: IotHub, request: Request) -> Response:
        """`GET /_page/{file}`: a module, the style or the icon of the page."""
        return self._serve(request, request.names["file"])

    def _serve(self, request: Request, name: str) -> Response:
        from emulator.http.web.origin import check_host
        from emulator.http.web.static import serve

        check_host(request, self._names)
        return serve(name)

    # --- the session

    def _open_sessions(self, hub: IotHub) -> Sessions:
        from emulator.http.web.sessions import Sessions

        if self._sessions is None:
            self._sessions = Sessions(self._policies, self._names, hub.clock.machine)
        return self._sessions

    @property
    def _offers_known_key(self) -> bool:
        return self._policies()[_OWNER].keys.primary == self._known_key

    def _about(self, session: Session | None) -> JsonObject:
        about: JsonObject = {"signedIn": session is not None, "knownKey": self._offers_known_key}
        if session is None:
            return about
        provisioning = self._provisioning if session.is_owner else None
        id_scope = None if provisioning is None else provisioning.id_scope
        return about | session.document(self._host_name) | {"idScope": id_scope}

    async def _about_session(self, hub: IotHub, request: Request) -> Response:
        """`GET /_page/session`: 200 with what the page needs to begin."""
        from emulator.http.web.sessions import session_response

        sessions = self._open_sessions(hub)
        sessions.check(request)
        return session_response(self._about(sessions.find(request)))

    async def _sign_in(self, hub: IotHub, request: Request) -> Response:
        """`POST /_page/session`: sign in with `{"key"}`, or `{"knownKey": true}`; 200."""
        from emulator.http.web.sessions import read_credentials, session_response

        sessions = self._open_sessions(hub)
        sessions.check(request, changes=True)
        owner = self._policies()[_OWNER] if self._offers_known_key else None
        policy = await read_credentials(request, self._policies(), owner)
        session, cookie = sessions.begin(request, policy)
        return session_response(self._about(session), cookie)

    async def _sign_out(self, hub: IotHub, request: Request) -> Response:
        """`DELETE /_page/session`: sign out; 200."""
        from emulator.http.web.sessions import session_response

        sessions = self._open_sessions(hub)
        sessions.check(request, changes=True)
        return session_response({"signedIn": False}, sessions.end(request))

    # --- what happens

    async def _changes(self, hub: IotHub, request: Request) -> StreamResponse:
        """`GET /_emulator/changes?device=id&module=id`: server-sent events, see docs/page.md."""
        from emulator.http.web.live import Recorder, stream

        if self._recorder is None:
            self._recorder = Recorder(hub)
        session = None if self._sessions is None else self._sessions.find(request)
        return await stream(self._recorder, request, session)


async def _refusals(hub: IotHub, _: Request) -> Result:
    """`GET /_emulator/refusals`: 200 with an array of the last refusals, the newest last."""
    from emulator.http.web.changes import document

    return [document(each, each.time) for each in hub.refusals.recent]


async def _protocols(hub: IotHub, request: Request) -> Result:
    """`POST /_page/protocols`: `{"ids": ["device", "device/module"]}`; 200 with the protocols.

    The answer has the protocol of each that is connected: `{"device": "MQTT"}`.
    """
    from emulator.http.web.protocols import protocols

    return protocols(hub, await read_json(request))


async def _search(hub: IotHub, request: Request) -> Response:
    """`POST /_page/search`: `{"query": "SELECT …", "id": "part of an id"}`; 200 with rows.

    It answers as `POST /devices/query`, in pages, with the rows whose id has this part.
    """
    from emulator.http.web.search import search

    return await search(hub, request)
