"""Names of blobs as names of files."""

from __future__ import annotations

import re
import string
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.storage.blob_names import digest, file_of, other_file_of

# Every character of a device id (IoT Hub docs: identity registry).
IDS = string.ascii_letters + string.digits + "-:.+%_#*?!(),=@$'"
names = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=1153),
    st.text(st.sampled_from("./\\~aA:\0 "), min_size=1, max_size=12),
)


@pytest.mark.parametrize(
    "name",
    [
        "d1/photo.jpg",
        "myDeviceId/2026-01-31/a b (1).tar.gz",
        "device@factory,1=$+#/x",
        "d/a.b.c",
        "d1/COM",
    ],
)
def test_a_harmless_name_stays(name: str) -> None:
    assert str(file_of(name)) == name


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("sensor:1/photo.jpg", r"sensor_1~H/photo\.jpg"),
        ("d1/what?.txt", r"d1/what_~H\.txt"),
        ("d1/Straße.txt", r"d1/Stra_e~H\.txt"),
        ("d1/../../etc/passwd", r"d1/_~H/_~H/etc/passwd"),
        ("d1/./x", r"d1/_~H/x"),
        ("/etc/passwd", r"~H/etc/passwd"),
        ("d1//x", r"d1/~H/x"),
        ("d1/x/", r"d1/x/~H"),
        (r"d1\..\x", r"d1_x~H"),
        ("d1/a\0b", r"d1/a_b~H"),
        ("d1/CON", r"d1/CON~H"),
        ("d1/con.txt", r"d1/con~H\.txt"),
        ("nul/x", r"nul~H/x"),
        ("d1/lpt1.tar.gz", r"d1/lpt1_tar~H\.gz"),
        ("d1/.iothub", r"d1/_iothub~H"),
        (".iothub/records", r"_iothub~H/records"),
        ("d1/x.", r"d1/x_~H"),
        ("d1/x ", r"d1/x_~H"),
        ("d1/x~1", r"d1/x_1~H"),
        ("c:/x", r"c_~H/x"),
        ("d1/file.txt:stream", r"d1/file_txt_stream~H"),
    ],
)
def test_other_names_are_changed(name: str, pattern: str) -> None:
    assert re.fullmatch(pattern.replace("H", "[0-9a-f]{32}"), str(file_of(name)))


def test_a_long_name_is_one_file() -> None:
    name = "d1/" + "/".join(["folder"] * 100) + "/photo.jpg"
    assert re.fullmatch(r"d1_folder_.{30}~[0-9a-f]{32}\.jpg", str(file_of(name)))
    assert len(str(file_of("d" * 128 + "/" + "x" * 1024))) < 165


@given(names)
def test_a_file_is_valid_on_every_system_and_inside(name: str) -> None:
    for path in (file_of(name), other_file_of(name)):
        assert re.fullmatch(r"[A-Za-z0-9_@+=,$#()\-/.~ ]+", str(path))
        assert not path.is_absolute()
        assert 0 < len(str(path)) <= 165
        for part in path.parts:
            assert part[0] not in ". "
            assert part[-1] not in ". "
            assert not re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d) *(\..*)?", part, re.I)
            assert len(part) <= 255
        windows = PureWindowsPath(path)
        assert not windows.is_absolute()
        assert not windows.drive
        assert windows.parts == path.parts


@given(names, names)
def test_two_names_are_two_files(one: str, other: str) -> None:
    if one != other:
        assert len({file_of(one), file_of(other)}) == 2
        assert other_file_of(one) != other_file_of(other)
        assert digest(one) != digest(other)


@pytest.mark.parametrize("character", IDS)
def test_each_device_has_a_folder_of_its_own(character: str) -> None:
    path = file_of(f"a{character}b/photo.jpg")
    assert path.name == "photo.jpg"
    assert path.parent != PurePosixPath("ab")
