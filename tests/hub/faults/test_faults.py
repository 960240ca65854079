"""The faults that are on: which one happens, how often, and when it ends."""

import logging
from typing import Any

import pytest

from emulator.hub.access.operations import Operation
from emulator.hub.core import errors
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.faults.fault import Fault
from emulator.hub.faults.faults import FaultAdded, FaultEnded, FaultHit
from emulator.hub.gate import DeviceCaller, ServiceCaller
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.links.link import Admission
from emulator.hub.messages.message import Message
from tests.clock import ManualClock
from tests.hub.fakes import DEVICE, FakeLink, connect, make_hub, put, record_changes

OTHER = IdentityKey("other")
REPORT = Operation.REPORT


def add(hub: IotHub, kind: str, **members: Any) -> int:
    return hub.faults.add(Fault.parse({"kind": kind, **members}))


def hits(hub: IotHub, times: int, key: IdentityKey = DEVICE) -> str:
    """Return which of some requests are throttled: `x..x`."""
    found = (hub.faults.match("throttle", key, REPORT) for _ in range(times))
    return "".join("x" if each else "." for each in found)


def admission(key: IdentityKey = DEVICE) -> Admission:
    return Admission(key, 1e12, "1", "{}")


def refused(hub: IotHub, operation: Operation = REPORT, key: IdentityKey = DEVICE) -> str:
    """Return the error by which the gate refuses an open connection; "" for none."""
    try:
        hub.gate.enter(admission(key), operation)
    except errors.HubError as error:
        return error.name
    return ""


def test_a_hub_has_no_faults(hub: IotHub) -> None:
    assert not hub.faults.active
    assert hub.faults.list() == []
    assert hub.faults.match("throttle", DEVICE, REPORT) is None


def test_a_fault_is_on_until_it_is_removed(hub: IotHub) -> None:
    first, second = add(hub, "throttle"), add(hub, "throttle", device="other")
    assert hub.faults.active
    assert hits(hub, 2) == "xx"
    assert hub.faults.list() == [
        {"id": first, "hits": 2, "kind": "throttle"},
        {"id": second, "hits": 0, "kind": "throttle", "device": "other"},
    ]
    hub.faults.remove(first)
    assert hits(hub, 2) == ".."
    assert hits(hub, 2, OTHER) == "xx"
    hub.faults.remove(second)
    assert not hub.faults.active
    with pytest.raises(ArgumentInvalid, match=r"Unknown fault: 2. .* there are no faults"):
        hub.faults.remove(second)
    assert add(hub, "throttle") == 3, "an id is not used again"
    hub.faults.clear()
    assert not hub.faults.active


def test_a_count_runs_out(hub: IotHub) -> None:
    add(hub, "throttle", count=2)
    assert hits(hub, 4) == "xx.."
    assert not hub.faults.active


def test_a_duration_runs_out(hub: IotHub, clock: ManualClock) -> None:
    add(hub, "throttle", duration=2.5)
    clock.advance(2.4)
    assert hits(hub, 1) == "x"
    clock.advance(0.2)
    assert hits(hub, 1) == "."
    assert not hub.faults.active
    removed = add(hub, "throttle", duration=2)
    hub.faults.remove(removed)
    clock.advance(5)


def test_chance_has_a_seed(hub: IotHub) -> None:
    def course(**members: Any) -> str:
        number = add(hub, "throttle", probability=0.5, **members)
        found = hits(hub, 64)
        hub.faults.remove(number)
        return found

    assert course(seed=1) == course(seed=1)
    assert course(seed=1) != course(seed=2)
    assert course() == course(seed=0)
    assert 16 < course(seed=3).count("x") < 48
    add(hub, "throttle", probability=0.5, seed=1, count=3)
    assert hits(hub, 64).count("x") == 3


def test_of_two_faults_the_older_one_happens_first(hub: IotHub) -> None:
    add(hub, "twin-status", status=500, count=1)
    add(hub, "twin-status", status=412)
    assert [refused(hub) for _ in range(2)] == ["ServerError", "PreconditionFailed"]


