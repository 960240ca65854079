"""What the feed publishes about scheduled jobs."""

from __future__ import annotations

from emulator.hub.feed import Change
from emulator.hub.jobs.records import Job


class JobStarted(Change, frozen=True):
    """A scheduled job has begun to run."""

    job: Job


class JobEnded(Change, frozen=True):
    """A scheduled job is completed, failed or cancelled."""

    job: Job
