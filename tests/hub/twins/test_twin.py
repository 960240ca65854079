from datetime import UTC, datetime

from emulator.hub.identities.identity import IdentityKey
from emulator.hub.twins import twin as twins
from emulator.hub.twins.twin import Section

BORN = datetime(2026, 1, 31, 14, 46, 8, 120000, tzinfo=UTC)


def test_a_new_device_twin_is_dated_and_counts_from_one() -> None:
    twin = twins.create(IdentityKey("device"), BORN)
    section = {"$metadata": {"$lastUpdated": "2026-01-31T14:46:08.12Z"}, "$version": 1}
    assert twin.desired.service_view() == twin.reported.service_view() == section
    assert (twin.tags, twin.etag, twin.version) == ({}, "AAAAAAAAAAE=", 2)
    assert twin.device_view() == {"desired": {"$version": 1}, "reported": {"$version": 1}}


def test_a_new_module_twin_has_no_date() -> None:
    twin = twins.create(IdentityKey("device", "module"), BORN)
    assert twin.desired.metadata == {"$lastUpdated": "0001-01-01T00:00:00Z"}


def test_views_put_the_members_first() -> None:
    section = Section({"z": 1, "a": 2}, {}, 1)
    assert list(section.service_view()) == ["z", "a", "$metadata", "$version"]
    assert list(section.device_view()) == ["z", "a", "$version"]
