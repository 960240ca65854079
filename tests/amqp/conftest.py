"""A hub with the devices d1 and d2."""

import pytest

from tests.mqtt.playbook import Lab


@pytest.fixture
def lab() -> Lab:
    return Lab()
