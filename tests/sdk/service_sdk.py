"""azure-iot-hub. Where it cannot be installed, the modules that import this one are skipped."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip(
    "azure.iot.hub", reason="azure-iot-hub needs uamqp, which has wheels for x86-64 only"
)
from azure.iot import hub as sdk
from azure.iot.hub.protocol import models
from msrest.exceptions import DeserializationError, HttpOperationError

__all__ = ["DeserializationError", "HttpOperationError", "models", "sdk"]


def method(name: str, payload: object = None, **time_outs: int) -> models.CloudToDeviceMethod:
    """Make a call of a direct method."""
    return models.CloudToDeviceMethod(method_name=name, payload=payload, **time_outs)


def twin_of(desired: dict[str, Any], **members: Any) -> models.Twin:
    """Make a twin, or a patch of one, with desired properties."""
    return models.Twin(properties=models.TwinProperties(desired=desired), **members)


@contextmanager
def refused(status: int, code: str) -> Iterator[None]:
    """Expect that the hub refuses the call in the block."""
    with pytest.raises(HttpOperationError) as caught:
        yield
    response = caught.value.response
    assert (response.status_code, response.headers["iothub-errorcode"]) == (status, code)
