from __future__ import annotations

from tests.support import Device, Service


def test_a_device_is_read_with_its_etag(service: Service, device: Device) -> None:
    response = service.request("GET", f"/devices/{device.id}")
    assert response.status_code == 200
    assert response.json()["deviceId"] == device.id
    assert response.headers["ETag"] == f'"{response.json()["etag"]}"'
