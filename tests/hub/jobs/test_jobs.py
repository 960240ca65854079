"""Scheduled jobs, with conditions and devices that are told what to answer, and a clock in hand."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from emulator.hub.core import limits
from emulator.hub.core.errors import (
    ArgumentInvalid,
    ArgumentNull,
    DeserializationError,
    DeviceNotOnline,
    GatewayTimeout,
    HubError,
    JobAlreadyExists,
    JobNotFound,
    MessageTooLarge,
    OperationNotAllowedInCurrentState,
    ServiceUnavailable,
    ThrottlingMaxActiveJobCountExceeded,
)
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.store import Key, MemoryStore, Record
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.jobs.jobs import Jobs
from emulator.hub.jobs.records import Job, JobStatus, JobType
from emulator.hub.methods.calls import MethodResult

NOW = datetime(2026, 1, 31, 14, 46, 8, 120000, tzinfo=UTC)
CREATE, ANY = IfMatch(None), IfMatch("*")
# Longer than anything here takes on a busy machine: waiting ends by the event, not by this.
PATIENCE = 30.0

REBOOT = {"methodName": "reboot", "payload": {"delay": 1.0}}
METHOD = {
    "jobId": "j",
    "type": "scheduleDeviceMethod",
    "cloudToDeviceMethod": REBOOT,
    "queryCondition": "tags.floor = 1",
}
PATCH = {"etag": "*", "tags": {"a": 1}, "properties": {"desired": {"b": 2}}}
TWIN = {
    "jobId": "j",
    "type": "scheduleUpdateTwin",
    "updateTwin": PATCH,
    "queryCondition": "*",
}


class CheckedStore(MemoryStore):
    """A store that sees after each commit that every job's statistics are those of its devices."""

    def commit(self, *, put: Sequence[Record] = (), delete: Sequence[Key] = ()) -> None:
        super().commit(put=put, delete=delete)
        for job in self.jobs():
            counts = Counter(record.status.value for record in self.device_jobs_of(job.key))
            counted = job.statistics._asdict() if job.statistics else {}
            assert {name: count for name, count in counted.items() if count} == counts


class Bench:
    """Jobs, and all that they meet."""

    def __init__(self, store: MemoryStore, slots: int = 3) -> None:
        self.now = NOW
        self.store = store
        self.registry = IotHub(store=store, policies=(), hosts=(), clock=lambda: self.now).registry
        self.jobs = Jobs(
            store,
            self.registry,
            lambda: self.now,
            find=self._find,
            invoke=self._invoke,
            slots=slots,
        )
        self.conditions: list[str] = []
        self.found: Sequence[IdentityKey] = ()
        self.invoked: list[tuple[IdentityKey, object]] = []
        self.answer: Callable[[IdentityKey], Awaitable[MethodResult]] = answer_at_once

    def _find(self, condition: str) -> Sequence[IdentityKey]:
        self.conditions.append(condition)
        if condition == "none":
            raise ArgumentInvalid("BadRequest: none is no condition")
        return self.found

    async def _invoke(self, key: IdentityKey, body: object) -> MethodResult:
        self.invoked.append((key, body))
        return await self.answer(key)

    def register(self, *ids: str) -> None:
        for device_id in ids:
            self.registry.put_device(device_id, {"deviceId": device_id}, CREATE)
        self.found = [*self.found, *map(IdentityKey, ids)]

    def create(self, job_id: str, body: dict[str, Any], **members: Any) -> dict[str, Any]:
        return self.jobs.create(job_id, {**body, "jobId": job_id, **members})

    async def until(self, job_id: str, status: str) -> dict[str, Any]:
        """Let everything run until a job has a status; gives the job."""
        await eventually(lambda: self.jobs.get(job_id)["status"] == status)
        return self.jobs.get(job_id)

    def rows(self, job_id: str = "j") -> list[dict[str, Any]]:
        return [row for row in self.jobs.device_documents() if row["jobId"] == job_id]


async def eventually(condition: Callable[[], bool]) -> None:
    """Let everything run until a condition holds."""

    async def wait() -> None:
        while True:
            if condition():
                return
            await asyncio.sleep(0)

    await asyncio.wait_for(wait(), PATIENCE)


async def answer_at_once(key: IdentityKey) -> MethodResult:
    return MethodResult(200, {"from": str(key)})


async def never_answer(key: IdentityKey) -> MethodResult:
    return await asyncio.get_running_loop().create_future()


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    """Jobs of a hub without devices; when they are stopped nothing is left of them."""
    bench = Bench(CheckedStore())
    yield bench
    await bench.jobs.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