def test_the_feed_and_the_log_tell_of_faults(hub: IotHub, caplog: pytest.LogCaptureFixture) -> None:
    changes = [record_changes(hub.feed, kind) for kind in (FaultAdded, FaultHit, FaultEnded)]
    with caplog.at_level(logging.INFO, "emulator.hub.faults.faults"):
        number = add(hub, "throttle", device="d", count=3)
        assert hits(hub, 5) == "xxx.."
    added, hit, ended = changes
    assert [each.id for each in added] == [number]
    assert [(each.id, each.key, each.operation) for each in hit] == [(number, DEVICE, REPORT)] * 3
    assert [(each.id, each.hits) for each in ended] == [(number, 3)]
    assert caplog.messages == [
        'Fault 1 is on: {"kind":"throttle","device":"d","count":3}',
        "Fault 1 ('throttle') hit d",
        "Fault 1 ('throttle') is off: 3 hits",
    ]


async def test_a_hub_that_stops_has_no_faults(hub: IotHub) -> None:
    add(hub, "throttle", duration=1000)
    await hub.stop()
    assert hub.faults.list() == []


# --- refusals


@pytest.mark.parametrize(
    ("kind", "members", "operation", "name"),
    [
        ("throttle", {}, REPORT, "ThrottlingException"),
        ("quota-exceeded", {}, Operation.SEND_EVENT, "IotHubQuotaExceeded"),
        ("quota-exceeded", {}, REPORT, ""),
        ("server-error", {}, REPORT, "ServerError"),
        ("service-unavailable", {}, REPORT, "ServiceUnavailable"),
        ("refuse-connection", {}, REPORT, ""),
        ("refuse-connection", {}, Operation.CONNECT, "ServiceUnavailable"),
        ("expire-token", {}, REPORT, "IotHubUnauthorized"),
        ("expire-token", {}, Operation.CONNECT, "IotHubUnauthorizedAccess"),
        ("drop-connection", {}, REPORT, "ConnectionForcefullyClosedOnFaultInjection"),
        ("drop-connection", {}, Operation.CONNECT, ""),
        ("delay-puback", {}, REPORT, ""),
        *(
            ("twin-status", {"status": status}, REPORT, name)
            for status, name in {
                400: "ArgumentInvalid",
                403: "DeviceModelMaxPropertiesExceeded",
                412: "PreconditionFailed",
                429: "ThrottlingException",
                500: "ServerError",
                503: "ServiceUnavailable",
            }.items()
        ),
        ("twin-status", {"status": 500}, Operation.SEND_EVENT, ""),
    ],
)
def test_the_gate_refuses(
    hub: IotHub, kind: str, members: dict[str, Any], operation: Operation, name: str
) -> None:
    add(hub, kind, device="d", **members)
    assert refused(hub, operation, OTHER) == ""
    assert refused(hub, operation) == name


def test_a_refusal_by_throttle_has_the_text_of_a_real_hub(hub: IotHub) -> None:
    add(hub, "throttle")
    with pytest.raises(errors.ThrottlingException, match=r"Wait 10 seconds .* type: TwinUpdate"):
        hub.gate.enter(admission(), REPORT)


def test_credentials_are_checked_before_a_fault(hub: IotHub) -> None:
    add(hub, "server-error", count=1)
    for caller in (ServiceCaller(None, "h", ["twins", "d"]), DeviceCaller(DEVICE, None, "h")):
        with pytest.raises(errors.IotHubUnauthorizedAccess):
            hub.gate.enter(caller, Operation.READ_TWIN)
    assert hub.faults.list()[0]["hits"] == 0


# --- links


@pytest.fixture
def link(hub: IotHub) -> FakeLink:
    put(hub, DEVICE)
    put(hub, OTHER)
    return connect(hub, FakeLink())


def test_a_connection_is_dropped_at_once(hub: IotHub, link: FakeLink) -> None:
    other = connect(hub, FakeLink(OTHER))
    add(hub, "drop-connection", device="d")
    assert isinstance(link.closed, errors.ConnectionForcefullyClosedOnFaultInjection)
    assert (link.was_cut, other.closed, hub.faults.list()) == (False, None, [])
    add(hub, "drop-connection", how="cut")
    assert other.was_cut
    assert hub.links.links() == []


def test_a_connection_is_dropped_at_a_request(hub: IotHub, link: FakeLink) -> None:
    add(hub, "drop-connection", device="d", operation="report", how="cut")
    assert refused(hub, Operation.SEND_EVENT) == ""
    assert not link.was_cut
    assert refused(hub)
    assert link.was_cut
    assert refused(hub) == ""


