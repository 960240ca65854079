"""The files of import and export jobs: what an export writes, and what an import reads."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hub.core import limits
from emulator.hub.core.errors import DeserializationError
from emulator.hub.hub import IotHub
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.import_export import files
from tests.hub.fakes import ANY, DEVICE, MODULE, put
from tests.hub.import_export import depot

# --- identities


async def test_the_line_of_a_device_is_that_of_a_real_hub(hub: IotHub, box: depot.Box) -> None:
    device = put(hub, DEVICE, authentication=depot.SAS, statusReason="new")
    patch = {"tags": {"floor": 1}, "properties": {"desired": {"a": {"b": 1.50}}}}
    hub.twins.patch(DEVICE, patch, ANY)
    hub.twins.report(DEVICE, {"c": [1, {"d": "e"}]}, None)
    await depot.finish(hub, depot.export())
    none = '"x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null}'
    assert box.blobs["out", "devices.txt"].decode() == (
        f'{{"id":"d","eTag":"{device["etag"]}","status":"enabled","statusReason":"new",'
        f'"authentication":{{"symmetricKey":{{"primaryKey":"{depot.KEYS["primaryKey"]}",'
        f'"secondaryKey":"{depot.KEYS["secondaryKey"]}"}},{none},"type":"sas"}},'
        f'"twinETag":"AAAAAAAAAAI=","tags":{{"floor":1}},"properties":{{"desired":'
        f'{{"a":{{"b":1.5}}}},"reported":{{"c":[1,{{"d":"e"}}]}}}},'
        f'"capabilities":{{"iotEdge":false}}}}\n'
    )


async def test_each_device_and_module_has_a_line(hub: IotHub, box: depot.Box) -> None:
    put(hub, IdentityKey("off"), status="disabled")
    put(hub, DEVICE)
    put(hub, MODULE, managedBy="me")
    await depot.finish(hub, depot.export())
    device, module, off = box.lines()
    assert (off["id"], off["status"]) == ("off", "disabled")
    assert (off["tags"], off["properties"]) == ({}, {"desired": {}, "reported": {}})
    assert device["id"] == "d"
    assert [*module] == [
        *("id", "moduleId", "eTag", "status", "authentication", "twinETag", "tags"),
        *("properties", "managedBy"),
    ]
    assert (module["id"], module["moduleId"], module["managedBy"]) == ("d", "m", "me")


async def test_an_export_without_keys_has_no_credentials(hub: IotHub, box: depot.Box) -> None:
    put(hub, DEVICE, authentication=depot.SAS)
    prints = {"primaryThumbprint": depot.THUMBPRINT}
    x509 = {"type": "selfSigned", "x509Thumbprint": prints}
    put(hub, IdentityKey("x"), authentication=x509)
    job = await depot.finish(hub, depot.export(excludeKeysInExport=True))
    assert job["excludeKeysInExport"] is True
    content = box.blobs["out", "devices.txt"].decode()
    warning, *lines = content.splitlines()
    assert warning.startswith("Warning: ")
    assert [json.loads(text)["authentication"] for text in lines] == [None, None]
    assert not any(secret in content for secret in (*depot.KEYS.values(), depot.THUMBPRINT))


async def test_the_export_of_an_empty_hub_is_an_empty_file(hub: IotHub, box: depot.Box) -> None:
    job = await depot.finish(hub, depot.export())
    assert (job["status"], job["progress"]) == ("completed", 100)
    assert box.blobs == {("out", "devices.txt"): b""}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Warning: no JSON", "Expecting value"),
        ("[]", "It is not an object"),
        ('{"id":"d"}', "'status' not found"),
        ('{"id":"d","status":null}', "'status' not found"),
        ('{"status":"enabled"}', "'id' not found"),
        ('{"id":1,"status":"enabled"}', "'id' not found"),
        ('{"id":"d","importMode":"delete"}', "'status' not found"),
    ],
)
def test_an_error_quotes_an_invalid_line(text: str, why: str) -> None:
    with pytest.raises(DeserializationError) as caught:
        files.read_identity(text.encode())
    assert caught.value.text.startswith(f"Invalid device format in line: {text}. ")
    assert why in caught.value.text


def test_a_line_that_is_too_long_is_not_parsed() -> None:
    item = json.dumps(depot.line("d", statusReason="x" * limits.IMPORT_LINE_BYTES)).encode()
    with pytest.raises(DeserializationError) as caught:
        files.read_identity(item)
    assert len(caught.value.text) < 2_000


# --- any file

NAMES = st.text(st.characters(codec="utf-8"), max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | NAMES,
    lambda below: st.dictionaries(NAMES, below, max_size=2),
    max_leaves=5,
)
CONTENT = ("deviceContent", "moduleContent", "modulesContent")


@given(
    st.fixed_dictionaries(
        {"id": NAMES, "etag": NAMES, "priority": st.integers(0, 9), "targetCondition": NAMES},
        optional={
            "labels": st.none() | st.dictionaries(NAMES, NAMES, max_size=3),
            "schemaVersion": st.none() | NAMES,
            "content": st.fixed_dictionaries(
                {}, optional={name: st.dictionaries(NAMES, VALUES, max_size=3) for name in CONTENT}
            ),
            "metrics": st.fixed_dictionaries({"queries": st.dictionaries(NAMES, NAMES)}),
        },
    )
)
def test_a_configuration_is_read_as_it_was_written(document: depot.JsonObject) -> None:
    text = files.configuration_line(document)
    assert text.count(b"\n") == 1
    assert files.read_configuration(text) == document
    # The service's own names are in PascalCase, the user's names are not.
    item = json.loads(text)
    assert {name[0] for name in item} <= set("IEPTLSCM")
    assert item.get("Labels") == document.get("labels")


@given(st.lists(st.binary(max_size=20).map(lambda text: text.replace(b"\n", b"")), max_size=9))
def test_a_newline_ends_a_line_and_the_percentage_never_falls(texts: list[bytes]) -> None:
    found = list(files.lines(b"\r\n".join(texts)))
    assert [line for line, _ in found] == [text.strip() for text in texts or [b""]][: len(found)]
    percents = [percent for _, percent in found]
    assert percents == sorted(percents)
    assert all(0 <= percent < 100 for percent in percents)
