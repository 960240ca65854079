"""Queries over the rows of a hub: the members of a row, and pages that skip and repeat no row."""

import json
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import UNDEFINED, JsonObject, WrittenJson, dumps
from emulator.hub.core.places import Place
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.jobs.records import device_jobs_collection
from emulator.hub.query import Source
from emulator.hub.query.continuations import Page
from emulator.hub.query.queries import Budget, Queries
from emulator.hub.registry.rows import Rows
from tests.clock import ManualClock
from tests.hub.fakes import ANY, HubStore, done, make_hub, put
from tests.hub.query.tables import cases

NOW = "2026-01-31T14:46:08Z"


class House:
    """A hub, and queries over its twins, over statuses of configurations, and over jobs."""

    def __init__(self) -> None:
        self.clock, store = ManualClock(), HubStore()
        self.hub = make_hub(store, self.clock)
        self.statuses: dict[str, JsonObject] = {}
        self.jobs: list[JsonObject] = []
        self.queries = Queries(
            Rows(store, self.hub.links, self.hub.cloud_to_device, self.hub.feed), self.hub.slices
        )
        self.queries.add_member(
            "configurations", lambda row: self.statuses.get(str(row.identity.key), {}), lambda: 1
        )
        self.queries.add_collection(Source.JOBS, device_jobs_collection(self.placed_jobs))

    def create(self, key: str, *, reported: JsonObject | None = None, **parts: Any) -> None:
        """Create a device `d` or a module `d/m`, with parts of its twin."""
        identity = IdentityKey(*key.split("/"))
        put(self.hub, identity)
        self.hub.twins.patch(identity, parts, ANY)
        if reported is not None:
            self.hub.twins.report(identity, reported, None)

    def twin(self, key: str) -> JsonObject:
        return self.hub.twins.get(IdentityKey(*key.split("/")))

    def placed_jobs(self, after: Place) -> Iterator[tuple[Place, JsonObject]]:
        names = ("createdDateTimeUtc", "jobId", "deviceId", "moduleId")
        placed = [
            (tuple((job.get(name) or "").rstrip("Z") for name in names), job) for job in self.jobs
        ]
        return (each for each in sorted(placed, key=itemgetter(0)) if each[0] > after)

    def count(self, text: str) -> int:
        async def counting() -> int:
            work = await self.hub.slices.begin()
            return await self.queries.count(text, work, Budget())

        return done(counting())

    def ask(self, text: str) -> list[Any]:
        return self.page(text, 100).items

    def page(self, text: str, size: int, continuation: str | None = None) -> Page:
        page = done(self.queries.run(text, size=size, continuation=continuation))
        assert json.loads(dumps(page.items)) is not None
        return page

    def pages(self, text: str, size: int) -> Iterator[list[Any]]:
        """Return the pages of an answer, all but the last of which are full."""
        continuation: str | None = None
        for _ in range(1000):
            page = self.page(text, size, continuation)
            yield page.items
            continuation = page.continuation
            if continuation is None:
                return
            assert len(page.items) == size
        raise AssertionError("the pages have no end")

    def rows(self, text: str, size: int) -> list[Any]:
        """Return the rows of all pages."""
        return [row for page in self.pages(text, size) for row in page]


@pytest.fixture
def house() -> House:
    return House()


def ids(rows: Sequence[JsonObject]) -> list[str]:
    return [row["deviceId"] for row in rows]


# --- the members of a row


def test_a_whole_twin_is_the_view_of_a_service(house: House) -> None:
    house.create("a", tags={"x": 1}, reported={"r": 1})
    house.create("b")
    page = house.page("SELECT * FROM devices", 100)
    twins = [house.twin(device_id) for device_id in "ab"]
    assert (page.items, page.type, page.continuation) == (twins, "Twin", None)
    assert list(page.items[0]) == list(twins[0])


