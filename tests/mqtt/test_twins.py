"""Twins as a device has them: reads, reported properties, and what it is told of the desired."""

from __future__ import annotations

import json

import pytest

from emulator import Emulator
from tests.mqtt.raw import (
    DISCONNECT,
    Dial,
    Greet,
    Online,
    connack,
    connect,
    puback,
    publish,
    suback,
    subscribe,
)
from tests.support import Device, Service, sas_token

_TWIN_ANSWERS = "$iothub/twin/res/#"
_DESIRED = "$iothub/twin/PATCH/properties/desired/#"
_REPORTED = "$iothub/twin/PATCH/properties/reported/"


def _patch_desired(service: Service, device: Device, desired: object) -> None:
    body = {"properties": {"desired": desired}}
    assert service.request("PATCH", f"/twins/{device.id}", json=body).status_code == 200


# --- reading


def test_a_new_twin_is_empty_at_version_1(online: Online, device: Device) -> None:
    wire = online(device, _TWIN_ANSWERS)
    wire.send(publish("$iothub/twin/GET/?$rid=1", b" ", packet_id=1))
    wire.expect(puback(1))
    wire.expect_publish(
        "$iothub/twin/res/200/?$rid=1", {"desired": {"$version": 1}, "reported": {"$version": 1}}
    )


def test_a_device_sees_both_kinds_of_properties_and_neither_tags_nor_metadata(
    online: Online, service: Service, device: Device
) -> None:
    body = {"tags": {"site": "north"}, "properties": {"desired": {"interval": 1.0}}}
    service.request("PATCH", f"/twins/{device.id}", json=body)
    wire = online(device, _TWIN_ANSWERS)
    wire.send(publish(f"{_REPORTED}?$rid=1", b'{"rebootTime": "now", "nested": {"a": [1, 2]}}'))
    wire.expect_publish("$iothub/twin/res/204/?$rid=1&$version=2", b"")
    wire.send(publish("$iothub/twin/GET/?$rid=2"))
    wire.expect_publish(
        "$iothub/twin/res/200/?$rid=2",
        {
            "desired": {"interval": 1.0, "$version": 2},
            "reported": {"rebootTime": "now", "nested": {"a": [1, 2]}, "$version": 2},
        },
    )


@pytest.mark.parametrize(
    "request_id",
    ["1", "", "a-b", "6C5E", "%41", "a=b", "x?y", "0/1", "é", "$rid", "A" * 500],
)
def test_the_request_id_comes_back_as_it_was(
    online: Online, device: Device, request_id: str
) -> None:
    wire = online(device, _TWIN_ANSWERS)
    wire.send(publish(f"$iothub/twin/GET/?$rid={request_id}"))
    wire.expect_publish(f"$iothub/twin/res/200/?$rid={request_id}")
    wire.send(publish(f"{_REPORTED}?$rid={request_id}", b"{}"))
    wire.expect_publish(f"$iothub/twin/res/204/?$rid={request_id}&$version=2", b"")


def test_requests_are_answered_in_their_order(online: Online, device: Device) -> None:
    wire = online(device, _TWIN_ANSWERS)
    patches = [
        publish(f"{_REPORTED}?$rid={number}", b'{"count": %d}' % number) for number in range(2, 50)
    ]
    wire.send(*patches, publish("$iothub/twin/GET/?$rid=read"))
    for number in range(2, 50):
        wire.expect_publish(f"$iothub/twin/res/204/?$rid={number}&$version={number}", b"")
    wire.expect_publish(
        "$iothub/twin/res/200/?$rid=read",
        {"desired": {"$version": 1}, "reported": {"count": 49, "$version": 49}},
    )


# --- reporting


def test_what_is_reported_is_there_for_the_service_before_it_is_answered(
    online: Online, service: Service, device: Device
) -> None:
    wire = online(device, _TWIN_ANSWERS)
    wire.send(publish(f"{_REPORTED}?$rid=1", b'{"rebootTime": "now"}', packet_id=1))
    wire.expect(puback(1))
    wire.expect_publish("$iothub/twin/res/204/?$rid=1&$version=2", b"")
    reported = service.request("GET", f"/twins/{device.id}").json()["properties"]["reported"]
    assert reported["rebootTime"] == "now"
    assert reported["$version"] == 2


def test_null_removes_and_the_rest_stays(online: Online, service: Service, device: Device) -> None:
    wire = online(device, _TWIN_ANSWERS)
    for version, patch in enumerate(
        ['{"a": {"b": 1, "c": 2}, "d": 3}', '{"a": {"b": null}, "d": null, "e": null}'], 2
    ):
        wire.send(publish(f"{_REPORTED}?$rid=1", patch.encode()))
        wire.expect_publish(f"$iothub/twin/res/204/?$rid=1&$version={version}", b"")
    wire.send(publish("$iothub/twin/GET/?$rid=2"))
    wire.expect_publish(
        "$iothub/twin/res/200/?$rid=2",
        {"desired": {"$version": 1}, "reported": {"a": {"c": 2}, "$version": 3}},
    )


