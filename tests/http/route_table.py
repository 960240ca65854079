"""Every route, with the right that it needs and the throttle that it counts against."""

import re
from typing import Any

import requests

from emulator import Emulator
from emulator.http.route import Route
from tests.http.support import device_token
from tests.support import Device, Service

ID = re.compile(r"\{[^}]+\}")

# Each of these rights is enough (IoT Hub docs: access control and permissions). The docs contradict
# each other on configurations, and are silent on ServiceConnect for statistics: two rights there.
READ, WRITE = {"RegistryRead"}, {"RegistryWrite"}
SERVICE, DEVICE = {"ServiceConnect"}, {"DeviceConnect"}

# A throttle's name in the settings, and in a refusal (IoT Hub docs: quotas and throttling).
Throttle = tuple[str, str]
REGISTRY, QUERY = ("registry", "CRUD"), ("queries", "Query")
READ_TWIN, UPDATE_TWIN = ("twin-reads", "TwinRead"), ("twin-updates", "TwinUpdate")
METHOD, JOB = ("methods", "DirectMethod"), ("jobs", "Job")
READ_CONFIGURATION = ("configurations", "ConfigurationRead")
WRITE_CONFIGURATION = ("configurations", "ConfigurationWrite")
SEND_EVENT, SEND_COMMAND = ("d2c-sends", "DeviceToCloudSend"), ("c2d-sends", "CloudToDeviceSend")
RECEIVE_COMMAND = ("c2d-receives", "CloudToDeviceReceive")
START_UPLOAD = ("upload-starts", "FileUploadStart")

_FEEDBACK, _DEVICE_BOUND = "/messages/serviceBound/feedback", "/devices/*/messages/deviceBound"
_FILES, _NOTIFICATIONS = "/devices/*/files", "/messages/serviceBound/filenotifications"