TWIN = {
    "tags": {"site": {"floor": 3}},
    "properties": {"desired": {"interval": 5, "deep": {"a": [1, {"b": 2}]}}},
}
DATE = {"$lastUpdated": NOW}
MARK = {**DATE, "$lastUpdatedVersion": 2}
PARTS = """
"a"             deviceId
"AAAAAAAAAAI="  etag
"enabled"       status
undefined       statusReason
"Disconnected"  connectionState
"0001-01-01T00:00:00Z"  statusUpdateTime; lastActivityTime
"sas"           authenticationType
null            x509Thumbprint.primaryThumbprint
4               version
false           capabilities.iotEdge
3               tags.site.floor
5               properties.desired.interval
0               cloudToDeviceMessageCount
2               properties.desired.deep.a[1].b; properties.desired.$version
2               properties.desired.$metadata.interval.$lastUpdatedVersion
2               properties.reported.$version
"2026-01-31T14:46:08Z"  properties.desired.$metadata.$lastUpdated
"x"             properties.reported.r; PROPERTIES.reported.r
"Applied"       configurations.c1.status
"Targeted"      configurations.[[c-2]].status
"""
OBJECTS = [
    ("tags", TWIN["tags"]),
    ("properties.desired.$metadata.interval", MARK),
    ("properties.reported.$metadata.r", DATE),
    ("properties.reported", {"r": "x", "$metadata": {**DATE, "r": DATE}, "$version": 2}),
    ("configurations", {"c1": {"status": "Applied"}, "c-2": {"status": "Targeted"}}),
]


@pytest.mark.parametrize(("path", "expected"), cases(PARTS) + OBJECTS)
def test_a_query_reads_every_part_of_a_twin(house: House, path: str, expected: object) -> None:
    house.create("a", reported={"r": "x"}, **TWIN)
    house.statuses["a"] = {"c1": {"status": "Applied"}, "c-2": {"status": "Targeted"}}
    row = {} if expected is UNDEFINED else {"x": expected}
    assert house.ask(f"SELECT {path} AS x FROM devices") == [row]
    # A condition on it finds the row, and the opposite condition does not.
    if isinstance(expected, (str, int)):
        value = f"'{expected}'" if isinstance(expected, str) else json.dumps(expected)
        assert len(house.ask(f"SELECT * FROM devices WHERE {path} = {value}")) == 1
        assert house.ask(f"SELECT * FROM devices WHERE {path} != {value}") == []


def test_a_whole_section_has_its_metadata(house: House) -> None:
    house.create("a", reported={"r": "x"}, **TWIN)
    (row,) = house.ask("SELECT properties FROM devices")
    twin = house.twin("a")
    assert row == {"properties": twin["properties"]}
    (row,) = house.ask("SELECT properties.desired, properties.reported FROM devices")
    assert row == twin["properties"]
    assert list(row["desired"])[-2:] == ["$metadata", "$version"]


@pytest.mark.parametrize(
    "path",
    [
        *("tags.none", "properties.none", "moduleId", "jobs", "deviceId.length"),
        *("properties.Desired", "[[properties.desired]]", "[[properties.desired.*]]"),
        *("properties.[[desired.$version]]", "configurations.none.status"),
        *(
            f"properties.desired{rest}"
            for rest in (".none", ".interval.none", ".$none", "[0]", ".[[*]]")
        ),
        *("properties.desired.$metadata.none", "properties.desired.$version.none"),
    ],
)
def test_a_missing_member_is_undefined(house: House, path: str) -> None:
    house.create("a", reported={"r": "x"}, **TWIN)
    assert house.ask(f"SELECT {path} AS x FROM devices") == [{}]
    assert house.ask(f"SELECT * FROM devices WHERE is_defined({path})") == []
    assert len(house.ask(f"SELECT * FROM devices WHERE NOT is_defined({path})")) == 1


def test_no_document_has_the_configurations(house: House) -> None:
    for key in ("a", "b", "a/m"):
        house.create(key)
    house.statuses = {"a": {"c": {"status": "Applied"}}, "a/m": {"c": {"status": "Targeted"}}}
    assert all("configurations" not in row for row in house.ask("SELECT * FROM devices"))
    text = "SELECT deviceId FROM devices WHERE configurations.[[c]].status = 'Applied'"
    assert house.ask(text) == [{"deviceId": "a"}]
    text = "SELECT moduleId FROM devices.modules WHERE configurations.c.status = 'Targeted'"
    assert house.ask(text) == [{"moduleId": "m"}]


