"""The hub: its features, created in order. Each feature knows only the features before it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from emulator.hub.access.policies import Policy
from emulator.hub.access.refusals import Refusals
from emulator.hub.access.throttles import Throttles
from emulator.hub.access.token_time import TokenTime
from emulator.hub.authorities.authorities import Authorities
from emulator.hub.configurations.configurations import Configurations
from emulator.hub.core.clock import Clock
from emulator.hub.core.slices import Slices
from emulator.hub.core.store import Store
from emulator.hub.core.turns import SharedTurn, Turns
from emulator.hub.faults.faults import Faults
from emulator.hub.feed import Feed
from emulator.hub.gate import Gate
from emulator.hub.identities.thumbprints import ThumbprintIndex
from emulator.hub.import_export.transfers import Blobs, Transfers
from emulator.hub.jobs.jobs import Jobs
from emulator.hub.links.links import Links
from emulator.hub.messages.cloud_to_device import CloudToDevice
from emulator.hub.messages.consumer_groups import ConsumerGroups
from emulator.hub.messages.event_log import EventLog
from emulator.hub.messages.telemetry import Telemetry
from emulator.hub.methods.calls import MethodCalls
from emulator.hub.methods.methods import Methods
from emulator.hub.notifications.notifications import Notifications
from emulator.hub.query.queries import Queries
from emulator.hub.registry.bulk import Bulk
from emulator.hub.registry.digital_twins import DigitalTwins
from emulator.hub.registry.identities import Identities
from emulator.hub.registry.key_rotation import KeyRotation
from emulator.hub.registry.rows import Rows
from emulator.hub.registry.twins import Twins
from emulator.hub.uploads.ended import EndedUploads
from emulator.hub.uploads.notifications import FileNotifications
from emulator.hub.uploads.storage import UploadStorage
from emulator.hub.uploads.uploads import Uploads
from emulator.hub.waits import Waits


class IotHub:
    """An IoT hub.

    Args:
        store: the store of its state.
        policies: the shared access policies.
        hosts: the names of the hub; a token for any of them is valid. Notifications name the first.
        clock: the source of time; None is a new one.
        blobs: the blob containers for import and export jobs; None refuses these jobs.
        throttles: the allowances of callers; None does not limit requests.
        events: the event log; None is one with default bounds.
        event_sources: the events that the log has beside telemetry, of `sources.SOURCES`.
        accepts_entra: see `Gate`.
        token_tolerance: see `TokenTime`.
        takes_fault_requests: see `Faults`.
        upload_storage: the storage for the files of devices; None refuses uploads.
        authorities: the CAs of the start, see `Authorities`.
    """

    def __init__(
        self,
        *,
        store: Store,
        policies: Iterable[Policy],
        hosts: Collection[str],
        clock: Clock | None = None,
        blobs: Blobs | None = None,
        throttles: Throttles | None = None,
        events: EventLog | None = None,
        event_sources: Collection[str] = (),
        accepts_entra: bool = False,
        token_tolerance: float = 0.0,
        takes_fault_requests: bool = False,
        upload_storage: UploadStorage | None = None,
        authorities: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        self.store = store
        self.clock = clock = clock or Clock()
        self.feed = feed = Feed()
        self.refusals = Refusals(feed, clock)
        self.slices = slices = Slices(clock)
        self.turns = Turns(clock)
        self.shared_turn = turn = SharedTurn(clock)
        throttles = throttles or Throttles(clock=clock)
        self.thumbprints = ThumbprintIndex(store, feed).thumbprints
        self.authorities = Authorities(store, clock, authorities)
        self.faults = faults = Faults(feed, clock, takes_requests=takes_fault_requests)
        self.links = links = Links(store, feed, clock, faults)
        self.events = events or EventLog(clock=clock, store=store)
        self.readers = ConsumerGroups()
        self.telemetry = Telemetry(store, links, self.events, clock, faults)
        self.cloud_to_device = CloudToDevice(store, links, feed, clock, turn, faults)
        self.methods = Methods(store, links, feed, clock, faults)
        self.method_calls = MethodCalls(feed, clock)
        rows = Rows(store, links, self.cloud_to_device, feed)
        self.twins = Twins(store, rows, links, feed, clock)
        self.identities = Identities(store, rows, self.twins, links, feed, clock, slices)
        self.bulk = Bulk(self.identities, self.twins, slices)
        self.key_rotation = KeyRotation(self.identities)
        self.digital_twins = DigitalTwins(rows, self.twins)
        self.queries = Queries(rows, slices)
        self.jobs = Jobs(
            store, self.twins, self.methods, self.queries, feed, clock, throttles, slices
        )
        self.configurations = Configurations(
            store, self.identities, self.twins, rows, self.queries, feed, clock, slices
        )
        self.transfers = Transfers(
            store, self.bulk, self.twins, rows, self.configurations, clock, slices, blobs
        )
        self.file_notifications = FileNotifications(store, feed, clock, turn)
        self.uploads = Uploads(store, self.file_notifications, feed, clock, upload_storage)
        ended_uploads = EndedUploads(feed, clock)
        self.notifications = Notifications(
            event_sources, next(iter(hosts)), rows, self.events, feed
        )
        self.waits = Waits(store, links, self.events, ended_uploads, feed)
        self.token_time = TokenTime(clock, token_tolerance)
        self.gate = Gate(
            store, policies, hosts, throttles, faults, self.token_time, accepts_entra=accepts_entra
        )

    def resume(self) -> None:
        """Continue with what an earlier run has left in the store. Call it on the event loop."""
        self.cloud_to_device.resume()
        self.configurations.resume()
        self.jobs.resume()
        self.transfers.fail_unfinished()
        self.file_notifications.resume()
        self.uploads.forget_unknown()

    async def stop(self) -> None:
        """Close every connection, fail the calls that wait for something, and end all jobs."""
        self.waits.stop()
        self.faults.clear()
        self.links.stop()
        self.cloud_to_device.stop()
        self.file_notifications.stop()
        await self.configurations.stop()
        await self.jobs.stop()
        await self.transfers.stop()
        self.events.stop()
