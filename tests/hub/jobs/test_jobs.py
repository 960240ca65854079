"""Scheduled jobs in the hub: their work on devices, their time, their list, their end."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any
from unittest import mock

import pytest
import pytest_asyncio

from emulator.hub.access.throttles import Throttles
from emulator.hub.core import errors, limits
from emulator.hub.core.json import loads
from emulator.hub.core.store import Deletion, MemoryStore, Record
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.jobs.changes import JobEnded, JobStarted
from emulator.hub.jobs.records import DeviceJob, Job
from emulator.hub.methods.methods import MethodEnded
from emulator.hub.twins.twin import Twin
from tests.clock import ManualClock, TickingClock, eventually, settle
from tests.hub.fakes import ANY, FakeLink, HubStore, connect, done, make_hub, put, record_changes
from tests.hub.jobs.bodies import METHOD, NOW, REBOOT, TWIN, later

DAY = 24 * 3600
INVALID_CONDITION = "tags.a ="
Document = dict[str, Any]


class CheckedStore(MemoryStore):
    """A store that checks after each commit that a job's statistics are those of its devices."""

    def commit(self, *, put: Iterable[Record] = (), delete: Iterable[Deletion] = ()) -> None:
        super().commit(put=put, delete=delete)
        for job in self.scan(Job):
            counts = Counter(record.status for record in self.scan(DeviceJob, (job.key.id,)))
            assert (job.devices or Counter()) == counts


class AnsweringLink(FakeLink):
    """A device that answers each direct method at once."""

    answer = b'{"from":"device"}'

    def __init__(self, bench: Bench, device_id: str, status: int) -> None:
        super().__init__(IdentityKey(device_id))
        self._bench = bench
        self._status = status

    def invoke_method(self, request_id: str, name: str, payload: bytes) -> None:
        super().invoke_method(request_id, name, payload)
        self._bench.hub.methods.respond(self, request_id, self._status, self.answer)