def test_modules_are_another_collection(house: House) -> None:
    house.create("a", tags={"x": 1})
    house.create("a/m2", tags={"x": 2}, reported={"status": "scanning"})
    house.create("a/m1", tags={"x": 3})
    house.create("b")
    house.create("b/m1", reported={"status": "scanning"})
    assert ids(house.ask("SELECT * FROM devices")) == ["a", "b"]
    page = house.page("SELECT * FROM devices.modules", 100)
    assert page.type == "Twin"
    assert page.items == [house.twin(key) for key in ("a/m1", "a/m2", "b/m1")]
    found = house.ask(
        "SELECT * FROM devices.modules WHERE properties.reported.status = 'scanning' "
        "AND deviceId IN ['a', 'c']"
    )
    assert [row["moduleId"] for row in found] == ["m2"]
    text = "SELECT devices.modules.moduleId AS m FROM devices.modules WHERE devices.tags.x > 2"
    assert house.ask(text) == [{"m": "m1"}]
    assert house.ask("SELECT COUNT() AS n, MAX(tags.x) FROM devices.modules") == [{"n": 3, "$1": 3}]
    assert house.ask("SELECT capabilities FROM devices.modules WHERE moduleId = 'm2'") == [{}]


JOB = {
    "deviceId": "a",
    "jobId": "j1",
    "jobType": "scheduleDeviceMethod",
    "status": "completed",
    "startTimeUtc": NOW,
    "endTimeUtc": NOW,
    "createdDateTimeUtc": NOW,
    "lastUpdatedDateTimeUtc": NOW,
    "outcome": {"deviceMethodResponse": {"status": 200, "payload": WrittenJson(b"null")}},
}
LATER = "2026-01-31T14:46:08.5Z"
JOBS: list[JsonObject] = [
    JOB,
    {**JOB, "deviceId": "b", "status": "failed", "error": {"code": "DeviceNotOnline"}},
    {**JOB, "jobId": "j0", "createdDateTimeUtc": LATER},
]
JOBS_READ = json.loads(dumps(JOBS))


JOBS_FOUND = f"""
[0,1]    devices.jobs.jobId = 'j1'
[0]      devices.jobs.deviceId = 'a' AND devices.jobs.jobId = 'j1'
[0]      jobId = 'j1' AND STATUS != 'failed'
[1]      status = 'failed'; devices.jobs.error.code = 'DeviceNotOnline'
[0,1,2]  devices.jobs.createdTimeUtc > '2026-01-01'
[0,1,2]  devices.jobs.outcome.deviceMethodResponse.payload = null
[2]      createdDateTimeUtc = '{LATER}'
[]       createdDateTimeUtc > '2026-02'; tags.x = 1
"""


@pytest.mark.parametrize(("where", "found"), cases(JOBS_FOUND))
def test_conditions_on_jobs(house: House, where: str, found: list[int]) -> None:
    house.jobs = JOBS
    rows = [JOBS_READ[index] for index in found]
    assert house.ask(f"SELECT * FROM devices.jobs WHERE {where}") == rows


def test_jobs_are_another_collection(house: House) -> None:
    house.jobs = JOBS
    page = house.page("SELECT * FROM devices.jobs", 100)
    assert (page.items, page.type) == (JOBS_READ, "DeviceJob")
    assert list(house.pages("SELECT * FROM devices.jobs", 1)) == [[row] for row in JOBS_READ]
    assert house.ask("SELECT TOP 1 * FROM devices.jobs") == JOBS_READ[:1]


def test_an_answer_has_the_present_state(house: House) -> None:
    text = "SELECT deviceId FROM devices WHERE properties.reported.x = 1"
    house.create("a")
    assert house.ask(text) == []
    house.hub.twins.report(IdentityKey("a"), {"x": 1}, None)
    assert house.ask(text) == [{"deviceId": "a"}]
    house.hub.identities.remove(IdentityKey("a"), ANY)
    assert house.ask(text) == []


# --- count and find


COUNTS = """
5  SELECT * FROM devices; SELECT TOP 9 * FROM devices
2  select deviceId from devices where tags.n >= 3; SELECT TOP 2 * FROM devices
2  SELECT tags.odd, COUNT() FROM devices GROUP BY tags.odd
1  SELECT * FROM devices.modules; SELECT COUNT() FROM devices
0  SELECT * FROM devices.jobs; SELECT * FROM devices WHERE tags.none = 1
"""


@pytest.mark.parametrize(("text", "count"), cases(COUNTS))
def test_count(house: House, text: str, count: int) -> None:
    for number in range(5):
        house.create(f"d{number}", tags={"n": number, "odd": number % 2})
    house.create("d0/m")
    assert house.count(text) == count


