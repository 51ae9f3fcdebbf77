"""Secret files that may be replaced while the service runs.

They are reloaded when they change. If the new contents are broken, the old value stays in force.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

_log = structlog.get_logger(__name__)

Value = TypeVar("Value")

# A stat costs some microseconds; a new token or certificate may take effect a second late.
CHECK_EVERY_S = 1.0


class ReloadedFiles(Generic[Value]):
    """Value parsed from one or more files, reloaded when any of them changes.

    Args:
        name: name of the setting, for the log.
        paths: the files.
        parse: turns the files' contents, in the order of `paths`, into the value.
        clock: returns seconds; replaced in tests.

    Raises:
        OSError: a file cannot be read.
        ValueError: `parse` refused the contents.
    """

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        parse: Callable[[list[bytes]], Value],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._paths = tuple(paths)
        self._parse = parse
        self._clock = clock
        self._seen = self._signatures()
        self._value = self._load()
        self._checked = clock()

    def value(self) -> Value:
        """Return the last good value, checking the files for changes at most once a second."""
        now = self._clock()
        if now - self._checked >= CHECK_EVERY_S:
            self._checked = now
            self._check()
        return self._value

    def _check(self) -> None:
        seen = self._signatures()
        if seen == self._seen:
            return
        # Stored before reading, so that a broken file is parsed and logged once, not every second.
        self._seen = seen
        try:
            self._value = self._load()
        except (OSError, ValueError) as error:
            _log.error("new file refused, the old one stays in force", setting=self._name, reason=str(error))
        else:
            _log.info("file read again", setting=self._name)

    def _signatures(self) -> list[tuple[int, int, int] | None]:
        return [_signature(path) for path in self._paths]

    def _load(self) -> Value:
        return self._parse([path.read_bytes() for path in self._paths])


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
