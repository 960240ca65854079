"""SAS tokens for one blob; azure-storage-blob is the judge of the signatures."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock
from urllib.parse import parse_qs, quote

import pytest
from azure.storage.blob import (
    BlobSasPermissions,
    ResourceTypes,
    generate_blob_sas,
)
from azure.storage.blob import _shared_access_signature as shared_access_signature
from azure.storage.blob._shared.shared_access_signature import SharedAccessSignature
from hypothesis import given
from hypothesis import strategies as st

from emulator.storage.blob_sas import VERSION, Blob, SasError, sign, sign_container, verify

KEY = b"the key of an account, 32 bytes."
NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
BLOB = Blob("account", "box", "d1/photo.jpg")
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50)
containers = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/"), min_size=1, max_size=50
)


def made_by_azure(blob: Blob = BLOB, **options: Any) -> str:
    """Let the SDK sign a token."""
    permission = BlobSasPermissions(read=True, write=True)
    defaults = {"permission": permission, "expiry": NOW + HOUR}
    return generate_blob_sas(
        blob.account,
        blob.container,
        blob.name,
        account_key=base64.b64encode(KEY).decode(),
        **(defaults | options),
    )


def refused(query: str, blob: Blob = BLOB, now: datetime = NOW, key: bytes = KEY) -> str:
    """Return why a token is refused."""
    with pytest.raises(SasError) as caught:
        verify(query, blob, key, now)
    return str(caught.value)


@given(name=names, container=containers)
def test_a_token_is_signed_as_azure_signs_it(name: str, container: str) -> None:
    blob = Blob("account", container, name)
    # The SDK has one version, which is newer; its string to sign is the same.
    with mock.patch.object(shared_access_signature, "X_MS_VERSION", VERSION):
        theirs = made_by_azure(blob)
    assert parse_qs(sign(blob, KEY, "rw", NOW + HOUR)[1:]) == parse_qs(theirs)


@given(name=names)
def test_a_token_that_azure_signed_is_valid(name: str) -> None:
    blob = Blob("account", "box", name)
    fields = verify(made_by_azure(blob), blob, KEY, NOW)
    assert fields["sp"] == "rw"


@pytest.mark.parametrize(
    "options",
    [
        {"start": NOW - HOUR},
        {"protocol": "https"},
        {"cache_control": "no-cache", "content_type": "text/plain", "content_language": "de"},
        {"content_disposition": "attachment; filename=a", "content_encoding": "gzip"},
    ],
)
def test_more_that_azure_can_sign(options: dict[str, Any]) -> None:
    verify(made_by_azure(**options), BLOB, KEY, NOW)


@pytest.mark.parametrize(
    "options",
    [{"ip": "127.0.0.1"}, {"encryption_scope": "scope"}, {"policy_id": "policy"}],
)
def test_what_can_not_be_checked_grants_nothing(options: dict[str, Any]) -> None:
    assert "The emulator does not support s" in refused(made_by_azure(**options))


@pytest.mark.parametrize("version", ["2015-04-05", "2018-03-28", "2018-11-09", "2020-02-10"])
def test_older_versions_have_other_strings_to_sign(version: str) -> None:
    _, after = sign(BLOB, KEY, "rw", NOW + HOUR).split("sv=2020-12-06")
    text = refused(f"sv={version}{after}")
    assert text.startswith("Signature did not match. String to sign used was rw\n\n2026-01-31T13:")
    lines = text.removeprefix("Signature did not match. String to sign used was ").split("\n")
    assert len(lines) == (13 if version < "2018-11-09" else 15)


@pytest.mark.parametrize(
    "other",
    [
        Blob("account", "box", "d2/photo.jpg"),
        Blob("account", "box2", "d1/photo.jpg"),
        Blob("other", "box", "d1/photo.jpg"),
        Blob("account", "box", "d1/photo.jpg/"),
        Blob("account", "box", "D1/photo.jpg"),
        Blob("account", "box/d1", "photo.jpg1"),
        Blob("account", "box", ""),
    ],
)
def test_a_token_is_for_one_blob(other: Blob) -> None:
    token = sign(BLOB, KEY, "rw", NOW + HOUR)
    verify(token[1:], BLOB, KEY, NOW)
    assert "Signature did not match" in refused(token[1:], other)


def test_a_token_is_for_one_key() -> None:
    assert "did not match" in refused(sign(BLOB, KEY, "rw", NOW + HOUR)[1:], key=KEY[::-1])


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("sp=rw", "sp=rwd", "Signature did not match"),
        ("sp=rw", "sp=", "not complete"),
        ("&sp=rw", "", "not complete"),
        ("sr=b", "sr=c", "sr is not valid"),
        ("13%3A00", "14%3A00", "Signature did not match"),
        ("sv=2020-12-06", "sv=2021-12-02", "Signature did not match"),
        ("sv=2020-12-06", "sv=2012-02-12", "sv is not valid"),
        ("sv=2020-12-06", "sv=9", "sv is not valid"),
        ("sp=rw", "sp=rw&sp=rw", "has sp twice"),
        ("sp=rw", "sp=rw&SP=rwd", "has sp twice"),
        ("sp=rw", "sp=rw&st=2026-01-01", "Signature did not match"),
        ("sp=rw", "sp=rw&rsct=text%2Fhtml", "Signature did not match"),
        ("sp=rw", "sp=rw&a=%FF", "not valid UTF-8"),
        ("sp=rw", "sp=r%0Aw", "Signature did not match"),
    ],
)
def test_a_changed_token_is_invalid(before: str, after: str, reason: str) -> None:
    token = sign(BLOB, KEY, "rw", NOW + HOUR)[1:]
    assert before in token
    assert reason in refused(token.replace(before, after))


def test_each_changed_character_of_a_signature_is_noticed() -> None:
    token = sign(BLOB, KEY, "rw", NOW + HOUR)[1:]
    signature = parse_qs(token)["sig"][0]
    for at in range(len(signature) - 2):  # some bits of the last digit mean nothing
        other = "A" if signature[at] != "A" else "B"
        changed = signature[:at] + other + signature[at + 1 :]
        refused(token.replace(quote(signature, safe=""), quote(changed, safe="")))


def test_other_parameters_are_not_signed() -> None:
    token = sign(BLOB, KEY, "rw", NOW + HOUR)[1:]
    verify(f"comp=block&blockid=AA%3D%3D&{token}&timeout=30&timeout=30", BLOB, KEY, NOW)


def test_a_token_expires() -> None:
    token = sign(BLOB, KEY, "rw", NOW + HOUR)[1:]
    verify(token, BLOB, KEY, NOW + HOUR - timedelta(seconds=1))
    assert refused(token, now=NOW + HOUR) == (
        "Signature not valid in the specified time frame: Start [] - Expiry [Sat, 31 Jan 2026 "
        "13:00:00 GMT] - Current [Sat, 31 Jan 2026 13:00:00 GMT]"
    )


def test_a_token_can_begin_later() -> None:
    token = made_by_azure(start=NOW + HOUR / 2)
    assert "Start [Sat, 31 Jan 2026 12:30:00 GMT]" in refused(token)
    verify(token, BLOB, KEY, NOW + HOUR / 2)


@pytest.mark.parametrize(
    "time", ["2026-01-31T13:00Z", "2026-02-01", "2026-01-31T13:00:00.1234567Z"]
)
def test_forms_of_a_time(time: str) -> None:
    verify(made_by_azure(expiry=time), BLOB, KEY, NOW)


@pytest.mark.parametrize("time", ["tomorrow", "2026-02-31T00:00:00Z", "2026-01-31T13:00:00+09:00"])
def test_invalid_times(time: str) -> None:
    assert "se is not a valid time" in refused(made_by_azure(expiry=time))


@given(st.text(max_size=200))
def test_no_text_is_a_token(text: str) -> None:
    refused(quote(text, safe="=&%+"))


def test_a_token_for_a_container_is_signed_as_azure_signs_it() -> None:
    ours = parse_qs(sign_container("account", KEY, "c", NOW + HOUR)[1:])
    signer = SharedAccessSignature(
        "account", base64.b64encode(KEY).decode(), x_ms_version=ours["sv"][0]
    )
    theirs = signer.generate_account("b", ResourceTypes(container=True), "c", NOW + HOUR)
    assert ours == parse_qs(theirs)