def test_a_token_expires_now(hub: IotHub, link: FakeLink) -> None:
    add(hub, "expire-token", device="d")
    assert isinstance(link.closed, errors.IotHubUnauthorized)
    assert hub.links.link(DEVICE) is None


def test_a_link_is_slow_while_the_fault_is_on(hub: IotHub, link: FakeLink) -> None:
    other = connect(hub, FakeLink(OTHER))
    number = add(hub, "slow-link", device="d", rate=100)
    assert link.rates == [100]
    again = connect(hub, FakeLink())
    assert again.rates == [100]
    hub.faults.remove(number)
    assert again.rates == [100, None]
    assert other.rates == []


def test_of_two_slow_links_the_older_one_counts_and_the_other_one_after_it(
    hub: IotHub, link: FakeLink
) -> None:
    older = add(hub, "slow-link", rate=1000)
    newer = add(hub, "slow-link", device="d", rate=100)
    assert link.rates == [1000, 1000]
    hub.faults.remove(older)
    assert link.rates[-1] == 100
    hub.faults.remove(newer)
    assert link.rates[-1] is None


def test_a_new_fault_happens_and_not_one_that_waits(hub: IotHub, link: FakeLink) -> None:
    hub.links.disconnect(link)
    waits = add(hub, "drop-link", device="d", link="telemetry")
    again = connect(hub, FakeLink())
    add(hub, "drop-link", device="d", link="commands")
    assert again.detached == ["commands"]
    assert [(each["id"], each["hits"]) for each in hub.faults.list()] == [(waits, 0)]


def test_a_part_of_a_connection_ends_at_once(hub: IotHub, link: FakeLink) -> None:
    add(hub, "drop-link", device="d", link="telemetry")
    assert link.detached == ["telemetry"]
    assert hub.links.link(DEVICE) is link
    assert hub.faults.list() == []


# --- cloud-to-device messages


def send(hub: IotHub, *texts: str) -> None:
    for text in texts:
        hub.cloud_to_device.send("d", Message(text.encode(), {"message-id": text}))


def bodies(link: FakeLink) -> str:
    return b"".join(link.bodies).decode()


def test_a_message_is_delivered_twice(hub: IotHub, link: FakeLink) -> None:
    add(hub, "duplicate-c2d", device="d", count=1)
    send(hub, "1", "2")
    for delivery in list(link.delivered):
        hub.cloud_to_device.complete("d", delivery.lock_token)
    assert bodies(link) == "121"
    assert [each.redelivered for each in link.delivered] == [False, False, True]
    hub.cloud_to_device.complete("d", link.delivered[-1].lock_token)
    assert hub.cloud_to_device.pending("d") == 0


def test_without_an_end_each_message_is_delivered_twice(hub: IotHub, link: FakeLink) -> None:
    add(hub, "duplicate-c2d")
    send(hub, "1", "2")
    for number in range(4):
        hub.cloud_to_device.complete("d", link.delivered[number].lock_token)
    assert bodies(link) == "1212"
    assert hub.cloud_to_device.pending("d") == 0


def test_messages_change_places(hub: IotHub, link: FakeLink) -> None:
    add(hub, "reorder-c2d", device="d")
    send(hub, "1")
    assert bodies(link) == ""
    send(hub, "2")
    assert bodies(link) == "21"
    send(hub, "3", "4", "5")
    assert bodies(link) == "2143"


def test_messages_that_wait_change_places(hub: IotHub) -> None:
    put(hub, DEVICE)
    send(hub, "1", "2", "3", "4")
    add(hub, "reorder-c2d", count=1)
    assert bodies(connect(hub, FakeLink())) == "2134"


def test_a_message_that_is_alone_waits_for_the_delay(
    hub: IotHub, link: FakeLink, clock: ManualClock
) -> None:
    add(hub, "reorder-c2d", delay=2)
    send(hub, "1")
    clock.advance(1.9)
    assert bodies(link) == ""
    clock.advance(0.1)
    assert bodies(link) == "1"
    send(hub, "2")
    hub.faults.clear()
    clock.advance(2)
    assert bodies(link) == "12"
    send(hub, "3")
    assert bodies(link) == "123"