def later(**time: float) -> str:
    return (NOW + timedelta(**time)).isoformat()


# --- what is asked for


@pytest.mark.parametrize(
    ("job_id", "body", "error"),
    [
        ("j", None, DeserializationError),
        ("j", [METHOD], DeserializationError),
        ("J", METHOD | {"jobId": "J"}, ArgumentInvalid),
        ("a_b", METHOD | {"jobId": "a_b"}, ArgumentInvalid),
        ("a.b", METHOD | {"jobId": "a.b"}, ArgumentInvalid),
        ("ä", METHOD | {"jobId": "ä"}, ArgumentInvalid),
        ("j\n", METHOD | {"jobId": "j\n"}, ArgumentInvalid),
        ("j" * 65, METHOD | {"jobId": "j" * 65}, ArgumentInvalid),
        ("i", METHOD, ArgumentInvalid),
        ("j", METHOD | {"jobId": 1}, ArgumentInvalid),
        ("j", METHOD | {"type": None}, ArgumentNull),
        ("j", METHOD | {"type": "export"}, ArgumentInvalid),
        ("j", METHOD | {"type": []}, ArgumentInvalid),
        ("j", METHOD | {"type": "scheduleUpdateTwin"}, ArgumentNull),
        ("j", METHOD | {"cloudToDeviceMethod": None}, ArgumentNull),
        ("j", METHOD | {"cloudToDeviceMethod": "reboot"}, ArgumentInvalid),
        ("j", METHOD | {"cloudToDeviceMethod": {}}, ArgumentNull),
        (
            "j",
            METHOD | {"cloudToDeviceMethod": {"methodName": "m" * 101}},
            ArgumentInvalid,
        ),
        (
            "j",
            METHOD | {"cloudToDeviceMethod": REBOOT | {"responseTimeoutInSeconds": 4}},
            ArgumentInvalid,
        ),
        (
            "j",
            METHOD | {"cloudToDeviceMethod": REBOOT | {"connectTimeoutInSeconds": 31}},
            ArgumentInvalid,
        ),
        (
            "j",
            METHOD | {"cloudToDeviceMethod": REBOOT | {"payload": "x" * 128 * 1024}},
            MessageTooLarge,
        ),
        ("j", METHOD | {"queryCondition": None}, ArgumentNull),
        ("j", METHOD | {"queryCondition": ""}, ArgumentNull),
        ("j", METHOD | {"queryCondition": 1}, ArgumentInvalid),
        ("j", METHOD | {"startTime": later(hours=168, microseconds=1)}, ArgumentInvalid),
        ("j", METHOD | {"startTime": "tomorrow"}, ArgumentInvalid),
        ("j", METHOD | {"startTime": "2026-02-30T00:00:00Z"}, ArgumentInvalid),
        ("j", METHOD | {"startTime": "0001-01-01T00:00:00+01:00"}, ArgumentInvalid),
        ("j", METHOD | {"startTime": "2026-01-31T14:46:08+24:00"}, ArgumentInvalid),
        ("j", METHOD | {"startTime": 1769870768}, ArgumentInvalid),
        ("j", METHOD | {"maxExecutionTimeInSeconds": -1}, ArgumentInvalid),
        ("j", METHOD | {"maxExecutionTimeInSeconds": 2**31}, ArgumentInvalid),
        ("j", METHOD | {"maxExecutionTimeInSeconds": 1.5}, ArgumentInvalid),
        ("j", METHOD | {"maxExecutionTimeInSeconds": True}, ArgumentInvalid),
        ("j", METHOD | {"maxExecutionTimeInSeconds": False}, ArgumentInvalid),
        ("j", METHOD | {"maxExecutionTimeInSeconds": "60"}, ArgumentInvalid),
        ("j", TWIN | {"updateTwin": None}, ArgumentNull),
        ("j", TWIN | {"updateTwin": [PATCH]}, ArgumentInvalid),
        ("j", TWIN | {"updateTwin": {"tags": {"a": 1}}}, ArgumentInvalid),
        ("j", TWIN | {"updateTwin": PATCH | {"etag": "AAAAAAAAAAE="}}, ArgumentInvalid),
        ("j", TWIN | {"updateTwin": PATCH | {"etag": '"*"'}}, ArgumentInvalid),
        ("j", TWIN | {"updateTwin": PATCH | {"tags": {"a.b": 1}}}, ArgumentInvalid),
        ("j", TWIN | {"updateTwin": PATCH | {"properties": {"desired": 1}}}, ArgumentInvalid),
    ],
)
async def test_a_request_that_is_none_is_refused(
    bench: Bench, job_id: str, body: object, error: type[HubError]
) -> None:
    with pytest.raises(error) as caught:
        bench.jobs.create(job_id, body)
    assert type(caught.value) is error
    assert list(bench.store.jobs()) == []


