"""Read what devices send, from the oldest message that the hub keeps. Ctrl-C stops it."""

import os
import sys

from azure.eventhub import EventHubConsumerClient

CONNECTION_STRING = os.environ.get("EVENTHUB_CONNECTION_STRING")


def print_event(partition_context, event):
    device_id = event.system_properties[b"iothub-connection-device-id"].decode()
    print(f"Partition {partition_context.partition_id}, {device_id}: {event.body_as_str()}")
    for name, value in event.properties.items():
        print(f"    {name.decode()}: {value.decode()}")


def print_error(partition_context, error):
    print(f"Cannot read: {error}", file=sys.stderr)


def main():
    if not CONNECTION_STRING:
        sys.exit("Set EVENTHUB_CONNECTION_STRING.")
    client = EventHubConsumerClient.from_connection_string(
        CONNECTION_STRING, consumer_group="$Default"
    )
    print("Waiting for messages. Ctrl-C stops it.")
    try:
        client.receive(on_event=print_event, on_error=print_error, starting_position="-1")
    except KeyboardInterrupt:
        print("Stopped.")
    finally:
        client.close()


if __name__ == "__main__":
    main()