def test_a_message_that_waits_can_be_purged(
    hub: IotHub, link: FakeLink, clock: ManualClock
) -> None:
    add(hub, "reorder-c2d", delay=2, count=1)
    send(hub, "1")
    hub.cloud_to_device.purge("d")
    clock.advance(2)
    send(hub, "2", "3")
    assert bodies(link) == "23"


def test_messages_over_https_change_places(hub: IotHub) -> None:
    put(hub, DEVICE)
    add(hub, "reorder-c2d", count=1)
    send(hub, "1", "2")
    found = [hub.cloud_to_device.receive("d") for _ in range(2)]
    assert [each.body for each in found if each] == [b"2", b"1"]


# --- fault requests


def ask(hub: IotHub, kind: str, reason: str = "boom", delay: str = "1", duration: str = "") -> None:
    values = {"Type": kind, "CloseReason": reason, "DelayInSecs": delay, "DurationInSecs": duration}
    properties: dict[str, str | None] = {
        f"AzIoTHub_FaultOperation{n}": v for n, v in values.items()
    }
    hub.telemetry.sender(admission()).ingest([Message(b"", {}, properties), Message(b"x", {}, {})])


def test_a_hub_takes_a_fault_request_as_telemetry(hub: IotHub, link: FakeLink) -> None:
    ask(hub, "KillTcp", delay="0")
    hub.clock.advance(10)  # type: ignore[attr-defined]
    assert link.closed is None
    assert len(hub.events.read(0, "d")) == 2


@pytest.mark.parametrize(
    ("kind", "reason", "expected"),
    [
        ("KillTcp", "boom", "cut"),
        ("KillTcp", "byebye", "ConnectionForcefullyClosedOnFaultInjection"),
        ("ShutDownMqtt", "byebye", "ConnectionForcefullyClosedOnFaultInjection"),
        ("ShutDownAmqp", "byebye", "connection"),
        ("KillAmqpConnection", "boom", "connection"),
        ("KillAmqpSession", "boom", "session"),
        ("KillAmqpCBSLinkReq", "boom", "cbs-requests"),
        ("KillAmqpCBSLinkResp", "boom", "cbs-replies"),
        ("KillAmqpD2CLink", "boom", "telemetry"),
        ("KillAmqpC2DLink", "boom", "commands"),
        ("KillAmqpTwinLinkReq", "boom", "twin-requests"),
        ("KillAmqpTwinLinkResp", "boom", "twin-replies"),
        ("KillAmqpMethodReqLink", "boom", "method-requests"),
        ("KillAmqpMethodRespLink", "boom", "method-responses"),
        ("InvokeAuthError", "boom", "IotHubUnauthorized"),
        ("InvokeThrottling", "boom", ""),
        ("Explode", "boom", ""),
    ],
)
def test_a_test_hub_does_what_a_fault_request_asks_for(
    clock: ManualClock, kind: str, reason: str, expected: str
) -> None:
    hub = make_hub(clock=clock, takes_fault_requests=True)
    put(hub, DEVICE)
    link = connect(hub, FakeLink())
    ask(hub, kind, reason)
    assert [each.document()["body"] for each in hub.events.read(0, "d")] == ["x"]
    clock.advance(0.9)
    assert (link.closed, link.was_cut, link.detached) == (None, False, [])
    clock.advance(0.2)
    closed = link.closed.name if link.closed else ""
    assert "".join([closed, *link.detached, *["cut"] * link.was_cut]) == expected


@pytest.mark.parametrize(
    ("kind", "operation", "name"),
    [
        ("InvokeThrottling", Operation.SEND_EVENT, "ThrottlingException"),
        ("InvokeMaxMessageQuota", Operation.SEND_EVENT, "IotHubQuotaExceeded"),
        ("InvokeAuthError", Operation.CONNECT, "IotHubUnauthorizedAccess"),
        ("KillTcp", Operation.CONNECT, "ServiceUnavailable"),
    ],
)
def test_the_fault_of_a_request_ends(
    clock: ManualClock, kind: str, operation: Operation, name: str
) -> None:
    hub = make_hub(clock=clock, takes_fault_requests=True)
    put(hub, DEVICE)
    ask(hub, kind, delay="1", duration="5")
    assert refused(hub, operation) == ""
    clock.advance(2)
    assert [refused(hub, operation) for _ in range(2)] == [name, name]
    assert refused(hub, operation, OTHER) == ""
    clock.advance(5)
    assert refused(hub, operation) == ""
