"""Configurations: content that the hub itself writes into the twins that a condition targets.

The rules are those of IoT Hub docs: automatic device management, of IoT Edge docs: deployments, and
of what was seen on a real hub. A real hub applies them every five minutes; this one does at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TypeVar

from emulator.hub.configurations import records, rules
from emulator.hub.configurations.conditions import metric_query, system_queries
from emulator.hub.configurations.content import AGENT, Content, Kind, Setting, missing, replaced
from emulator.hub.configurations.records import Configuration, ConfigurationKey, Deployment
from emulator.hub.configurations.rules import Rule, Standing
from emulator.hub.core import errors, limits
from emulator.hub.core.clock import Clock
from emulator.hub.core.etags import IfMatch
from emulator.hub.core.json import JsonObject
from emulator.hub.core.printable import printable
from emulator.hub.core.slices import Slices, Work
from emulator.hub.core.store import Store
from emulator.hub.feed import Feed
from emulator.hub.identities.identity import Identity, IdentityCreated, IdentityDeleted, IdentityKey
from emulator.hub.query.queries import Budget, Queries
from emulator.hub.registry.documents import TwinRow
from emulator.hub.registry.identities import Identities
from emulator.hub.registry.rows import Rows
from emulator.hub.registry.twins import Twins
from emulator.hub.twins.twin import Twin, TwinChanged

log = logging.getLogger(__name__)

_T = TypeVar("_T")

# How many twins a configuration has, by its id and the name of the metric.
_Tally = Counter[tuple[str, str]]

# Why a twin cannot have what a configuration wants.
_IMPOSSIBLE = (
    errors.ArgumentInvalid,
    errors.DeviceModelMaxPropertiesExceeded,
    errors.TooManyModulesOnDevice,
)


class Configurations:
    """The configurations of a hub.

    A new identity, and a twin with new tags or reported properties, is reconciled at once.
    """

    def __init__(
        self,
        store: Store,
        identities: Identities,
        twins: Twins,
        rows: Rows,
        queries: Queries,
        feed: Feed,
        clock: Clock,
        slices: Slices,
    ) -> None:
        self._store = store
        self._identities = identities
        self._twins = twins
        self._twin_rows = rows
        self._queries = queries
        self._clock = clock
        self._slices = slices
        self._rules = rules.make_rules(self._store.scan(Configuration), {})
        self._resuming: asyncio.Task[None] | None = None
        queries.add_member(
            "configurations",
            lambda row: self.statuses(row.identity.key),
            lambda: rules.steps(self._rules),
        )
        feed.subscribe(IdentityCreated, lambda change: self.reconcile(change.key))
        feed.subscribe(TwinChanged, self._twin_changed)
        feed.subscribe(IdentityDeleted, self._forget)

    # --- for services

    async def get(self, configuration_id: str) -> JsonObject:
        """Return a configuration, with its metrics as they are now.

        A metric that is too expensive has no result.

        Raises:
            ConfigurationNotFound
        """
        configuration = self._configuration(ConfigurationKey(configuration_id))
        work = await self._slices.begin()
        tally = await self._tally(configuration.content.kind, work)
        return await self._document(configuration, tally, work)

    async def all(self) -> AsyncIterator[JsonObject]:
        """Return the configurations, the oldest first, with their metrics as they are now.

        A metric that is too expensive has no result.
        """
        work = await self._slices.begin()
        found = self._store.scan(Configuration)
        kinds = {each.content.kind for each in found}
        tallies = {kind: await self._tally(kind, work) for kind in kinds}
        for each in found:
            yield await self._document(each, tallies[each.content.kind], work)

    async def put(self, configuration_id: str, body: object, if_match: IfMatch) -> JsonObject:
        """Create a configuration, or with `If-Match` update it, and reconcile the twins.

        The answer has no metrics yet (seen on a real hub).

        Raises:
            ConfigurationAlreadyExists, ConfigurationNotFound, PreconditionFailed
            ConfigurationCountLimitExceeded: 100 are allowed, or fewer that are expensive.
            InvalidConfigurationContent, InvalidConfigurationTargetCondition
            InvalidConfigurationCustomMetricsQuery, ArgumentInvalid, DeserializationError
        """
        key = ConfigurationKey(configuration_id)
        work = await self._slices.begin()
        await records.parse_queries(body, work)
        content = await records.parse_content(body, work)
        if if_match.absent:
            if self._store.get(Configuration, key) is not None:
                raise errors.ConfigurationAlreadyExists(
                    f"A configuration with ID '{key.id}' is already registered."
                )
            if len(self._store.scan(Configuration)) >= limits.CONFIGURATIONS_PER_HUB:
                most = limits.CONFIGURATIONS_PER_HUB
                raise errors.ConfigurationCountLimitExceeded(
                    f"The hub has {most} configurations: no more are allowed."
                )
            configuration = records.create(key, body, self._clock.now(), content)
        else:
            before = self._configuration(key)
            if not if_match.allows(before.etag):
                raise errors.PreconditionFailed
            configuration = records.update(before, body, self._clock.now(), content)
        self._check_cost(configuration)
        self._store.commit(put=(configuration,))
        await self._changed(configuration.content.kind, work)
        return configuration.document({}, {})

    async def delete(self, configuration_id: str, if_match: IfMatch) -> None:
        """Delete a configuration; its values stay, unless another configuration replaces them.

        Raises:
            ConfigurationNotFound, PreconditionFailed
        """
        configuration = self._configuration(ConfigurationKey(configuration_id))
        if not if_match.allows(configuration.etag):
            raise errors.PreconditionFailed
        self._store.commit(delete=((Configuration, configuration.key),))
        await self._changed(configuration.content.kind, await self._slices.begin())

    async def check_queries(self, body: object) -> JsonObject:
        """Check a target condition and metrics: see `records.check_queries`."""
        return await records.check_queries(body, await self._slices.begin())

    async def apply_content(self, device_id: str, body: object) -> None:
        """Write modules of one IoT Edge device directly (IoT Edge docs).

        Deployments that target the device do not undo this until they change (seen on a real hub).

        Raises:
            DeviceNotFound
            InvalidConfigurationContent: the content is not for the modules of a device.
            ArgumentInvalid: it is not an IoT Edge device, or a module twin can't hold the content.
            TooManyModulesOnDevice
        """
        work = await self._slices.begin()
        content = await work.finish(Content.parsing(body))
        if content.kind is not Kind.EDGE:
            raise errors.InvalidConfigurationContent(f"The content must have {Kind.EDGE.value}")
        if not self._twin_rows.row(IdentityKey(device_id)).identity.iot_edge:
            raise errors.ArgumentInvalid("Not an Azure IoT Edge device")
        for module_id, settings in content.settings.items():
            if work.over:
                await work.rest()
            self._set_module(IdentityKey(device_id, module_id), settings)

    def statuses(self, key: IdentityKey) -> JsonObject:
        """Return the configurations that target a twin: `{"<id>": {"status": "Applied"}}`.

        Deployments are in the twin of `$edgeAgent` (IoT Edge docs).
        """
        if not self._rules:
            return {}
        kind = Kind.DEVICE if key.module_id is None else Kind.MODULE
        found = [*self._standings(kind, self._twin_rows.row(key))]
        if key.module_id == AGENT:
            device = self._twin_rows.row(IdentityKey(key.device_id))
            found += self._standings(Kind.EDGE, device)
        return {
            rule.id: {"status": "Applied" if applied else "Targeted"} for rule, applied in found
        }

    def _configuration(self, key: ConfigurationKey) -> Configuration:
        configuration = self._store.get(Configuration, key)
        if configuration is None:
            raise errors.ConfigurationNotFound(key.id)
        return configuration

    def _check_cost(self, configuration: Configuration) -> None:
        """Refuse a configuration with which each change of a twin would take too long."""
        others = [each for each in self._store.scan(Configuration) if each.key != configuration.key]
        cost = rules.steps(rules.make_rules([*others, configuration], self._rules))
        if cost > limits.CONFIGURATION_STEPS:
            raise errors.ConfigurationCountLimitExceeded(
                f"The configurations of the hub would take {cost} steps for each twin. "
                f"{limits.CONFIGURATION_STEPS} are allowed. Use shorter conditions or less content."
            )

    # --- metrics

    async def _document(
        self, configuration: Configuration, tally: _Tally, work: Work
    ) -> JsonObject:
        key, kind = configuration.key, configuration.content.kind
        names = system_queries(key.id, kind, configuration.target_condition)
        results = {}
        for name, text in configuration.metrics.items():
            with contextlib.suppress(errors.ArgumentInvalid):  # it is too expensive
                results[name] = await self._queries.count(metric_query(text), work, Budget())
        return configuration.document({name: tally[key.id, name] for name in names}, results)

    async def _tally(self, kind: Kind, work: Work) -> _Tally:
        """Return the system metrics of all configurations of a kind, by id and metric."""
        tally: _Tally = Counter()
        rows = self._twin_rows.modules() if kind is Kind.MODULE else self._twin_rows.devices()
        for _, row in rows:
            if work.over:
                await work.rest()
            for rule, applied in self._standings(kind, row):
                tally[rule.id, "targetedCount"] += 1
                if not applied:
                    continue
                tally[rule.id, "appliedCount"] += 1
                if kind is Kind.EDGE and (success := self._reports(row)) is not None:
                    which = "reportedSuccessfulCount" if success else "reportedFailedCount"
                    tally[rule.id, which] += 1
        return tally

    def _reports(self, device: TwinRow) -> bool | None:
        agent = self._store.get(Twin, IdentityKey(device.identity.key.device_id, AGENT))
        return None if agent is None else rules.reports(agent)

    def _standings(self, kind: Kind, row: TwinRow) -> Sequence[Standing]:
        targeting = self._targeting(kind, row)
        if kind is not Kind.EDGE or not targeting:
            return rules.standings(targeting, row.twin)
        force = rules.in_force(targeting)
        modules = rules.modules_of(row.identity.key.device_id, force).items()
        stands = all(self._wanted_of(key, settings) == {} for key, settings in modules)
        return [Standing(rule, stands and rule in force) for rule in targeting]

    def _targeting(self, kind: Kind, row: TwinRow) -> Sequence[Rule]:
        return [rule for rule in self._rules.get(kind, ()) if rule.targets(row)]

    # --- applying them

    def resume(self) -> None:
        """Apply the configurations of an earlier run, which may have ended before it had."""
        if self._rules:
            self._resuming = asyncio.get_running_loop().create_task(self._apply_all())

    async def stop(self) -> None:
        """End what `resume` has begun."""
        if self._resuming is not None:
            self._resuming.cancel()
            await asyncio.wait([self._resuming])

    async def _apply_all(self) -> None:
        for kind in list(self._rules):
            await self._changed(kind, await self._slices.begin())

    async def _changed(self, kind: Kind, work: Work) -> None:
        """Apply the configurations to all twins.

        Other work has its turn in between: a hub can have thousands of devices.
        """
        self._rules = rules.make_rules(self._store.scan(Configuration), self._rules)
        rows = self._twin_rows.modules() if kind is Kind.MODULE else self._twin_rows.devices()
        for _, row in rows:
            self.reconcile(row.identity.key)
            if work.over:
                await work.rest()

    def reconcile(self, key: IdentityKey) -> None:
        """Write into a twin what the configurations that target it want; it may be deleted."""
        if not self._rules or self._store.get(Identity, key) is None:
            return
        row = self._twin_rows.row(key)
        kind = Kind.DEVICE if key.module_id is None else Kind.MODULE
        if targeting := self._targeting(kind, row):
            patch = missing(row.twin.desired.values, rules.wanted(tuple(targeting)))
            self._try(self._write, key, patch)
        if Kind.EDGE in self._rules and key.module_id in (None, AGENT):
            self._deploy(key.device_id)

    def _deploy(self, device_id: str) -> None:
        """Write the modules of a device's deployments, if these deployments have changed.

        Otherwise the device stays as it is, with what was written directly (seen on a real hub).
        """
        if self._store.get(Identity, IdentityKey(device_id, AGENT)) is None:
            return  # it is not an IoT Edge device
        row = self._twin_rows.row(IdentityKey(device_id))
        force = rules.in_force(self._targeting(Kind.EDGE, row))
        deployment = Deployment(device_id, tuple(rule.configuration.write for rule in force))
        if not force or self._store.get(Deployment, deployment.key) == deployment:
            return
        modules = rules.modules_of(device_id, force).items()
        done = [self._try(self._set_module, key, settings) for key, settings in modules]
        if all(done):
            self._store.commit(put=(deployment,))

    def _twin_changed(self, change: TwinChanged) -> None:
        if change.tags is not None or change.reported is not None:
            self.reconcile(change.key)

    def _forget(self, change: IdentityDeleted) -> None:
        key = (change.key.device_id,)
        if change.key.module_id == AGENT and self._store.get(Deployment, key) is not None:
            self._store.commit(delete=((Deployment, key),))

    def _try(self, write: Callable[[IdentityKey, _T], None], key: IdentityKey, change: _T) -> bool:
        """Write and return True, or log why not: then the configuration stays Targeted."""
        try:
            write(key, change)
        except _IMPOSSIBLE as error:
            log.warning("Cannot apply configurations to %s: %s", printable(key), printable(error))
            return False
        return True

    def _set_module(self, key: IdentityKey, settings: Iterable[Setting]) -> None:
        """Apply settings to the twin of a module, which is created if it is missing."""
        if self._store.get(Identity, key) is None:
            names = {"deviceId": key.device_id, "moduleId": key.module_id}
            self._identities.create(key, {**names, "managedBy": "iotEdge"})
        self._write(key, self._wanted_of(key, settings) or {})

    def _wanted_of(self, key: IdentityKey, settings: Iterable[Setting]) -> JsonObject | None:
        """Return the patch that applies settings to a module's twin; None without a twin."""
        twin = self._store.get(Twin, key)
        if twin is None:
            return None
        values = twin.desired.values
        return missing(values, replaced(values, settings), whole=True)

    def _write(self, key: IdentityKey, patch: JsonObject) -> None:
        if patch:
            self._twins.write(key, {"properties": {"desired": patch}})