def test_that_an_etag_is_missing_is_told_in_so_many_words() -> None:
    with pytest.raises(ArgumentInvalid, match=r"forced update, which accepts no other"):
        Job.parse("j", TWIN | {"updateTwin": {"tags": {}}}, NOW)


@pytest.mark.parametrize("job_id", ["a", "0", "reboot-1", "it's", "-" * 64])
def test_an_id_may_have_every_character_that_a_hub_takes(job_id: str) -> None:
    assert Job.parse(job_id, METHOD | {"jobId": job_id}, NOW).key.id == job_id
    assert Job.parse(job_id, METHOD | {"jobId": None}, NOW).key.id == job_id


@pytest.mark.parametrize(
    ("text", "start"),
    [
        (None, NOW),
        ("", NOW),
        ("2026-01-31T14:46:08Z", NOW - timedelta(milliseconds=120)),
        ("2026-01-31T14:46:08", NOW - timedelta(milliseconds=120)),
        ("2026-01-31T14:46:08.12Z", NOW),
        ("2026-01-31T14:46:08.1200009Z", NOW),  # .NET counts in steps of 100 ns
        ("2026-01-31T16:16:08.120+01:30", NOW),
        ("2026-01-31T13:46:08.120000-01:00", NOW),
        ("2026-02-07T14:46:08.12Z", NOW + timedelta(hours=168)),
        ("0001-01-01T00:00:00", datetime.min.replace(tzinfo=UTC)),
    ],
)
def test_a_start_is_read_as_every_sdk_writes_it(text: str | None, start: datetime) -> None:
    job = Job.parse("j", METHOD | {"startTime": text}, NOW)
    assert job.start == start
    assert job.status is (JobStatus.SCHEDULED if start > NOW else JobStatus.QUEUED)


@given(
    st.datetimes(max_value=datetime(2026, 1, 1), timezones=st.just(UTC)),
    st.integers(-23 * 60, 23 * 60),
)
def test_a_start_is_the_same_moment_in_every_offset(moment: datetime, minutes: int) -> None:
    try:
        text = moment.astimezone(timezone(timedelta(minutes=minutes))).isoformat()
    except OverflowError:
        return
    assert Job.parse("j", METHOD | {"startTime": text}, NOW).start == moment


@pytest.mark.parametrize(("given", "seconds"), [(None, 3600), (0, 3600), (1, 1), (7200, 7200)])
def test_a_job_may_run_for_an_hour_unless_it_says_otherwise(
    given: int | None, seconds: int
) -> None:
    job = Job.parse("j", METHOD | {"maxExecutionTimeInSeconds": given}, NOW)
    assert job.execution_time == seconds


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*METHOD, *TWIN, "startTime"]), JSON))
def test_whatever_is_sent_is_a_job_or_an_error_of_the_hub(members: dict[str, Any]) -> None:
    for body in (METHOD, TWIN):
        try:
            job = Job.parse("j", body | members, NOW)
        except HubError:
            continue
        assert job.document()["type"] == body["type"]


# --- a job on twins


