"""Twins over MQTT: reads, reported properties, and changes of the desired properties."""

from __future__ import annotations

import json

import pytest

from emulator.hub.core.errors import HubError
from emulator.hub.core.etags import IfMatch
from emulator.hub.identities.identity import IdentityKey
from tests.mqtt.playbook import ANY, Client, Lab
from tests.mqtt.raw import puback, publish

_TWIN_ANSWERS = "$iothub/twin/res/#"
_DESIRED = "$iothub/twin/PATCH/properties/desired/#"
_REPORTED = "$iothub/twin/PATCH/properties/reported/"
_D1 = IdentityKey("d1")


@pytest.fixture
def client(lab: Lab) -> Client:
    """A connection of `d1` that is subscribed to answers."""
    return lab.connect("d1", _TWIN_ANSWERS)


# --- reading


def test_a_new_twin_is_empty_at_version_1(client: Client) -> None:
    client.play("""
        >> PUBLISH 1 $iothub/twin/GET/?$rid=1
        << PUBACK 1
        << PUBLISH $iothub/twin/res/200/?$rid=1 {"desired":{"$version":1},"reported":{"$version":1}}
    """)


def test_a_device_sees_both_kinds_of_properties_and_neither_tags_nor_metadata(
    lab: Lab, client: Client
) -> None:
    body = {"tags": {"site": "north"}, "properties": {"desired": {"interval": 1.0}}}
    lab.hub.twins.patch(_D1, body, ANY)
    client.play(
        """
        >> PUBLISH $iothub/twin/PATCH/properties/reported/?$rid=1 {"at": "now", "deep": {"a": [1]}}
        << PUBLISH $iothub/twin/res/204/?$rid=1&$version=2
        >> PUBLISH $iothub/twin/GET/?$rid=2
    """.rstrip()
        + """
        << PUBLISH $iothub/twin/res/200/?$rid=2 {"desired": {"interval": 1.0, "$version": 2}, \
            "reported": {"at": "now", "deep": {"a": [1]}, "$version": 2}}
    """
    )


@pytest.mark.parametrize(
    "request_id", ["1", "", "a-b", "6C5E", "%41", "a=b", "x?y", "0/1", "é", "$rid", "A" * 500]
)
def test_the_request_id_comes_back_as_it_was(client: Client, request_id: str) -> None:
    client.play(f"""
        >> PUBLISH $iothub/twin/GET/?$rid={request_id}
        << PUBLISH $iothub/twin/res/200/?$rid={request_id} …
        >> PUBLISH {_REPORTED}?$rid={request_id} {{}}
        << PUBLISH $iothub/twin/res/204/?$rid={request_id}&$version=2
    """)


def test_requests_are_answered_in_their_order(client: Client) -> None:
    patches = [
        publish(f"{_REPORTED}?$rid={number}", b'{"count": %d}' % number) for number in range(2, 50)
    ]
    client.send(*patches, publish("$iothub/twin/GET/?$rid=read"))
    for number in range(2, 50):
        assert client.take_publish()[0] == f"$iothub/twin/res/204/?$rid={number}&$version={number}"
    _, body = client.take_publish()
    assert json.loads(body)["reported"] == {"count": 49, "$version": 49}


# --- reporting


def test_a_patch_is_stored_before_it_is_answered(lab: Lab, client: Client) -> None:
    client.play("""
        >> PUBLISH 1 $iothub/twin/PATCH/properties/reported/?$rid=1 {"rebootTime": "now"}
        << PUBACK 1
        << PUBLISH $iothub/twin/res/204/?$rid=1&$version=2
    """)
    reported = lab.twin()["properties"]["reported"]
    assert (reported["rebootTime"], reported["$version"]) == ("now", 2)


def test_null_removes_a_property_and_the_others_stay(client: Client) -> None:
    client.play("""
        >> PUBLISH $iothub/twin/PATCH/properties/reported/?$rid=1 {"a": {"b": 1, "c": 2}, "d": 3}
        << PUBLISH $iothub/twin/res/204/?$rid=1&$version=2
        >> PUBLISH $iothub/twin/PATCH/properties/reported/?$rid=2 {"a":{"b":null},"d":null,"e":null}
        << PUBLISH $iothub/twin/res/204/?$rid=2&$version=3
        >> PUBLISH $iothub/twin/GET/?$rid=3
        << PUBLISH $iothub/twin/res/200/?$rid=3 …"reported":{"a":{"c":2},"$version":3}}
    """)


def test_numbers_come_back_as_they_were_written(client: Client) -> None:
    client.play("""
        >> PUBLISH $iothub/twin/PATCH/properties/reported/?$rid=1 {"a":1.0,"b":1e5,"c":1.50,"d":1}
        << PUBLISH $iothub/twin/res/204/?$rid=1&$version=2
        >> PUBLISH $iothub/twin/GET/?$rid=2
        << PUBLISH $iothub/twin/res/200/?$rid=2 …"a":1.0,"b":1e5,"c":1.50,"d":1,…
    """)


