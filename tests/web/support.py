"""What the tests of the page share: a browser without a screen, and helpers for a real one.

The browser without a screen sends requests with a cookie, as the page does, and reads its streams.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import requests

from emulator import Emulator
from tests.support import API_VERSION, PATIENCE

SESSION, CHANGES = "/_page/session", "/_emulator/changes"


class Visitor:
    """A browser that is at the page of a hub."""

    def __init__(self, emulator: Emulator) -> None:
        self.url = f"https://{emulator.host_name}:{emulator.https_port}"
        self.http = requests.Session()
        self.http.trust_env = False
        self.http.verify = str(emulator.ca_file)

    def request(
        self, verb: str, path: str, *, origin: str | None = "own", **options: Any
    ) -> requests.Response:
        """Send a request; `origin` is its header, None leaves it out."""
        headers = dict(options.pop("headers", {}))
        if origin is not None:
            headers["Origin"] = self.url if origin == "own" else origin
        return self.http.request(
            verb,
            self.url + path,
            headers=headers,
            params={} if path.startswith("/_emulator") else {"api-version": API_VERSION},
            timeout=PATIENCE,
            **options,
        )

    def sign_in(self, **credentials: Any) -> requests.Response:
        """Sign in."""
        return self.request("POST", SESSION, json=credentials or {"knownKey": True})

    @contextmanager
    def stream(self, query: str = "") -> Iterator[Stream]:
        """Open a stream of what happens."""
        with self.request("GET", CHANGES + query, stream=True) as response:
            assert response.status_code == 200, response.text
            yield Stream(response)


class Stream:
    """What a page receives of what happens."""

    def __init__(self, response: requests.Response) -> None:
        self.response = response
        self.text = ""
        self._lines = response.iter_lines()
        self._seen: list[dict[str, Any]] = []

    def wait_for(self, kind: str, fits: Callable[[Any], object] = bool) -> dict[str, Any]:
        """Wait for an item of a kind; the connection has a deadline."""
        for line in self._lines:
            if not line:
                continue
            self.text += line.decode()
            for item in json.loads(line.removeprefix(b"data: ")):
                self._seen.append(item)
            for item in self._seen:
                if item["type"] == kind and fits(item):
                    self._seen.remove(item)
                    return item
        raise AssertionError(f"The stream ended without {kind}: {self._seen}")

    def wait_for_end(self) -> None:
        """Wait until the hub ends the stream."""
        for _ in self._lines:
            pass


# --- the page in a real browser


def at(page: Any, emulator: Emulator, place: str) -> None:
    """Go to a place of the page."""
    page.goto(f"https://{emulator.host_name}:{emulator.https_port}/{place}")
    page.locator("main h1").wait_for()


def text_of(page: Any, label: str) -> Any:
    """Find the part of the page below a heading."""
    return page.locator("section, details").filter(has=page.get_by_role("heading", name=label))


def check(page: Any, axe: str, place: str) -> None:
    """Check that a part does not scroll sideways at 360 px, and that axe finds nothing."""
    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 740})
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, (place, width)
    if not page.evaluate("Boolean(window.axe)"):
        page.evaluate(axe)
    found = page.evaluate("axe.run()")
    problems = [
        (each["id"], [node["html"][:200] for node in each["nodes"]]) for each in found["violations"]
    ]
    assert not problems, (place, problems)
