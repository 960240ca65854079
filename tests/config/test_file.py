"""Configuration files as they are read: every mistake with its place, its value and what to do."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from emulator import Settings, StartError
from emulator.hub.core.json import dumps
from emulator.settings import find
from tests.processes import posix_only

KEY = "dGhpcyBsb2NhbCBJb1QgSHViIGtleSBpcyBwdWJsaWM="
GROUPS = {"consumer-group": ["a", "b"]}


def write(folder: Path, text: str, name: str = "hub.toml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_the_file_of_a_ca_stands_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca" / "root.cer").write_bytes(b"DER")
    file = write(tmp_path, "certificates = [{name = 'a', path = 'ca/root.cer'}]")
    config = Settings.from_file(file).config
    assert config
    (entry,) = config.content.certificates
    assert (entry.name, entry.certificate, entry.verified) == ("a", "REVS", True)


# The text of a TOML file, and what the lines say behind its name.
MISTAKES: dict[str, tuple[str, list[str]]] = {
    "no TOML": ("host = \nport = 1", [r"Not TOML: .*line 1.*"]),
    "a setting that does not exist": (
        "throttel = ['S1']",
        [r"Unknown member 'throttel'\. Use throttle\."],
    ),
    "a member like no other": ("x1 = 1", [r"Unknown member 'x1'\. Use one of .*devices, .*"]),
    "a port out of range": ("mqtt-port = 70000", [r"mqtt-port: Invalid port '70000': use .*"]),
    "a port that is a boolean": (
        "mqtt-port = true",
        [r"mqtt-port: Invalid value True: use a text."],
    ),
    "a time without a unit": ("retention = '12'", [r"retention: Invalid time '12': use .*"]),
    "a time that is a number": ("retention = 12", [r"retention: Invalid value 12: use a text\."]),
    "one wrong value of several": (
        "throttle = ['S1', 'S9']",
        [r"throttle: .*'S9'.*"],
    ),
    "a list in a list": (
        "throttle = [['S1']]",
        [r"throttle: Invalid value \['S1'\]: use a text\."],
    ),
    "a list for one value": ("host = ['a']", [r"host: Invalid value \['a'\]: use a text\."]),
    "a file of files": ("config = 'other.toml'", [r"Unknown member 'config'\. Use .*"]),
    "devices that are not a list": ("devices = 3", [r"devices: Invalid value 3: use a list\."]),
    "a device that is a text": (
        "devices = ['a']",
        [r"devices\[0\]: Invalid value 'a': use an object\."],
    ),
    "a device without an id": (
        "devices = [{status = 'enabled'}]",
        [r"devices\[0\]: The member 'id' is missing\. Add it\."],
    ),
    "a misspelt member": (
        "devices = [{id = 'a', tgas = 1}]",
        [r"devices\[0\]: Unknown member 'tgas'\. Use tags\."],
    ),
    "a member in another letter case": (
        "devices = [{id = 'a', IOTEDGE = true}]",
        [r"devices\[0\]: Unknown member 'IOTEDGE'\. Use iotEdge\."],
    ),
    "tags of the wrong type": (
        "devices = [{id = 'a'}, {id = 'b', tags = 3}]",
        [r"devices\[1\]\.tags: Invalid value 3: use an object\."],
    ),
    "a status that does not exist": (
        "devices = [{id = 'a', status = 'off'}]",
        [r"devices\[0\]\.status: Invalid value 'off': use disabled or enabled\."],
    ),
    "a key of the wrong type is not shown": (
        "devices = [{id = 'a', primaryKey = 12345}]",
        [r"devices\[0\]\.primaryKey: Invalid value \*\*\*: use a text\."],
    ),
    "a module": (
        "devices = [{id = 'a', modules = [{id = 'm'}, {id = 'n', status = 'enabled'}]}]",
        [r"devices\[0\]\.modules\[1\]: Unknown member 'status'\. Use tags\."],
    ),
    "a device that stands twice": (
        "devices = [{id = 'a'}, {id = 'a'}]",
        [r"devices\[1\]\.id: 'a' is also the id of devices\[0\]\. Remove one of them\."],
    ),
    "a module that stands twice": (
        "devices = [{id = 'a', modules = [{id = 'm'}, {id = 'm'}]}]",
        [r"devices\[0\]\.modules\[1\]\.id: 'm' is also the id of devices\[0\]\.modules\[0\]\..*"],
    ),
    "a right that does not exist": (
        "policies = [{name = 'p', rights = ['RegistryReed']}]",
        [r"policies\[0\]\.rights\[0\]: Invalid value 'RegistryReed': use .*RegistryRead, .*"],
    ),
    "a policy without rights": (
        "policies = [{name = 'p'}]",
        [r"policies\[0\]: The new policy 'p' has no rights\. Add 'rights'\."],
    ),
    "a key that is not base64": (
        "policies = [{name = 'service', primaryKey = '%'}]",
        [r"policies\[0\]: Invalid device key: not base64\. Use 16 to 64 bytes in base64\."],
    ),
    "a configuration without content": (
        "configurations = [{id = 'c'}]",
        [r"configurations\[0\]: The member 'content' is missing\. Add it\."],
    ),
    "a priority that is a text": (
        "configurations = [{id = 'c', content = {}, priority = 'high'}]",
        [r"configurations\[0\]\.priority: Invalid value 'high': use a whole number\."],
    ),
    "a CA without its certificate": (
        "certificates = [{name = 'a'}]",
        [r"certificates\[0\]: Use either 'certificate' or, in a file, 'path'\."],
    ),
    "a CA with two certificates": (
        "certificates = [{name = 'a', path = 'a.pem', certificate = 'x'}]",
        [r"certificates\[0\]: Use either 'certificate' or, in a file, 'path'\."],
    ),
    "a file of a CA that is missing": (
        "certificates = [{name = 'a', path = 'none.pem'}]",
        [r"certificates\[0\]\.path: Can't read 'none\.pem': No such file or directory\. Use .*"],
    ),
    "a CA that stands twice": (
        "certificates = [{name = 'a', certificate = 'x'}, {name = 'A', certificate = 'y'}]",
        [r"certificates\[1\]\.name: 'a' is also the name of certificates\[0\]\. Remove .*"],
    ),
    "a fault that does not exist": (
        "faults = [{kind = 'throttel'}]",
        [r"faults\[0\]: Invalid kind of fault: .*throttel.*"],
    ),
    "a fault with a member of another one": (
        "faults = [{kind = 'throttle', rate = 5}]",
        [r"faults\[0\]: Unknown member of the fault throttle: .*rate.*"],
    ),
    "a date": (
        "devices = [{id = 'a', tags = {since = 2026-11-26}}]",
        [r"devices\[0\]\.tags\.since: Invalid value 2026-11-26: write it in quotes, as a text\."],
    ),
    "an infinite number": (
        "devices = [{id = 'a', tags = {x = [1, inf]}}]",
        [r"devices\[0\]\.tags\.x\[1\]: Invalid value inf: use a finite number\."],
    ),
    "a number of more digits than a number of the hub": (
        "partitions = 99999999999999999999999",
        [r"partitions: Invalid value 1e\+23: use a text\."],
    ),
    "a name with too many dots": (
        f"a{'.a' * 5000} = 1",
        [r"Not TOML: it nests too deep\."],
    ),
    "a list that nests too deep": (
        f"devices = [{{id = 'a', tags = {{a = {'[' * 280}{']' * 280}}}}}]",
        [r"Not TOML: .*"],
    ),
    "a list that Python can't read": (
        f"devices = {'[' * 5000}{']' * 5000}",
        [r"Not TOML: it nests too deep\."],
    ),
    "a key and a thumbprint": (
        f"devices = [{{id = 'a', primaryKey = '{KEY}', primaryThumbprint = '{'0' * 40}'}}]",
        [r"devices\[0\]: The authentication selfSigned has no keys\. Remove the keys, or .*"],
    ),
    "a thumbprint that a module does not use": (
        "devices = [{id = 'a', modules = [{id = 'm', authentication = 'certificateAuthority', "
        f"primaryThumbprint = '{'0' * 40}'}}]}}]",
        [r"devices\[0\]\.modules\[0\]: The authentication certificateAuthority has no thumb.*"],
    ),
    "several at once, in the order of the file": (
        "retention = '1y'\nhots = 'a'\ndevices = [{id = 1}, {id = 'b', x = 1}]",
        [
            r"retention: Invalid time '1y': .*",
            r"Unknown member 'hots'\. Use host\.",
            r"devices\[0\]\.id: Invalid value 1: use a text\.",
            r"devices\[1\]: Unknown member 'x'\. .*",
        ],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_has_its_file_place_value_and_fix(name: str, tmp_path: Path) -> None:
    text, expected = MISTAKES[name]
    file = write(tmp_path, text)
    with pytest.raises(StartError) as error:
        Settings.from_file(file)
    lines = str(error.value).splitlines()
    assert len(lines) == len(expected), lines
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(re.escape(f"{file}: ") + pattern, line), line


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("hub.yaml", b"", r"Unknown kind of file '\.yaml': use \.json or \.toml\."),
        ("hub", b"", r"Unknown kind of file '': use \.json or \.toml\."),
        ("hub.json", b"{", r"Not JSON: .*line 1 column 2.*"),
        ("hub.json", b"[]", r"Invalid value \[\]: use an object\."),
        ("hub.json", b'{"host": NaN}', r"Not JSON: NaN is not a JSON value\."),
        (
            "hub.json",
            b'{"devices": [{"id": "a"}], "devices": [{"id": "b"}]}',
            r"The member 'devices' is there 2 times in one object\. Use it once\.",
        ),
        ("hub.toml", b"\xff", r"Can't read the file: it is not UTF-8\. Save it as UTF-8\."),
        ("none.toml", None, r"Can't read the file: No such file or directory\."),
    ],
)
def test_a_file_that_cannot_be_read(
    name: str, content: bytes | None, said: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StartError, match=f"^{re.escape(str(file))}: {said}$"):
        Settings.from_file(file)


@posix_only
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("pipe", "it is not a regular file"),
        ("zero", "it is not a regular file"),
        ("large", "it is larger than 32 MB, which is the most"),
    ],
)
def test_a_file_without_an_end_is_not_read(kind: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "hub.toml"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "zero":
        file.symlink_to("/dev/zero")
    else:
        with file.open("wb") as sparse:
            sparse.truncate(32 * 1024**2 + 1)
    with pytest.raises(
        StartError, match=rf"^{re.escape(str(file))}: Can't read the file: {said}\.$"
    ):
        Settings.from_file(file)


@posix_only
def test_a_certificate_without_an_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ca.pem")
    file = write(tmp_path, "certificates = [{name = 'a', path = 'ca.pem'}]")
    said = r"certificates\[0\]\.path: Can't read 'ca\.pem': it is not a regular file\. Use a file"
    with pytest.raises(StartError, match=said):
        Settings.from_file(file)


def test_a_number_of_toml_keeps_its_digits(tmp_path: Path) -> None:
    file = write(tmp_path, "[[devices]]\nid = 'a'\ntags = {n = 123456789012345678901234}")
    config = Settings.from_file(file).config
    assert config is not None
    assert dumps(config.content.devices[0].tags) == b'{"n":123456789012345678901234}'


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    document = {
        "$schema": "config.schema.json",
        "host": "127.0.0.2",
        "mqtt-port": 0,
        "throttle": ["S1", "queries=5/min"],
        "events": "all",
        **GROUPS,
        "retention": "12h",
    }
    text = (
        "host = '127.0.0.2'\nmqtt-port = '0'\nthrottle = ['S1', 'queries=5/min']\n"
        "events = ['all']\nconsumer-group = ['a', 'b']\nretention = '12h'\n"
    )
    json_file = write(tmp_path, "\ufeff" + json.dumps(document), "HUB.JSON")
    toml_file = write(tmp_path, text)
    read = [Settings.from_file(each, config=None) for each in (json_file, toml_file)]
    assert read[0] == read[1]
    assert read[0].throttle == ("S1", "queries=5/min")
    assert read[0].retention == 12 * 60 * 60
    assert read[0].consumer_groups == ("a", "b")


def test_a_path_begins_in_the_folder_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, json.dumps({"iothubowner": KEY}), "keys.json")
    file = write(tmp_path, f"keys = 'keys.json'\ncert-dir = 'certs'\nclient-ca = ['{tmp_path}/ca']")
    settings = Settings.from_file(file)
    assert settings.keys == {"iothubowner": KEY}
    assert settings.cert_dir == tmp_path / "certs"
    assert settings.authorities == (tmp_path / "ca",)


def test_an_option_beats_a_variable_which_beats_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "host = 'a'\npartitions = 2\nretention = '2h'")
    environ = {"IOTHUB_EMULATOR_CONFIG": str(file), "IOTHUB_EMULATOR_PARTITIONS": "3"}
    found = find({"retention": ["1d"]}, environ)
    assert found.keys() == {"config", "host", "partitions", "retention"}
    assert found["config"].source == "IOTHUB_EMULATOR_CONFIG"
    assert found["host"] == ("a", str(file))
    assert found["partitions"] == (3, "IOTHUB_EMULATOR_PARTITIONS")
    assert found["retention"] == (24 * 60 * 60, "--retention")


def test_the_devices_of_a_file_stand_for_that_of_the_tutorial(tmp_path: Path) -> None:
    with_devices = write(tmp_path, "devices = [{id = 'a'}, {id = 'b'}]")
    assert Settings.from_file(with_devices).devices == ("a", "b")
    assert Settings.from_file(with_devices).new_devices == ()
    assert Settings.from_file(with_devices, devices=("b", "c")).new_devices == ("c",)
    without = write(tmp_path, "host = 'localhost'", "other.toml")
    assert Settings.from_file(without).devices == ("myDeviceId",)


def test_a_path_in_place_of_a_file_that_was_read_is_explained() -> None:
    with pytest.raises(StartError, match=r"Use Settings\.from_file\('hub\.toml'\)"):
        Settings(config="hub.toml")  # type: ignore[arg-type]
