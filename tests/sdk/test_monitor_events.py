"""`az iot hub monitor-events`, as it uses uamqp: a redirect at the hub, and then the endpoint."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from emulator import Emulator
from tests.support import PATIENCE, Device, fields_of, sas_token

uamqp = pytest.importorskip("uamqp", reason="uamqp has wheels for x86-64 only")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def find_endpoint(emulator: Emulator, host: str, policy: str, key: str) -> Any:
    """Ask the hub for its endpoint, with PLAIN; return the redirect."""
    # The CLI writes the name of the hub up to its first dot.
    user = f"{policy}@sas.root.{host.partition('.')[0]}"
    token = sas_token(host, key, policy=policy)
    client = uamqp.ReceiveClient(
        f"amqps://{host}/messages/events/$management",
        auth=uamqp.authentication.SASLPlain(host, user, token),
        prefetch=0,
        error_policy=uamqp.errors.ErrorPolicy(max_retries=0),
    )
    deadline = time.monotonic() + PATIENCE
    try:
        client.open()
        while time.monotonic() < deadline:
            client.do_work()
    except uamqp.errors.LinkRedirect as redirect:
        return redirect
    finally:
        client.close()
    raise AssertionError("no redirect")


def event_hubs_token(uri: str, policy: str, key: str) -> str:
    """Sign with the text of the key (Event Hubs docs: SAS)."""
    audience, expiry = quote(uri, safe=""), str(int(time.time() + 3600))
    mac = hmac.new(key.encode(), f"{audience}\n{expiry}".encode(), hashlib.sha256).digest()
    signature = quote(base64.b64encode(mac), safe="")
    return f"SharedAccessSignature sr={audience}&sig={signature}&se={expiry}&skn={policy}"


def test_it_finds_the_endpoint_and_reads_events(
    emulator: Emulator, device: Device, send: Callable[..., None], partition: str
) -> None:
    fields = fields_of(emulator.policy_connection_string("service"))
    host, policy = emulator.host_name, fields["SharedAccessKeyName"]
    key = fields["SharedAccessKey"]
    redirect = find_endpoint(emulator, host, policy, key)
    assert redirect.hostname.decode() == host
    entity = redirect.address.decode().split("/")[3]

    began = int(time.time() * 1000) - 1
    send("hello")
    uri = f"sb://{host}/{entity}"
    source = uamqp.Source(f"amqps://{host}/{entity}/ConsumerGroups/$Default/Partitions/{partition}")
    source.set_filter(f"amqp.annotation.x-opt-enqueuedtimeutc > {began}".encode())
    token = event_hubs_token(uri, policy, key)
    receiver = uamqp.ReceiveClient(
        source,
        auth=uamqp.authentication.SASTokenAuth(uri, uri, token, expires_at=time.time() + 3600),
        prefetch=300,
        receive_settle_mode=uamqp.constants.ReceiverSettleMode.PeekLock,
    )
    try:
        found = []
        deadline = time.monotonic() + PATIENCE
        while not found and time.monotonic() < deadline:
            found = [
                b"".join(message.get_data())
                for message in receiver.receive_message_batch(10, timeout=1000)
                if message.annotations[b"iothub-connection-device-id"] == device.id.encode()
            ]
        assert found == [b"hello"]
    finally:
        receiver.close()