def test_numbers_come_back_as_they_were_written(online: Online, device: Device) -> None:
    wire = online(device, _TWIN_ANSWERS)
    wire.send(publish(f"{_REPORTED}?$rid=1", b'{"a": 1.0, "b": 1e5, "c": 1.50, "d": 1}'))
    wire.expect_publish("$iothub/twin/res/204/?$rid=1&$version=2")
    wire.send(publish("$iothub/twin/GET/?$rid=2"))
    body = wire.expect_publish("$iothub/twin/res/200/?$rid=2")
    assert b'"a":1.0,"b":1e5,"c":1.50,"d":1,' in body


def test_a_patch_without_a_request_id_is_carried_out_silently(
    online: Online, device: Device
) -> None:
    wire = online(device, _TWIN_ANSWERS)
    wire.send(publish(_REPORTED, b'{"a": 1}'), publish("$iothub/twin/GET/?$rid=1"))
    wire.expect_publish(
        "$iothub/twin/res/200/?$rid=1",
        {"desired": {"$version": 1}, "reported": {"a": 1, "$version": 2}},
    )


def test_a_patch_for_a_version_is_taken_at_that_version_alone(
    online: Online, device: Device
) -> None:
    wire = online(device, _TWIN_ANSWERS)
    wire.send(publish(f"{_REPORTED}?$rid=1&$version=1", b'{"a": 1}'))
    wire.expect_publish("$iothub/twin/res/204/?$rid=1&$version=2", b"")
    wire.send(publish(f"{_REPORTED}?$rid=2&$version=1", b'{"a": 2}'))
    refused = json.loads(wire.expect_publish("$iothub/twin/res/412/?$rid=2"))
    assert refused["errorCode"] == 412001
    wire.send(publish(f"{_REPORTED}?$version=3&$rid=3", b'{"a": 3}'))
    wire.expect_publish("$iothub/twin/res/412/?$rid=3")
    wire.send(publish("$iothub/twin/GET/?$rid=4"))
    wire.expect_publish(
        "$iothub/twin/res/200/?$rid=4",
        {"desired": {"$version": 1}, "reported": {"a": 1, "$version": 2}},
    )


@pytest.mark.parametrize("version", ["", "x", "-1", "1.0", "²", "1" * 50])
def test_a_version_that_is_none_is_never_taken(
    online: Online, device: Device, version: str
) -> None:
    wire = online(device, _TWIN_ANSWERS)
    status = "412" if version.isascii() and version.isdigit() else "400"
    wire.send(publish(f"{_REPORTED}?$rid=1&$version={version}", b'{"a": 1}'))
    wire.expect_publish(f"$iothub/twin/res/{status}/?$rid=1")
    wire.send(publish("$iothub/twin/GET/?$rid=2"))
    wire.expect_publish(
        "$iothub/twin/res/200/?$rid=2", {"desired": {"$version": 1}, "reported": {"$version": 1}}
    )


@pytest.mark.parametrize(
    "patch",
    [
        b"",
        b" ",
        b"{",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": 1} trailing',
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b"null",
        b"1",
        b'"text"',
        b"[]",
        b'{"a.b": 1}',
        b'{"a b": 1}',
        b'{"a": {"$b": 1}}',
        b'{"a": [null]}',
        b'{"a": 4503599627370496}',
        b'{"a": "' + b"x" * 4097 + b'"}',
        b'{"' + b"x" * 1025 + b'": 1}',
        b'{"a":' * 11 + b"{}" + b"}" * 11,
        b"[" * 20_000,
        json.dumps({f"key{number}": "x" * 4000 for number in range(9)}).encode(),  # over 32 KB
    ],
    ids=lambda patch: patch[:24].decode("latin-1"),
)
def test_a_patch_that_is_not_valid_is_answered_with_400_and_why(
    online: Online, service: Service, device: Device, patch: bytes
) -> None:
    wire = online(device, _TWIN_ANSWERS)
    wire.send(publish(f"{_REPORTED}?$rid=1", b'{"a": "stays"}'))
    wire.expect_publish("$iothub/twin/res/204/?$rid=1&$version=2", b"")
    wire.send(publish(f"{_REPORTED}?$rid=bad", patch, packet_id=9))
    wire.expect(puback(9))
    # The SDK for Node tells a failure by `errorCode` alone.
    error = json.loads(wire.expect_publish("$iothub/twin/res/400/?$rid=bad"))
    assert set(error) == {"errorCode", "trackingId", "message", "timestampUtc", "info"}
    assert error["errorCode"] // 1000 == 400
    assert error["message"]
    wire.send(publish("$iothub/twin/GET/?$rid=2"))
    wire.expect_publish(
        "$iothub/twin/res/200/?$rid=2",
        {"desired": {"$version": 1}, "reported": {"a": "stays", "$version": 2}},
    )


