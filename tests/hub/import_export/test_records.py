"""The requests for import and export jobs."""

import pytest

from emulator.hub.core import errors
from emulator.hub.import_export.records import Order, TransferType
from tests.hub.import_export.depot import JsonObject, export, import_


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ([], errors.DeserializationError),
        (None, errors.DeserializationError),
        ({"outputBlobContainerUri": "out"}, errors.ArgumentNull),
        (export(type="backup"), errors.ArgumentInvalid),
        (export(type=1), errors.ArgumentInvalid),
        ({"type": "export"}, errors.ArgumentNull),
        (export(outputBlobContainerUri=""), errors.ArgumentNull),
        (export(outputBlobContainerUri=7), errors.ArgumentInvalid),
        ({"type": "import", "outputBlobContainerUri": "out"}, errors.ArgumentNull),
        (export(excludeKeysInExport="true"), errors.ArgumentInvalid),
        (export(includeConfigurations=1), errors.ArgumentInvalid),
        (export(storageAuthenticationType="none"), errors.ArgumentInvalid),
        (export(storageAuthenticationType="identityBased"), errors.ManagedIdentityNotEnabled),
        (export(storageAuthenticationType="IdentityBased"), errors.ManagedIdentityNotEnabled),
        *(
            (export(outputBlobName=name), errors.ArgumentInvalid)
            for name in ("../devices.txt", "a//b", "/etc/passwd", "a\nb", "x" * 1025)
        ),
        (import_(inputBlobName=".."), errors.ArgumentInvalid),
        (import_(configurationsBlobName="."), errors.ArgumentInvalid),
    ],
)
def test_an_invalid_request_is_refused(body: object, error: type[errors.HubError]) -> None:
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