async def test_a_job_patches_the_twins_that_its_condition_finds(bench: Bench) -> None:
    bench.register("a", "b")
    bench.registry.put_device("c", {"deviceId": "c"}, CREATE)
    bench.registry.patch_twin(IdentityKey("a"), {"tags": {"x": {"y": 1, "z": 2}}}, ANY)

    patch = {"etag": "*", "tags": {"x": {"y": None}, "a": 1}, "properties": {"desired": {"b": 2}}}
    answer = bench.create("j", TWIN, updateTwin=patch, maxExecutionTimeInSeconds=60)
    assert list(answer.items()) == [
        ("jobId", "j"),
        ("type", "scheduleUpdateTwin"),
        ("status", "queued"),
    ]
    assert bench.jobs.get("j")["status"] == "queued"
    bench.now += timedelta(seconds=1)
    job = await bench.until("j", "completed")
    assert list(job.items()) == [
        ("jobId", "j"),
        ("queryCondition", "*"),
        ("createdTime", "2026-01-31T14:46:08.12Z"),
        ("startTime", "2026-01-31T14:46:08.12Z"),
        ("endTime", "2026-01-31T14:46:09.12Z"),
        ("maxExecutionTimeInSeconds", 60),
        ("type", "scheduleUpdateTwin"),
        ("updateTwin", patch),
        ("status", "completed"),
        (
            "deviceJobStatistics",
            {
                "deviceCount": 2,
                "failedCount": 0,
                "succeededCount": 2,
                "runningCount": 0,
                "pendingCount": 0,
            },
        ),
    ]
    assert list(job["deviceJobStatistics"]) == [
        *("deviceCount", "failedCount", "succeededCount", "runningCount", "pendingCount")
    ]
    assert bench.conditions == ["*"]
    tags = {name: bench.registry.get_twin(IdentityKey(name)).get("tags") for name in "abc"}
    assert tags == {"a": {"x": {"z": 2}, "a": 1}, "b": {"x": {}, "a": 1}, "c": None}
    assert bench.registry.get_twin(IdentityKey("b"))["properties"]["desired"]["b"] == 2
    assert [list(row.items()) for row in bench.rows()] == [
        [
            ("deviceId", name),
            ("jobId", "j"),
            ("jobType", "scheduleUpdateTwin"),
            ("status", "completed"),
            ("startTimeUtc", "2026-01-31T14:46:09.12Z"),
            ("endTimeUtc", "2026-01-31T14:46:09.12Z"),
            ("createdDateTimeUtc", "2026-01-31T14:46:09.12Z"),
            ("lastUpdatedDateTimeUtc", "2026-01-31T14:46:09.12Z"),
            ("outcome", {"deviceMethodResponse": None}),
        ]
        for name in "ab"
    ]
    assert bench.invoked == []


async def test_a_device_that_is_gone_when_its_turn_comes_has_failed(bench: Bench) -> None:
    bench.register("a", "b")
    bench.create("j", TWIN)
    await bench.until("j", "running")
    bench.registry.delete_device("b", ANY)
    job = await bench.until("j", "completed")
    assert job["deviceJobStatistics"] == {
        "deviceCount": 2,
        "failedCount": 1,
        "succeededCount": 1,
        "runningCount": 0,
        "pendingCount": 0,
    }
    (_, row) = bench.rows()
    assert (row["deviceId"], row["status"], row["outcome"]) == ("b", "failed", {})
    assert row["error"] == {"code": "DeviceNotFound", "description": "b"}
    assert list(row)[-2:] == ["outcome", "error"]


async def test_a_twin_that_has_no_room_for_the_patch_fails_alone(bench: Bench) -> None:
    bench.register("a", "b")
    full = {f"t{number}": "x" * 4000 for number in range(2)}
    bench.registry.patch_twin(IdentityKey("a"), {"tags": full}, ANY)
    bench.create("j", TWIN, updateTwin={"etag": "*", "tags": {"more": "x" * 300}})
    await bench.until("j", "completed")
    assert [row["status"] for row in bench.rows()] == ["failed", "completed"]
    assert bench.rows()[0]["error"]["code"] == "ArgumentInvalid"


async def test_a_module_is_a_target_like_a_device(bench: Bench) -> None:
    bench.register("a")
    module = IdentityKey("a", "m")
    bench.registry.put_module(module, {"deviceId": "a", "moduleId": "m"}, CREATE)
    bench.found = [module]
    bench.create("j", TWIN, queryCondition="FROM devices.modules WHERE moduleId = 'm'")
    await bench.until("j", "completed")
    assert bench.registry.get_twin(module)["tags"] == {"a": 1}
    assert "tags" not in bench.registry.get_twin(IdentityKey("a"))
    (row,) = bench.rows()
    assert list(row)[:3] == ["deviceId", "moduleId", "jobId"]
    assert (row["deviceId"], row["moduleId"]) == ("a", "m")


async def test_a_condition_that_finds_nothing_makes_a_job_that_does_nothing(bench: Bench) -> None:
    for body in (TWIN, METHOD):
        bench.create("j" if body is TWIN else "k", body)
    for job_id in ("j", "k"):
        job = await bench.until(job_id, "completed")
        assert set(job["deviceJobStatistics"].values()) == {0}
    assert bench.rows() == []


async def test_a_condition_that_is_none_fails_the_job_when_it_starts(bench: Bench) -> None:
    bench.create("j", METHOD, queryCondition="none", startTime=later(milliseconds=1))
    assert bench.conditions == []
    bench.now += timedelta(seconds=1)
    job = await bench.until("j", "failed")
    assert job["failureReason"] == "BadRequest: none is no condition"
    assert job["endTime"] == "2026-01-31T14:46:09.12Z"
    assert "deviceJobStatistics" not in job
    assert list(job)[-2:] == ["status", "failureReason"]


