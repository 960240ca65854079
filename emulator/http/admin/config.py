"""The content of a configuration file, on a hub that runs: `/_emulator/config`."""

from __future__ import annotations

from collections.abc import Callable

from emulator.http.admin.parameters import check_parameters
from emulator.http.requests import Request, read_json
from emulator.http.route import Route
from emulator.hub.access.operations import Operation
from emulator.hub.core.errors import ArgumentInvalid
from emulator.hub.core.json import JsonObject
from emulator.hub.hub import IotHub

# What the start of a hub alone can apply.
_OF_THE_START = "policies"


def routes(choose_keys: Callable[[str], tuple[str, str]]) -> tuple[Route, ...]:
    """Return the route that applies a document to the hub.

    Args:
        choose_keys: chooses the keys of an identity that has none in the document.
    """

    async def apply_config(hub: IotHub, request: Request) -> JsonObject:
        """`POST /_emulator/config`: create, update and delete what the document says; 200.

        The body is a configuration file as JSON, without settings and policies: these need a
        restart. The answer has the numbers of what was created, changed and deleted.
        """
        # Imported here: most hubs have no configuration file.
        from emulator.config.apply import apply
        from emulator.config.file import parse
        from emulator.config.mistakes import ConfigError

        check_parameters(request)
        document = await read_json(request)
        if isinstance(document, dict) and _OF_THE_START in document:
            raise ArgumentInvalid(
                f"{_OF_THE_START} can't change while the hub runs. Restart it with --config FILE"
            )
        try:
            applied = await apply(hub, parse(document), choose_keys)
        except ConfigError as error:
            raise ArgumentInvalid(str(error)) from None
        return {
            "created": applied.created,
            "changed": applied.changed,
            "deleted": applied.deleted,
        }

    return (
        Route("POST", "/_emulator/config", Operation.APPLY_CONFIG, apply_config, versioned=False),
    )
