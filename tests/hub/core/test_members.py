"""The names of a document's members."""

from typing import Any

import pytest

from emulator.hub.core.errors import DeserializationError, GenericBadRequest
from emulator.hub.core.members import Form, document

OPEN = Form("queryText", "etag", content=Form("eTag", deep=Form("x")))
CLOSED = Form("tags", "etag", closed=True, properties=Form("desired", closed=True))


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"queryText": 1}, {"queryText": 1}),
        ({"QueryText": 1, "ETAG": 2}, {"queryText": 1, "etag": 2}),
        ({"CONTENT": {"ETag": 1, "Other": 2}}, {"content": {"eTag": 1, "Other": 2}}),
        ({"Content": {"DEEP": {"X": {"X": 1}}}}, {"content": {"deep": {"x": {"X": 1}}}}),
        ({"Content": 7, "Other": {"ETag": 1}}, {"content": 7, "Other": {"ETag": 1}}),
        # Of names that differ in letter case only, the last one counts, even if it is null.
        ({"etag": 1, "ETag": 2}, {"etag": 2}),
        ({"ETag": 1, "etag": 2, "eTAG": None}, {"etag": None}),
        ({}, {}),
    ],
)
def test_names_have_any_letter_case_and_other_members_stay(given: Any, read: Any) -> None:
    before = repr(given)
    assert document(given, OPEN) == read
    assert repr(given) == before


def test_a_closed_form_knows_its_members_at_each_level() -> None:
    given = {"Tags": {"Any": 1}, "PROPERTIES": {"Desired": {"any": 1}}, "Etag": None}
    read = {"tags": {"Any": 1}, "properties": {"desired": {"any": 1}}, "etag": None}
    assert document(given, CLOSED) == read
    for members in ({"tagz": {}}, {"": 1}, {"properties": {"reported": {}}}, {"ta gs": 1}):
        with pytest.raises(GenericBadRequest, match="BadRequest: unknown member"):
            document(members, CLOSED)


def test_an_error_repeats_a_part_of_a_long_name() -> None:
    with pytest.raises(GenericBadRequest) as caught:
        document({"x" * 1_000_000: 1}, CLOSED)
    assert len(caught.value.text) < 300


@pytest.mark.parametrize("body", [None, [], "x", 1, True])
def test_a_document_is_an_object(body: object) -> None:
    with pytest.raises(DeserializationError):
        document(body, OPEN)