# --- a job of direct methods


async def test_a_job_invokes_the_method_and_notes_each_answer(bench: Bench) -> None:
    bench.register("a", "b", "c", "d")
    failures = {"b": DeviceNotOnline(), "c": GatewayTimeout()}

    async def answer(key: IdentityKey) -> MethodResult:
        bench.now += timedelta(seconds=1)
        if failure := failures.get(key.device_id):
            raise failure
        return MethodResult(200 if key.device_id == "a" else 500, {"from": str(key)})

    bench.answer = answer
    bench.create("j", METHOD)
    job = await bench.until("j", "completed")
    assert job["cloudToDeviceMethod"] == REBOOT
    assert "updateTwin" not in job
    statistics = job["deviceJobStatistics"]
    # A device that says 500 has answered: what that means is between it and the service.
    assert (statistics["succeededCount"], statistics["failedCount"]) == (2, 2)
    assert bench.invoked == [(IdentityKey(name), REBOOT) for name in "abcd"]
    a, b, c, d = bench.rows()
    assert a == {
        "deviceId": "a",
        "jobId": "j",
        "jobType": "scheduleDeviceMethod",
        "status": "completed",
        "startTimeUtc": "2026-01-31T14:46:08.12Z",
        "endTimeUtc": "2026-01-31T14:46:09.12Z",
        "createdDateTimeUtc": "2026-01-31T14:46:08.12Z",
        "lastUpdatedDateTimeUtc": "2026-01-31T14:46:09.12Z",
        "outcome": {"deviceMethodResponse": {"status": 200, "payload": {"from": "a"}}},
    }
    assert [list(response) for response in a["outcome"].values()] == [["status", "payload"]]
    assert d["outcome"]["deviceMethodResponse"]["status"] == 500
    assert (b["status"], c["status"]) == ("failed", "failed")
    assert b["error"] == {"code": "DeviceNotOnline", "description": DeviceNotOnline.text}
    assert c["error"] == {"code": "GatewayTimeout", "description": GatewayTimeout.text}


async def test_a_job_that_waits_for_a_device_tells_so(bench: Bench) -> None:
    bench.register("a", "b")
    answered = asyncio.Event()

    async def answer(key: IdentityKey) -> MethodResult:
        if key.device_id == "a":
            await answered.wait()
        return MethodResult(200, None)

    bench.answer = answer
    bench.create("j", METHOD)
    await bench.until("j", "running")
    await eventually(lambda: bench.rows()[-1]["status"] == "completed")
    job, (row, _) = bench.jobs.get("j"), bench.rows()
    assert "endTime" not in job
    assert job["deviceJobStatistics"] == {
        "deviceCount": 2,
        "failedCount": 0,
        "succeededCount": 1,
        "runningCount": 1,
        "pendingCount": 0,
    }
    assert (row["status"], row["outcome"]) == ("running", {})
    assert "startTimeUtc" in row
    assert "endTimeUtc" not in row
    answered.set()
    await bench.until("j", "completed")


async def test_only_so_many_devices_are_asked_at_a_time() -> None:
    bench = Bench(MemoryStore())
    bench.found = [IdentityKey(f"d{number}") for number in range(250)]
    gate, open_now, most = asyncio.Event(), 0, 0

    async def answer(key: IdentityKey) -> MethodResult:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await gate.wait()
        open_now -= 1
        return MethodResult(200, None)

    bench.answer = answer
    bench.create("j", METHOD)
    await eventually(lambda: open_now == limits.JOB_METHODS_AT_ONCE)
    statistics = bench.jobs.get("j")["deviceJobStatistics"]
    assert (statistics["runningCount"], statistics["pendingCount"]) == (100, 150)
    waiting = bench.rows()[-1]
    assert waiting["status"] == "pending"
    assert "startTimeUtc" not in waiting
    gate.set()
    job = await bench.until("j", "completed")
    assert job["deviceJobStatistics"]["succeededCount"] == 250
    assert most == limits.JOB_METHODS_AT_ONCE
    await bench.jobs.stop()


