"""Sign-in, sessions, and what no other page can do."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator import Emulator
from emulator.http.web import static
from emulator.http.web.sessions import Session
from emulator.hub.access.policies import DEFAULT_RIGHTS, Policy
from tests.clock import ManualClock
from tests.http.support import new_id
from tests.hub.fakes import KEYS
from tests.processes import ROOT
from tests.support import API_VERSION, Device, Service, fields_of, second_hub
from tests.web.support import CHANGES, SESSION, Visitor

FILES = sorted(Path(static.__file__).with_name("files").iterdir())


def policy_string(emulator: Emulator, policy: str) -> str:
    return emulator.policy_connection_string(policy)


# --- sign-in


def test_before_the_sign_in_the_page_learns_only_how_to_sign_in(visitor: Visitor) -> None:
    assert visitor.request("GET", SESSION).json() == {"signedIn": False, "knownKey": True}
    assert visitor.request("GET", "/devices").status_code == 401
    assert visitor.request("GET", CHANGES).status_code == 401
    assert visitor.request("GET", "/_emulator/refusals").status_code == 401


@pytest.mark.parametrize("form", ["known key", "connection string", "key alone", "spaces around"])
def test_a_key_signs_in(emulator: Emulator, visitor: Visitor, form: str) -> None:
    text = emulator.service_connection_string
    key = fields_of(text)["SharedAccessKey"]
    credentials = {
        "known key": {"knownKey": True},
        "connection string": {"key": text},
        "key alone": {"key": key},
        "spaces around": {"key": f"\n  {text} "},
    }[form]
    answer = visitor.sign_in(**credentials)
    assert answer.status_code == 200
    assert answer.json()["policy"] == "iothubowner"
    assert key not in answer.text
    assert visitor.request("GET", "/devices").status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"key": "bm90IHRoZSBrZXk="}, 401, "Wrong key for iothubowner, service, device"),
        ({"key": "no key \u20ac"}, 401, "Wrong key for"),
        ({"key": ""}, 400, "The key is missing. Paste a key or a connection string"),
        ({}, 400, "The key is missing"),
        ({"key": 1}, 400, "key"),
        ({"pass": "x"}, 400, "pass"),
        (
            {"key": "HostName=a;SharedAccessKeyName=admin;SharedAccessKey=YQ=="},
            401,
            "Unknown policy 'admin'. This hub has iothubowner, service, device",
        ),
        (
            {"key": "HostName=a;SharedAccessKeyName=service;SharedAccessKey=YQ=="},
            401,
            "Wrong key for service. The window of the hub shows",
        ),
        (
            {"key": "HostName=a;DeviceId=b;SharedAccessKey=YQ=="},
            400,
            "This is the connection string of a device. Use that of a policy",
        ),
        ({"key": "HostName=a"}, 400, "This is the connection string of no policy"),
    ],
)
def test_a_wrong_key_is_refused_with_the_reason(
    visitor: Visitor, body: dict[str, object], status: int, text: str
) -> None:
    answer = visitor.request("POST", SESSION, json=body)
    assert answer.status_code == status
    assert text in answer.json()["Message"]
    assert "Set-Cookie" not in answer.headers


def test_the_well_known_key_is_not_offered_where_another_is_in_use(emulator: Emulator) -> None:
    with second_hub(
        emulator, keys={"iothubowner": "YSBrZXkgb2YgaXRzIG93biBmb3IgdGhlIGh1Yg=="}
    ) as hub:
        visitor = Visitor(hub)
        assert visitor.request("GET", SESSION).json() == {"signedIn": False, "knownKey": False}
        answer = visitor.sign_in(knownKey=True)
        assert answer.status_code == 401
        assert "The well-known keys are not in use here" in answer.json()["Message"]
        assert visitor.sign_in(key=hub.service_connection_string).status_code == 200
        visitor.http.close()


@pytest.mark.parametrize(
    "other",
    [
        *('theme={"dark":1,"size":"a b"}', "flag", "a b=c", "list[0]=1", "a/b=1", 'open="x', "=x"),
        *("expires=never", "\u00e9=\u00e9", "x=;;", ""),
    ],
)
def test_cookies_of_other_servers_change_nothing(
    emulator: Emulator, visitor: Visitor, other: str
) -> None:
    own = visitor.sign_in().headers["Set-Cookie"].partition(";")[0]
    visitor.http.cookies.clear()
    wrong = f"x{own}; {own.replace('=', '=x')}"
    for text in (f"{other}; {own}", f"{own}; {other}", f"{other};{own};{other}"):
        cookies = {"Cookie": text.encode()}
        assert visitor.request("GET", "/devices", headers=cookies).status_code == 200
    headers = {"Cookie": f"{other}; {wrong}".encode()}
    assert visitor.request("GET", "/devices", headers=headers).status_code == 401


def test_the_cookie_is_for_this_hub_alone(emulator: Emulator, visitor: Visitor) -> None:
    cookie = visitor.sign_in().headers["Set-Cookie"]
    name, _, rest = cookie.partition("=")
    assert name == f"__Host-iothub-{emulator.https_port}"
    value, *attributes = rest.split("; ")
    assert len(value) >= 43
    assert set(attributes) == {
        *("Path=/", "Max-Age=28800", "HttpOnly", "Secure", "SameSite=Strict")
    }


@pytest.mark.parametrize(
    ("policy", "allowed", "refused"),
    [
        ("registryRead", [("GET", "/devices")], [("PUT", "/devices/x"), ("GET", "/twins/x")]),
        ("service", [("GET", "/configurations")], [("GET", "/devices"), ("DELETE", "/devices/x")]),
        ("device", [], [("GET", "/devices"), ("GET", CHANGES), ("GET", "/_emulator/refusals")]),
    ],
)
def test_a_session_has_the_rights_of_its_policy(
    emulator: Emulator,
    visitor: Visitor,
    policy: str,
    allowed: list[tuple[str, str]],
    refused: list[tuple[str, str]],
) -> None:
    assert visitor.sign_in(key=policy_string(emulator, policy)).json()["policy"] == policy
    for verb, path in allowed:
        assert visitor.request(verb, path).status_code == 200, path
    for verb, path in refused:
        assert visitor.request(verb, path, json={}).status_code == 401, path


@pytest.mark.parametrize(
    ("policy", "sees"), [("iothubowner", True), ("registryReadWrite", False), ("service", False)]
)
def test_a_policy_with_every_right_of_the_hub_also_uses_provisioning(
    emulator: Emulator, visitor: Visitor, policy: str, sees: bool
) -> None:
    session = visitor.sign_in(key=policy_string(emulator, policy)).json()
    assert session["idScope"] == (emulator.dps_id_scope if sees else None)
    query = {"query": "SELECT *"}
    answer = visitor.request("POST", "/enrollments/query", json=query)
    assert answer.status_code == (200 if sees else 401)


def test_a_session_is_no_device(user: Visitor, device: Device) -> None:
    answer = user.request("POST", f"/devices/{device.id}/messages/events", data=b"x")
    assert answer.status_code == 401


# --- the end of a session


def test_a_sign_out_ends_the_session_and_its_streams(user: Visitor) -> None:
    cookies = user.http.cookies.copy()
    with user.stream() as stream:
        stream.wait_for("Numbers")
        assert user.request("DELETE", SESSION).json() == {"signedIn": False}
        stream.wait_for_end()
    assert not user.http.cookies
    user.http.cookies = cookies
    assert user.request("GET", "/devices").status_code == 401
    assert not user.request("GET", SESSION).json()["signedIn"]


def test_a_session_ends_after_hours_and_renews_its_token() -> None:
    clock = ManualClock()
    session = Session(Policy("p", DEFAULT_RIGHTS["service"], KEYS), "localhost", clock)
    first = session.token()
    clock.advance(60)
    assert session.token() == first
    clock.advance(360)
    assert session.token() != first
    assert not session.over
    clock.advance(8 * 3600)
    assert session.over


def test_two_hubs_on_one_host_have_sessions_of_their_own(emulator: Emulator, user: Visitor) -> None:
    with second_hub(emulator) as hub:
        other = Visitor(hub)
        other.http.cookies = user.http.cookies.copy()
        assert not other.request("GET", SESSION).json()["signedIn"]
        assert other.sign_in().status_code == 200
        user.http.cookies.update(other.http.cookies)
        assert user.request("GET", SESSION).json()["signedIn"]
        other.http.close()


# --- other pages


@pytest.fixture
def victim(janitor: Service) -> Iterator[str]:
    """A device that another page wants to change."""
    device_id = new_id()
    assert janitor.request("PUT", f"/devices/{device_id}", json={"deviceId": device_id}).ok
    yield device_id
    janitor.request("DELETE", f"/devices/{device_id}", headers={"If-Match": "*"})


@pytest.mark.parametrize("origin", [None, "null", "https://evil.example", "http://localhost:8443"])
def test_nothing_changes_without_the_origin_of_the_page(
    user: Visitor, victim: str, service: Service, origin: str | None
) -> None:
    path = f"/devices/{victim}"
    for verb, target, body in (
        ("PUT", f"/devices/{victim}-new", {"deviceId": f"{victim}-new"}),
        ("PATCH", f"/twins/{victim}", {"tags": {"a": 1}}),
        ("POST", f"/_emulator/devices/{victim}/messages", {"body": "x"}),
        ("DELETE", path, None),
        ("POST", SESSION, {"knownKey": True}),
        ("DELETE", SESSION, None),
    ):
        answer = user.request(verb, target, origin=origin, json=body, headers={"If-Match": "*"})
        assert answer.status_code == 403, (verb, target, answer.text)
        assert "can do this" in answer.json()["Message"]
    assert user.request("GET", SESSION).json()["signedIn"]
    twin = service.request("GET", f"/twins/{victim}").json()
    assert ("tags" in twin, twin["cloudToDeviceMessageCount"]) == (False, 0)
    assert service.request("GET", f"/devices/{victim}-new").status_code == 404


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_page_reads_nothing(user: Visitor, site: str) -> None:
    for path in ("/devices", CHANGES, SESSION):
        answer = user.request("GET", path, origin=None, headers={"Sec-Fetch-Site": site})
        assert answer.status_code == 403, path
    answer = user.request("GET", "/devices", origin="https://evil.example")
    assert answer.status_code == 403
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8443", "127.0.0.1.evil.example", "10.0.0.1"]
)
def test_a_name_of_another_site_is_refused(user: Visitor, host: str) -> None:
    for path in ("/", "/_page/app.js", SESSION, "/devices"):
        cookie = "; ".join(f"{each.name}={each.value}" for each in user.http.cookies)
        # The cookie of the hub, as if the browser had sent it under this name.
        name = cookie.partition("=")[0]
        port = host.rpartition(":")[2] if host.endswith("8443") else "443"
        cookie = cookie.replace(name, f"__Host-iothub-{port}")
        headers = {"Host": host, "Cookie": cookie}
        answer = user.http.get(
            user.url + path, headers=headers, params={"api-version": API_VERSION}
        )
        assert answer.status_code == 403, path
        assert "The page is not served for the host" in answer.json()["Message"]


@pytest.mark.parametrize(
    "host", ["localhost:9999", "127.0.0.1", "127.8.8.8:1", "[::1]:8443", "LOCALHOST"]
)
def test_a_loopback_address_is_a_name_of_the_hub(visitor: Visitor, host: str) -> None:
    answer = visitor.http.get(f"{visitor.url}/", headers={"Host": host})
    assert answer.status_code == 200


# --- files


def test_every_answer_of_the_page_has_the_strict_headers(user: Visitor) -> None:
    paths = ["/", SESSION, *(f"/_page/{each.name}" for each in FILES)]
    for path in (*paths, "/_page/none.js"):
        headers = user.request("GET", path).headers
        policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"


def test_the_files_are_small_and_load_nothing_from_elsewhere() -> None:
    assert {"index.html", "app.js", "style.css", "icon.svg"} <= {each.name for each in FILES}
    assert sum(each.stat().st_size for each in FILES) < 1024**2
    for file in FILES:
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import|\burl\(", text), file.name
        # Markup from text is what would let devices write to the page.
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
    index = (FILES[0].parent / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|<script>|\bon\w+=|style=", index)


@pytest.mark.parametrize(
    "name",
    ["page.py", "../page.py", "..%2Fpage.py", "%2e%2e/page.py", "files", "", "index.html%00"],
)
def test_no_other_file_is_served(visitor: Visitor, name: str) -> None:
    answer = visitor.http.get(f"{visitor.url}/_page/{name}")
    assert answer.status_code == 404


def test_a_start_imports_none_of_it() -> None:
    program = (
        "import emulator.emulator, sys\n"
        "found = [name for name in sys.modules if name.startswith('emulator.http.web.')]\n"
        "print(*found)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert run.stdout.split() == ["emulator.http.web.page"], run.stderr
