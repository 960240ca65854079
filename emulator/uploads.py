"""Where the files of devices go, as the settings say: a folder, an account, or nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from emulator.connection_strings import host_with_port
from emulator.hub.core.clock import Clock
from emulator.hub.core.store import Store
from emulator.hub.uploads.storage import UploadStorage
from emulator.net.certificates import Certificates
from emulator.settings import Settings
from emulator.storage.upload_folder import CONTAINER, FolderUploads, UploadFolder

if TYPE_CHECKING:
    from emulator.storage.upload_account import AccountUploads

# In the folder of the data, with a folder for each host.
_FOLDER = "uploads"


class Uploads:
    """The uploads of an emulator, which outlive each of its hubs.

    Args:
        settings: how the emulator is set up.
        certificates: its certificates; a storage emulator can have them too.
        port: where the folder is served; None if it is not.
    """

    def __init__(self, settings: Settings, certificates: Certificates, port: int | None) -> None:
        self._text = "" if settings.no_uploads else settings.upload_storage
        self._bundle = certificates.bundle
        self._account: AccountUploads | None = None
        self._folder = None if port is None else UploadFolder(_folder(settings))
        self._host_name = "" if port is None else host_with_port(settings.host_name, port)

    @property
    def folder(self) -> Path | None:
        """The folder; None if the emulator serves none."""
        return None if self._folder is None else self._folder.path

    def storage_for(self, clock: Clock, store: Store) -> UploadStorage | None:
        """Return the storage of a hub that is built; None if it has none.

        Args:
            clock: the clock of the hub.
            store: the store of the hub.
        """
        if self._folder is not None:
            return FolderUploads(self._folder, self._host_name, clock, store)
        if self._account is None and self._text:
            # Imported here: most hubs use no account.
            from emulator.storage.connection_string import parse
            from emulator.storage.upload_account import AccountUploads

            self._account = AccountUploads(parse(self._text), clock.machine, self._bundle)
        return self._account

    def prepare(self) -> None:
        """Begin to create the container of an account, if it is missing."""
        if self._account is not None:
            self._account.prepare()

    async def clear(self) -> None:
        """Remove the files in a temporary folder, for a hub that begins anew."""
        if self._folder is not None:
            await self._folder.clear()

    async def stop(self) -> None:
        """End the work on files, and remove a temporary folder."""
        if self._account is not None:
            await self._account.stop()
        if self._folder is not None:
            self._folder.close()


def _folder(settings: Settings) -> Path | None:
    """Return the folder for uploads; None for a temporary one."""
    if settings.storage is not None:
        return settings.storage / CONTAINER
    if settings.data_dir is None:
        return None
    return settings.data_dir / _FOLDER / settings.host_in_file_names