async def test_when_a_jobs_time_is_over_the_devices_that_are_left_have_failed(
    bench: Bench,
) -> None:
    cancelled = []

    async def answer(key: IdentityKey) -> MethodResult:
        if key.device_id == "quick":
            return MethodResult(200, None)
        try:
            return await never_answer(key)
        except asyncio.CancelledError:
            cancelled.append(key)
            raise

    bench.answer = answer
    silent = [IdentityKey(f"d{number}") for number in range(limits.JOB_METHODS_AT_ONCE + 1)]
    bench.found = [IdentityKey("quick"), *silent]
    bench.create("j", METHOD, maxExecutionTimeInSeconds=1)
    job = await bench.until("j", "completed")
    assert job["deviceJobStatistics"] == {
        "deviceCount": 102,
        "failedCount": 101,
        "succeededCount": 1,
        "runningCount": 0,
        "pendingCount": 0,
    }
    assert len(cancelled) == len(bench.invoked) - 1 == limits.JOB_METHODS_AT_ONCE
    quick, *rest = bench.rows()
    assert quick["status"] == "completed"
    assert {row["error"]["code"] for row in rest} == {"JobRunPreconditionFailed"}
    assert "did not start within specified period" in rest[0]["error"]["description"]


@pytest.mark.parametrize("body", [TWIN, METHOD], ids=lambda body: body["type"])
@pytest.mark.parametrize("online", [True, False])
async def test_a_job_on_many_devices_lets_others_have_their_turn(
    body: dict[str, Any], online: bool
) -> None:
    # What fails at once, as offline devices do, has nothing to wait for.
    async def refuse(key: IdentityKey) -> MethodResult:
        raise DeviceNotOnline

    bench = Bench(MemoryStore())
    if online:
        bench.register(*(f"d{number}" for number in range(1000)))
    else:
        bench.answer, bench.found = refuse, [IdentityKey(f"d{number}") for number in range(1000)]
    bench.create("j", body)
    seen = [0]
    while (job := bench.jobs.get("j"))["status"] != "completed":
        statistics = job.get("deviceJobStatistics", {"deviceCount": 0, "pendingCount": 0})
        seen.append(2 * statistics["deviceCount"] - statistics["pendingCount"])
        await asyncio.sleep(0)
    steps = [after - before for before, after in itertools.pairwise(seen)]
    assert max(steps) <= 2 * max(limits.JOB_SLICE, limits.JOB_METHODS_AT_ONCE)
    over = "succeededCount" if online else "failedCount"
    assert job["deviceJobStatistics"][over] == 1000
    await bench.jobs.stop()


