"""Claims the path of a Unix socket as exclusively as a TCP port is, and takes nothing that is another's.

grpc unlinks a socket that it finds at its path, in use or not, and at its end the one that is there then,
whoever made it. So it binds a name beside the path, and the bound socket is renamed to the path once nothing
lives there. A lock on the folder lets one server at a time look and rename.
"""

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from urllib.parse import quote

from service.addresses import UNIX

# The size of a socket's address in Linux, without its final zero byte.
MAX_PATH_BYTES = 107
_LOCK_S, _POLL_S = 2.0, 0.01
_LONG_ENOUGH = 9  # characters of a name beside the path, fewer where the folder's path leaves no more


class SocketPath:
    """Path of a Unix socket, which one server at a time listens on.

    Args:
        address: unix:PATH.

    Attributes:
        names: names that sockets were bound as, which their connections tell as their own address.
    """

    def __init__(self, address: str) -> None:
        self._path = Path(address.removeprefix(UNIX))
        self._own: tuple[int, int] | None = None
        self.names: set[str] = set()

    def bind(self, bind: Callable[[str], int]) -> int:
        """Bind a socket to the path; one that a server left that was killed is replaced.

        Args:
            bind: binds and listens on a given unix:PATH.

        Raises:
            OSError: something else is there, a server listens there, or no socket can be made there.
        """
        found = len(os.fsencode(self._path))
        if found > MAX_PATH_BYTES:
            raise OSError(f"expected a path of at most {MAX_PATH_BYTES} bytes, found {found}")
        with self._locked_folder():
            self._check_free()
            name = self._name_beside()
            self.names.add(str(name))
            try:
                # grpc reads an address as a URI, in which "%41" stands for "A".
                result = bind(f"{UNIX}{quote(os.fsencode(name))}")
            except RuntimeError as error:
                raise OSError(f"no socket can be made in the folder {name.parent}") from error
            name.rename(self._path)
            self._own = _identity(self._path)
        return result

    def remove(self) -> None:
        """Remove the socket from the path, unless it is no longer the one that was bound.

        Raises:
            OSError: the folder cannot be locked or changed.
        """
        if self._own is None or _identity(self._path) != self._own:
            return
        with self._locked_folder():
            if _identity(self._path) == self._own:
                self._path.unlink()

    @contextmanager
    def _locked_folder(self) -> Iterator[None]:
        """Hold the lock of the path's folder."""
        try:
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise OSError(f"the folder {self._path.parent} cannot be opened: {reason}") from error
        try:
            _lock(folder)
            yield
        finally:
            os.close(folder)

    def _check_free(self) -> None:
        """Raise OSError unless the path holds nothing, the own socket, or one that nobody listens on."""
        try:
            found = self._path.lstat()
        except FileNotFoundError:
            return
        if (found.st_dev, found.st_ino) == self._own:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise OSError("expected a socket or nothing at the path, found another kind of file")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            code = probe.connect_ex(str(self._path))
        if code in (0, errno.EAGAIN):
            raise OSError("a server listens there already")
        if code not in (errno.ECONNREFUSED, errno.ENOENT):
            raise OSError(
                f"a socket is there, of which a connection does not tell the use: {os.strerror(code)}"
            )

    def _name_beside(self) -> Path:
        """Return a free name in the path's folder."""
        folder = len(os.fsencode(self._path)) - len(os.fsencode(self._path.name))
        size = min(_LONG_ENOUGH, MAX_PATH_BYTES - folder)
        while True:
            name = self._path.with_name(f".{token_hex(_LONG_ENOUGH)}"[:size] if size > 1 else token_hex(1)[0])
            if _identity(name) is None:
                return name


def _lock(folder: int) -> None:
    """Lock an open folder until it is closed; raise OSError if another holds the lock for long."""
    ends_at = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= ends_at:
                raise OSError(f"another process has held the lock of the folder for {_LOCK_S:g} s") from error
            time.sleep(_POLL_S)
        else:
            return


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of what is at a path, None where nothing is."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