FOUND = """
["a","b"]      *; FROM devices
["a"]          tags.x = 1; FROM devices WHERE is_defined(tags.x)
["b"]          deviceId IN ['b', 'c']; configurations.c.status = 'Applied'
["a/m","b/m"]  FROM devices.modules
["b/m"]        from devices.modules where deviceId = 'b' AND moduleId = 'm'
[]             tags.none = 1
"""


@pytest.mark.parametrize(("condition", "found"), cases(FOUND))
def test_find(house: House, condition: str, found: list[str]) -> None:
    house.create("a", tags={"x": 1})
    for key in ("b", "b/m", "a/m"):
        house.create(key)
    house.statuses["b"] = {"c": {"status": "Applied"}}
    assert [str(key) for key in done(house.queries.find(condition))] == found


def test_an_invalid_query_is_not_counted_and_an_invalid_condition_finds_nothing(
    house: House,
) -> None:
    with pytest.raises(ArgumentInvalid):
        house.count("deviceId = 'x'")
    for condition in ("", "SELECT * FROM devices", "FROM devices.jobs", "x ="):
        with pytest.raises(ArgumentInvalid):
            done(house.queries.find(condition))


EDGE_SCOPE = "ms-azure-iot-edge://edge-639054099680000000"
# Queries of clients and of the docs, and the devices that they find.
ACCEPTED = [
    ("SELECT * FROM devices", ["edge", "leaf"]),
    ("SELECT TOP 10 * FROM devices", ["edge", "leaf"]),
    ("SELECT TOP(10) * FROM devices", ["edge", "leaf"]),
    (f"select deviceId from devices where array_contains(parentScopes, '{EDGE_SCOPE}')", ["leaf"]),
    (
        f"SELECT deviceId, deviceScope FROM devices WHERE (deviceScope = '{EDGE_SCOPE}' OR "
        f"ARRAY_CONTAINS(parentScopes, '{EDGE_SCOPE}')) AND deviceId <> 'edge'",
        ["leaf"],
    ),
    ("SELECT * FROM devices WHERE capabilities.iotEdge = true", ["edge"]),
    (
        "SELECT * FROM devices WHERE tags.location.region = 'US' "
        "AND properties.reported.telemetryConfig.sendFrequencyInSecs >= 60",
        ["leaf"],
    ),
    (
        "SELECT * FROM devices WHERE properties.reported.connectivity IN ['wired', 'wifi']",
        ["leaf"],
    ),
    ("SELECT * FROM devices WHERE is_defined(properties.reported.connectivity)", ["leaf"]),
    ("SELECT * FROM devices WHERE properties.reported.telemetryConfig.status != 'ok'", ["leaf"]),
    (
        "SELECT DeviceId, LastActivityTime FROM devices WHERE status = 'enabled' "
        "AND connectionState = 'Disconnected'",
        ["edge", "leaf"],
    ),
    ("SELECT * FROM devices WHERE configurations.[[cfg]].status = 'Applied'", []),
]


@pytest.mark.parametrize(("text", "found"), ACCEPTED)
def test_the_queries_of_clients_are_answered(house: House, text: str, found: list[str]) -> None:
    put(house.hub, IdentityKey("edge"), capabilities={"iotEdge": True})
    scope = house.hub.identities.get(IdentityKey("edge"))["deviceScope"]
    put(house.hub, IdentityKey("leaf"), deviceScope=scope)
    house.hub.twins.patch(IdentityKey("leaf"), {"tags": {"location": {"region": "US"}}}, ANY)
    config = {"sendFrequencyInSecs": 60, "status": "busy"}
    reported = {"telemetryConfig": config, "connectivity": "wired"}
    house.hub.twins.report(IdentityKey("leaf"), reported, None)
    assert ids(house.ask(text.replace(EDGE_SCOPE, scope))) == found


@pytest.mark.parametrize("text", ["select count() from devices", "SELECT COUNT(*) FROM devices"])
def test_an_aggregate_without_an_alias_has_a_number(house: House, text: str) -> None:
    house.create("a")
    assert house.ask(text) == [{"$1": 1}]


# --- pages

GROUPED = "SELECT tags.n, COUNT() AS c FROM devices GROUP BY tags.n"


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 100])
def test_pages_are_in_the_order_of_registration(house: House, size: int) -> None:
    for number in range(4):
        house.clock.advance(1)
        house.create(f"d{9 - number}", tags={"n": number})
        house.create(f"d{9 - number}/m")
    for text in ("SELECT * FROM devices", "SELECT deviceId FROM devices.modules"):
        assert ids(house.rows(text, size)) == ["d9", "d8", "d7", "d6"]
        assert all(house.pages(text, size))
    assert house.rows(GROUPED, size) == [{"n": n, "c": 1} for n in range(4)]


