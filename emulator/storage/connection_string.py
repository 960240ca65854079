"""The connection string of a storage account (Azure Storage docs: connection strings)."""

from __future__ import annotations

import re
from typing import NamedTuple

from emulator.storage.blob_sas import decoded_key

# The account of every storage emulator (Azurite's README). Its key is public.
_DEVELOPMENT = {
    "accountname": "devstoreaccount1",
    "accountkey": (
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    ),
    # The SDKs of devices use https alone, so a storage emulator needs its certificate option.
    "blobendpoint": "https://127.0.0.1:10000/devstoreaccount1",
}
_DEFAULT_SUFFIX = "core.windows.net"
_NAME = re.compile(r"[a-z0-9]{3,24}", re.ASCII)
# `https://account.blob.core.windows.net`, `https://127.0.0.1:10000/devstoreaccount1`. It is so
# strict that all parsers agree.
_ENDPOINT = re.compile(
    r"(https?)://((?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?:/[A-Za-z0-9-]+)?)/?",
    re.ASCII,
)
_EXAMPLE = (
    "Use a connection string such as "
    "'DefaultEndpointsProtocol=https;AccountName=NAME;AccountKey=KEY', or "
    "'UseDevelopmentStorage=true'."
)


class StorageAccount(NamedTuple):
    """A storage account.

    Attributes:
        name: its name.
        key: its key, decoded.
        scheme: `https`, or `http`.
        host: host and port of its blobs; of a storage emulator with the name of the account, as
            `127.0.0.1:10000/devstoreaccount1`.
    """

    name: str
    key: bytes
    scheme: str
    host: str

    def __repr__(self) -> str:
        return f"StorageAccount({self.name!r}, {self.host!r})"


def parse(text: str) -> StorageAccount:
    """Parse a connection string. No error repeats it, because it has the key.

    Raises:
        ValueError: it is invalid.
    """
    fields = {}
    for part in filter(None, (each.strip() for each in text.split(";"))):
        name, equals, value = part.partition("=")
        if not equals or not value or name.lower() in fields:
            raise ValueError(f"Invalid connection string of a storage account. {_EXAMPLE}")
        fields[name.lower()] = value
    if fields.pop("usedevelopmentstorage", "").lower() == "true":
        fields = {**_DEVELOPMENT, **fields}
    for name, label in (("accountname", "AccountName"), ("accountkey", "AccountKey")):
        if name not in fields:
            raise ValueError(f"The connection string has no {label}. {_EXAMPLE}")
    name = fields["accountname"]
    if not _NAME.fullmatch(name):
        raise ValueError(f"Invalid AccountName {name!r}: use 3 to 24 lower-case letters or digits.")
    try:
        key = decoded_key(fields["accountkey"])
    except ValueError:
        raise ValueError("The AccountKey of the connection string is not base64.") from None
    match = _ENDPOINT.fullmatch(fields.get("blobendpoint") or _endpoint(name, fields))
    if match is None:
        raise ValueError(
            "Invalid BlobEndpoint in the connection string: use a URL such as "
            "https://127.0.0.1:10000/devstoreaccount1."
        )
    return StorageAccount(name, key, match[1], match[2])


def masked(text: str) -> str:
    """Return a connection string without its key."""
    return re.sub(r"(?i)(AccountKey|SharedAccessSignature)=[^;]*", r"\1=***", text)


def _endpoint(name: str, fields: dict[str, str]) -> str:
    scheme = fields.get("defaultendpointsprotocol", "https").lower()
    return f"{scheme}://{name}.blob.{fields.get('endpointsuffix', _DEFAULT_SUFFIX)}"
