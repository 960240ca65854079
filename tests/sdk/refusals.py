"""What azure-iot-hub raises where the hub refuses; for tests that have azure-iot-hub at hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from msrest.exceptions import HttpOperationError


@contextmanager
def refused(status: int, code: str) -> Iterator[None]:
    """Expect the hub to refuse what is done in the block."""
    with pytest.raises(HttpOperationError) as caught:
        yield
    response = caught.value.response
    assert (response.status_code, response.headers["iothub-errorcode"]) == (status, code)
