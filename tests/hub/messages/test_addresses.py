"""The addresses of cloud-to-device messages."""

import pytest

from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.messages.addresses import device_ids


@pytest.mark.parametrize(
    ("to", "ids"),
    [
        ("/devices/d/messages/devicebound", ["d", "d"]),
        ("devices/d/Messages/deviceBound/", ["d", "d"]),
        ("amqps://hub/devices/D/messages/devicebound", ["D", "D"]),
        ("/devices/a%20b/messages/devicebound", ["a%20b", "a b"]),
        ("/devices/a/b/messages/devicebound", ["a/b", "a/b"]),
    ],
)
def test_an_address_means_the_id_as_written_or_decoded(to: str, ids: list[str]) -> None:
    assert device_ids(to) == ids


@pytest.mark.parametrize(
    "to", ["", "d", "/devices/messages/devicebound", "/modules/d/messages/devicebound", "://"]
)
def test_another_text_is_no_address(to: str) -> None:
    with pytest.raises(ArgumentInvalid, match="Use /devices/DEVICE_ID/messages/devicebound"):
        device_ids(to)