def test_groups_keep_their_order_over_many_pages(house: House) -> None:
    for number in range(25):
        house.create(f"d{number:02}", tags={"n": number})
    assert house.rows(GROUPED, 4) == house.ask(GROUPED) == [{"n": n, "c": 1} for n in range(25)]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM devices WHERE false",
        "SELECT * FROM devices.jobs",
        "SELECT TOP 0 * FROM devices",
    ],
)
def test_an_answer_without_rows_has_one_page(house: House, text: str) -> None:
    house.create("a")
    page = house.page(text, 100)
    assert (page.items, page.continuation) == ([], None)


@pytest.mark.parametrize("top", [1, 2, 3, 6, 7, 8])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("rest", ["* FROM devices", GROUPED.removeprefix("SELECT ")])
def test_top_counts_the_rows_of_all_pages(house: House, top: int, size: int, rest: str) -> None:
    for number in range(7):
        house.create(f"d{number}", tags={"n": number})
    assert house.rows(f"SELECT TOP {top} {rest}", size) == house.ask(f"SELECT {rest}")[:top]


@given(
    steps=st.lists(st.integers(-1, 1), min_size=1, max_size=8),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    changes=st.lists(st.lists(st.integers(0, 11), max_size=4), max_size=8),
    collection=st.sampled_from(["devices", "devices.modules"]),
)
def test_a_row_that_exists_throughout_is_seen_once(
    steps: list[int], sizes: list[int], changes: list[list[int]], collection: str
) -> None:
    """Devices come and go between two pages; the clock runs, stands still, or runs backwards."""
    house = House()
    living: dict[str, int] = {}  # the number of each one's creation
    numbers = iter(range(1000))

    def toggle(device_id: str) -> None:
        if living.pop(device_id, None) is not None:
            house.hub.identities.remove(IdentityKey(device_id), ANY)
            return
        living[device_id] = number = next(numbers)
        house.clock.advance(steps[number % len(steps)])
        house.create(device_id)
        house.create(f"{device_id}/m")

    for number in range(0, 12, 2):
        toggle(f"d{number}")
    before, deleted, seen = dict(living), set[str](), list[str]()
    continuation: str | None = None
    for turn in range(100):
        page = house.page(
            f"SELECT deviceId, etag FROM {collection}", sizes[turn % len(sizes)], continuation
        )
        seen += ids(page.items)
        continuation = page.continuation
        if continuation is None:
            break
        for number in changes[turn] if turn < len(changes) else []:
            deleted |= {f"d{number}"} & living.keys()
            toggle(f"d{number}")
    else:
        raise AssertionError("the pages have no end")
    for device_id, _ in before.items() & living.items():
        assert seen.count(device_id) == 1, device_id
    assert all(seen.count(device_id) == 1 for device_id in set(seen) - deleted)


def test_pages_go_on_after_the_last_row_was_deleted(house: House) -> None:
    house.jobs = [
        {**JOB, "jobId": job_id, "deviceId": device_id} for job_id in "xy" for device_id in "ab"
    ]
    text = "SELECT * FROM devices.jobs"
    first = house.page(text, 2)
    assert [row["jobId"] for row in first.items] == ["x", "x"]
    house.jobs = house.jobs[2:]
    rest = house.page(text, 2, first.continuation)
    assert (rest.items, rest.continuation) == (json.loads(dumps(house.jobs)), None)


# --- continuations

TEXT = "SELECT TOP 2 * FROM devices"


def token_of(house: House) -> str:
    for device_id in "abc":
        house.create(device_id)
    token = house.page(TEXT, 1).continuation
    assert token is not None
    return token


def test_a_token_can_be_used_again(house: House) -> None:
    token = token_of(house)
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
def test_a_token_belongs_to_one_query(house: House, other: str) -> None:
    token = token_of(house)
    with pytest.raises(ArgumentInvalid, match="continuation"):
        house.page(other, 1, token)


def test_an_invalid_query_is_refused_before_its_token(house: House) -> None:
    with pytest.raises(ArgumentInvalid, match="FORM"):
        house.page("SELECT * FORM devices", 1, "x")
