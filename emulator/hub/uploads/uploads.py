"""File uploads: a device asks for a place for a file, and reports the end of its upload.

The file itself goes from the device to the storage, and not through the hub (IoT Hub docs: upload
files).
"""

from __future__ import annotations

from datetime import timedelta

from emulator.hub.core import errors, limits
from emulator.hub.core.clock import Clock
from emulator.hub.core.json import JsonObject
from emulator.hub.core.store import Store
from emulator.hub.feed import Feed
from emulator.hub.identities.identity import Identity, IdentityDeleted, IdentityKey
from emulator.hub.links.link import Admission
from emulator.hub.uploads import correlation, upload
from emulator.hub.uploads.notifications import FileNotificationQueued, FileNotifications
from emulator.hub.uploads.storage import UploadStorage
from emulator.hub.uploads.upload import Upload, UploadEnded, UploadStarted


class Uploads:
    """The uploads of a hub.

    Args:
        store: the store of the hub.
        notifications: where services are told of files.
        feed: the feed of the hub.
        clock: the clock of the hub.
        storage: where the files go; None refuses uploads.
    """

    def __init__(
        self,
        store: Store,
        notifications: FileNotifications,
        feed: Feed,
        clock: Clock,
        storage: UploadStorage | None,
    ) -> None:
        self._store = store
        self._notifications = notifications
        self._feed = feed
        self._clock = clock
        self._storage = storage
        feed.subscribe(IdentityDeleted, self._forget)

    def start(self, device: Admission, body: object) -> JsonObject:
        """Start an upload, and return where the device can put the file.

        Args:
            device: the device.
            body: `{"blobName"}`.

        Returns:
            `{"correlationId", "hostName", "containerName", "blobName", "sasToken"}`

        Raises:
            DefaultStorageEndpointNotConfigured: the hub has no storage.
            DeserializationError, ArgumentNull, ArgumentInvalid: the request is invalid.
            DeviceMaximumActiveFileUploadLimitExceeded: 10 uploads of the device are active.
            HubError: the storage can't have such a blob.
        """
        storage, now = self._configured(), self._clock.now()
        started = upload.start(device, body, now)
        known = self._store.scan(Upload, (device.key.device_id,))
        active = [each for each in known if self._is_active(each, device)]
        if len(active) >= limits.UPLOADS_PER_DEVICE:
            raise errors.DeviceMaximumActiveFileUploadLimitExceeded
        grant = storage.grant(started.blob_name, now, started.expires)
        over = [(Upload, each.key) for each in known if each not in active]
        self._store.commit(put=(started,), delete=over)
        self._feed.publish(UploadStarted(started))
        return {
            "correlationId": started.correlation_id,
            "hostName": grant.host_name,
            "containerName": grant.container,
            "blobName": started.blob_name,
            "sasToken": grant.sas_token,
        }

    async def end(self, device: Admission, body: object, correlation_id: str | None = None) -> None:
        """End an upload: the device reports its success or its failure.

        After a success, services are notified. If the file is missing, the upload stays active, and
        the device can report again. A real hub does the same, also if the report comes too early
        (azure-iot-sdk-node#1153, #969).

        Args:
            device: the device.
            body: see `upload.read_report`.
            correlation_id: the id in the path; None if it is in the body.

        Raises:
            DefaultStorageEndpointNotConfigured: the hub has no storage.
            DeserializationError, ArgumentNull, ArgumentInvalid, InvalidFileUploadCompletionStatus:
                the request is invalid.
            IotHubFormatError: the text is not a correlation id.
            InvalidFileUploadCorrelationId: no active upload of the device has this id.
            ExpiredFileUploadCorrelationId: the upload was not reported in time.
            InvalidStorageEndpointOrBlob: the file is not in the storage.
            HubError: the storage can't be reached.
        """
        storage = self._configured()
        report = upload.read_report(body, correlation_id)
        ended = self._active(device, report.correlation_id)
        queue = blob = None
        if report.is_success:
            blob = await storage.find(ended.blob_name)
            ended = self._active(device, report.correlation_id)  # not if it was reported meanwhile
            if blob is None:
                raise errors.InvalidStorageEndpointOrBlob(
                    f"The blob {ended.blob_name} is not in the storage. Upload it, then report "
                    "success; or report failure"
                )
            queue = self._notifications.with_new(ended.device_id, ended.blob_name, blob)
        self._store.commit(put=(queue,) if queue else (), delete=((Upload, ended.key),))
        self._feed.publish(UploadEnded(ended, report, blob))
        if queue:
            self._feed.publish(FileNotificationQueued(queue.notifications[-1]))

    def forget_unknown(self) -> None:
        """Delete the uploads of devices that an earlier run has deleted while it was killed."""
        gone = [
            (Upload, each.key)
            for each in self._store.scan(Upload)
            if self._store.get(Identity, IdentityKey(each.device_id)) is None
        ]
        if gone:
            self._store.commit(delete=gone)

    # ---

    def _configured(self) -> UploadStorage:
        if self._storage is None:
            raise errors.DefaultStorageEndpointNotConfigured
        return self._storage

    def _is_active(self, each: Upload, device: Admission) -> bool:
        return self._clock.now() < each.expires and each.generation_id == device.generation_id

    def _active(self, device: Admission, correlation_id: str) -> Upload:
        """Return the active upload of a device with an id."""
        minute = correlation.minute_of(correlation_id)
        found = self._store.get(Upload, (device.key.device_id, correlation_id))
        if found is not None and self._is_active(found, device):
            return found
        # The id has a minute; the upload of the device has the second.
        expires = found.expires if found else minute + timedelta(seconds=limits.UPLOAD_TIME_TO_LIVE)
        if expires <= self._clock.now():
            raise errors.ExpiredFileUploadCorrelationId
        raise errors.InvalidFileUploadCorrelationId

    def _forget(self, change: IdentityDeleted) -> None:
        """Delete the uploads of a deleted device; the files stay."""
        if change.key.module_id is None:
            known = self._store.scan(Upload, (change.key.device_id,))
            if known:
                self._store.commit(delete=[(Upload, each.key) for each in known])
