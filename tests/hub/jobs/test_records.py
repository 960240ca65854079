"""The requests for scheduled jobs."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hub.core import errors
from emulator.hub.core.json import loads
from emulator.hub.jobs.records import Job, JobStatus
from tests.hub.jobs.bodies import METHOD, NOW, PATCH, REBOOT, TWIN, later

Members = dict[str, Any]


@pytest.mark.parametrize("body", [None, [METHOD]])
def test_a_request_must_be_an_object(body: object) -> None:
    with pytest.raises(errors.DeserializationError):
        Job.parse("j", body, NOW)


@pytest.mark.parametrize("job_id", ["a_b", "a.b", "ä", "j\n", "j" * 65])
def test_an_invalid_id_is_refused(job_id: str) -> None:
    with pytest.raises(errors.ArgumentInvalid):
        Job.parse(job_id, METHOD | {"jobId": job_id}, NOW)


@pytest.mark.parametrize(
    "job_id", ["a", "0", "reboot-1", "it's", "-" * 64, "J", "methodJob-0A", "JOBSAMPLE"]
)
def test_a_valid_id_is_accepted(job_id: str) -> None:
    for given_id in (job_id, None):
        assert Job.parse(job_id, METHOD | {"jobId": given_id}, NOW).key.id == job_id


def method(**members: object) -> Members:
    return {"cloudToDeviceMethod": REBOOT | members}


def update(**members: object) -> Members:
    return {"updateTwin": PATCH | members}


INVALID_STARTS = [
    *(later(hours=168, microseconds=1), "tomorrow", 1769870768),
    *("2026-02-30T00:00:00Z", "0001-01-01T00:00:00+01:00", "2026-01-31T14:46:08+24:00"),
]
INVALID_LIMITS = [-1, 2**31, 1.5, True, False, "60"]


@pytest.mark.parametrize(
    ("body", "members", "error"),
    [
        *((METHOD, {"jobId": job_id}, errors.ArgumentInvalid) for job_id in ("i", 1)),
        (METHOD, {"type": None}, errors.ArgumentNull),
        *((METHOD, {"type": kind}, errors.GenericBadRequest) for kind in ("export", "x", [])),
        (METHOD, {"type": "scheduleUpdateTwin"}, errors.ArgumentNull),
        (METHOD, {"cloudToDeviceMethod": None}, errors.ArgumentNull),
        (METHOD, {"cloudToDeviceMethod": "reboot"}, errors.ArgumentInvalid),
        (METHOD, {"cloudToDeviceMethod": {}}, errors.ArgumentNull),
        (METHOD, method(methodName="m" * 101), errors.ArgumentInvalid),
        (METHOD, method(responseTimeoutInSeconds=4), errors.ArgumentInvalid),
        (METHOD, method(connectTimeoutInSeconds=31), errors.ArgumentInvalid),
        (METHOD, method(payload="x" * 128 * 1024), errors.MessageTooLarge),
        (METHOD, method(other="x" * 256 * 1024), errors.MessageTooLarge),
        (METHOD, method(other=loads("1" * 256 * 1024)), errors.MessageTooLarge),
        (METHOD, {"queryCondition": "x" * 8193}, errors.PreconditionFailed),
        (TWIN, {"queryCondition": "tags.a = '" + "x" * 9000 + "'"}, errors.PreconditionFailed),
        *((METHOD, {"queryCondition": missing}, errors.ArgumentNull) for missing in (None, "")),
        (METHOD, {"queryCondition": 1}, errors.ArgumentInvalid),
        *((METHOD, {"startTime": start}, errors.ArgumentInvalid) for start in INVALID_STARTS),
        *(
            (METHOD, {"maxExecutionTimeInSeconds": seconds}, errors.ArgumentInvalid)
            for seconds in INVALID_LIMITS
        ),
        (TWIN, {"updateTwin": None}, errors.ArgumentNull),
        (TWIN, {"updateTwin": [PATCH]}, errors.ArgumentInvalid),
        (TWIN, {"updateTwin": {"tags": {"a": 1}}}, errors.ArgumentInvalid),
        *((TWIN, update(etag=etag), errors.ArgumentInvalid) for etag in ("AAAAAAAAAAE=", '"*"')),
        (TWIN, update(tags={"a.b": 1}), errors.ArgumentInvalid),
        (TWIN, update(desired={"a": 1}), errors.GenericBadRequest),
        (TWIN, update(properties={"tags": {}}), errors.GenericBadRequest),
        (TWIN, update(properties={"desired": 1}), errors.ArgumentInvalid),
        (TWIN, update(tags={"a": loads("0." + "1" * 4095)}), errors.ArgumentInvalid),
        (TWIN, update(tags={"a": ["x" * 4096] * 3}), errors.DeviceModelMaxPropertiesExceeded),
        (TWIN, update(statusReason=[""] * 100_000), errors.MessageTooLarge),
    ],
)
def test_an_invalid_request_is_refused(
    body: Members, members: Members, error: type[errors.HubError]
) -> None:
    with pytest.raises(error) as caught:
        Job.parse("j", body | members, NOW)
    assert caught.type is error


def test_the_text_says_that_a_twin_update_needs_the_etag() -> None:
    with pytest.raises(errors.ArgumentInvalid, match=r"forced update that only accepts"):
        Job.parse("j", TWIN | {"updateTwin": {"tags": {}}}, NOW)


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
def test_a_start_is_read_in_the_formats_of_all_sdks(text: str | None, start: datetime) -> None:
    job = Job.parse("j", METHOD | {"startTime": text}, NOW)
    assert job.start == start
    assert job.status is (JobStatus.SCHEDULED if start > NOW else JobStatus.QUEUED)


@given(
    st.datetimes(datetime(1, 1, 2), datetime(2026, 1, 1), timezones=st.just(UTC)),
    st.integers(-23 * 60, 23 * 60),
)
def test_a_start_can_have_any_offset(moment: datetime, minutes: int) -> None:
    text = moment.astimezone(timezone(timedelta(minutes=minutes))).isoformat()
    assert Job.parse("j", METHOD | {"startTime": text}, NOW).start == moment


@pytest.mark.parametrize(("seconds", "limit"), [(None, 3600), (0, 3600), (1, 1), (7200, 7200)])
def test_a_job_runs_for_at_most_an_hour_by_default(seconds: int | None, limit: int) -> None:
    job = Job.parse("j", METHOD | {"maxExecutionTimeInSeconds": seconds}, NOW)
    assert job.execution_time == limit


TEXTS = st.text(max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


@given(
    st.sampled_from([METHOD, TWIN]),
    st.dictionaries(st.sampled_from([*METHOD, *TWIN, "startTime"]), JSON, max_size=3),
)
def test_any_request_is_a_job_or_an_error_of_the_hub(body: Members, members: Members) -> None:
    try:
        document = Job.parse("j", body | members, NOW).document()
    except errors.HubError as error:
        document = {"type": body["type"], "error": error.name}
    assert document["type"] == body["type"]