# A star stands for an id. None is a route that has no documented throttle.
TABLE: dict[tuple[str, str], tuple[set[str], Throttle | None]] = {
    ("GET", "/devices"): (READ, REGISTRY),
    ("POST", "/devices"): (WRITE, REGISTRY),
    ("POST", "/devices/keys/regenerate"): (WRITE, REGISTRY),
    ("GET", "/devices/*"): (READ, REGISTRY),
    ("PUT", "/devices/*"): (WRITE, REGISTRY),
    ("DELETE", "/devices/*"): (WRITE, REGISTRY),
    ("GET", "/devices/*/modules"): (READ, REGISTRY),
    ("GET", "/devices/*/modules/*"): (READ, REGISTRY),
    ("PUT", "/devices/*/modules/*"): (WRITE, REGISTRY),
    ("DELETE", "/devices/*/modules/*"): (WRITE, REGISTRY),
    ("GET", "/statistics/devices"): (READ | SERVICE, REGISTRY),
    ("GET", "/statistics/service"): (READ | SERVICE, REGISTRY),
    ("GET", "/twins/*"): (SERVICE, READ_TWIN),
    ("PATCH", "/twins/*"): (SERVICE, UPDATE_TWIN),
    ("PUT", "/twins/*"): (SERVICE, UPDATE_TWIN),
    ("GET", "/twins/*/modules/*"): (SERVICE, READ_TWIN),
    ("PATCH", "/twins/*/modules/*"): (SERVICE, UPDATE_TWIN),
    ("PUT", "/twins/*/modules/*"): (SERVICE, UPDATE_TWIN),
    ("POST", "/devices/query"): (SERVICE, QUERY),
    ("POST", "/twins/*/methods"): (SERVICE, METHOD),
    ("POST", "/twins/*/modules/*/methods"): (SERVICE, METHOD),
    ("GET", "/digitaltwins/*"): (SERVICE, READ_TWIN),
    ("PATCH", "/digitaltwins/*"): (SERVICE, UPDATE_TWIN),
    ("POST", "/digitaltwins/*/commands/*"): (SERVICE, METHOD),
    ("POST", "/digitaltwins/*/components/*/commands/*"): (SERVICE, METHOD),
    ("GET", "/configurations"): (READ | SERVICE, READ_CONFIGURATION),
    ("GET", "/configurations/*"): (READ | SERVICE, READ_CONFIGURATION),
    ("PUT", "/configurations/*"): (WRITE | SERVICE, WRITE_CONFIGURATION),
    ("DELETE", "/configurations/*"): (WRITE | SERVICE, WRITE_CONFIGURATION),
    ("POST", "/configurations/testQueries"): (READ | SERVICE, READ_CONFIGURATION),
    ("POST", "/devices/*/applyConfigurationContent"): (WRITE | SERVICE, WRITE_CONFIGURATION),
    ("GET", "/jobs/v2/query"): (SERVICE, JOB),
    ("GET", "/jobs/v2/*"): (SERVICE, JOB),
    ("PUT", "/jobs/v2/*"): (SERVICE, JOB),
    ("POST", "/jobs/v2/*/cancel"): (SERVICE, JOB),
    ("POST", "/jobs/create"): (WRITE, JOB),
    ("GET", "/jobs"): (READ, JOB),
    ("GET", "/jobs/*"): (READ, JOB),
    ("DELETE", "/jobs/*"): (WRITE, JOB),
    ("DELETE", "/devices/*/commands"): (SERVICE, None),
    ("GET", _FEEDBACK): (SERVICE, None),
    ("DELETE", f"{_FEEDBACK}/*"): (SERVICE, None),
    ("POST", f"{_FEEDBACK}/*/abandon"): (SERVICE, None),
    ("GET", _NOTIFICATIONS): (SERVICE, None),
    ("DELETE", f"{_NOTIFICATIONS}/*"): (SERVICE, None),
    ("POST", f"{_NOTIFICATIONS}/*/abandon"): (SERVICE, None),
    ("GET", "/_emulator/events"): (SERVICE, None),
    ("POST", "/_emulator/devices/*/messages"): (SERVICE, SEND_COMMAND),
    ("GET", "/_emulator/clock"): (SERVICE, None),
    ("POST", "/_emulator/clock"): (SERVICE, None),
    ("GET", "/_emulator/faults"): (SERVICE, None),
    ("POST", "/_emulator/faults"): (SERVICE, None),
    ("DELETE", "/_emulator/faults"): (SERVICE, None),
    ("DELETE", "/_emulator/faults/*"): (SERVICE, None),
    ("GET", "/_emulator/certificates"): (READ, None),
    ("GET", "/_emulator/certificates/*"): (READ, None),
    ("PUT", "/_emulator/certificates/*"): (WRITE, None),
    ("DELETE", "/_emulator/certificates/*"): (WRITE, None),
    ("POST", "/_emulator/certificates/*/generateVerificationCode"): (WRITE, None),
    ("POST", "/_emulator/certificates/*/verify"): (WRITE, None),
    ("POST", "/_emulator/wait"): (SERVICE, None),
    ("GET", "/_emulator/calls"): (SERVICE, None),
    ("GET", "/_emulator/openapi.json"): (SERVICE, None),
    ("POST", "/devices/*/messages/events"): (DEVICE, SEND_EVENT),
    ("GET", _DEVICE_BOUND): (DEVICE, RECEIVE_COMMAND),
    ("DELETE", f"{_DEVICE_BOUND}/*"): (DEVICE, None),
    ("POST", f"{_DEVICE_BOUND}/*/abandon"): (DEVICE, None),
    ("POST", _FILES): (DEVICE, START_UPLOAD),
    ("POST", f"{_FILES}/notifications"): (DEVICE, None),
    ("POST", f"{_FILES}/notifications/*"): (DEVICE, None),
}


def row_of(route: Route) -> tuple[str, str]:
    """Return the verb and the path of a route, as the table has them."""
    return route.verb, ID.sub("*", route.path)


def name_of(route: Route) -> str:
    """Return a route's name for the list of tests."""
    return " ".join(row_of(route))


def call(
    service: Service, emulator: Emulator, route: Route, device: Device, **more: Any
) -> requests.Response:
    """Call a route for a device; every other id in the path is made up."""
    path = ID.sub("made-up", route.path.replace("{device_id}", device.id))
    headers = more.pop("headers", {})
    if route.for_device:
        headers = {"Authorization": device_token(emulator, device), **headers}
    return service.request(route.verb, path, headers=headers, **more)
