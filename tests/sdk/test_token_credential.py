"""Programs that use DefaultAzureCredential: azure-iot-hub's `from_token_credential`."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from azure.core.credentials import AccessToken

from emulator import Emulator
from tests.sdk.service_sdk import models, refused, sdk
from tests.support import jwt


class Credential:
    """Stands in for DefaultAzureCredential, which would ask Entra ID for the token."""

    def __init__(self) -> None:
        self.scopes: list[str] = []

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        self.scopes += scopes
        return AccessToken(jwt(upn="ann@example.com"), int(time.time()) + 3600)


@pytest.fixture
def accepting(emulator: Emulator) -> Iterator[Emulator]:
    """A hub that accepts bearer tokens."""
    settings = replace(emulator.settings, mqtt_port=0, devices=("d",), entra="accept")
    with Emulator(settings) as running:
        yield running


def test_a_program_with_a_token_credential_manages_devices(accepting: Emulator) -> None:
    credential = Credential()
    registry = sdk.IoTHubRegistryManager.from_token_credential(accepting.https_host, credential)
    assert registry.get_device("d").device_id == "d"
    registry.create_device_with_sas("e", "", "", "enabled")
    assert {device.device_id for device in registry.get_devices()} == {"d", "e"}
    twin = registry.update_twin("e", models.Twin(tags={"floor": 3}))
    assert twin.tags == {"floor": 3}
    registry.delete_device("e")
    assert {*credential.scopes} == {"https://iothubs.azure.net/.default"}


def test_without_the_setting_the_hub_refuses_the_principal(emulator: Emulator) -> None:
    url = emulator.https_host
    registry = sdk.IoTHubRegistryManager.from_token_credential(url, Credential())
    with refused(401, "IotHubUnauthorized"):
        registry.get_device("d")
