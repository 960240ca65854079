"""The rules of configurations, ready to be applied: their targets, and which of them win.

The rules are those of IoT Hub docs: automatic device management, and of IoT Edge docs: deployments.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct

from emulator.hub.configurations.conditions import condition_steps, targets
from emulator.hub.configurations.content import Kind, Setting, kept, missing, patch_of
from emulator.hub.configurations.records import Configuration
from emulator.hub.core.json import JsonObject
from emulator.hub.identities.identity import IdentityKey
from emulator.hub.registry.documents import TwinRow
from emulator.hub.twins.twin import Twin

# The same few rules target most twins.
_COMBINED = 256


class Rule(Struct, frozen=True, eq=False):
    """One configuration.

    Args:
        targets: returns whether it targets a twin.
        patch: its own merge patch, if it is for devices or modules.
        steps: what it costs for one twin, in steps as those of a query.
    """

    configuration: Configuration
    targets: Callable[[TwinRow], bool]
    patch: JsonObject
    steps: int

    @property
    def id(self) -> str:
        """The configuration's id."""
        return self.configuration.key.id


# By kind; the last rule of a kind wins. A kind without rules is left out.
Rules = Mapping[Kind, Sequence[Rule]]


def make_rules(configurations: Iterable[Configuration], before: Rules) -> Rules:
    """Return the rules of configurations; the oldest configuration comes first.

    The highest priority wins, and of the same priority the newest (IoT Hub docs).

    Args:
        configurations: the configurations.
        before: the rules before; those of configurations that have not changed are kept.
    """
    known = {id(rule.configuration): rule for each in before.values() for rule in each}
    rules: dict[Kind, list[Rule]] = defaultdict(list)
    for configuration in sorted(configurations, key=lambda each: each.priority):
        rule = known.get(id(configuration)) or _make_rule(configuration)
        rules[configuration.content.kind].append(rule)
    return rules


def _make_rule(configuration: Configuration) -> Rule:
    content, condition = configuration.content, configuration.target_condition
    matches = targets(condition, content.kind)
    patch = {} if content.kind is Kind.EDGE else patch_of([content.settings[None]])
    return Rule(configuration, matches, patch, condition_steps(condition) + content.steps)


def steps(rules: Rules) -> int:
    """Return what the rules cost for one twin."""
    return sum(rule.steps for each in rules.values() for rule in each)


class Standing(NamedTuple):
    """A configuration that targets a twin, and whether it is applied to it."""

    rule: Rule
    applied: bool


# --- for devices and modules


@functools.lru_cache(_COMBINED)
def wanted(rules: tuple[Rule, ...]) -> JsonObject:
    """Return the merge patch of several rules; the last rule wins."""
    return patch_of(rule.configuration.content.settings[None] for rule in rules)


def standings(rules: Sequence[Rule], twin: Twin) -> list[Standing]:
    """Return which of the rules that target a twin are applied to it.

    Other rules can override a part of an applied rule (IoT Hub docs); the rest is in the twin.
    """
    whole = wanted(tuple(rules))
    return [Standing(rule, _is_applied(rule.patch, whole, twin)) for rule in rules]


def _is_applied(patch: JsonObject, whole: JsonObject, twin: Twin) -> bool:
    own = kept(patch, whole)
    return bool(own or not patch) and not missing(twin.desired.values, own)


# --- for the modules of IoT Edge devices


def in_force(rules: Sequence[Rule]) -> list[Rule]:
    """Return the deployments that apply to a device: a base, then its layers.

    The last base wins. A layer needs a base, and a higher priority than the base.
    """
    base = next((rule for rule in reversed(rules) if rule.configuration.content.is_base), None)
    if base is None:
        return []
    # The rules are in the order of their priorities, so none of these is a base.
    lowest = base.configuration.priority
    return [base, *(rule for rule in rules if rule.configuration.priority > lowest)]


def modules_of(device_id: str, force: Iterable[Rule]) -> Mapping[IdentityKey, list[Setting]]:
    """Return the settings of each module of a device, in the order in which they are applied."""
    modules: dict[IdentityKey, list[Setting]] = defaultdict(list)
    for rule in force:
        for module_id, settings in rule.configuration.content.settings.items():
            if module_id is not None:
                modules[IdentityKey(device_id, module_id)] += settings
    return modules


def reports(agent: Twin) -> bool | None:
    """Return whether an edge agent reports that its deployment succeeded; None without a report.

    The conditions are those of the system metrics' queries.
    """
    reported = agent.reported.values
    status = reported.get("lastDesiredStatus")
    code = status.get("code") if isinstance(status, dict) else None
    if reported.get("lastDesiredVersion") != agent.desired.version or code is None:
        return None
    return bool(code == 200)
