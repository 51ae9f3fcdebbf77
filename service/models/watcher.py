"""Looks at the folder of models every so often and has loaded what has come, and unloaded what has gone.

By listing and stat alone: that works on network and Kubernetes volumes, too, whose changes nobody is told of.

A version counts as written when two looks in a row find its files of the same sizes and times, and they are
what its model.json says. One that stays still and yet is wrong is loaded all the same at the third look: it
is refused, once, with its reason. A folder counts as gone when two looks in a row miss it; a repository that
cannot be listed at all says nothing.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import structlog

from service.contract import spec
from service.errors import ServiceError
from service.models.loading import discover
from service.models.repository import Repository

_log = structlog.get_logger(__name__)

_STILL_WRONG = 3

Version = tuple[str, int]
# Name, size, time of change and number of each file.
Print = tuple[tuple[str, int, int, int], ...]


class Change(Enum):
    """What a look has found of a version."""

    WRITTEN = "written"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was seen of a version: its files, for how many looks, and whether it was told."""

    print: Print | None
    looks: int
    is_told: bool


class Folder:
    """What was seen of the folder of models.

    Args:
        root: of it. What is there now counts as told.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seen = {version: _Seen(found, 1, is_told=True) for version, found in self._list().items()}

    def look(self) -> list[tuple[Version, Change]]:
        """What has come to rest since the last look, newest versions first.

        Raises:
            OSError: the folder cannot be listed.
        """
        found = self._list()
        changes: list[tuple[Version, Change]] = []
        for version in sorted({*found, *self._seen}, key=lambda one: (one[0], -one[1])):
            if (change := self._step(version, found.get(version))) is not None:
                changes.append((version, change))
        return changes

    def _step(self, version: Version, found: Print | None) -> Change | None:
        before = self._seen.get(version)
        if before is None or before.print != found:
            self._seen[version] = _Seen(found, 1, is_told=False)
            return None
        if before.is_told:
            return None
        looks = before.looks + 1
        if found is None:
            del self._seen[version]
            return Change.GONE
        is_told = looks >= _STILL_WRONG or self._is_whole(version)
        self._seen[version] = _Seen(found, looks, is_told)
        return Change.WRITTEN if is_told else None

    def _is_whole(self, version: Version) -> bool:
        try:
            spec.read_version(self._path(version))
        except spec.SpecError:
            return False
        return True

    def _list(self) -> dict[Version, Print]:
        if not self._root.is_dir():
            raise FileNotFoundError(f"no folder {self._root}")
        versions = [(name, number) for name, numbers in discover(self._root).items() for number in numbers]
        return {version: self._print(version) for version in versions}

    def _print(self, version: Version) -> Print:
        files = []
        for path in self._path(version).iterdir():
            try:
                found = path.stat()
            except OSError:
                files.append((path.name, -1, 0, 0))
            else:
                files.append((path.name, found.st_size, found.st_mtime_ns, found.st_ino))
        return tuple(sorted(files))

    def _path(self, version: Version) -> Path:
        return self._root / version[0] / str(version[1])


class Watcher:
    """Looks every so often and changes what is served.

    Args:
        repository: to be changed.
        folder: to be looked at.
        seconds: between two looks.

    Attributes:
        leaving: what is being unloaded, by looks that are over.
    """

    def __init__(self, repository: Repository, folder: Folder, seconds: float) -> None:
        self._repository = repository
        self._folder = folder
        self._seconds = seconds
        self.leaving: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(self._seconds)
            await self.look()

    async def look(self) -> None:
        """Look once, and load and unload by what is found. What is unloaded may go on draining afterwards."""
        try:
            changes = await asyncio.to_thread(self._folder.look)
        except OSError as error:
            _log.warning("repository cannot be looked at", reason=str(error))
            return
        for (name, version), change in changes:
            if change is Change.GONE:
                leaving = asyncio.create_task(self._tell(self._repository.remove(name, version)))
                self.leaving.add(leaving)
                leaving.add_done_callback(self.leaving.discard)
            elif self._repository.wants(name, version):
                await self._tell(self._repository.load(name, version))

    async def _tell(self, change: Awaitable[object]) -> None:
        try:
            await change
        except ServiceError as error:
            _log.info("no change", reason=str(error))
