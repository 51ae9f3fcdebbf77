"""Polls the repository folder, loads new versions and unloads removed ones.

It uses directory listings and stat only, since network and Kubernetes volumes send no change notifications.

A version counts as written if three scans in a row find its files with the same sizes and times; nothing here
looks into them, since only the process of a trial may. A version counts as gone if two scans in a row miss
it. If the repository cannot be listed at all, nothing is reported, and nothing of a model whose folder cannot
be listed. A change that an error has stopped is reported again at the next scan.
"""

import asyncio
import os
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from enum import Enum
from itertools import islice
from pathlib import Path

import structlog

from service.contract.model import MAX_FILES
from service.errors import ServiceError
from service.models.folder import Listing, VersionKey, discover
from service.models.repository import Repository

_log = structlog.get_logger(__name__)

# Equal scans after which a version counts as written.
_SCANS = 3
# Files of a version that are looked at.
_MAX_FILES = 4 * MAX_FILES

# Name, size, modification time in ns and inode of each file.
Fingerprint = tuple[tuple[str, int, int, int], ...]


class Change(Enum):
    """Change of a version between scans."""

    WRITTEN = "written"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class _Seen:
    """Last state of a version: its files (None if missing), equal scans in a row, and if it was reported."""

    fingerprint: Fingerprint | None
    scans: int
    is_reported: bool


class FolderScanner:
    """Detects changes of versions in the repository folder by comparing scans.

    Args:
        root: repository folder; the versions that it holds now count as reported.

    Attributes:
        listing: entries of the folder at the last scan.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.listing = Listing()
        self._seen = {version: _Seen(found, 1, is_reported=True) for version, found in self._list().items()}

    def scan(self) -> list[tuple[VersionKey, Change]]:
        """Scan the folder and return the changes that are now stable, newest versions of a model first.

        Raises:
            OSError: the folder cannot be listed.
        """
        found = self._list()
        changes: list[tuple[VersionKey, Change]] = []
        for version in sorted({*found, *self._seen}, key=lambda one: (one[0], -one[1])):
            if version[0] in self.listing.unreadable:
                continue
            if (change := self._step(version, found.get(version))) is not None:
                changes.append((version, change))
        return changes

    def forget(self, version: VersionKey, change: Change) -> None:
        """Report a change once more at the next scan, if the folder is then as it was."""
        if change is Change.GONE:
            self._seen[version] = _Seen(None, 1, is_reported=False)
        elif version in self._seen:
            self._seen[version] = replace(self._seen[version], is_reported=False)

    def _step(self, version: VersionKey, found: Fingerprint | None) -> Change | None:
        before = self._seen.get(version)
        if before is None or before.fingerprint != found:
            self._seen[version] = _Seen(found, 1, is_reported=False)
            return None
        if before.is_reported:
            return None
        scans = before.scans + 1
        if found is None:
            del self._seen[version]
            return Change.GONE
        is_reported = scans >= _SCANS
        self._seen[version] = _Seen(found, scans, is_reported)
        return Change.WRITTEN if is_reported else None

    def _list(self) -> dict[VersionKey, Fingerprint]:
        self.listing = discover(self._root)
        found = self.listing.versions
        versions = [(name, number) for name, numbers in found.items() for number in numbers]
        return {version: self._fingerprint(version) for version in versions}

    def _fingerprint(self, version: VersionKey) -> Fingerprint:
        try:
            with os.scandir(self._path(version)) as listed:
                return tuple(sorted(map(_stamp, islice(listed, _MAX_FILES))))
        except OSError as error:  # whoever loads it is told why
            return (("", -1, error.errno or 0, 0),)

    def _path(self, version: VersionKey) -> Path:
        return self._root / version[0] / str(version[1])


def _stamp(file: "os.DirEntry[str]") -> tuple[str, int, int, int]:
    """Return a file's name, size, modification time in ns and inode; size -1 where a link leads nowhere."""
    try:
        found = file.stat()
    except OSError:
        return file.name, -1, 0, 0
    return file.name, found.st_size, found.st_mtime_ns, found.st_ino


class Watcher:
    """Polls the repository folder and updates the served versions.

    Args:
        repository: where versions are loaded and unloaded.
        scanner: scanner of the repository folder.
        interval_s: time between two polls, seconds.

    Attributes:
        unloading: running unload tasks, which may outlive the poll that started them.
    """

    def __init__(self, repository: Repository, scanner: FolderScanner, interval_s: float) -> None:
        self._repository = repository
        self._scanner = scanner
        self._interval_s = interval_s
        self.unloading: set[asyncio.Task[None]] = set()
        self._failed: list[tuple[VersionKey, Change]] = []
        self._noted = scanner.listing
        self._unseen = ""  # why the last scan failed

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            await self.poll()

    async def poll(self) -> None:
        """Scan once, then load and unload versions. Unloaded versions may still drain after the return."""
        failed, self._failed = self._failed, []
        for version, change in failed:
            self._scanner.forget(version, change)
        try:
            changes = await asyncio.to_thread(self._scanner.scan)
        except (OSError, RuntimeError) as error:  # RuntimeError: no thread can be started
            if str(error) != self._unseen:
                self._unseen = str(error)
                _log.warning("repository cannot be looked at", reason=self._unseen)
            return
        self._unseen = ""
        if self._scanner.listing != self._noted:
            self._noted = self._scanner.listing
            await self._repository.note(self._noted)
        for key, change in changes:
            if change is Change.GONE:
                task = asyncio.create_task(self._apply(key, change, self._repository.remove(*key)))
                self.unloading.add(task)
                task.add_done_callback(self.unloading.discard)
            elif self._repository.wants(*key):
                await self._apply(key, change, self._repository.load(*key))

    async def _apply(self, key: VersionKey, change: Change, work: Awaitable[object]) -> None:
        try:
            await work
        except ServiceError as error:
            _log.info("no change", reason=str(error))
        except Exception as error:
            # One of the server or the volume, which may pass; the other changes go on meanwhile.
            _log.error("change of a version failed", model=key[0], version=key[1], exc_info=error)
            self._failed.append((key, change))
