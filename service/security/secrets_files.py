"""Files that may be replaced while the service runs: read again when they change; a broken new file leaves
what was read before.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

_log = structlog.get_logger(__name__)

Value = TypeVar("Value")

# A look at the files costs some microseconds, and nobody waits for a token or a certificate by the
# millisecond.
CHECK_EVERY_S = 1.0


class Watched(Generic[Value]):
    """What some files hold together.

    Args:
        name: of the setting, for the log.
        paths: of the files.
        parse: makes the value of the files' contents, in the order of the paths.
        clock: seconds; for tests.

    Raises:
        OSError: a file cannot be read.
        ValueError: what `parse` raises on wrong contents.
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
        self._seen = self._look()
        self._value = self._read()
        self._checked = clock()

    def value(self) -> Value:
        """What the files held when last they were good, not older than a second where they are."""
        now = self._clock()
        if now - self._checked >= CHECK_EVERY_S:
            self._checked = now
            self._check()
        return self._value

    def _check(self) -> None:
        seen = self._look()
        if seen == self._seen:
            return
        # A broken file is looked at once, too: until it changes again there is nothing new to say about it.
        self._seen = seen
        try:
            self._value = self._read()
        except (OSError, ValueError) as error:
            _log.error("new file refused, the old one stays in force", setting=self._name, reason=str(error))
        else:
            _log.info("file read again", setting=self._name)

    def _look(self) -> list[tuple[int, int, int] | None]:
        return [_signature(path) for path in self._paths]

    def _read(self) -> Value:
        return self._parse([path.read_bytes() for path in self._paths])


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
