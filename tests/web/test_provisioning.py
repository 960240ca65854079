"""The Device Provisioning Service on the page, in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from emulator import Emulator
from tests.dps.support import OTHER_KEY, Owner, Registrant, derived, new_id
from tests.support import second_hub, wait_until
from tests.web.support import Visitor, at, check
from tests.x509 import issue

QUERY = {"query": "SELECT *"}


def enroll(page: Any, button: str, label: str, name: str) -> Any:
    """Open the form of an enrollment, and fill in its id."""
    page.get_by_role("button", name=button).click()
    form = page.get_by_role("dialog")
    form.get_by_label(label).fill(name)
    return form


def copied(page: Any, button: str) -> str:
    """Press a button that copies, and return what it copied."""

    def read() -> str:
        return str(page.evaluate("navigator.clipboard.readText()"))

    page.evaluate("navigator.clipboard.writeText('nothing')")
    wait_until(lambda: read() == "nothing")
    page.get_by_role("button", name=button, exact=True).click()
    wait_until(lambda: read() != "nothing")
    return read()


@pytest.fixture
def owner(home: Any, emulator: Emulator) -> Any:
    """The page of provisioning, without what other tests have left: it shows 100 enrollments."""
    with Owner(emulator) as service:
        while found := service.call("POST", "/enrollments/query", QUERY):
            for each in found:
                service.call("DELETE", f"/enrollments/{each['registrationId']}", status=204)
    home.context.grant_permissions(["clipboard-read", "clipboard-write"])
    at(home, emulator, "#/provisioning")
    home.get_by_role("heading", name="Individual enrollments").wait_for()
    return home


def test_a_device_is_enrolled_registers_and_is_forgotten(owner: Any, emulator: Emulator) -> None:
    name = new_id("sensor")
    form = enroll(owner, "New enrollment", "Registration id", "")
    for text, error in (("", "The registration id is missing."), ("a b", "Invalid id 'a b'")):
        form.get_by_label("Registration id").fill(text)
        form.get_by_role("button", name="Create").click()
        form.get_by_role("alert").filter(has_text=error).wait_for()
    form.get_by_label("Registration id").fill(name)
    form.get_by_label("Initial twin").fill('{"tags": {"floor": 2}')
    form.get_by_role("button", name="Create").click()
    form.get_by_text("The initial twin is not JSON").wait_for()
    form.get_by_label("Initial twin").fill('{"tags": {"floor": 2}}')
    form.get_by_role("button", name="Create").click()
    row = owner.locator("tr", has_text=name)
    row.get_by_text("not registered yet").wait_for()
    key = copied(owner, f"Copy key of {name}")
    assert copied(owner, "Copy the id scope") == emulator.dps_id_scope

    Registrant(emulator, name, key).register()
    row.get_by_role("link", name=name).wait_for()
    row.get_by_text("assigned").wait_for()
    owner.get_by_role("button", name=f"Forget the registration of {name}").click()
    owner.get_by_role("dialog").get_by_role("button", name="Delete").click()
    row.get_by_text("not registered yet").wait_for()

    owner.get_by_role("button", name=f"Disable {name}").click()
    row.get_by_text("disabled", exact=True).wait_for()
    assert copied(owner, f"Copy key of {name}") == key
    owner.get_by_role("button", name=f"Enable {name}").click()
    row.get_by_text("enabled", exact=True).wait_for()
    form = enroll(owner, "New enrollment", "Registration id", name)
    form.get_by_role("button", name="Create").click()
    form.get_by_role("alert").filter(has_text="already").wait_for()
    form.get_by_role("button", name="Cancel").click()
    owner.get_by_role("button", name=f"Delete {name}", exact=True).click()
    owner.get_by_role("dialog").get_by_role("button", name="Delete").click()
    row.wait_for(state="detached")


def test_a_certificate_is_enrolled_as_pem(owner: Any) -> None:
    name = new_id("camera")
    form = enroll(owner, "New enrollment", "Registration id", name)
    form.get_by_label("Attestation").select_option("X.509 certificate")
    for text, error in (("", "The certificate is missing."), ("abc", "Invalid certificate")):
        form.get_by_label("Certificate").fill(text)
        form.get_by_role("button", name="Create").click()
        form.get_by_role("alert").filter(has_text=error).wait_for()
    pem = issue(name).certificate.public_bytes(Encoding.PEM).decode()
    form.get_by_label("Certificate").fill(pem)
    form.get_by_role("button", name="Create").click()
    owner.locator("tr", has_text=name).get_by_text("X.509 certificate").wait_for()
    owner.get_by_role("button", name=f"Details of {name}").click()
    owner.get_by_role("dialog").get_by_text(f"CN={name}").first.wait_for()


def test_a_group_has_registrations_and_keys_of_its_devices(owner: Any, emulator: Emulator) -> None:
    name, device = new_id("line"), new_id("station")
    form = enroll(owner, "New group", "Group id", name)
    form.get_by_label("Primary key").fill("short")
    form.get_by_role("button", name="Create").click()
    form.get_by_role("alert").filter(has_text="key").wait_for()
    form.get_by_label("Primary key").fill(OTHER_KEY)
    form.get_by_role("button", name="Create").click()
    owner.get_by_role("link", name=name).click()
    owner.get_by_text("No device of this group has registered yet.").wait_for()
    owner.get_by_label("Registration id").fill(device)
    key = copied(owner, "Copy the key")
    assert key == derived(OTHER_KEY, device)
    Registrant(emulator, device, key).register()
    owner.get_by_role("link", name=device).wait_for()
    owner.get_by_role("button", name=f"Delete the registration of {device}").click()
    owner.get_by_role("dialog").get_by_role("button", name="Delete").click()
    owner.get_by_text("No device of this group has registered yet.").wait_for()
    owner.get_by_role("button", name=f"Delete {name}", exact=True).click()
    owner.get_by_role("dialog").get_by_role("button", name="Delete").click()
    owner.get_by_role("heading", name="Enrollment groups").wait_for()
    owner.locator("tr", has_text=name).wait_for(state="detached")


def test_the_forms_fit_a_phone_and_can_be_used_by_everyone(
    new_page: Callable[..., Any], emulator: Emulator, axe: str
) -> None:
    page = new_page(bypass_csp=True)
    page.get_by_role("button", name="Use the well-known key").click()
    page.get_by_role("heading", name="Devices", exact=True).wait_for()
    at(page, emulator, "#/provisioning")
    name = new_id("a-very-long-name-" * 5)
    form = enroll(page, "New group", "Group id", name)
    check(page, axe, "the form of a group")
    form.get_by_role("button", name="Create").click()
    page.get_by_role("link", name=name).wait_for()
    check(page, axe, "provisioning")
    page.get_by_role("link", name=name).click()
    page.get_by_role("heading", name="Key of a device").wait_for()
    check(page, axe, "a group")


# --- rights


def test_a_hub_without_provisioning_has_no_such_section(
    new_page: Callable[..., Any], emulator: Emulator
) -> None:
    with second_hub(emulator, no_dps=True) as hub:
        page = new_page(hub)
        page.get_by_role("button", name="Use the well-known key").click()
        page.get_by_role("link", name="Configurations").wait_for()
        assert page.get_by_role("link", name="Provisioning").count() == 0


def test_another_page_can_not_provision(user: Visitor) -> None:
    assert user.request("POST", "/enrollments/query", json=QUERY).status_code == 200
    for origin in (None, "https://evil.example"):
        answer = user.request("POST", "/enrollments/query", json=QUERY, origin=origin)
        assert (answer.status_code, answer.json()["errorCode"]) == (403, 403000)
    user.request("DELETE", "/_page/session")
    assert user.request("POST", "/enrollments/query", json=QUERY).status_code == 401
