"""Queries over a hub's rows: what is read of a twin, and pages that neither skip nor repeat."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import JsonObject, dumps
from emulator.hub.core.store import MemoryStore
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.query.queries import Page, Queries

NOW = datetime(2026, 1, 31, 14, 46, 8, tzinfo=UTC)
NOW_TEXT = "2026-01-31T14:46:08Z"
CREATE, ANY = IfMatch(None), IfMatch("*")


class Clock:
    """The time, as the test has it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class House:
    """A hub, with what the other halves of it tell its queries."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.registry = IotHub(
            store=MemoryStore(), policies=(), hosts=(), clock=self.clock
        ).registry
        self.statuses: dict[IdentityKey, JsonObject] = {}
        self.jobs: list[JsonObject] = []
        self.queries = Queries(
            self.registry,
            statuses=lambda key: self.statuses.get(key, {}),
            device_jobs=lambda: iter(self.jobs),
        )

    def create(
        self,
        device_id: str,
        module_id: str | None = None,
        *,
        reported: JsonObject | None = None,
        **parts: Any,
    ) -> None:
        key = IdentityKey(device_id, module_id)
        if module_id is None:
            self.registry.put_device(device_id, {"deviceId": device_id}, CREATE)
        else:
            body = {"deviceId": device_id, "moduleId": module_id}
            self.registry.put_module(key, body, CREATE)
        self.registry.patch_twin(key, parts, ANY)
        if reported is not None:
            self.registry.report(key, reported, None)

    def delete(self, device_id: str) -> None:
        self.registry.delete_device(device_id, ANY)

    def ask(self, text: str) -> list[Any]:
        return self.page(text, 100).items

    def page(self, text: str, size: int, continuation: str | None = None) -> Page:
        page = self.queries.run(text, size=size, continuation=continuation)
        json.loads(dumps(page.items))
        return page

    def pages(self, text: str, size: int) -> Iterator[list[Any]]:
        continuation: str | None = None
        for _ in range(1000):
            page = self.page(text, size, continuation)
            yield page.items
            continuation = page.continuation
            if continuation is None:
                return
        raise AssertionError("the pages have no end")


@pytest.fixture
def house() -> House:
    return House()


def ids(rows: Sequence[JsonObject]) -> list[str]:
    return [row["deviceId"] for row in rows]


# --- what is read of a twin


def test_a_whole_twin_is_the_services_own_view(house: House) -> None:
    house.create("a", tags={"x": 1}, reported={"r": 1})
    house.create("b")
    page = house.page("SELECT * FROM devices", 100)
    twins = [house.registry.get_twin(IdentityKey(device_id)) for device_id in "ab"]
    assert (page.items, page.type, page.continuation) == (twins, "Twin", None)
    assert list(page.items[0]) == list(twins[0])


TWIN = {
    "tags": {"site": {"floor": 3}},
    "properties": {"desired": {"interval": 5, "deep": {"a": [1, {"b": 2}]}}},
}
MARK = {"$lastUpdated": NOW_TEXT, "$lastUpdatedVersion": 2}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("deviceId", "a"),
        ("etag", "AAAAAAAAAAI="),
        ("status", "enabled"),
        ("statusReason", None),
        ("statusUpdateTime", "0001-01-01T00:00:00Z"),
        ("connectionState", "Disconnected"),
        ("lastActivityTime", "0001-01-01T00:00:00Z"),
        ("cloudToDeviceMessageCount", 0),
        ("authenticationType", "sas"),
        ("x509Thumbprint.primaryThumbprint", None),
        ("version", 4),
        ("capabilities.iotEdge", False),
        ("tags", {"site": {"floor": 3}}),
        ("tags.site.floor", 3),
        ("properties.desired.interval", 5),
        ("properties.desired.deep.a[1].b", 2),
        ("properties.desired.$version", 2),
        ("properties.desired.$metadata.$lastUpdated", NOW_TEXT),
        ("properties.desired.$metadata.interval", MARK),
        ("properties.desired.$metadata.interval.$lastUpdatedVersion", 2),
        ("properties.reported.$version", 2),
        ("properties.reported.r", "x"),
        ("properties.reported.$metadata.r", MARK),
        ("properties.reported", {"r": "x", "$metadata": {**MARK, "r": MARK}, "$version": 2}),
        ("PROPERTIES.reported.r", "x"),
        ("configurations.c1.status", "Applied"),
        ("configurations.[[c-2]].status", "Targeted"),
        ("configurations", {"c1": {"status": "Applied"}, "c-2": {"status": "Targeted"}}),
    ],
)
def test_every_part_of_a_twin_can_be_read(house: House, path: str, expected: object) -> None:
    house.create("a", reported={"r": "x"}, **TWIN)
    house.statuses[IdentityKey("a")] = {
        "c1": {"status": "Applied"},
        "c-2": {"status": "Targeted"},
    }
    names = {"statusReason", "x509Thumbprint.primaryThumbprint"}
    row = {} if path == "statusReason" else {"x": expected}
    assert house.ask(f"SELECT {path} AS x FROM devices") == [row]
    # A row is found by it, and not found where it is not so.
    if isinstance(expected, (str, int)) and path not in names:
        value = f"'{expected}'" if isinstance(expected, str) else json.dumps(expected)
        assert len(house.ask(f"SELECT * FROM devices WHERE {path} = {value}")) == 1
        assert house.ask(f"SELECT * FROM devices WHERE {path} != {value}") == []


def test_sections_as_objects_have_what_the_hub_adds(house: House) -> None:
    house.create("a", reported={"r": "x"}, **TWIN)
    (row,) = house.ask("SELECT properties FROM devices")
    twin = house.registry.get_twin(IdentityKey("a"))
    assert row == {"properties": twin["properties"]}
    (row,) = house.ask("SELECT properties.desired, properties.reported FROM devices")
    assert row == twin["properties"]
    assert list(row["desired"])[-2:] == ["$metadata", "$version"]


@pytest.mark.parametrize(
    "path",
    [
        "tags.none",
        "properties.none",
        "properties.desired.none",
        "properties.desired.interval.none",
        "properties.desired.$none",
        "properties.desired.$metadata.none",
        "properties.desired.$version.none",
        "properties.desired[0]",
        "properties.desired.[[*]]",
        "[[properties.desired]]",
        "[[properties.desired.*]]",
        "properties.[[desired.$version]]",
        "properties.Desired",
        "moduleId",
        "jobs",
        "configurations.none.status",
        "deviceId.length",
    ],
)
def test_what_a_twin_has_not_is_undefined(house: House, path: str) -> None:
    house.create("a", reported={"r": "x"}, **TWIN)
    assert house.ask(f"SELECT {path} AS x FROM devices") == [{}]
    assert house.ask(f"SELECT * FROM devices WHERE is_defined({path})") == []
    assert len(house.ask(f"SELECT * FROM devices WHERE NOT is_defined({path})")) == 1


def test_configurations_are_in_no_document(house: House) -> None:
    house.create("a")
    house.create("b")
    house.create("a", "m")
    house.statuses[IdentityKey("a")] = {"c": {"status": "Applied"}}
    house.statuses[IdentityKey("a", "m")] = {"c": {"status": "Targeted"}}
    assert all("configurations" not in row for row in house.ask("SELECT * FROM devices"))
    text = "SELECT deviceId FROM devices WHERE configurations.[[c]].status = 'Applied'"
    assert house.ask(text) == [{"deviceId": "a"}]
    text = "SELECT moduleId FROM devices.modules WHERE configurations.c.status = 'Targeted'"
    assert house.ask(text) == [{"moduleId": "m"}]


def test_modules_are_a_collection_of_their_own(house: House) -> None:
    house.create("a", tags={"x": 1})
    house.create("a", "m2", tags={"x": 2}, reported={"status": "scanning"})
    house.create("a", "m1", tags={"x": 3})
    house.create("b")
    house.create("b", "m1", reported={"status": "scanning"})
    assert ids(house.ask("SELECT * FROM devices")) == ["a", "b"]
    page = house.page("SELECT * FROM devices.modules", 100)
    assert page.type == "Twin"
    assert page.items == [
        house.registry.get_twin(IdentityKey(*key))
        for key in [("a", "m1"), ("a", "m2"), ("b", "m1")]
    ]
    found = house.ask(
        "SELECT * FROM devices.modules WHERE properties.reported.status = 'scanning' "
        "AND deviceId IN ['a', 'c']"
    )
    assert [row["moduleId"] for row in found] == ["m2"]
    text = "SELECT devices.modules.moduleId AS m FROM devices.modules WHERE devices.tags.x > 2"
    assert house.ask(text) == [{"m": "m1"}]
    assert house.ask("SELECT COUNT() AS n, MAX(tags.x) FROM devices.modules") == [
        {"n": 3, "max": 3}
    ]
    assert house.ask("SELECT capabilities FROM devices.modules WHERE moduleId = 'm2'") == [{}]


JOB = {
    "deviceId": "a",
    "jobId": "j1",
    "jobType": "scheduleDeviceMethod",
    "status": "completed",
    "startTimeUtc": NOW_TEXT,
    "endTimeUtc": NOW_TEXT,
    "createdDateTimeUtc": "2026-01-31T14:46:08Z",
    "lastUpdatedDateTimeUtc": NOW_TEXT,
    "outcome": {"deviceMethodResponse": {"status": 200, "payload": None}},
}


def test_what_jobs_did_is_a_collection(house: House) -> None:
    later = "2026-01-31T14:46:08.5Z"
    house.jobs = [
        JOB,
        {**JOB, "deviceId": "b", "status": "failed", "error": {"code": "DeviceNotOnline"}},
        {**JOB, "jobId": "j0", "createdDateTimeUtc": later},
    ]
    page = house.page("SELECT * FROM devices.jobs", 100)
    assert (page.items, page.type) == (house.jobs, "DeviceJob")
    for where, found in [
        ("devices.jobs.jobId = 'j1'", [0, 1]),
        ("devices.jobs.deviceId = 'a' AND devices.jobs.jobId = 'j1'", [0]),
        ("status = 'failed'", [1]),
        ("jobId = 'j1' AND STATUS != 'failed'", [0]),
        ("devices.jobs.error.code = 'DeviceNotOnline'", [1]),
        ("devices.jobs.createdTimeUtc > '2026-01-01'", [0, 1, 2]),
        (f"createdDateTimeUtc = '{later}'", [2]),
        ("createdDateTimeUtc > '2026-02'", []),
        ("devices.jobs.outcome.deviceMethodResponse.payload = null", [0, 1, 2]),
        ("tags.x = 1", []),
    ]:
        rows = [house.jobs[index] for index in found]
        assert house.ask(f"SELECT * FROM devices.jobs WHERE {where}") == rows
    assert list(house.pages("SELECT * FROM devices.jobs", 1)) == [[row] for row in house.jobs]
    assert house.ask("SELECT TOP 1 * FROM devices.jobs") == [JOB]


def test_an_answer_is_of_the_moment(house: House) -> None:
    text = "SELECT deviceId FROM devices WHERE properties.reported.x = 1"
    house.create("a")
    assert house.ask(text) == []
    house.registry.report(IdentityKey("a"), {"x": 1}, None)
    assert house.ask(text) == [{"deviceId": "a"}]
    house.delete("a")
    assert house.ask(text) == []


# --- count and find


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("SELECT * FROM devices", 5),
        ("select deviceId from devices where tags.n >= 3", 2),
        ("SELECT TOP 2 * FROM devices", 2),
        ("SELECT TOP 9 * FROM devices", 5),
        ("SELECT * FROM devices.modules", 1),
        ("SELECT COUNT() FROM devices", 1),
        ("SELECT tags.odd, COUNT() FROM devices GROUP BY tags.odd", 2),
        ("SELECT * FROM devices.jobs", 0),
        ("SELECT * FROM devices WHERE tags.none = 1", 0),
    ],
)
def test_count(house: House, text: str, count: int) -> None:
    for number in range(5):
        house.create(f"d{number}", tags={"n": number, "odd": number % 2})
    house.create("d0", "m")
    assert house.queries.count(text) == count


def test_count_of_no_query(house: House) -> None:
    with pytest.raises(ArgumentInvalid):
        house.queries.count("deviceId = 'x'")


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("*", ["a", "b"]),
        ("deviceId IN ['b', 'c']", ["b"]),
        ("tags.x = 1", ["a"]),
        ("FROM devices", ["a", "b"]),
        ("FROM devices WHERE is_defined(tags.x)", ["a"]),
        ("FROM devices.modules", ["a/m", "b/m"]),
        ("from devices.modules where deviceId = 'b' AND moduleId = 'm'", ["b/m"]),
        ("configurations.c.status = 'Applied'", ["b"]),
        ("tags.none = 1", []),
    ],
)
def test_find(house: House, condition: str, found: list[str]) -> None:
    house.create("a", tags={"x": 1})
    house.create("b")
    house.create("b", "m")
    house.create("a", "m")
    house.statuses[IdentityKey("b")] = {"c": {"status": "Applied"}}
    assert [str(key) for key in house.queries.find(condition)] == found


@pytest.mark.parametrize("condition", ["", "SELECT * FROM devices", "FROM devices.jobs", "x ="])
def test_find_by_no_condition(house: House, condition: str) -> None:
    with pytest.raises(ArgumentInvalid):
        house.queries.find(condition)


# --- pages


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 100])
def test_pages_are_full_but_the_last(house: House, size: int) -> None:
    for number in range(4):
        house.clock.now += timedelta(seconds=1)
        house.create(f"d{9 - number}", tags={"n": number})
        house.create(f"d{9 - number}", "m")
    expected = ["d9", "d8", "d7", "d6"]  # the oldest first
    for text in ("SELECT * FROM devices", "SELECT deviceId FROM devices.modules"):
        pages = list(house.pages(text, size))
        assert [len(page) for page in pages[:-1]] == [size] * (len(pages) - 1)
        assert 0 < len(pages[-1]) <= size
        assert [device_id for page in pages for device_id in ids(page)] == expected
    text = "SELECT tags.n, COUNT() AS c FROM devices GROUP BY tags.n"
    pages = list(house.pages(text, size))
    assert [len(page) for page in pages[:-1]] == [size] * (len(pages) - 1)
    assert [row for page in pages for row in page] == [{"n": n, "c": 1} for n in range(4)]


def test_groups_keep_their_order_over_many_pages(house: House) -> None:
    for number in range(25):
        house.create(f"d{number}", tags={"n": number})
    text = "SELECT tags.n, COUNT() AS c FROM devices GROUP BY tags.n"
    rows = [row for page in house.pages(text, 4) for row in page]
    assert rows == house.ask(text)
    assert len(rows) == 25


@pytest.mark.parametrize(
    "text", ["SELECT * FROM devices WHERE false", "SELECT * FROM devices.jobs", "SELECT TOP 0 *"]
)
def test_no_rows_are_one_page(house: House, text: str) -> None:
    house.create("a")
    text = text if "FROM" in text else f"{text} FROM devices"
    page = house.page(text, 100)
    assert (page.items, page.continuation) == ([], None)


@pytest.mark.parametrize("top", [1, 2, 3, 6, 7, 8])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "rest", ["* FROM devices", "tags.n, COUNT() AS c FROM devices GROUP BY tags.n"]
)
def test_top_counts_over_all_pages(house: House, top: int, size: int, rest: str) -> None:
    for number in range(7):
        house.create(f"d{number}", tags={"n": number})
    pages = list(house.pages(f"SELECT TOP {top} {rest}", size))
    assert [len(page) for page in pages[:-1]] == [size] * (len(pages) - 1)
    rows = [row for page in pages for row in page]
    assert rows == house.ask(f"SELECT {rest}")[:top]


@given(
    steps=st.lists(st.integers(-1, 1), min_size=1, max_size=8),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    changes=st.lists(
        st.lists(st.tuples(st.sampled_from("+-"), st.integers(0, 11)), max_size=4), max_size=8
    ),
    collection=st.sampled_from(["devices", "devices.modules"]),
)
def test_what_lives_throughout_is_seen_once(
    steps: list[int],
    sizes: list[int],
    changes: list[list[tuple[str, int]]],
    collection: str,
) -> None:
    """Whatever else comes or goes between pages, and whether the clock goes on, stands or back."""
    house = House()
    living: dict[str, int] = {}
    births = 0

    def create(device_id: str) -> None:
        nonlocal births
        births += 1
        house.clock.now += timedelta(seconds=steps[births % len(steps)])
        house.create(device_id)
        house.create(device_id, "m")
        living[device_id] = births

    for number in range(0, 12, 2):
        create(f"d{number}")
    before = dict(living)
    seen: list[str] = []
    ever: set[str] = set()
    continuation: str | None = None
    text = f"SELECT deviceId, etag FROM {collection}"
    for turn in range(100):
        page = house.page(text, sizes[turn % len(sizes)], continuation)
        seen += ids(page.items)
        continuation = page.continuation
        if continuation is None:
            break
        for sign, number in changes[turn] if turn < len(changes) else []:
            device_id = f"d{number}"
            if sign == "+" and device_id not in living:
                create(device_id)
            if sign == "-" and device_id in living:
                house.delete(device_id)
                del living[device_id]
                ever.add(device_id)
    else:
        raise AssertionError("the pages have no end")
    for device_id, birth in before.items():
        if living.get(device_id) == birth:
            assert seen.count(device_id) == 1, device_id
    assert all(seen.count(device_id) == 1 for device_id in set(seen) - ever)


def test_jobs_go_on_where_they_were_though_the_last_one_is_gone(house: House) -> None:
    house.jobs = [
        {**JOB, "jobId": job_id, "deviceId": device_id} for job_id in "xy" for device_id in "ab"
    ]
    text = "SELECT * FROM devices.jobs"
    first = house.page(text, 2)
    assert [row["jobId"] for row in first.items] == ["x", "x"]
    house.jobs = house.jobs[2:]
    rest = house.page(text, 2, first.continuation)
    assert (rest.items, rest.continuation) == (house.jobs, None)


# --- continuations


def token_of(house: House, text: str) -> str:
    token = house.page(text, 1).continuation
    assert token is not None
    return token


def forged(token: str, **members: Any) -> str:
    content = json.loads(base64.urlsafe_b64decode(token))
    return base64.urlsafe_b64encode(json.dumps({**content, **members}).encode()).decode()


TEXT = "SELECT TOP 2 * FROM devices"


def test_a_token_can_stand_in_a_header_and_in_a_url(house: House) -> None:
    house.create("a")
    house.create("-._?$,;é"[:6])
    token = token_of(house, TEXT)
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=")
    assert len(token) < 200


def test_a_token_may_be_used_again(house: House) -> None:
    for device_id in "abc":
        house.create(device_id)
    token = token_of(house, TEXT)
    for size in (1, 2):
        page = house.page(TEXT, size, token)
        assert (ids(page.items), page.continuation) == (["b"], None)


@pytest.mark.parametrize(
    "other",
    [
        "SELECT TOP 2  * FROM devices",
        "SELECT TOP 3 * FROM devices",
        "SELECT TOP 2 * FROM devices.modules",
        "SELECT COUNT() FROM devices",
    ],
)
def test_a_token_of_another_query_is_refused(house: House, other: str) -> None:
    house.create("a")
    house.create("b")
    token = token_of(house, TEXT)
    with pytest.raises(ArgumentInvalid, match="continuation"):
        house.page(other, 1, token)


@pytest.mark.parametrize(
    "token",
    ["", "x", "!", "é", "bnVsbA==", "W10=", "e30=", "MQ", "%", " ", "A" * 9999, "\x00", "Ww=="],
)
def test_a_token_that_is_none_is_refused(house: House, token: str) -> None:
    with pytest.raises(ArgumentInvalid, match="continuation"):
        house.page(TEXT, 1, token)


@pytest.mark.parametrize(
    "members",
    [
        {"query": "0" * 16},
        {"query": None},
        {"after": None},
        {"after": "a"},
        {"after": [1, "a"]},
        {"after": {"a": 1}},
        {"left": -1},
        {"left": 1.5},
        {"left": True},
        {"left": "1"},
    ],
)
def test_a_token_with_a_wrong_member_is_refused(house: House, members: dict[str, Any]) -> None:
    house.create("a")
    house.create("b")
    token = token_of(house, TEXT)
    assert ids(house.page(TEXT, 1, forged(token)).items) == ["b"]
    with pytest.raises(ArgumentInvalid, match="continuation"):
        house.page(TEXT, 1, forged(token, **members))


def test_what_is_no_query_is_told_before_the_token(house: House) -> None:
    with pytest.raises(ArgumentInvalid, match="FORM"):
        house.page("SELECT * FORM devices", 1, "x")