def test_the_hubs_own_members_of_a_patch_are_ignored(online: Online, device: Device) -> None:
    wire = online(device, _TWIN_ANSWERS)
    wire.send(publish(f"{_REPORTED}?$rid=1", b'{"a": 1, "$version": 77, "$metadata": {}}'))
    wire.expect_publish("$iothub/twin/res/204/?$rid=1&$version=2", b"")


def test_without_an_api_version_a_reported_patch_is_answered_with_400(
    dial: Dial, emulator: Emulator, device: Device
) -> None:
    """A real hub lets such a client connect and send telemetry, and no more (seen there)."""
    host = emulator.host_name
    token = sas_token(f"{host}/devices/{device.id}", device.key)
    wire = dial()
    wire.send(connect(device.id, f"{host}/{device.id}", token), subscribe(1, _TWIN_ANSWERS))
    wire.expect(connack(0), suback(1, 0))
    wire.send(publish(f"devices/{device.id}/messages/events/", packet_id=2))
    wire.expect(puback(2))
    wire.send(publish(f"{_REPORTED}?$rid=1", b'{"a": 1}'))
    wire.expect_publish("$iothub/twin/res/400/?$rid=1")


# --- desired properties


def test_the_device_is_told_of_each_patch_with_its_nulls(
    online: Online, service: Service, device: Device
) -> None:
    wire = online(device, _DESIRED)
    _patch_desired(service, device, {"a": {"b": 1, "c": 2}, "d": 3})
    wire.expect_publish(
        "$iothub/twin/PATCH/properties/desired/?$version=2",
        {"a": {"b": 1, "c": 2}, "d": 3, "$version": 2},
    )
    _patch_desired(service, device, {"a": {"b": None}, "d": None, "never": None})
    wire.expect_publish(
        "$iothub/twin/PATCH/properties/desired/?$version=3",
        {"a": {"b": None}, "d": None, "never": None, "$version": 3},
    )


def test_patches_come_in_the_order_of_their_versions(
    online: Online, service: Service, device: Device
) -> None:
    wire = online(device, _DESIRED)
    for number in range(2, 30):
        _patch_desired(service, device, {"count": number})
    for number in range(2, 30):
        wire.expect_publish(
            f"$iothub/twin/PATCH/properties/desired/?$version={number}",
            {"count": number, "$version": number},
        )


def test_after_a_replace_the_device_gets_the_whole_desired_properties(
    online: Online, service: Service, device: Device
) -> None:
    _patch_desired(service, device, {"old": 1, "kept": 1})
    wire = online(device, _DESIRED)
    body = {"properties": {"desired": {"kept": 2, "new": {"x": 1}}}}
    assert service.request("PUT", f"/twins/{device.id}", json=body).status_code == 200
    wire.expect_publish(
        "$iothub/twin/PATCH/properties/desired/?$version=3",
        {"kept": 2, "new": {"x": 1}, "$version": 3},
    )


def test_the_device_hears_nothing_of_tags_nor_of_refused_patches(
    online: Online, service: Service, device: Device
) -> None:
    wire = online(device, _DESIRED)
    service.request("PATCH", f"/twins/{device.id}", json={"tags": {"a": 1}})
    refused = service.request(
        "PATCH", f"/twins/{device.id}", json={"properties": {"desired": {"a.b": 1}}}
    )
    assert refused.status_code == 400
    stale = service.request(
        "PATCH", f"/twins/{device.id}", json={"properties": {"desired": {"a": 1}}},
        headers={"If-Match": '"AAAAAAAAAGM="'},
    )  # fmt: skip
    assert stale.status_code == 412
    wire.expect_nothing()


def test_a_reported_patch_is_no_news_to_the_device(online: Online, device: Device) -> None:
    wire = online(device, _DESIRED, _TWIN_ANSWERS)
    wire.send(publish(f"{_REPORTED}?$rid=1", b'{"a": 1}'))
    wire.expect_publish("$iothub/twin/res/204/?$rid=1&$version=2", b"")
    wire.expect_nothing()


def test_what_a_device_missed_while_it_was_away_is_not_sent_later(
    dial: Dial, greet: Greet, online: Online, service: Service, device: Device
) -> None:
    with online(device, _DESIRED, _TWIN_ANSWERS, clean=False) as wire:
        wire.send(DISCONNECT)
        wire.expect_closed()
    _patch_desired(service, device, {"missed": 1})
    wire = dial()
    wire.send(greet(device, clean=False))
    wire.expect(connack(0, session_present=True))
    wire.expect_nothing()
    _patch_desired(service, device, {"seen": 1})
    wire.expect_publish(
        "$iothub/twin/PATCH/properties/desired/?$version=3", {"seen": 1, "$version": 3}
    )
    wire.send(publish("$iothub/twin/GET/?$rid=1"))
    wire.expect_publish(
        "$iothub/twin/res/200/?$rid=1",
        {"desired": {"missed": 1, "seen": 1, "$version": 3}, "reported": {"$version": 1}},
    )
