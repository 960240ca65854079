"""What a real hub offers over AMQP only, by the Azure SDKs of the extra `cli`."""

from __future__ import annotations

import base64
import os
import queue
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from emulator.client import Client
from emulator.errors import ClientError

_VARIABLE = "EVENTHUB_CONNECTION_STRING"


def send_command(
    client: Client,
    device_id: str,
    body: bytes,
    message: Mapping[str, str],
    properties: Mapping[str, str],
) -> None:
    """Send a cloud-to-device message.

    Args:
        client: the hub.
        device_id: the device.
        body: the body.
        message: its system properties and `ack`, by the names of azure-iot-hub.
        properties: its application properties.

    Raises:
        ClientError: the SDK is missing, or the hub refuses the message.
    """
    try:
        from azure.iot.hub import IoTHubRegistryManager
    except ImportError:
        _missing("azure-iot-hub")
    if "userId" in message:
        raise ClientError("azure-iot-hub sends no user id to a real hub. Leave out --user-id.")
    # The SDK passes on what it does not know as an application property.
    system = {name: value for name, value in message.items() if name != "ack"}
    if "expiryTimeUtc" in system:
        due = datetime.fromisoformat(system["expiryTimeUtc"])
        system["expiryTimeUtc"] = int(due.timestamp() * 1000)  # type: ignore[assignment]
    given = {**properties, **system}
    if "ack" in message:
        given["iothub-ack"] = message["ack"]
    try:
        manager = IoTHubRegistryManager.from_connection_string(client.connection_string)
        manager.send_c2d_message(device_id, body, given)
    except Exception as error:  # the SDK documents Exception
        raise ClientError(f"{client.host}: {_line(error)}.") from error


def events(client: Client, consumer_group: str, since: int | None) -> Iterator[dict[str, Any]]:
    """Return the events of the built-in endpoint as they come, in the form of the emulator.

    Args:
        client: the hub.
        consumer_group: the consumer group to read in.
        since: from when on, in milliseconds since 1970; None is now.

    Raises:
        ClientError: an SDK is missing, or the endpoint can't be read.
    """
    try:
        from azure.eventhub import EventHubConsumerClient
    except ImportError:
        _missing("azure-eventhub")
    text = os.environ.get(_VARIABLE) or _endpoint(client)
    trust = str(client.trust) if client.trust else None
    reader = EventHubConsumerClient.from_connection_string(
        text, consumer_group, retry_total=1, connection_verify=trust
    )
    start = datetime.now(UTC) if since is None else datetime.fromtimestamp(since / 1000, UTC)
    found: queue.SimpleQueue[dict[str, Any] | Exception] = queue.SimpleQueue()

    def receive() -> None:
        try:
            reader.receive(
                lambda _, event: found.put(_document(event)),
                starting_position=start,
                on_error=lambda _, error: found.put(error),
            )
        except Exception as error:  # noqa: BLE001 - raised again by the reader of the queue
            found.put(error)

    threading.Thread(target=receive, daemon=True).start()
    while True:
        item = found.get()
        if isinstance(item, Exception):
            raise ClientError(f"Can't read the events of {client.host}: {_line(item)}.") from item
        yield item


def _endpoint(client: Client) -> str:
    """Return the connection string of the Event Hubs-compatible endpoint.

    The hub redirects a reader of its own address there (azure-iot-cli-extension:
    hub_target_builder.py).
    """
    try:
        import uamqp
    except ImportError:
        _missing("azure-iot-hub, or set " + _VARIABLE)
    host, policy, key = client.host, client.policy, client.key
    user = f"{policy}@sas.root.{host.partition('.')[0]}"
    receiver = uamqp.ReceiveClient(
        f"amqps://{host}/messages/events/$management",
        auth=uamqp.authentication.SASLPlain(host, user, client.token()),
        prefetch=0,
        error_policy=uamqp.errors.ErrorPolicy(max_retries=0),
    )
    try:
        receiver.open()
        while True:
            receiver.do_work()
    except uamqp.errors.LinkRedirect as redirect:
        # amqps://…/{entity}/$management
        entity = redirect.address.decode().split("/")[3]
        return (
            f"Endpoint=sb://{redirect.hostname.decode()}/;SharedAccessKeyName={policy};"
            f"SharedAccessKey={key};EntityPath={entity}"
        )
    except Exception as error:
        raise ClientError(f"Can't find the events of {host}: {_line(error)}.") from error
    finally:
        receiver.close()


def _document(event: Any) -> dict[str, Any]:
    annotations = {
        _text(name): _text(value) for name, value in event.raw_amqp_message.annotations.items()
    }
    body = b"".join(event.body)
    try:
        content = {"body": body.decode()}
    except UnicodeDecodeError:
        content = {"bodyBase64": base64.b64encode(body).decode()}
    system = event.raw_amqp_message.properties or {}
    names = ("message_id", "correlation_id", "user_id", "content_type", "content_encoding", "to")
    return {
        "deviceId": annotations.get("iothub-connection-device-id"),
        "moduleId": annotations.get("iothub-connection-module-id"),
        "systemProperties": {
            name: _text(getattr(system, name)) for name in names if getattr(system, name, None)
        },
        "properties": {_text(name): _text(value) for name, value in event.properties.items()},
        "annotations": annotations,
        **content,
    }


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str | int | float | None) else str(value)


def _missing(what: str) -> NoReturn:
    raise ClientError(
        f"This needs AMQP on a real hub. Install {what}: pip install 'local-iot-hub[cli]'"
    ) from None


def _line(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split()).rstrip(".")