def test_a_patch_without_a_request_id_is_not_answered(client: Client) -> None:
    client.play("""
        >> PUBLISH $iothub/twin/PATCH/properties/reported/ {"a": 1}
        >> PUBLISH $iothub/twin/GET/?$rid=1
        << PUBLISH $iothub/twin/res/200/?$rid=1 …"reported":{"a":1,"$version":2}}
    """)


def test_a_patch_for_a_version_is_accepted_only_at_that_version(client: Client) -> None:
    client.play("""
        >> PUBLISH $iothub/twin/PATCH/properties/reported/?$rid=1&$version=1 {"a": 1}
        << PUBLISH $iothub/twin/res/204/?$rid=1&$version=2
        >> PUBLISH $iothub/twin/PATCH/properties/reported/?$rid=2&$version=1 {"a": 2}
        << PUBLISH $iothub/twin/res/412/?$rid=2 …"errorCode":412001,…
        >> PUBLISH $iothub/twin/PATCH/properties/reported/?$version=3&$rid=3 {"a": 3}
        << PUBLISH $iothub/twin/res/412/?$rid=3 …
        >> PUBLISH $iothub/twin/GET/?$rid=4
        << PUBLISH $iothub/twin/res/200/?$rid=4 …"reported":{"a":1,"$version":2}}
    """)


@pytest.mark.parametrize("version", ["", "x", "-1", "1.0", "²", "1" * 50])
def test_an_invalid_version_is_never_accepted(client: Client, version: str) -> None:
    status = "412" if version.isascii() and version.isdigit() else "400"
    client.play(f"""
        >> PUBLISH {_REPORTED}?$rid=1&$version={version} {{"a": 1}}
        << PUBLISH $iothub/twin/res/{status}/?$rid=1 …
        >> PUBLISH $iothub/twin/GET/?$rid=2
        << PUBLISH $iothub/twin/res/200/?$rid=2 …"reported":{{"$version":1}}}}
    """)


@pytest.mark.parametrize(
    "patch",
    [
        *(b"", b" ", b"{", b"{'a': 1}", b'{"a": NaN}', b'{"a": 1} trailing', b"[" * 20_000),
        *(b'{"a": "\xff"}', b'{"a": "\\ud800"}', b"null", b"1", b'"text"', b"[]"),
        *(b'{"a.b": 1}', b'{"a": {"$b": 1}}', b'{"a": [null]}', b'{"a": 4503599627370496}'),
        *(
            b'{"a": 1, "$version": 7}',
            b'{"$metadata": {}}',
            b'{"$other": 1}',
            b'{"a": [{"b": null}]}',
        ),
        *(b'{"a": {"": 1e999}}', b'{"a": ' + b"1" * 5_000 + b"}", b'{"a": "' + b"x" * 4097 + b'"}'),
    ],
    ids=lambda patch: patch[:24].decode("latin-1"),
)
def test_an_invalid_patch_is_answered_with_400_and_the_reason(client: Client, patch: bytes) -> None:
    client.send(publish(f"{_REPORTED}?$rid=bad", patch, packet_id=9))
    client.expect(puback(9))
    # The SDK for Node looks only at `errorCode`.
    topic, body = client.take_publish()
    error = json.loads(body)
    assert topic == "$iothub/twin/res/400/?$rid=bad"
    assert set(error) == {"errorCode", "trackingId", "message", "timestampUtc", "info"}
    assert error["errorCode"] == 400004
    assert error["message"]
    client.play("""
        >> PUBLISH $iothub/twin/GET/?$rid=2
        << PUBLISH $iothub/twin/res/200/?$rid=2 …"reported":{"$version":1}}
    """)


@pytest.mark.parametrize(
    "patch",
    [
        json.dumps({f"key{number}": "x" * 4000 for number in range(9)}).encode(),
        json.dumps({"a": [0] * 4100}).encode(),
        b'{"a":[%s]}' % b",".join([b"0." + b"1" * 4000] * 9),
        b'{"a":[%s]}' % b",".join([b"{}"] * 50_000),
        b'{"a":[%s]}' % b",".join([b'"\\u0001"'] * 20_000),
    ],
    ids=lambda patch: patch[:24].decode("latin-1"),
)
def test_a_patch_that_makes_a_section_too_large_is_answered_with_403(
    client: Client, patch: bytes
) -> None:
    client.send(publish(f"{_REPORTED}?$rid=1", patch))
    topic, body = client.take_publish()
    error = json.loads(body)
    assert (topic, error["errorCode"]) == ("$iothub/twin/res/403/?$rid=1", 403100)
    assert error["message"] == "'Properties.Reported' size should be less than 32768 bytes."
    client.play("""
        >> PUBLISH $iothub/twin/GET/?$rid=2
        << PUBLISH $iothub/twin/res/200/?$rid=2 …"reported":{"$version":1}}
    """)


