"""Connection strings of storage accounts."""

from __future__ import annotations

import pytest

from emulator.storage.connection_string import masked, parse

KEY = "a2V5"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            f"DefaultEndpointsProtocol=https;AccountName=acc1;AccountKey={KEY};"
            "EndpointSuffix=core.windows.net",
            ("acc1", b"key", "https", "acc1.blob.core.windows.net"),
        ),
        (
            f"AccountName=acc1;AccountKey={KEY}",
            ("acc1", b"key", "https", "acc1.blob.core.windows.net"),
        ),
        (
            f"accountname=acc1;ACCOUNTKEY={KEY};BlobEndpoint=http://127.0.0.1:10001/acc1/;",
            ("acc1", b"key", "http", "127.0.0.1:10001/acc1"),
        ),
        (
            f"AccountName=acc1;AccountKey={KEY};BlobEndpoint=https://acc1.blob.localhost:10000",
            ("acc1", b"key", "https", "acc1.blob.localhost:10000"),
        ),
    ],
)
def test_an_account(text: str, found: tuple[object, ...]) -> None:
    assert tuple(parse(text)) == found


def test_the_account_of_storage_emulators() -> None:
    account = parse("UseDevelopmentStorage=true")
    assert (account.name, account.scheme) == ("devstoreaccount1", "https")
    assert account.host == "127.0.0.1:10000/devstoreaccount1"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("x", "Invalid connection string"),
        ("AccountName=", "Invalid connection string"),
        (f"AccountName=a;AccountName=a;AccountKey={KEY}", "Invalid connection string"),
        ("AccountName=acc1", "has no AccountKey. Use a connection string such as"),
        (f"AccountKey={KEY}", "has no AccountName"),
        ("UseDevelopmentStorage=false", "has no AccountName"),
        (f"AccountName=ACC;AccountKey={KEY}", "Invalid AccountName 'ACC': use 3 to 24"),
        ("AccountName=acc1;AccountKey=secret!", "The AccountKey of the connection string is not"),
        (f"AccountName=acc1;AccountKey={KEY};BlobEndpoint=ftp://x", "Invalid BlobEndpoint"),
        (f"AccountName=acc1;AccountKey={KEY};BlobEndpoint=https://u:p@x", "Invalid BlobEndpoint"),
        (f"AccountName=acc1;AccountKey={KEY};BlobEndpoint=https://x/a/b", "Invalid BlobEndpoint"),
        (f"AccountName=acc1;AccountKey={KEY};EndpointSuffix=x?y", "Invalid BlobEndpoint"),
    ],
)
def test_an_invalid_string_is_refused_without_its_key(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=error) as caught:
        parse(text)
    assert KEY not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_keys_are_not_shown() -> None:
    text = f"AccountName=acc1;AccountKey={KEY}"
    assert masked(f"{text};EndpointSuffix=x") == "AccountName=acc1;AccountKey=***;EndpointSuffix=x"
    assert "key" not in repr(parse(text))
