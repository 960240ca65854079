"""A browser for the tests of the page: Debian's Chromium, driven by playwright."""

from __future__ import annotations

import gc
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator import Emulator
from tests import npm
from tests.support import PATIENCE
from tests.web.support import Visitor

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def pytest_itemcollected(item: pytest.Item) -> None:
    for warning in (
        "ssl.PROTOCOL_TLSv1_2 is deprecated:DeprecationWarning",
        "unclosed <socket:ResourceWarning",  # of paho, below azure-iot-device
    ):
        item.add_marker(pytest.mark.filterwarnings(f"ignore:{warning}"))


@pytest.fixture(scope="module", autouse=True)
def forgotten_sockets() -> Iterator[None]:
    """Collect the sockets that paho forgot while their warnings are ignored."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def visitor(emulator: Emulator) -> Iterator[Visitor]:
    """A browser without a screen, which has not signed in."""
    found = Visitor(emulator)
    yield found
    found.http.close()


@pytest.fixture
def user(visitor: Visitor) -> Visitor:
    """One that has signed in, with every right."""
    assert visitor.sign_in().status_code == 200
    return visitor


def _missing(text: str) -> None:
    if "CI" in os.environ:
        pytest.fail(text)
    pytest.skip(text)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser with a screen.

    It ends with the module: while playwright runs, no asynchronous test can run in this thread.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        _missing("Chromium is not installed")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("playwright is not installed")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=[*FLAGS])
        yield running
        running.close()


@pytest.fixture
def problems() -> Iterator[list[str]]:
    """Errors in a page, and what its content security policy refused: each fails the test."""
    found: list[str] = []
    yield found
    assert found == []


@pytest.fixture
def new_page(browser: Any, emulator: Emulator, problems: list[str]) -> Iterator[Callable[..., Any]]:
    """Opens a new browser window, with nothing of another, at the page of the hub."""
    contexts = []

    def open_page(hub: Emulator = emulator, **options: Any) -> Any:
        context = browser.new_context(
            ignore_https_errors=True, viewport={"width": 1280, "height": 800}, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.on("console", lambda line: problems.append(line.text) if refused(line) else None)
        page.goto(f"https://{hub.host_name}:{hub.https_port}/")
        return page

    def refused(line: Any) -> bool:
        return "Content Security Policy" in line.text or "Trusted" in line.text

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def page(new_page: Callable[..., Any]) -> Any:
    """The page of a hub, before the sign-in."""
    return new_page()


@pytest.fixture
def home(page: Any) -> Any:
    """The page of a hub, after the sign-in."""
    page.get_by_role("button", name="Use the well-known key").click()
    page.get_by_role("heading", name="Devices", exact=True).wait_for()
    return page


@pytest.fixture(scope="session")
def axe() -> str:
    """The program that checks whether people with disabilities can use a page."""
    manifest = Path(__file__).with_name("package.json")
    file = npm.install(manifest) / "axe-core" / "axe.min.js"
    return file.read_text(encoding="utf-8")
