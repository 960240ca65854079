"""The requests for import and export jobs."""

from __future__ import annotations

import pytest

from emulator.hub.core.errors import (
    ArgumentInvalid,
    ArgumentNull,
    DeserializationError,
    HubError,
    ManagedIdentityNotEnabled,
)
from emulator.hub.import_export.records import Order, TransferType
from tests.hub.import_export.depot import JsonObject, export, import_


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ([], DeserializationError),
        (None, DeserializationError),
        ({"outputBlobContainerUri": "out"}, ArgumentNull),
        (export(type="backup"), ArgumentInvalid),
        (export(type=1), ArgumentInvalid),
        ({"type": "export"}, ArgumentNull),
        (export(outputBlobContainerUri=""), ArgumentNull),
        (export(outputBlobContainerUri=7), ArgumentInvalid),
        ({"type": "import", "outputBlobContainerUri": "out"}, ArgumentNull),
        (export(excludeKeysInExport="true"), ArgumentInvalid),
        (export(includeConfigurations=1), ArgumentInvalid),
        (export(storageAuthenticationType="none"), ArgumentInvalid),
        (export(storageAuthenticationType="identityBased"), ManagedIdentityNotEnabled),
        (export(storageAuthenticationType="IdentityBased"), ManagedIdentityNotEnabled),
        *(
            (export(outputBlobName=name), ArgumentInvalid)
            for name in ("../devices.txt", "a//b", "/etc/passwd", "a\nb", "x" * 1025)
        ),
        (import_(inputBlobName=".."), ArgumentInvalid),
        (import_(configurationsBlobName="."), ArgumentInvalid),
    ],
)
def test_an_invalid_request_is_refused(body: object, error: type[HubError]) -> None:
    with pytest.raises(error) as caught:
        Order.parse(body)
    assert caught.type is error


EXPORT, IMPORT = TransferType.EXPORT, TransferType.IMPORT
FULL = {"excludeKeysInExport": True, "includeConfigurations": True}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (export(), Order(EXPORT, "out", "out", "devices.txt", None, exclude_keys=False)),
        (
            export(
                type="Export",
                outputBlobName="2026/mine.txt",
                inputBlobName="ignored",
                storageAuthenticationType="keyBased",
                jobId="ignored",
                **FULL,
            ),
            Order(EXPORT, "out", "out", "2026/mine.txt", "configurations.txt", exclude_keys=True),
        ),
        (
            import_(
                inputBlobName="mine.txt",
                outputBlobName="ignored",
                configurationsBlobName="c",
                **FULL,
            ),
            Order(IMPORT, "in", "out", "mine.txt", "c", exclude_keys=False),
        ),
        (
            {"type": "import", "inputBlobContainerUri": "in", "configurationsBlobName": "c"},
            Order(IMPORT, "in", "in", "devices.txt", None, exclude_keys=False),
        ),
    ],
)
def test_a_request_is_parsed(body: JsonObject, expected: Order) -> None:
    assert Order.parse(body) == expected


def test_an_order_does_not_show_its_containers() -> None:
    order = Order.parse(import_(inputBlobContainerUri="sig=1", outputBlobContainerUri="sig=2"))
    assert "sig=" not in repr(order)
