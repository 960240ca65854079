"""Tests of the thermostat and of the heating service, on a local hub."""

import os

import pytest
from heating import Heating
from thermostat import Thermostat


@pytest.fixture
def thermostat(iothub, iothub_device):
    device = Thermostat(iothub_device.connection_string)
    device.start()
    iothub.wait_until_listening(iothub_device.id, "boost")
    yield device
    device.stop()


@pytest.fixture
def heating(iothub):
    return Heating(os.environ["IOTHUB_CONNECTION_STRING"])


def test_a_high_temperature_is_an_alert(iothub, iothub_device, thermostat):
    thermostat.send(35.5)
    event = iothub.wait_for_event(iothub_device.id, where={"temperature": 35.5})
    assert event.properties["alert"] == "true"


def test_the_thermostat_boosts(iothub, iothub_device, thermostat, heating):
    assert heating.boost(iothub_device.id, minutes=5) == {"minutes": 5}
    assert [(call.method, call.answer.status) for call in iothub.calls] == [("boost", 200)]


def test_the_thermostat_refuses_an_unknown_method(iothub, iothub_device, thermostat):
    assert iothub.invoke(iothub_device.id, "explode").status == 404


def test_the_thermostat_keeps_the_target(iothub, iothub_device, thermostat, heating):
    heating.set_target(iothub_device.id, 23)
    iothub.wait_for_reported(iothub_device.id, {"target": 23})


def test_a_target_is_kept_that_was_set_before_the_start(iothub, iothub_device, request):
    iothub.update_twin(iothub_device.id, desired={"target": 24})
    request.getfixturevalue("thermostat")
    iothub.wait_for_reported(iothub_device.id, {"target": 24})


def test_the_display_shows_a_message(iothub, iothub_device, thermostat, heating):
    heating.show(iothub_device.id, "Window open")
    iothub.wait_for_reported(iothub_device.id, {"display": "Window open"})
