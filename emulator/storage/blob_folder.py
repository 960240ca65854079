"""Blobs in a folder: each is a file that a person can open.

Beside the files stands the folder `.iothub`: files that are not complete, blocks that are not
committed, and a record of each blob. A record says which file has the blob, and what its client
said of it. All calls block: they run in a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import msgspec
from msgspec import Struct

from emulator.hub.core import limits
from emulator.storage.blob_names import digest, file_of, other_file_of
from emulator.storage.files import open_file, resolved

_OWN = ".iothub"
# The end of the name of a folder whose blocks were dropped.
_OLD = ".old"
_FOLDER_MODE, _FILE_MODE = 0o700, 0o600
_COPY_BYTES = 1024 * 1024


class InvalidBlockListError(Exception):
    """A block list names a block that is not there."""


class InvalidBlockLengthError(Exception):
    """The ids of the blocks of a blob have different lengths."""


class TooManyBlocksError(Exception):
    """A blob has too many blocks that are not committed."""


class Headers(Struct, frozen=True, omit_defaults=True):
    """What the client that wrote a blob says of it; the names are those of HTTP, in lower case."""

    http: Mapping[str, str] = {}
    """`content-type`, `content-md5` and others, which a reader of the blob gets back."""
    metadata: Mapping[str, str] = {}


class Block(Struct, frozen=True, array_like=True):
    """A block of a blob: its id, decoded, and its size in bytes."""

    id: bytes
    size: int


class BlobFile(Struct, frozen=True):
    """A blob, as it was at some time.

    Args:
        file: the path of its file in the folder.
        size: its size in bytes.
        modified_ns: when it was written, in nanoseconds since 1970.
        created_ns: when a blob of this name was first written.
        etag: changes with each write.
        headers: what its client said of it.
        blocks: the blocks that it was made of; empty if it was written whole.
    """

    file: str
    size: int
    modified_ns: int
    created_ns: int
    etag: str
    headers: Headers
    blocks: tuple[Block, ...] = ()

    @property
    def modified(self) -> datetime:
        """When it was written."""
        return datetime.fromtimestamp(self.modified_ns // 10**9, UTC)

    @property
    def created(self) -> datetime:
        """When a blob of this name was first written."""
        return datetime.fromtimestamp(self.created_ns // 10**9, UTC)


class BlockChoice(Struct, frozen=True):
    """An entry of a block list: an id, and among which blocks the service looks for it."""

    id: bytes
    committed: bool
    uncommitted: bool


class NewFile:
    """A file that is not complete: no blob has it yet."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self.path = path
        self._file = os.fdopen(os.open(path, flags, _FILE_MODE), "wb", buffering=0)
        self._md5 = hashlib.md5(usedforsecurity=False)
        self.size = 0

    def write(self, data: bytes | bytearray) -> None:
        """Append bytes.

        Raises:
            OSError: as where the disk is full.
        """
        self._md5.update(data)
        self.size += len(data)
        self._append(memoryview(data))

    def copy(self, source: BinaryIO, size: int) -> None:
        """Append bytes of another file; they are not part of `md5`."""
        self.size += size
        while size:
            data = source.read(min(size, _COPY_BYTES))
            if not data:
                raise InvalidBlockListError
            self._append(memoryview(data))
            size -= len(data)

    def _append(self, data: memoryview) -> None:
        while data:
            data = data[self._file.write(data) :]

    @property
    def md5(self) -> bytes:
        """The MD5 of what was written."""
        return self._md5.digest()

    def close(self, *, to_disk: bool) -> None:
        """Close the file.

        Args:
            to_disk: wait until the disk has it.
        """
        if to_disk:
            os.fsync(self._file.fileno())
        self._file.close()

    def discard(self) -> None:
        """Delete the file, unless a blob or a block has it."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class _Staged(Struct):
    """The blocks of a blob that are not committed: their number, and the length of their ids."""

    count: int
    length: int


class BlobFolder:
    """The blobs in a folder, which is made if it is missing.

    Args:
        root: the folder.

    Raises:
        OSError: the folder can't be made.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        self._root = root.resolve(strict=True)
        own = self._root / _OWN
        self._new, self._blocks, self._records = own / "new", own / "blocks", own / "records"
        self._make()
        self._delete_old()
        for left in self._new.iterdir():  # by a process that was killed
            if left.suffix != _OLD:  # what can't be deleted now stays until the next start
                left.unlink()
        self._staged: dict[str, _Staged] = {}
        # Held for a few calls of the system, never while bytes are copied.
        self._lock = threading.Lock()

    # --- to read

    def find(self, name: str) -> BlobFile | None:
        """Return a blob; None if it is missing."""
        with self._lock:  # else its record can be new, and its file old
            return self._find(name)

    def _find(self, name: str) -> BlobFile | None:
        try:
            record = msgspec.json.decode(self._record(name).read_bytes(), type=BlobFile)
            status = (self._root / record.file).lstat()
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
            return None
        if not self._is_inside(PurePosixPath(record.file)) or not stat.S_ISREG(status.st_mode):
            return None
        if (status.st_size, status.st_mtime_ns) == (record.size, record.modified_ns):
            return record
        # A person has changed the file.
        return BlobFile(
            file=record.file,
            size=status.st_size,
            modified_ns=status.st_mtime_ns,
            created_ns=record.created_ns,
            etag=f"0x{status.st_mtime_ns:X}{status.st_size:X}",
            headers=Headers(),
        )

    def open(self, name: str) -> tuple[BlobFile, BinaryIO] | None:
        """Find a blob, and open its file. No write of the blob changes what is opened.

        Returns:
            the blob and its file, both from one write; None if the blob is missing.
        """
        with self._lock, contextlib.suppress(FileNotFoundError):  # a person has removed the file
            if (found := self._find(name)) is not None:
                return found, open_file(self._root / found.file)
        return None

    def uncommitted(self, name: str) -> list[Block]:
        """Return the blocks of a blob that are not committed, in the order of their ids."""
        blocks = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self._blocks_of(name)) as entries:
            for entry in entries:
                blocks.append(Block(bytes.fromhex(entry.name), entry.stat().st_size))
        return sorted(blocks, key=lambda each: each.id)

    # --- to write

    def create(self) -> NewFile:
        """Begin a file."""
        path = self._new / secrets.token_hex(16)
        try:
            return NewFile(path)
        except FileNotFoundError:  # a person has removed the folder
            self._make()
            return NewFile(path)

    def put(
        self,
        name: str,
        new: NewFile,
        headers: Headers,
        now: datetime,
        check: Callable[[BlobFile | None], None],
        blocks: Sequence[Block] = (),
    ) -> BlobFile:
        """Write a blob, and drop the blocks that are not committed.

        Args:
            name: its name.
            new: the file with its content.
            headers: what its client says of it.
            now: the time.
            check: called with the blob that is there. It raises an error if the blob must not be
                written.
            blocks: what the content was made of.
        """
        new.close(to_disk=True)
        modified_ns = int(now.timestamp() * 10**6) * 10**3
        os.utime(new.path, ns=(modified_ns, modified_ns))
        # Not each system keeps nanoseconds.
        modified_ns = new.path.stat().st_mtime_ns
        with self._lock:
            before = self._find(name)
            check(before)
            blob = BlobFile(
                file=str(self._place(name) if before is None else before.file),
                size=new.size,
                modified_ns=modified_ns,
                created_ns=modified_ns if before is None else before.created_ns,
                etag=f"0x{secrets.token_hex(8).upper()}",
                headers=headers,
                blocks=tuple(blocks),
            )
            # A process that is killed in between leaves the old file, or none, and no half blob.
            self._write_record(name, blob)
            try:
                new.path.replace(self._root / blob.file)
            except OSError:  # as where its folder is read-only
                if before is None:
                    self._record(name).unlink(missing_ok=True)
                else:
                    self._write_record(name, before)
                raise
            self._drop_blocks(digest(name))
        self._delete_old()
        return blob

    def stage(self, name: str, block_id: bytes, new: NewFile, now: datetime) -> None:
        """Keep a block of a blob until it is committed; one with the same id is replaced.

        Raises:
            InvalidBlockLengthError, TooManyBlocksError
        """
        new.close(to_disk=False)
        folder = self._blocks_of(name)
        with self._lock:
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=_FOLDER_MODE, parents=True)
                self._staged.pop(folder.name, None)  # a person can have removed the blocks
            staged = self._staged_of(folder, len(block_id))
            if staged.length != len(block_id):
                raise InvalidBlockLengthError
            file = folder / block_id.hex()
            is_new = not file.exists()
            if is_new and staged.count >= limits.UPLOAD_UNCOMMITTED_BLOCKS:
                raise TooManyBlocksError
            new.path.replace(file)
            staged.count += is_new
            # When the week of `sweep` begins, by the time of the hub.
            os.utime(folder, (now.timestamp(), now.timestamp()))

    def commit(
        self,
        name: str,
        choices: Sequence[BlockChoice],
        headers: Headers,
        now: datetime,
        check: Callable[[BlobFile | None], None],
    ) -> BlobFile:
        """Make a blob of blocks.

        Raises:
            InvalidBlockListError: a block is missing.
        """
        before = self.find(name)
        check(before)  # and again at the end: a long list takes its time
        new = self.create()
        try:
            blocks = [
                Block(choice.id, size) for choice, size in self._copied(name, before, choices, new)
            ]
            return self.put(name, new, headers, now, check, blocks)
        finally:
            new.discard()

    def delete(self, name: str, check: Callable[[BlobFile | None], None]) -> None:
        """Delete a blob, and its blocks that are not committed."""
        with self._lock:
            found = self._find(name)
            check(found)
            if found is not None:
                (self._root / found.file).unlink(missing_ok=True)
            self._record(name).unlink(missing_ok=True)
            self._drop_blocks(digest(name))
        self._delete_old()

    def sweep(self, before: datetime) -> bool:
        """Delete the blocks of blobs whose latest block is from before a time.

        Returns:
            whether others are left.
        """
        left = False
        for folder in list(self._blocks.glob("*")):  # none if a person has removed all
            with self._lock, contextlib.suppress(FileNotFoundError):
                if folder.stat().st_mtime < before.timestamp():
                    self._drop_blocks(folder.name)
                else:
                    left = True
        self._delete_old()
        return left

    def clear(self) -> None:
        """Delete everything, except files that are not complete: their requests still run."""
        with self._lock:
            self._staged.clear()
            self._make()  # a person can have removed it
            for each in list(self._root.iterdir()):
                if each.name == _OWN:
                    continue
                if each.is_dir() and not each.is_symlink():
                    shutil.rmtree(each, ignore_errors=True)
                else:
                    each.unlink(missing_ok=True)
            for folder in (self._blocks, self._records):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)

    # --- where things are

    def _make(self) -> None:
        """Make the folders that are missing."""
        for each in (self._root, self._root / _OWN, self._new, self._blocks, self._records):
            each.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)

    def _record(self, name: str) -> Path:
        return self._records / f"{digest(name)}.json"

    def _blocks_of(self, name: str) -> Path:
        return self._blocks / digest(name)

    def _place(self, name: str) -> PurePosixPath:
        """Choose the file of a new blob: the usual one, if nothing is there."""
        usual = file_of(name)
        folder = self._root / usual.parent
        with contextlib.suppress(FileExistsError, NotADirectoryError):
            folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            if self._is_inside(usual) and not os.path.lexists(self._root / usual):
                return usual
        return other_file_of(name)

    def _is_inside(self, file: PurePosixPath) -> bool:
        """Return whether no folder on the way to a file is a link."""
        folder = self._root / file.parent
        return resolved(folder) == folder

    def _write_record(self, name: str, blob: BlobFile) -> None:
        self._records.mkdir(mode=_FOLDER_MODE, exist_ok=True)  # a person can have removed it
        new = self.create()
        try:
            new.write(msgspec.json.encode(blob))
            new.close(to_disk=True)
            new.path.replace(self._record(name))
        finally:
            new.discard()

    # --- blocks

    def _staged_of(self, folder: Path, length: int) -> _Staged:
        """Return the blocks in a folder; an earlier process can have put some there."""
        if (staged := self._staged.get(folder.name)) is None:
            names = [each.name for each in folder.iterdir()]
            # An id of n bytes is 2 n digits.
            length = len(names[0]) // 2 if names else length
            staged = self._staged[folder.name] = _Staged(len(names), length)
        return staged

    def _drop_blocks(self, folder_name: str) -> None:
        self._staged.pop(folder_name, None)
        old = self._new / f"{secrets.token_hex(16)}{_OLD}"
        with contextlib.suppress(FileNotFoundError):
            (self._blocks / folder_name).replace(old)

    def _delete_old(self) -> None:
        """Delete blocks that were dropped: 50,000 files take too long for the lock."""
        for old in self._new.glob(f"*{_OLD}"):
            shutil.rmtree(old, ignore_errors=True)

    def _copied(
        self, name: str, before: BlobFile | None, choices: Sequence[BlockChoice], new: NewFile
    ) -> Iterator[tuple[BlockChoice, int]]:
        """Append each block to a file."""
        folder = self._blocks_of(name)
        positions: dict[bytes, tuple[int, int]] = {}
        position = 0
        for block in () if before is None else before.blocks:
            positions[block.id] = position, block.size
            position += block.size
        with contextlib.ExitStack() as stack:
            old: BinaryIO | None = None
            for choice in choices:
                if choice.uncommitted:
                    file = folder / choice.id.hex()
                    with contextlib.suppress(FileNotFoundError), file.open("rb") as block_file:
                        size = os.fstat(block_file.fileno()).st_size
                        new.copy(block_file, size)
                        yield choice, size
                        continue
                if not choice.committed or choice.id not in positions or before is None:
                    raise InvalidBlockListError
                if old is None:
                    old = stack.enter_context(open_file(self._root / before.file))
                    status = os.fstat(old.fileno())
                    if (status.st_size, status.st_mtime_ns) != (before.size, before.modified_ns):
                        raise InvalidBlockListError  # it was replaced meanwhile
                start, size = positions[choice.id]
                old.seek(start)
                new.copy(old, size)
                yield choice, size
