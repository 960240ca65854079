"""How an attach finds its node, and which credentials count."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from emulator.amqp import client as client_module
from emulator.amqp.nodes.node import AnyNode, Callers, LinkRequest, Receives, Sends
from emulator.amqp.outgoing import OutgoingLink
from emulator.amqp.performatives import Error
from emulator.hub.access.operations import Operation
from emulator.hub.links.link import Admission
from emulator.net.router import Router
from tests.amqp.lab import HOST, KEY, POLICY_KEY, AmqpClient, Lab, device_token, service_token
from tests.clock import ApartClock
from tests.hub.fakes import certificate, self_signed
from tests.support import entity_token

DEVICE = "/devices/d1/x"
ENTITY = "iothub-ehub-emulator/ConsumerGroups/$Default/Partitions/0"
UNAUTHORIZED = "amqp:unauthorized-access", 401002


class Recorder:
    """Nodes that accept every link and write down its request."""

    def __init__(self) -> None:
        self.requests: list[LinkRequest[OutgoingLink]] = []

    def open(self, request: LinkRequest[OutgoingLink]) -> None:
        self.requests.append(request)
        request.link.accept(self)

    def on_credit(self) -> None:
        pass

    def on_detached(self, error: Any) -> None:
        pass

    @property
    def nodes(self) -> list[AnyNode]:
        receive = Operation.RECEIVE_COMMAND
        return [
            Receives("/devices/{device_id}/x", receive, self.open, Callers.DEVICES),
            Receives(
                "/devices/{device_id}/modules/{module_id}/x", receive, self.open, Callers.DEVICES
            ),
            Receives("/free", Operation.CONNECT, self.open, Callers.ALL),
        ]

    @property
    def admission(self) -> Admission:
        return self.requests[-1].device


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """The nodes of the hub, and those of a recorder."""
    recorder = Recorder()
    router: Router[Any] = Router()
    for node in (*client_module.NODES, *recorder.nodes):
        router.add("sends" if isinstance(node, Sends) else "receives", node.path, node)
    monkeypatch.setattr(client_module, "_router", lambda: router)
    return recorder


@pytest.mark.parametrize(
    "address",
    ["/free", "fr%65e", "free/", "amqps://host/Free", "amqps://h:5671/fre%65/"],
)
def test_an_address_has_many_forms(lab: Lab, recorder: Recorder, address: str) -> None:
    assert AmqpClient(lab).open().receiver(address).error is None


@pytest.mark.parametrize("address", ["", "/", "amqps://host", None, "/x/y", "/free/more"])
def test_an_unknown_address_is_refused(lab: Lab, recorder: Recorder, address: str | None) -> None:
    client = AmqpClient(lab).open()
    assert client.refused(client.receiver(address)) == ("amqp:not-found", 404006)


def test_an_address_is_for_one_direction(lab: Lab, recorder: Recorder) -> None:
    client = AmqpClient(lab).open()
    assert client.receiver("/free").error is None
    assert client.refused(client.sender("/free")) == ("amqp:not-found", 404006)


# --- devices


def test_a_device_comes_in_with_its_own_token(lab: Lab, recorder: Recorder) -> None:
    client = AmqpClient(lab).open()
    client.put_token(device_token(lab))
    assert client.receiver(DEVICE).error is None
    assert (str(recorder.admission.key), recorder.admission.expires) == (
        "d1",
        int(lab.clock.now().timestamp() + 3600),
    )


def test_a_device_comes_in_by_plain(lab: Lab, recorder: Recorder) -> None:
    client = AmqpClient(lab)
    assert client.sasl(f"d1@sas.{HOST}", device_token(lab)) == 0
    assert client.open().receiver(DEVICE).error is None


def test_a_policy_comes_in_as_any_device(lab: Lab, recorder: Recorder) -> None:
    client = AmqpClient(lab).open()
    client.put_token(service_token(lab, "device"))
    assert client.receiver(DEVICE).error is None
    assert client.receiver("/devices/d2/x").error is None
    assert client.refused(client.receiver("/devices/d3/x")) == UNAUTHORIZED


def test_each_device_needs_a_token_of_its_own(lab: Lab, recorder: Recorder) -> None:
    client = AmqpClient(lab).open()
    client.put_token(device_token(lab))
    assert client.refused(client.receiver("/devices/d2/x")) == UNAUTHORIZED
    assert client.refused(client.receiver("/devices/d1/modules/camera/x")) == UNAUTHORIZED
    client.put_token(device_token(lab, "d2", "M" * 43 + "="))
    client.put_token(device_token(lab, "d1/camera", "Q" * 43 + "="))
    for path in ("d1", "d2", "d1/modules/camera"):
        assert client.receiver(f"/devices/{path}/x").error is None


def test_tokens_of_ids_that_differ_in_letter_case_are_told_apart(
    lab: Lab, recorder: Recorder
) -> None:
    lab.register("D1", key="Y" * 43 + "=")
    client = AmqpClient(lab).open()
    client.put_token(device_token(lab))
    client.put_token(device_token(lab, "D1", "Y" * 43 + "="))
    for path in ("d1", "D1", "d1"):
        assert client.receiver(f"/devices/{path}/x").error is None


def test_a_certificate_is_enough_without_sasl(lab: Lab, recorder: Recorder) -> None:
    own = certificate()
    lab.register("d1", authentication=self_signed(own.sha256))
    client = AmqpClient(lab, certificate=own).open()
    assert client.receiver(DEVICE).error is None
    assert client.refused(client.receiver("/devices/d2/x")) == UNAUTHORIZED


def test_a_certificate_that_no_identity_names_is_refused_at_the_attach(
    lab: Lab, recorder: Recorder
) -> None:
    client = AmqpClient(lab, certificate=certificate("other")).open()
    assert client.refused(client.receiver(DEVICE)) == UNAUTHORIZED


def test_a_certificate_does_not_help_a_wrong_token(lab: Lab, recorder: Recorder) -> None:
    own = certificate()
    lab.register("d1", authentication=self_signed(own.sha256))
    client = AmqpClient(lab, certificate=own).open()
    client.put_token(device_token(lab))
    assert client.refused(client.receiver(DEVICE)) == UNAUTHORIZED


def test_a_token_that_has_expired_replaces_none(lab: Lab, recorder: Recorder) -> None:
    client = AmqpClient(lab).open()
    client.put_token(device_token(lab))
    client.put_token(device_token(lab, lifetime=-1), status=401)
    assert client.receiver(DEVICE).error is None


def test_a_host_that_the_client_dialled_is_valid_in_a_token(lab: Lab, recorder: Recorder) -> None:
    client = AmqpClient(lab).open(host="my-name:5671")
    client.put_token(lab.token("my-name/devices/d1"))
    assert client.receiver(DEVICE).error is None
    other = AmqpClient(lab).open(host=None)
    other.put_token(lab.token("my-name/devices/d1"))
    assert other.refused(other.receiver(DEVICE)) == UNAUTHORIZED


def test_a_connection_of_a_device_is_charged(recorder: Recorder) -> None:
    lab = Lab("connections=1/min")
    client = AmqpClient(lab).open()
    client.put_token(device_token(lab))
    assert client.receiver(DEVICE).error is None
    refused = client.refused(client.receiver(DEVICE))  # the node has not noted the first one
    assert refused == ("com.microsoft:device-container-throttled", 429001)


def test_a_disabled_device_is_refused(lab: Lab, recorder: Recorder) -> None:
    lab.register("d1", status="disabled")
    client = AmqpClient(lab).open()
    client.put_token(device_token(lab))
    assert client.refused(client.receiver(DEVICE)) == UNAUTHORIZED


# --- clients of Event Hubs


@pytest.mark.parametrize(
    "audience",
    [
        "sb://any.host/",
        "sb://any.host/iothub-ehub-emulator",
        "sb://any.host/iothub-ehub-emulator/consumergroups/$default/partitions/0",
        "amqps://any.host/iothub-ehub-emulator",
    ],
)
def test_a_token_for_an_entity_is_signed_with_the_text_of_the_key(
    lab: Lab, recorder: Recorder, audience: str
) -> None:
    client = AmqpClient(lab).open()
    client.put_token(entity_token(audience, POLICY_KEY, "service", lab.clock.now().timestamp()))
    assert client.receiver(ENTITY).error is None
    assert client.receiver(f"amqps://any.host/{ENTITY}").error is None
    assert client.refused(client.receiver(DEVICE)) == UNAUTHORIZED
    assert client.refused(client.sender("/messages/devicebound")) == UNAUTHORIZED


def test_other_tokens_are_refused_there(lab: Lab, recorder: Recorder) -> None:
    client = AmqpClient(lab).open()
    now = lab.clock.now().timestamp()
    for token, status in (
        (service_token(lab), 200),
        (lab.token("sb://any.host/iothub-ehub-emulator", POLICY_KEY, policy="service"), 401),
        (entity_token("sb://any.host/iothub-ehub-emulator", KEY, "service", now), 401),
        (entity_token("sb://any.host/other", POLICY_KEY, "service", now), 404),
        (entity_token("sb://any.host/iothub-ehub-emulator", POLICY_KEY, "device", now), 401),
        (entity_token("sb://any.host/iothub", POLICY_KEY, "service", now), 404),
    ):
        client.put_token(token, status=status)
        assert client.refused(client.receiver(ENTITY)) == UNAUTHORIZED


# --- limits before authorization


def test_a_client_that_is_not_authorized_keeps_few_tokens(lab: Lab, recorder: Recorder) -> None:
    client = AmqpClient(lab).open()
    for number in range(16):
        client.put_token(device_token(lab, f"x{number}"))
    client.put_token(device_token(lab, "x1"))
    client.put_token(device_token(lab, "x17"), status=403)


def test_an_authorized_client_keeps_more(lab: Lab, recorder: Recorder) -> None:
    client = AmqpClient(lab).open()
    client.put_token(device_token(lab))
    assert client.receiver(DEVICE).error is None
    for number in range(100):
        client.put_token(device_token(lab, f"x{number}"))


def test_a_client_that_attaches_nothing_is_disconnected(lab: Lab) -> None:
    client = AmqpClient(lab).open()
    client.put_token(service_token(lab))
    lab.clock.advance(60)
    client.connection.tick(lab.clock.monotonic())
    client.expect_closed("amqp:unauthorized-access")


# --- what the log says


def _text(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


def test_the_log_says_why_a_token_is_refused(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "emulator.refusals")
    client = AmqpClient(lab).open()
    now = lab.clock.now().timestamp()
    client.put_token(entity_token("sb://h/e", KEY, "service", now), status=401)
    client.put_token("x", status=401)  # at most one line for a connection
    assert _text(caplog) == (
        "Refused a token of test: wrong key: the SAS token is signed with neither the primary nor "
        "the secondary key"
    )


def test_the_log_says_what_the_tokens_are_for(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "emulator.refusals")
    client = AmqpClient(lab).open()
    client.put_token(device_token(lab))
    client.refused(client.receiver("/devices/d2/twin"))
    assert _text(caplog) == (
        "Refused a link of test to '/devices/d2/twin': no SAS token for it; the client has sent "
        f"tokens for {HOST}%2Fdevices%2Fd1"
    )


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (
            "ConsumerGroups/dashboard/Partitions/0",
            "There is no consumer group 'dashboard'. The groups are $Default. Start the hub with "
            "--consumer-group dashboard.",
        ),
        (
            "ConsumerGroups/$Default/Partitions/99",
            "There is no partition '99'. The partitions are 0 to 3.",
        ),
    ],
)
def test_the_log_says_what_to_do_where_a_receiver_names_what_is_not_there(
    lab: Lab, caplog: pytest.LogCaptureFixture, path: str, reason: str
) -> None:
    caplog.set_level(logging.INFO, "emulator.refusals")
    client = AmqpClient(lab).open()
    audience = "sb://h/iothub-ehub-emulator"
    client.put_token(entity_token(audience, POLICY_KEY, "service", lab.clock.now().timestamp()))
    address = f"iothub-ehub-emulator/{path}"
    error = client.receiver(address).error
    assert error == Error(
        "amqp:not-found",
        f"The messaging entity 'sb://hub.test/{address}' could not be found.",
    )
    assert _text(caplog) == f"Refused a link of test to '{address}': {reason}"


def test_the_log_says_what_to_do_with_an_unknown_entity(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "emulator.refusals")
    client = AmqpClient(lab).open()
    now = lab.clock.now().timestamp()
    client.put_token(entity_token("sb://h/my-hub", POLICY_KEY, "service", now), status=404)
    assert _text(caplog) == (
        "Refused a token of test: There is no Event Hub 'my-hub'. Use "
        "EntityPath=iothub-ehub-emulator in the connection string."
    )


# --- a clock that is advanced


def test_an_advance_expires_the_tokens_that_came_before_it() -> None:
    lab = Lab(clock=ApartClock())
    client = AmqpClient(lab).open()
    client.put_token(service_token(lab))
    link = client.sender("/messages/devicebound")
    lab.clock.advance(3599)
    client.expect_nothing()
    lab.clock.advance(1)
    assert (link.detached() or Error("")).condition == UNAUTHORIZED[0]
    assert client.refused(client.sender("/messages/devicebound")) == UNAUTHORIZED
    # A token that arrives now lives for as much of the hub's time as it has left.
    client.put_token(service_token(lab))
    lab.clock.advance(1800)
    link = client.sender("/messages/devicebound")
    assert link.error is None
    lab.clock.advance(1799)
    client.expect_nothing()
    lab.clock.advance(1)
    assert (link.detached() or Error("")).condition == UNAUTHORIZED[0]


def test_a_token_that_has_expired_on_the_machine_is_refused() -> None:
    lab = Lab(clock=ApartClock())
    client = AmqpClient(lab).open()
    old = service_token(lab)
    lab.clock.advance(100)
    lab.clock.change_time(3600)
    client.put_token(old, status=401)
    client.put_token(service_token(lab))
    assert client.sender("/messages/devicebound").error is None
