"""Documents and packets that no client would send: they are refused, and nothing else happens."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from emulator.dps import enrollment
from emulator.dps.access import Access, Proof
from emulator.dps.assignment import Assignments
from emulator.dps.channel import ProvisioningChannel
from emulator.dps.enrollment import Enrollment
from emulator.dps.meter import Meter
from emulator.dps.names import ID_SCOPE, POLICY
from emulator.dps.registrations import Registrations
from emulator.hub.access.keys import SymmetricKeys
from emulator.hub.access.policies import OF_PROVISIONING, Policy
from emulator.hub.core.errors import HubError
from emulator.mqtt import frame
from tests.clock import START
from tests.dps.software_tpm import a_tpm
from tests.dps.support import KEY, OTHER_KEY, SYMMETRIC, pem
from tests.mqtt import raw
from tests.mqtt.playbook import Lab
from tests.support import sas_token
from tests.x509 import issue

# What JSON becomes: a larger whole number is not an int.
_INTEGERS = st.integers(-(2**63), 2**64 - 1)
_JSON = st.recursive(
    st.none() | st.booleans() | _INTEGERS | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)

_PAIR = {"primary": {"certificate": pem(issue("fuzz", ca=True))}}
_WHOLE: dict[str, Any] = {
    "registrationId": "x",
    "enrollmentGroupId": "x",
    "deviceId": "d",
    "etag": "e",
    "provisioningStatus": "enabled",
    "iotHubHostName": "hub.example",
    "allocationPolicy": "custom",
    "iotHubs": ["a.example"],
    "attestation": {
        "type": "x509",
        "x509": {"signingCertificates": _PAIR},
        "symmetricKey": {"primaryKey": KEY, "secondaryKey": OTHER_KEY},
        "tpm": a_tpm().document,
    },
    "capabilities": {"iotEdge": True},
    "initialTwin": {"tags": {"a": 1}, "properties": {"desired": {"b": 1}}},
    "reprovisionPolicy": {"updateHubAssignment": True, "migrateDeviceData": True},
    "customAllocationDefinition": {"webhookUrl": "http://localhost/", "apiVersion": "v"},
    "optionalDeviceInformation": {"a": 1},
}


def places(document: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of each value in a document."""
    found = [path]
    if isinstance(document, dict):
        for name, value in document.items():
            found += places(value, (*path, name))
    return found


@given(st.sampled_from(places(_WHOLE)), _JSON, st.sampled_from(["x509", "symmetricKey", "tpm"]))
def test_any_enrollment_is_written_or_refused(
    path: tuple[Any, ...], value: object, kind: str
) -> None:
    document: Any = copy.deepcopy(_WHOLE)
    document["attestation"]["type"] = kind
    if path:
        parent = document
        for name in path[:-1]:
            parent = parent[name]
        parent[path[-1]] = value
    else:
        document = value
    for is_group in (False, True):
        try:
            written = enrollment.write("x", document, None, START, is_group=is_group)
            again = written.document()
            name = "enrollmentGroupId" if is_group else "registrationId"
            later = enrollment.write("x", {**again, name: "x"}, written, START, is_group=is_group)
        except HubError:
            continue
        # What a service reads and writes back changes nothing.
        assert {**later.document(), "etag": ""} == {**again, "etag": ""}


class _Output:
    def __init__(self) -> None:
        self.data, self.closed = b"", False

    def write(self, data: bytes) -> None:
        self.data += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pace(self, rate: int | None, machine: object) -> None:
        pass

    def unsent(self) -> int:
        return 0


def open_channel() -> tuple[ProvisioningChannel, _Output]:
    """Return the channel of a device that is enrolled, and what it writes to."""
    lab, output = Lab(), _Output()
    body = {"registrationId": "d1", "attestation": SYMMETRIC}
    found: Enrollment = enrollment.write("d1", body, None, START, is_group=False)
    lab.hub.store.commit(put=(found,))
    policies = {POLICY: Policy(POLICY, OF_PROVISIONING, SymmetricKeys(KEY, KEY))}
    access = Access(
        lab.hub.store, policies, (), ID_SCOPE, {}, lab.hub.token_time, lab.clock.machine
    )
    assignments = Assignments(lab.hub.identities, ("hub.test",))
    registrations = Registrations(
        lab.hub.store,
        access,
        assignments,
        lab.hub.feed,
        lab.clock,
        "hub.test",
        lab.hub.refusals,
        Meter(lab.hub),
        lab.hub.turns,
    )
    now = lab.clock.machine.now().timestamp()
    token = sas_token(f"{ID_SCOPE}/registrations/d1", KEY, now=now)
    channel = ProvisioningChannel(
        registrations,
        lab.clock,
        frame.PacketBuffer(1000),
        output,
        registration_id="d1",
        scope=ID_SCOPE,
        silence=60,
        proof=Proof(token, None, ()),
    )
    return channel, output


_PACKETS = st.lists(
    st.binary(max_size=40)
    | st.builds(
        raw.publish,
        st.text(max_size=20)
        | st.sampled_from(
            (
                "$dps/registrations/PUT/iotdps-register/?$rid=1",
                "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId=x",
                "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=&operationId=",
            )
        ),
        _JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20),
    ),
    max_size=6,
)


@given(_PACKETS)
@example([raw.publish("$dps/registrations/PUT/iotdps-register/?$rid=1", b"{}")])
def test_any_packets_are_answered_or_end_the_connection(packets: list[bytes]) -> None:
    channel, output = open_channel()
    begin = raw.subscribe(1, ("$dps/registrations/res/#", 1))
    try:
        for data in (begin, *packets):
            for _ in channel.receive(data):
                pass
    except frame.ProtocolError:
        pass
    answers = [*raw.packets(output.data)]
    assert answers[:2] == [raw.connack(0), raw.suback(1, 1)]
    for answer in answers[2:]:
        if answer[0] == 0x32:
            topic, payload = raw.published(answer)
            assert topic.startswith("$dps/registrations/res/")
            assert isinstance(json.loads(payload), dict)
