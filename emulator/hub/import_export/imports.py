"""An import job: it applies the lines of its files, one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from emulator.hub.configurations.configurations import Configurations
from emulator.hub.core import errors, limits
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import JsonObject
from emulator.hub.core.slices import Work
from emulator.hub.core.store import Store
from emulator.hub.identities import scopes
from emulator.hub.identities.identity import Identity, IdentityKey
from emulator.hub.import_export.files import error_line, lines, read_configuration, read_identity
from emulator.hub.registry.bulk import Bulk
from emulator.hub.registry.rows import find
from emulator.hub.registry.twins import Twins

# The mode of a line that names no mode (IoT Hub docs: import and export identities in bulk).
_DEFAULT_MODE = "createOrUpdate"
# The progress while lines wait for other lines, in percent.
_ALMOST_DONE = 99


class Import:
    """One import.

    Each line is applied or refused on its own, in one commit. An import undoes nothing.
    """

    def __init__(
        self, store: Store, bulk: Bulk, twins: Twins, configurations: Configurations
    ) -> None:
        self._store = store
        self._bulk = bulk
        self._twins = twins
        self._configurations = configurations
        self._postponed: dict[str, list[JsonObject]] = {}  # by the id of the device
        self._refusals: list[bytes] = []

    async def run(
        self, work: Work, progress: Callable[[int], None], devices: bytes, configurations: bytes
    ) -> list[bytes]:
        """Apply all lines.

        Args:
            work: the work that this is a part of.
            progress: is called at times with the progress in percent.
            devices: the file of the identities.
            configurations: the file of the configurations; empty without configurations.

        Returns:
            A line for each refusal.
        """
        for line, percent in lines(devices):
            if work.over:
                progress(percent)
                await work.rest()
            if not line:
                continue
            try:
                self._carry_out(read_identity(line), postpone=True)
            except errors.DeserializationError as error:
                self._refusals.append(error_line(error))
        progress(_ALMOST_DONE)
        await self._do_postponed(work)
        # These come last: then their targets exist.
        for line, _ in lines(configurations):
            if work.over:
                await work.rest()
            if line:
                await self._configuration(line)
        return self._refusals

    # --- identities

    def _carry_out(self, item: JsonObject, *, postpone: bool) -> None:
        device_id: str = item["id"]
        if device_id in self._postponed:  # lines of one device keep their order
            self._postponed[device_id].append(item)
            return
        try:
            self._apply(item)
        except errors.HubError as error:
            if postpone and isinstance(error, errors.InvalidDeviceScope):
                self._postponed[device_id] = [item]  # the line of its parent can follow
            else:
                self._refuse(item, error)

    async def _do_postponed(self, work: Work) -> None:
        """Apply the lines that waited for their parents, layer by layer."""
        for layer in range(limits.EDGE_LAYERS + 1):
            waiting, self._postponed = self._postponed, {}
            for item in itertools.chain(*waiting.values()):
                if work.over:
                    await work.rest()
                self._carry_out(item, postpone=layer < limits.EDGE_LAYERS)

    def _apply(self, item: JsonObject) -> None:
        module_id = item.get("moduleId")
        if not item.get("importMode") and isinstance(module_id, str) and module_id.startswith("$"):
            self._restore(IdentityKey(item["id"], module_id), item)
        else:
            self._bulk.apply(self._at_home(item), default_mode=_DEFAULT_MODE)

    def _restore(self, key: IdentityKey, item: JsonObject) -> None:
        """Restore the twin of an IoT Edge runtime module, which was created with its device."""
        find(self._store, Identity, key)
        twin = {name: item[name] for name in ("tags", "properties") if item.get(name)}
        if twin:
            self._twins.write(key, twin)

    def _at_home(self, item: JsonObject) -> JsonObject:
        """Translate the scopes of IoT Edge devices to those of this hub.

        A scope holds the time at which its device was created, so an export from another hub has
        other scopes for the same devices. What a real hub does with them is unknown.
        """
        result = dict(item)
        if "deviceScope" in item:
            result["deviceScope"] = self._scope(item["deviceScope"])
        if isinstance(item.get("parentScopes"), list):
            result["parentScopes"] = list(map(self._scope, item["parentScopes"]))
        return result

    def _scope(self, scope: object) -> object:
        if isinstance(scope, str):
            device = self._store.get(Identity, IdentityKey(scopes.device_of(scope)))
            if device is not None and device.iot_edge and device.scopes.device is not None:
                return device.scopes.device
        return scope

    def _refuse(self, item: JsonObject, error: errors.HubError) -> None:
        names: JsonObject = {"deviceId": item["id"]}
        if item.get("moduleId"):
            names["moduleId"] = item["moduleId"]
        self._refusals.append(error_line(error, names))

    # --- configurations

    async def _configuration(self, line: bytes) -> None:
        """Create a configuration, or update it if the etag matches: the only mode of configurations
        (an SDK's ConfigurationImportMode).
        """
        names: JsonObject | None = None
        try:
            item = read_configuration(line)
            # How a real hub names a configuration in this file is unknown.
            names = {"configurationId": item["id"]}
            await self._put(item)
        except errors.HubError as error:
            self._refusals.append(error_line(error, names))

    async def _put(self, item: JsonObject) -> None:
        try:
            await self._configurations.put(item["id"], item, IfMatch(None))
        except errors.ConfigurationAlreadyExists:
            etag = item.get("etag")
            if_match = IfMatch.parse(etag if isinstance(etag, str) else None)
            if if_match.absent:
                raise errors.PreconditionFailed("PreconditionFailed, Etag missing.") from None
            await self._configurations.put(item["id"], item, if_match)