class Bench:
    """A hub whose clock stands still, and its jobs."""

    def __init__(self, store: MemoryStore, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock(NOW)
        self.store = store
        self.hub = make_hub(store, self.clock, throttles=Throttles(job_slots=3))
        self.jobs = self.hub.jobs

    def register(self, *device_ids: str) -> None:
        """Create devices that are offline."""
        for device_id in device_ids:
            put(self.hub, IdentityKey(device_id))

    def connect(self, *device_ids: str, status: int | None = 200) -> list[FakeLink]:
        """Create devices, and connect them; without a status they never answer a method."""
        self.register(*device_ids)
        links = [
            FakeLink(IdentityKey(each)) if status is None else AnsweringLink(self, each, status)
            for each in device_ids
        ]
        for link in links:
            connect(self.hub, link)
        return links

    def create(self, job_id: str, body: Document, **members: Any) -> Document:
        return self.jobs.create(job_id, {**body, "jobId": job_id, **members})

    async def until(self, job_id: str, status: str) -> Document:
        """Let tasks run until a job has a status; return the job."""
        await eventually(lambda: self.jobs.get(job_id)["status"] == status)
        return self.jobs.get(job_id)

    async def done(self, job_id: str, body: Document, **members: Any) -> Document:
        """Create a job, and return it when it is completed."""
        self.create(job_id, body, **members)
        return await self.until(job_id, "completed")

    def rows(self, where: str = "jobId = 'j'") -> list[Document]:
        rows: list[Document] = loads(self.text_of_rows(where))
        return rows

    def text_of_rows(self, where: str) -> bytes:
        text = f"SELECT * FROM devices.jobs WHERE {where}"
        page = done(self.hub.queries.run(text, size=10_000, continuation=None))
        return b"[" + b",".join(page.rows) + b"]"

    def list(self, size: int = 100, kind: str = "", status: str = "") -> list[list[str]]:
        """List jobs page by page: their ids."""
        pages, continuation = [], None
        for _ in range(100):
            page = done(
                self.jobs.query(kind=kind, status=status, size=size, continuation=continuation)
            )
            assert page.type == "JobResponse"
            pages.append([job["jobId"] for job in page.items])
            continuation = page.continuation
            if continuation is None:
                return pages
        raise AssertionError("the list has no end")


def statistics(**counts: int) -> dict[str, int]:
    """Return statistics of a job; a count that is missing is 0."""
    names = ("failedCount", "succeededCount", "runningCount", "pendingCount")
    found = {name: counts.get(name.removesuffix("Count"), 0) for name in names}
    return {"deviceCount": sum(found.values()), **found}


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    """A hub without devices; when it stops, no task is left."""
    bench = Bench(CheckedStore())
    yield bench
    await bench.hub.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


# --- the throttle of job operations


@pytest.mark.parametrize("body", [TWIN, METHOD])
async def test_a_job_waits_for_its_turn_on_each_device(bench: Bench, body: Document) -> None:
    throttles = Throttles.parse(["job-devices=2/s", "twin-updates=1/min"], clock=bench.clock)
    bench.hub = make_hub(HubStore(), bench.clock, throttles=throttles)
    bench.jobs = bench.hub.jobs
    bench.connect("a", "b", "c", "d", "e")
    bench.create("j", body)
    for succeeded in (2, 3, 4):
        await settle(100)
        assert bench.jobs.get("j")["deviceJobStatistics"]["succeededCount"] == succeeded
        bench.clock.advance(0.5)
    await bench.until("j", "completed")
    assert len(bench.rows("status = 'completed'")) == 5


# --- a job on twins


async def test_a_job_patches_the_twins_of_its_condition(bench: Bench) -> None:
    bench.register("a", "b", "c")
    for device_id, tags in (("a", {"x": {"y": 1, "z": 2}}), ("b", {"x": {}})):
        bench.hub.twins.patch(IdentityKey(device_id), {"tags": tags}, ANY)
    ended = record_changes(bench.hub.feed, JobEnded)
    started = record_changes(bench.hub.feed, JobStarted)

    patch = {"etag": "*", "tags": {"x": {"y": None}, "a": 1}, "properties": {"desired": {"b": 2}}}
    members = {"queryCondition": "is_defined(tags.x)", "updateTwin": patch}
    answer = bench.create("j", TWIN, maxExecutionTimeInSeconds=60, **members)
    assert [*answer.items()] == [
        *(("jobId", "j"), ("type", "scheduleUpdateTwin"), ("status", "queued"))
    ]
    assert bench.jobs.get("j")["status"] == "queued"
    bench.clock.advance(1)
    job = await bench.until("j", "completed")
    assert [*job.items()] == [
        ("jobId", "j"),
        ("queryCondition", "is_defined(tags.x)"),
        ("createdTime", "2026-01-31T14:46:08.12Z"),
        ("startTime", "2026-01-31T14:46:08.12Z"),
        ("endTime", "2026-01-31T14:46:09.12Z"),
        ("maxExecutionTimeInSeconds", 60),
        ("type", "scheduleUpdateTwin"),
        ("updateTwin", patch),
        ("status", "completed"),
        ("deviceJobStatistics", statistics(succeeded=2)),
    ]
    assert [*job["deviceJobStatistics"]] == [*statistics()]
    tags = {name: bench.hub.twins.get(IdentityKey(name)).get("tags") for name in "abc"}
    assert tags == {"a": {"x": {"z": 2}, "a": 1}, "b": {"x": {}, "a": 1}, "c": None}
    assert bench.hub.twins.get(IdentityKey("b"))["properties"]["desired"]["b"] == 2
    times = ("startTimeUtc", "endTimeUtc", "createdDateTimeUtc", "lastUpdatedDateTimeUtc")
    assert [[*row.items()] for row in bench.rows()] == [
        [
            ("deviceId", name),
            ("jobId", "j"),
            ("jobType", "scheduleUpdateTwin"),
            ("status", "completed"),
            *((time, "2026-01-31T14:46:09.12Z") for time in times),
            ("outcome", {"deviceMethodResponse": None}),
        ]
        for name in "ab"
    ]
    changes = [change.job.status.value for change in (*started, *ended)]
    assert changes == ["running", "completed"]


async def test_a_device_that_is_deleted_before_its_turn_has_failed(bench: Bench) -> None:
    bench.register("a", "b")
    bench.create("j", TWIN)
    await bench.until("j", "running")
    bench.hub.identities.remove(IdentityKey("b"), ANY)
    job = await bench.until("j", "completed")
    assert job["deviceJobStatistics"] == statistics(failed=1, succeeded=1)
    (_, row) = bench.rows()
    assert (row["deviceId"], row["status"], row["outcome"]) == ("b", "failed", {})
    assert row["error"] == {"code": "DeviceNotFound", "description": "b"}
    assert [*row][-2:] == ["outcome", "error"]


async def test_a_twin_too_large_for_the_patch_fails_alone(bench: Bench) -> None:
    bench.register("a", "b")
    full = {f"t{number}": "x" * 4000 for number in range(2)}
    bench.hub.twins.patch(IdentityKey("a"), {"tags": full}, ANY)
    await bench.done("j", TWIN, updateTwin={"etag": "*", "tags": {"more": "x" * 300}})
    assert [row["status"] for row in bench.rows()] == ["failed", "completed"]
    assert bench.rows()[0]["error"]["code"] == "DeviceModelMaxPropertiesExceeded"


async def test_a_job_can_target_modules(bench: Bench) -> None:
    module = IdentityKey("a", "m")
    bench.register("a")
    put(bench.hub, module)
    await bench.done("j", TWIN, queryCondition="FROM devices.modules WHERE moduleId = 'm'")
    assert bench.hub.twins.get(module)["tags"] == {"a": 1}
    assert "tags" not in bench.hub.twins.get(IdentityKey("a"))
    (row,) = bench.rows()
    assert [*row.items()][:3] == [("deviceId", "a"), ("moduleId", "m"), ("jobId", "j")]


@pytest.mark.parametrize("body", [TWIN, METHOD], ids=lambda body: body["type"])
async def test_a_job_without_devices_is_completed(bench: Bench, body: Document) -> None:
    assert (await bench.done("j", body))["deviceJobStatistics"] == statistics()
    assert bench.rows() == []


async def test_a_job_with_an_invalid_condition_fails_when_it_starts(bench: Bench) -> None:
    bench.create("j", METHOD, queryCondition=INVALID_CONDITION, startTime=later(seconds=1))
    await settle()
    assert bench.jobs.get("j")["status"] == "scheduled"
    await bench.clock.pass_time(1)
    job = await bench.until("j", "failed")
    assert job["failureReason"].startswith("BadRequest: line 1, column 9: ")
    assert job["endTime"] == "2026-01-31T14:46:09.12Z"
    assert "deviceJobStatistics" not in job
    assert [*job][-2:] == ["status", "failureReason"]


# --- a job of direct methods


async def test_a_job_invokes_the_method_and_keeps_each_answer(bench: Bench) -> None:
    (a,) = bench.connect("a")
    bench.register("b")
    bench.connect("c", status=None)
    bench.connect("d", status=500)
    bench.create("j", METHOD)
    await settle()
    await bench.clock.pass_time(30)
    job = await bench.until("j", "completed")
    assert job["cloudToDeviceMethod"] == REBOOT
    assert "updateTwin" not in job
    # A device that answers 500 has answered: the service knows what that means.
    assert job["deviceJobStatistics"] == statistics(succeeded=2, failed=2)
    assert [invoked[1:] for invoked in a.invoked] == [("reboot", {"delay": 1.0})]
    rows = {row["deviceId"]: row for row in bench.rows()}
    answer = {"status": 200, "payload": {"from": "device"}}
    assert rows["a"] == {
        "deviceId": "a",
        "jobId": "j",
        "jobType": "scheduleDeviceMethod",
        "status": "completed",
        "startTimeUtc": "2026-01-31T14:46:08.12Z",
        "endTimeUtc": "2026-01-31T14:46:08.12Z",
        "createdDateTimeUtc": "2026-01-31T14:46:08.12Z",
        "lastUpdatedDateTimeUtc": "2026-01-31T14:46:08.12Z",
        "outcome": {"deviceMethodResponse": answer},
    }
    assert [*rows["a"]["outcome"]["deviceMethodResponse"]] == ["status", "payload"]
    assert rows["d"]["outcome"]["deviceMethodResponse"]["status"] == 500
    for name, error in (("b", errors.DeviceNotOnline), ("c", errors.GatewayTimeout)):
        assert rows[name]["status"] == "failed"
        assert rows[name]["error"] == {"code": error.__name__, "description": error.text}
    assert rows["c"]["endTimeUtc"] == "2026-01-31T14:46:38.12Z"


async def test_the_answer_of_a_device_stays_as_it_was_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.connect("a")
    for job_id, answer in (("j", b'"half: \\ud800"'), ("k", b'{ "a" : 1.50 }')):
        monkeypatch.setattr(AnsweringLink, "answer", answer)
        await bench.done(job_id, METHOD)
        assert b'"payload":%s}' % answer in bench.text_of_rows(f"jobId = '{job_id}'")
    assert len(bench.rows("jobId = 'k' AND outcome.deviceMethodResponse.payload.a = 1.5")) == 1
    monkeypatch.setattr(AnsweringLink, "answer", b"fine <thanks")
    await bench.done("l", METHOD)
    (row,) = bench.rows("jobId = 'l'")
    assert (row["status"], row["error"]["code"]) == ("failed", "InvalidResponseWhileProxying")


@pytest.mark.parametrize(
    "answer", ["{ 'a' : 1.50, }", "1 // one", "NaN", "{a:1}", "[" * 50_000 + "]" * 50_000]
)
async def test_an_answer_that_is_not_quite_json_spoils_no_other_row(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    bench.connect("a")
    for job_id, payload in (("j", answer.encode()), ("k", b'{"a":1}')):
        monkeypatch.setattr(AnsweringLink, "answer", payload)
        await bench.done(job_id, METHOD)
    rows = bench.rows("deviceId = 'a'")  # of the body of the answer, which is always JSON
    payloads = [row["outcome"]["deviceMethodResponse"]["payload"] for row in rows]
    assert payloads == [answer, {"a": 1}]


async def test_a_method_of_a_job_can_have_time_outs_as_texts_and_no_payload(bench: Bench) -> None:
    (a,) = bench.connect("a")
    texts = {"responseTimeoutInSeconds": "30", "connectTimeoutInSeconds": "30"}
    content = {"methodName": "reboot", "payload": None, **texts}
    job = await bench.done("j", METHOD, cloudToDeviceMethod=content)
    assert (job["cloudToDeviceMethod"], a.invoked) == (content, [("1", "reboot", None)])


async def test_a_job_that_waits_for_a_device_is_running(bench: Bench) -> None:
    (silent,) = bench.connect("a", status=None)
    bench.connect("b")
    bench.create("j", METHOD)
    await eventually(lambda: [row["status"] for row in bench.rows()] == ["running", "completed"])
    job, (row, _) = bench.jobs.get("j"), bench.rows()
    assert (job["status"], job["deviceJobStatistics"]) == (
        "running",
        statistics(succeeded=1, running=1),
    )
    assert "endTime" not in job
    assert row["outcome"] == {}
    assert ("startTimeUtc" in row, "endTimeUtc" in row) == (True, False)
    bench.hub.methods.respond(silent, silent.invoked[0][0], 200, b"")
    await bench.until("j", "completed")


async def test_a_job_invokes_a_bounded_number_of_methods_at_once() -> None:
    bench = Bench(HubStore())
    most = limits.JOB_METHODS_AT_ONCE
    links = bench.connect(*(f"d{number}" for number in range(250)), status=None)

    def waiting() -> list[FakeLink]:
        return [link for link in links if link.invoked]

    bench.create("j", METHOD)
    await eventually(lambda: len(waiting()) == most)
    await settle(100)
    assert len(waiting()) == most
    counted = bench.jobs.get("j")["deviceJobStatistics"]
    assert counted == statistics(running=most, pending=250 - most)
    assert all(("startTimeUtc" in row) == (row["status"] == "running") for row in bench.rows())
    for _ in range(3):
        for link in waiting():
            bench.hub.methods.respond(link, link.invoked[0][0], 200, b"")
        await settle(100)
    job = await bench.until("j", "completed")
    assert job["deviceJobStatistics"] == statistics(succeeded=250)
    await bench.hub.stop()


async def test_the_devices_that_are_left_fail_when_the_time_of_a_job_is_over(bench: Bench) -> None:
    bench.connect("a-quick")
    most = limits.JOB_METHODS_AT_ONCE
    silent = bench.connect(*(f"d{number}" for number in range(most + 1)), status=None)
    calls = record_changes(bench.hub.feed, MethodEnded)
    bench.create("j", METHOD, maxExecutionTimeInSeconds=10)
    await eventually(lambda: sum(len(link.invoked) for link in silent) == most)
    await bench.clock.pass_time(9.9)
    assert bench.jobs.get("j")["status"] == "running"
    await bench.clock.pass_time(0.1)
    job = await bench.until("j", "completed")
    assert job["deviceJobStatistics"] == statistics(succeeded=1, failed=most + 1)
    assert Counter(change.outcome is None for change in calls) == {False: 1, True: most}
    (quick,) = (row for row in bench.rows() if row["status"] == "completed")
    assert quick["deviceId"] == "a-quick"
    failed = bench.rows("jobId = 'j' AND error.code = 'JobRunPreconditionFailed'")
    assert len(failed) == most + 1
    assert "did not start within specified period" in failed[0]["error"]["description"]


@pytest.mark.parametrize("body", [TWIN, METHOD], ids=lambda body: body["type"])
@pytest.mark.parametrize("online", [True, False])
async def test_other_work_runs_during_a_job_on_many_devices(body: Document, online: bool) -> None:
    bench = Bench(HubStore(), TickingClock(NOW))
    # A method fails at once where the device is offline: there is nothing to wait for.
    (bench.connect if online else bench.register)(*(f"d{number}" for number in range(1000)))
    bench.create("j", body)
    seen = [0]

    def step() -> bool:
        job = bench.jobs.get("j")
        counted = job.get("deviceJobStatistics", {"deviceCount": 0, "pendingCount": 0})
        seen.append(2 * counted["deviceCount"] - counted["pendingCount"])
        return bool(job["status"] == "completed")

    await eventually(step)
    steps = [after - before for before, after in itertools.pairwise(seen)]
    assert max(steps) <= 2 * max(limits.JOB_SLICE, limits.JOB_METHODS_AT_ONCE)
    failed = not online and body is METHOD
    expected = statistics(failed=1000) if failed else statistics(succeeded=1000)
    assert bench.jobs.get("j")["deviceJobStatistics"] == expected
    await bench.hub.stop()


class FullStore(HubStore):  # type: ignore[valid-type, misc]
    """A store that can't write at times."""

    full = False

    def commit(self, *, put: Iterable[Record] = (), delete: Iterable[Deletion] = ()) -> None:
        if self.full:
            raise errors.ServiceUnavailable
        super().commit(put=put, delete=delete)


@pytest.mark.parametrize("body", [TWIN, METHOD], ids=lambda body: body["type"])
async def test_a_job_waits_while_the_store_cannot_write(body: Document) -> None:
    bench = Bench(store := FullStore())
    bench.connect("d1", "d2")
    bench.create("j", body)
    store.full = True
    await bench.clock.pass_time(60)
    assert bench.jobs.get("j")["status"] in ("queued", "running")
    store.full = False
    await bench.clock.pass_time(10)
    job = await bench.until("j", "completed")
    assert job["deviceJobStatistics"] == statistics(succeeded=2)
    await bench.hub.stop()


async def test_a_twin_and_the_result_of_its_job_are_one_commit(bench: Bench) -> None:
    bench.register("d1")
    commits: list[set[type]] = []
    commit = bench.store.commit

    def note(*, put: Iterable[Record] = (), delete: Iterable[Deletion] = ()) -> None:
        put = tuple(put)
        commits.append({type(each) for each in put})
        commit(put=put, delete=delete)

    with mock.patch.object(bench.store, "commit", note):
        bench.create("j", TWIN)
        await bench.until("j", "completed")
    assert [each for each in commits if Twin in each] == [{Twin, DeviceJob, Job}]


async def test_a_defect_fails_the_job_and_all_its_devices(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    (_, defective, _) = bench.connect("a", "b", "c", status=None)
    monkeypatch.setattr(defective, "invoke_method", fail)
    bench.create("j", METHOD)
    with caplog.at_level(logging.ERROR):
        job = await bench.until("j", "failed")
    assert "a defect" in caplog.text
    assert job["failureReason"]
    assert job["deviceJobStatistics"] == statistics(failed=3)
    assert {row["error"]["code"] for row in bench.rows()} == {"ServerError"}


# --- a job for later


async def test_a_scheduled_job_finds_its_devices_when_it_starts(bench: Bench) -> None:
    answer = bench.create("j", METHOD, startTime=later(milliseconds=20))
    assert answer["status"] == "queued"
    await bench.clock.pass_time(0.019)
    job = bench.jobs.get("j")
    assert (job["status"], job["startTime"]) == ("scheduled", "2026-01-31T14:46:08.14Z")
    assert not {"endTime", "deviceJobStatistics"} & job.keys()
    assert bench.rows() == []
    bench.connect("new")
    await bench.clock.pass_time(0.001)
    job = await bench.until("j", "completed")
    assert job["deviceJobStatistics"] == statistics(succeeded=1)


async def test_a_job_can_be_cancelled_until_it_starts(bench: Bench) -> None:
    (link,) = bench.connect("a")
    ended = record_changes(bench.hub.feed, JobEnded)
    bench.create("queued", METHOD)
    bench.create("scheduled", METHOD, startTime=later(hours=1))
    bench.clock.advance(1)
    for job_id in ("queued", "scheduled"):
        job = bench.jobs.cancel(job_id)
        assert job == bench.jobs.get(job_id)
        assert (job["jobId"], job["status"]) == (job_id, "cancelled")
        assert job["endTime"] == "2026-01-31T14:46:09.12Z"
        with pytest.raises(errors.OperationNotAllowedInCurrentState):
            bench.jobs.cancel(job_id)
    await bench.clock.pass_time(2 * 3600)
    assert [bench.jobs.get(each)["status"] for each in ("queued", "scheduled")] == ["cancelled"] * 2
    assert (link.invoked, len(ended)) == ([], 2)


async def test_a_running_or_ended_job_cannot_be_cancelled(bench: Bench) -> None:
    bench.connect("a", status=None)
    bench.create("j", METHOD)
    await bench.until("j", "running")
    await bench.done("k", TWIN)
    for job_id, status in (("j", "running"), ("k", "completed")):
        with pytest.raises(errors.OperationNotAllowedInCurrentState):
            bench.jobs.cancel(job_id)
        assert bench.jobs.get(job_id)["status"] == status


async def test_an_unknown_job_has_an_unknown_status_and_is_not_found(bench: Bench) -> None:
    assert bench.jobs.get("j") == {"jobId": "j", "type": "unknown", "status": "unknown"}
    with pytest.raises(errors.JobNotFound):
        bench.jobs.cancel("j")


# --- the number of jobs, and their history


async def test_an_id_can_be_used_once(bench: Bench) -> None:
    bench.create("j", TWIN)
    for _ in range(2):
        with pytest.raises(errors.JobAlreadyExists):
            bench.create("j", METHOD)
        await bench.until("j", "completed")
    bench.create("J", METHOD)  # two ids that differ in letter case are two jobs
    await bench.until("J", "completed")
    assert bench.list() == [["J", "j"]]
    assert bench.jobs.get("J")["type"] == "scheduleDeviceMethod"
    assert bench.jobs.get("j")["type"] == "scheduleUpdateTwin"


async def test_active_and_scheduled_jobs_take_the_slots(bench: Bench) -> None:
    bench.connect("a", status=None)
    bench.create("running", METHOD)
    await bench.until("running", "running")
    bench.create("scheduled", METHOD, startTime=later(hours=1))
    bench.create("queued", METHOD)
    with pytest.raises(errors.ThrottlingMaxActiveJobCountExceeded):
        bench.create("one-too-many", TWIN)
    with pytest.raises(errors.JobAlreadyExists):  # this error comes first
        bench.create("scheduled", TWIN)
    assert bench.jobs.get("one-too-many")["status"] == "unknown"
    bench.jobs.cancel("scheduled")
    assert bench.create("one-more", TWIN)["status"] == "queued"


async def test_ended_jobs_take_no_slots(bench: Bench) -> None:
    for number in range(5):
        await bench.done(f"c{number}", TWIN)
        bench.create(f"f{number}", TWIN, queryCondition=INVALID_CONDITION)
        await bench.until(f"f{number}", "failed")
    assert len(bench.list()[0]) == 10


async def test_a_job_is_forgotten_30_days_after_its_end(bench: Bench) -> None:
    bench.register("a")
    await bench.done("old", TWIN)
    bench.create("later", TWIN, startTime=later(hours=1))
    await bench.clock.pass_time(29 * DAY + 23 * 3600)
    await bench.until("later", "completed")
    await bench.done("young", TWIN)
    assert [row["jobId"] for row in bench.rows("true")] == ["old", "later", "young"]
    bench.clock.advance(3600)
    # The end counts: the second job was also created 30 days ago.
    assert [row["jobId"] for row in bench.rows("true")] == ["later", "young"]
    assert bench.jobs.get("old")["status"] == "unknown"
    with pytest.raises(errors.JobNotFound):
        bench.jobs.cancel("old")
    await bench.done("old", METHOD)  # its id is free again
    assert bench.list() == [["later", "young", "old"]]


@pytest.mark.parametrize(
    "look",
    [
        lambda bench: bench.jobs.get("other"),
        lambda bench: bench.list(),
        lambda bench: bench.rows(),
        lambda bench: bench.create("other", TWIN),
    ],
)
async def test_every_request_for_jobs_deletes_the_old_ones(
    bench: Bench, look: Callable[[Bench], object]
) -> None:
    bench.register("a")
    await bench.done("j", TWIN)
    bench.clock.advance(30 * DAY)
    assert [job.key.id for job in bench.store.scan(Job)] == ["j"]
    look(bench)
    assert [job.key.id for job in bench.store.scan(Job) if job.key.id != "other"] == []
    assert bench.store.scan(DeviceJob) == []


async def test_a_running_job_is_never_forgotten(bench: Bench) -> None:
    bench.connect("a", status=None)
    bench.create("j", METHOD, maxExecutionTimeInSeconds=40 * DAY)
    await bench.until("j", "running")
    bench.clock.advance(31 * DAY)
    assert bench.jobs.get("j")["status"] == "running"


# --- the list


async def test_jobs_are_listed_oldest_first_in_pages(bench: Bench) -> None:
    for job_id in ("c", "a", "b", "e", "d"):
        bench.clock.advance(0.01)  # a time without its last digits keeps its place
        await bench.done(job_id, TWIN)
    for size in (100, 5):
        assert bench.list(size) == [["c", "a", "b", "e", "d"]]
    assert bench.list(2) == [["c", "a"], ["b", "e"], ["d"]]


async def test_the_next_page_begins_after_the_last_job_that_was_listed(bench: Bench) -> None:
    for number in range(4):
        await bench.done(f"j{number}", TWIN)
        bench.clock.advance(DAY)
    first = done(bench.jobs.query(kind="", status="", size=2, continuation=None))
    bench.clock.advance(27 * DAY)  # the two that were listed are forgotten now
    bench.create("j4", TWIN)
    rest = done(bench.jobs.query(kind="", status="", size=9, continuation=first.continuation))
    assert [job["jobId"] for job in rest.items] == ["j2", "j3", "j4"]
    assert rest.continuation is None


async def test_a_list_can_be_of_one_type_and_one_status(bench: Bench) -> None:
    bench.create("a", TWIN)
    await bench.done("b", METHOD)
    bench.create("c", METHOD, queryCondition=INVALID_CONDITION)
    await bench.until("c", "failed")
    bench.create("d", TWIN, startTime=later(hours=1))
    for kind, status, expected in [
        ("scheduleUpdateTwin", "", ["a", "d"]),
        ("scheduleDeviceMethod", "", ["b", "c"]),
        ("", "completed", ["a", "b"]),
        ("", "scheduled", ["d"]),
        ("scheduleDeviceMethod", "completed", ["b"]),
        ("ScheduleUpdateTwin", "Completed", ["a"]),  # the C# SDK writes them so
        ("export", "enqueued", []),  # words of the API that no scheduled job has
    ]:
        assert bench.list(9, kind, status) == [expected]
    for kind, status in (("reboot", ""), ("", "done"), ("*", "*")):
        with pytest.raises(errors.ArgumentInvalid):
            bench.list(1, kind, status)


async def test_a_continuation_belongs_to_one_list(bench: Bench) -> None:
    for job_id in "ab":
        bench.create(job_id, TWIN)
    page = done(bench.jobs.query(kind="", status="", size=1, continuation=None))
    assert page.continuation is not None
    for kind, continuation in (("", "nonsense"), ("scheduleUpdateTwin", page.continuation)):
        with pytest.raises(errors.ArgumentInvalid):
            done(bench.jobs.query(kind=kind, status="", size=1, continuation=continuation))


# --- the end


async def test_jobs_end_with_the_hub(bench: Bench) -> None:
    bench.connect("a", status=None)
    bench.create("running", METHOD)
    await bench.until("running", "running")
    bench.create("queued", METHOD)
    bench.create("scheduled", METHOD, startTime=later(hours=1))
    await bench.jobs.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    for refused in (lambda: bench.create("j", TWIN), lambda: bench.jobs.cancel("scheduled")):
        with pytest.raises(errors.ServiceUnavailable):
            refused()
    await bench.jobs.stop()  # a second stop has no effect