async def test_a_defect_fails_the_job_and_leaves_no_device_behind(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(key: IdentityKey) -> MethodResult:
        if key.device_id == "b":
            raise RuntimeError("a defect")
        return await never_answer(key)

    bench.answer = answer
    bench.register("a", "b", "c")
    bench.create("j", METHOD)
    with caplog.at_level(logging.ERROR):
        job = await bench.until("j", "failed")
    assert "a defect" in caplog.text
    assert job["failureReason"]
    assert job["deviceJobStatistics"]["failedCount"] == 3
    assert {row["error"]["code"] for row in bench.rows()} == {"ServerError"}


# --- a job for later


async def test_a_job_for_later_starts_then_and_looks_for_devices_then(bench: Bench) -> None:
    answer = bench.create("j", METHOD, startTime=later(milliseconds=20))
    assert answer["status"] == "queued"
    for _ in range(3):
        await asyncio.sleep(0.02)  # the clock stands still meanwhile
        job = bench.jobs.get("j")
        assert job["status"] == "scheduled"
    assert job["startTime"] == "2026-01-31T14:46:08.14Z"
    assert not {"endTime", "deviceJobStatistics"} & job.keys()
    assert bench.rows() == []
    bench.register("new")
    bench.now += timedelta(milliseconds=20)
    job = await bench.until("j", "completed")
    assert job["deviceJobStatistics"]["succeededCount"] == 1


async def test_a_job_can_be_cancelled_until_it_starts(bench: Bench) -> None:
    bench.register("a")
    bench.create("queued", METHOD)
    bench.create("scheduled", METHOD, startTime=later(hours=1))
    bench.now += timedelta(seconds=1)
    for job_id in ("queued", "scheduled"):
        job = bench.jobs.cancel(job_id)
        assert job == bench.jobs.get(job_id)
        assert (job["jobId"], job["status"]) == (job_id, "cancelled")
        assert job["endTime"] == "2026-01-31T14:46:09.12Z"
        with pytest.raises(OperationNotAllowedInCurrentState):
            bench.jobs.cancel(job_id)
    bench.now += timedelta(hours=2)
    for _ in range(10):
        await asyncio.sleep(0)
    assert {bench.jobs.get(job_id)["status"] for job_id in ("queued", "scheduled")} == {"cancelled"}
    assert (bench.conditions, bench.invoked) == ([], [])


async def test_a_job_that_runs_or_is_over_can_not_be_cancelled(bench: Bench) -> None:
    bench.register("a")
    bench.answer = never_answer
    bench.create("j", METHOD)
    await bench.until("j", "running")
    with pytest.raises(OperationNotAllowedInCurrentState):
        bench.jobs.cancel("j")
    assert bench.jobs.get("j")["status"] == "running"
    bench.create("k", TWIN)
    await bench.until("k", "completed")
    with pytest.raises(OperationNotAllowedInCurrentState):
        bench.jobs.cancel("k")
    assert bench.jobs.get("k")["status"] == "completed"


async def test_a_job_that_is_not_known_is_unknown_and_not_found(bench: Bench) -> None:
    assert bench.jobs.get("j") == {"jobId": "j", "type": "unknown", "status": "unknown"}
    with pytest.raises(JobNotFound):
        bench.jobs.cancel("j")


# --- how many there may be


async def test_an_id_is_taken_even_when_its_job_is_over(bench: Bench) -> None:
    bench.create("j", TWIN)
    for _ in range(2):
        with pytest.raises(JobAlreadyExists):
            bench.create("j", METHOD)
        await bench.until("j", "completed")
    assert bench.jobs.get("j")["type"] == "scheduleUpdateTwin"


async def test_active_and_scheduled_jobs_take_the_slots(bench: Bench) -> None:
    bench.register("a")
    bench.answer = never_answer
    bench.create("running", METHOD)
    await bench.until("running", "running")
    bench.create("scheduled", METHOD, startTime=later(hours=1))
    bench.create("queued", METHOD)
    with pytest.raises(ThrottlingMaxActiveJobCountExceeded):
        bench.create("one-too-many", TWIN)
    with pytest.raises(JobAlreadyExists):  # which is what is wrong with this one
        bench.create("scheduled", TWIN)
    assert bench.jobs.get("one-too-many")["status"] == "unknown"
    bench.jobs.cancel("scheduled")
    bench.create("one-more", TWIN)


async def test_jobs_that_are_over_take_no_slots(bench: Bench) -> None:
    for number in range(10):
        bench.create(f"j{number}", TWIN | {"queryCondition": "none" if number % 2 else "*"})
        await bench.until(f"j{number}", "failed" if number % 2 else "completed")


async def test_a_job_is_forgotten_thirty_days_after_its_end(bench: Bench) -> None:
    bench.register("a")
    bench.create("old", TWIN)
    await bench.until("old", "completed")
    bench.create("later", TWIN, startTime=later(milliseconds=20))
    bench.now += timedelta(days=29, hours=23)
    await bench.until("later", "completed")
    bench.create("young", TWIN)
    await bench.until("young", "completed")
    assert [row["jobId"] for row in bench.jobs.device_documents()] == ["old", "later", "young"]

    bench.now += timedelta(hours=1)
    # By its end: the second was made long ago as well.
    assert [row["jobId"] for row in bench.jobs.device_documents()] == ["later", "young"]
    assert bench.jobs.get("old")["status"] == "unknown"
    with pytest.raises(JobNotFound):
        bench.jobs.cancel("old")
    bench.create("old", METHOD)  # its id is free again
    await bench.until("old", "completed")
    jobs = bench.jobs.query(kind="", status="", size=100, continuation=None).items
    assert [job["jobId"] for job in jobs] == ["later", "young", "old"]


@pytest.mark.parametrize(
    "look",
    [
        lambda jobs: jobs.get("other"),
        lambda jobs: jobs.query(kind="", status="", size=1, continuation=None),
        lambda jobs: jobs.device_documents(),
        lambda jobs: jobs.create("other", TWIN | {"jobId": "other"}),
    ],
)
async def test_whatever_asks_for_jobs_clears_away_first(
    bench: Bench, look: Callable[[Jobs], object]
) -> None:
    bench.register("a")
    bench.create("j", TWIN)
    await bench.until("j", "completed")
    bench.now += timedelta(days=30)
    assert len(bench.store.jobs()) == 1
    look(bench.jobs)
    assert [job.key.id for job in bench.store.jobs() if job.key.id != "other"] == []
    assert list(bench.store.device_jobs()) == []


async def test_a_job_that_runs_is_never_forgotten(bench: Bench) -> None:
    bench.register("a")
    bench.answer = never_answer
    bench.create("j", METHOD)
    await bench.until("j", "running")
    bench.now += timedelta(days=31)
    assert bench.jobs.get("j")["status"] == "running"


# --- the list


async def listed(bench: Bench, size: int, kind: str = "", status: str = "") -> list[list[str]]:
    """List jobs page by page: their ids."""
    pages, continuation = [], None
    while True:
        page = bench.jobs.query(kind=kind, status=status, size=size, continuation=continuation)
        assert page.type == "JobResponse"
        pages.append([job["jobId"] for job in page.items])
        continuation = page.continuation
        if continuation is None:
            return pages


async def test_jobs_are_listed_oldest_first_in_pages(bench: Bench) -> None:
    for job_id in ("c", "a", "b", "e", "d"):
        bench.now += timedelta(milliseconds=10)  # what is trimmed of a time doesn't put it first
        bench.create(job_id, TWIN)
        await bench.until(job_id, "completed")
    assert await listed(bench, 100) == [["c", "a", "b", "e", "d"]]
    assert await listed(bench, 5) == [["c", "a", "b", "e", "d"]]
    assert await listed(bench, 2) == [["c", "a"], ["b", "e"], ["d"]]


async def test_a_list_goes_on_where_it_was_whatever_comes_and_goes(bench: Bench) -> None:
    for number in range(4):
        bench.create(f"j{number}", TWIN)
        await bench.until(f"j{number}", "completed")
        bench.now += timedelta(days=1)
    first = bench.jobs.query(kind="", status="", size=2, continuation=None)
    bench.now = NOW + timedelta(days=31)  # the two that were shown are forgotten now
    bench.create("j4", TWIN)
    rest = bench.jobs.query(kind="", status="", size=9, continuation=first.continuation)
    assert [job["jobId"] for job in rest.items] == ["j2", "j3", "j4"]
    assert rest.continuation is None


async def test_a_list_has_one_type_and_one_status_if_it_is_asked_so(bench: Bench) -> None:
    bench.create("a", TWIN)
    bench.create("b", METHOD)
    await bench.until("b", "completed")
    bench.create("c", METHOD, queryCondition="none")
    await bench.until("c", "failed")
    bench.create("d", TWIN, startTime=later(hours=1))
    assert await listed(bench, 9, kind="scheduleUpdateTwin") == [["a", "d"]]
    assert await listed(bench, 9, kind="scheduleDeviceMethod") == [["b", "c"]]
    assert await listed(bench, 9, status="completed") == [["a", "b"]]
    assert await listed(bench, 9, status="scheduled") == [["d"]]
    assert await listed(bench, 1, kind="scheduleDeviceMethod", status="completed") == [["b"]]
    # C# writes them so.
    assert await listed(bench, 9, kind="ScheduleUpdateTwin", status="Completed") == [["a"]]
    # These are words of the API's, which no such job ever has.
    assert await listed(bench, 9, kind="export", status="enqueued") == [[]]


@pytest.mark.parametrize(("kind", "status"), [("reboot", ""), ("", "done"), ("*", "*")])
async def test_a_list_of_what_no_job_has_is_refused(bench: Bench, kind: str, status: str) -> None:
    with pytest.raises(ArgumentInvalid):
        bench.jobs.query(kind=kind, status=status, size=1, continuation=None)


async def test_a_continuation_is_good_for_its_own_list_only(bench: Bench) -> None:
    for job_id in "ab":
        bench.create(job_id, TWIN)
    page = bench.jobs.query(kind="", status="", size=1, continuation=None)
    assert page.continuation is not None
    for kind, continuation in (("", "nonsense"), ("scheduleUpdateTwin", page.continuation)):
        with pytest.raises(ArgumentInvalid):
            bench.jobs.query(kind=kind, status="", size=1, continuation=continuation)


# --- the end


async def test_jobs_end_with_the_hub() -> None:
    bench = Bench(CheckedStore())
    bench.register("a", "b")
    bench.answer = never_answer
    bench.create("running", METHOD)
    await bench.until("running", "running")
    bench.create("queued", METHOD)
    bench.create("scheduled", METHOD, startTime=later(hours=1))
    await bench.jobs.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    for refused in (lambda: bench.create("j", TWIN), lambda: bench.jobs.cancel("scheduled")):
        with pytest.raises(ServiceUnavailable):
            refused()
    await bench.jobs.stop()


async def test_a_hub_without_jobs_stops_as_well(bench: Bench) -> None:
    await bench.jobs.stop()


def test_a_type_names_the_member_that_says_it() -> None:
    assert [kind.member for kind in JobType] == ["cloudToDeviceMethod", "updateTwin"]