def test_without_an_api_version_twin_requests_are_answered_with_400(lab: Lab) -> None:
    """A real hub lets such a client connect and send telemetry, and no more (seen there)."""
    lab.connect("d1", _TWIN_ANSWERS, tail="").play("""
        >> PUBLISH 2 devices/d1/messages/events/
        << PUBACK 2
        >> PUBLISH $iothub/twin/PATCH/properties/reported/?$rid=1 {"a": 1}
        << PUBLISH $iothub/twin/res/400/?$rid=1 …
        >> PUBLISH $iothub/twin/GET/?$rid=2
        << PUBLISH $iothub/twin/res/400/?$rid=2 …
    """)


def test_a_failure_of_the_hub_is_answered_with_500(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a mistake of ours")

    monkeypatch.setattr("emulator.hub.registry.twins.Twins.read_own", fail)
    client.play(">> PUBLISH $iothub/twin/GET/?$rid=1", "<< PUBLISH $iothub/twin/res/500/?$rid=1 …")
    assert "A twin request of d1 failed" in caplog.text
    caplog.clear()  # the other tests must have no such line


# --- desired properties


def test_a_device_receives_each_patch_with_its_nulls(lab: Lab) -> None:
    client = lab.connect("d1", _DESIRED)
    lab.patch_desired(a={"b": 1, "c": 2}, d=3)
    lab.patch_desired(a={"b": None}, d=None, never=None)
    topic = "$iothub/twin/PATCH/properties/desired/?$version"
    client.play(f"""
        << PUBLISH {topic}=2 {{"a": {{"b": 1, "c": 2}}, "d": 3, "$version": 2}}
        << PUBLISH {topic}=3 {{"a": {{"b": null}}, "d": null, "never": null, "$version": 3}}
    """)


def test_after_a_replace_the_device_receives_all_desired_properties_and_what_is_gone(
    lab: Lab,
) -> None:
    lab.patch_desired(old=1, kept=1)
    client = lab.connect("d1", _DESIRED)
    body = {"properties": {"desired": {"kept": 2, "new": {"x": 1}}}}
    lab.hub.twins.replace(_D1, body, ANY)
    topic = "$iothub/twin/PATCH/properties/desired/?$version=3"
    client.play(f'<< PUBLISH {topic} {{"old": null, "kept": 2, "new": {{"x": 1}}, "$version": 3}}')


def test_a_device_receives_neither_tags_nor_refused_nor_reported_patches(lab: Lab) -> None:
    client = lab.connect("d1", _DESIRED, _TWIN_ANSWERS)
    lab.hub.twins.patch(_D1, {"tags": {"a": 1}}, ANY)
    with pytest.raises(HubError):
        lab.patch_desired(**{"a.b": 1})
    with pytest.raises(HubError):
        lab.hub.twins.patch(_D1, {"properties": {"desired": {"a": 1}}}, IfMatch("AAAAAAAAAGM="))
    client.play("""
        >> PUBLISH $iothub/twin/PATCH/properties/reported/?$rid=1 {"a": 1}
        << PUBLISH $iothub/twin/res/204/?$rid=1&$version=2
    """)


def test_changes_during_an_absence_are_not_sent_later(lab: Lab) -> None:
    lab.connect("d1", _DESIRED, _TWIN_ANSWERS, clean=False).play(">> LOST")
    lab.patch_desired(missed=1)
    client = lab.connect(clean=False, session_present=True)
    lab.patch_desired(seen=1)
    client.play("""
        << PUBLISH $iothub/twin/PATCH/properties/desired/?$version=3 {"seen": 1, "$version": 3}
        >> PUBLISH $iothub/twin/GET/?$rid=1
        << PUBLISH $iothub/twin/res/200/?$rid=1 {"desired":{"missed":1,"seen":1,"$version":3},…
    """)


# --- the gate


def test_twin_requests_are_charged() -> None:
    lab = Lab("twin-reads=1/min", "twin-updates=1/min")
    lab.connect("d1", _TWIN_ANSWERS).play("""
        >> PUBLISH $iothub/twin/GET/?$rid=1
        << PUBLISH $iothub/twin/res/200/?$rid=1 …
        >> PUBLISH $iothub/twin/GET/?$rid=2
        << PUBLISH $iothub/twin/res/429/?$rid=2 …"errorCode":429001,…Operation type: TwinRead…
        >> PUBLISH $iothub/twin/PATCH/properties/reported/?$rid=3 {"a": 1}
        << PUBLISH $iothub/twin/res/204/?$rid=3&$version=2
        >> PUBLISH $iothub/twin/PATCH/properties/reported/?$rid=4 {"a": 2}
        << PUBLISH $iothub/twin/res/429/?$rid=4 …
    """)
