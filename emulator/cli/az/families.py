"""The families of commands."""

from __future__ import annotations

from collections.abc import Sequence

from emulator.cli.az import (
    certificates,
    clock,
    configurations,
    digital_twins,
    enrollments,
    events,
    faults,
    feedback,
    identities,
    jobs,
    messages,
    methods,
    query,
    registrations,
    tokens,
    transfers,
    twins,
)
from emulator.cli.az.command import Command

_FAMILIES = (
    *(identities, transfers, twins, methods, query, jobs, configurations, digital_twins),
    *(messages, events, feedback, tokens, certificates, enrollments, registrations),
    *(clock, faults),
)


def commands_of(word: str) -> Sequence[Command]:
    """Return the commands whose first word is this one."""
    if word == "simulate":
        # Imported here: the others need no event loop, which takes as long as all of them.
        from emulator.cli.az.simulate import COMMANDS

        return COMMANDS
    commands = (each for family in _FAMILIES for each in family.COMMANDS)
    return [each for each in commands if each.words.split()[0] == word]
