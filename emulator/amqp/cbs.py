"""Claims-based security: a client sends its SAS tokens to the node `$cbs` (AMQP CBS, draft 1.0).

A token may be for the hub, for a device or for an entity of Event Hubs. Its audience counts, not
the `name` in the request, which each SDK writes in another form. A token of Entra ID is for all.
"""

from __future__ import annotations

from emulator.amqp.incoming import IncomingLink
from emulator.amqp.message import Message, Value
from emulator.amqp.nodes.node import Callers, LinkRequest
from emulator.amqp.nodes.requests import Reply, request_nodes
from emulator.hub.access.operations import Operation
from emulator.hub.core.errors import ArgumentInvalid, HubError

# The types of tokens of Entra ID: in Python's service SDK, and in clients of Event Hubs.
_BEARERS = ("bearer", "jwt")


def _answer(request: LinkRequest[IncomingLink], message: Message) -> Reply:
    try:
        _put_token(request, message)
    except HubError as error:
        # Without a condition: with one, azure-eventhub shows neither the status nor the text.
        return Reply(None, error.status, error.text or error.name)
    return Reply()


def _put_token(request: LinkRequest[IncomingLink], message: Message) -> None:
    operation = message.application_properties.get("operation")
    if operation != "put-token":
        raise ArgumentInvalid("Unknown operation. $cbs has the operation put-token.")
    body = message.body
    token = body.value if isinstance(body, Value) else None
    if not isinstance(token, str):
        raise ArgumentInvalid("The body of put-token is not a string with a SAS token.")
    kind = message.application_properties.get("type")
    request.client.put_token(f"Bearer {token}" if kind in _BEARERS else token)


NODES = request_nodes("/$cbs", Operation.CONNECT, _answer, Callers.ALL)
