"""service.api.socket_path: who gets the path of a Unix socket, and whose socket is removed from it."""

import errno
import fcntl
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from service.addresses import UNIX
from service.api import socket_path
from service.api.socket_path import MAX_PATH_BYTES, SocketPath
from service.transport.server import Server

Bind = Callable[[str], int]


@pytest.fixture
def bind() -> Iterator[Bind]:
    """Binds and listens as grpc does: RuntimeError where it cannot. The sockets are closed at the end."""
    with ExitStack() as stack:

        def listen(address: str) -> int:
            made = stack.enter_context(socket.socket(socket.AF_UNIX))
            try:
                made.bind(address.removeprefix(UNIX))
            except OSError as error:
                raise RuntimeError("cannot bind") from error
            made.listen()
            return 1

        yield listen


def is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_path_is_bound_and_removed_with_nothing_left(tmp_path: Path, bind: Bind) -> None:
    path = tmp_path / "socket"
    bound = SocketPath(f"unix:{path}")
    bound.bind(bind)
    assert is_answered(path)
    assert [one.name for one in tmp_path.iterdir()] == ["socket"]
    bound.remove()
    assert list(tmp_path.iterdir()) == []
    bound.remove()


@pytest.mark.parametrize("folder", ["plain", "p%41", "p%", "a b", "gr\u00fc\u00df", "a#b?c&d+e"])
async def test_grpc_binds_the_very_path(tmp_path: Path, folder: str) -> None:
    """It reads the address as a URI, so that "%41" led to another folder."""
    path = tmp_path / folder / "socket"
    path.parent.mkdir()
    (tmp_path / "pA").mkdir()
    server = Server([])
    bound = SocketPath(f"unix:{path}")
    bound.bind(partial(server.add_port, credentials=None))
    server.start()
    assert is_answered(path)
    assert list((tmp_path / "pA").iterdir()) == []
    await server.stop(0)
    bound.remove()
    assert list(path.parent.iterdir()) == []


def test_path_of_one_that_lives_is_refused(tmp_path: Path, bind: Bind) -> None:
    path = tmp_path / "socket"
    SocketPath(f"unix:{path}").bind(bind)
    other = SocketPath(f"unix://{path}")
    with pytest.raises(OSError, match="a server listens there already"):
        other.bind(bind)
    other.remove()
    assert is_answered(path)


def test_path_of_one_that_was_killed_is_taken_over(tmp_path: Path, bind: Bind) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    assert not is_answered(path)
    SocketPath(f"unix:{path}").bind(bind)
    assert is_answered(path)


def test_own_path_is_bound_anew(tmp_path: Path, bind: Bind) -> None:
    """As when grpc's accept loop was lost; the old socket still listens."""
    path = tmp_path / "socket"
    bound = SocketPath(f"unix:{path}")
    bound.bind(bind)
    first = path.stat().st_ino
    bound.bind(bind)
    assert path.stat().st_ino != first
    assert len(bound.names) == 2


def test_socket_of_another_is_not_removed(tmp_path: Path, bind: Bind) -> None:
    path = tmp_path / "socket"
    first, second = SocketPath(f"unix:{path}"), SocketPath(f"unix:{path}")
    first.bind(bind)
    path.unlink()
    second.bind(bind)
    first.remove()
    assert is_answered(path)


def a_file(path: Path) -> None:
    path.write_text("precious")


def a_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [a_file, a_link, Path.mkdir, os.mkfifo])
def test_other_kind_of_file_is_refused_and_kept(
    tmp_path: Path, bind: Bind, make: Callable[[Path], object]
) -> None:
    path = tmp_path / "socket"
    make(path)
    before = path.lstat()
    with pytest.raises(OSError, match="expected a socket or nothing at the path, found another kind of file"):
        SocketPath(f"unix:{path}").bind(bind)
    assert path.lstat().st_ino == before.st_ino


def test_socket_whose_use_cannot_be_told_is_refused(
    tmp_path: Path, bind: Bind, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
    monkeypatch.setattr("socket.socket.connect_ex", lambda *_: errno.EACCES)
    with pytest.raises(OSError, match="a connection does not tell the use: Permission denied"):
        SocketPath(f"unix:{path}").bind(bind)


@pytest.mark.parametrize("name_size", [1, 5, 40])
def test_path_as_long_as_the_kernel_takes_is_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bind: Bind, name_size: int
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("d" * (MAX_PATH_BYTES - name_size - 1))
    folder.mkdir()
    path = folder / ("s" * name_size)
    SocketPath(f"unix:{path}").bind(bind)
    assert is_answered(path)
    longer = path.with_name(path.name + "s")
    with pytest.raises(OSError, match="expected a path of at most 107 bytes, found 108"):
        SocketPath(f"unix:{longer}").bind(bind)


def test_missing_folder_is_named(tmp_path: Path, bind: Bind) -> None:
    with pytest.raises(OSError, match=f"the folder {tmp_path}/none cannot be opened: No such file"):
        SocketPath(f"unix:{tmp_path}/none/socket").bind(bind)


def test_folder_in_which_no_socket_can_be_made_is_named(bind: Bind) -> None:
    with pytest.raises(OSError, match="no socket can be made in the folder /proc"):
        SocketPath("unix:/proc/socket").bind(bind)


def test_lock_that_another_holds_for_long_is_refused(
    tmp_path: Path, bind: Bind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_path, "_LOCK_S", 0.02)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="another process has held the lock of the folder"):
            SocketPath(f"unix:{tmp_path}/socket").bind(bind)
    finally:
        os.close(folder)


def test_one_of_several_that_start_at_the_same_moment_gets_the_path(tmp_path: Path, bind: Bind) -> None:
    path, starting, outcomes = tmp_path / "socket", threading.Barrier(6), list[str]()

    def start() -> None:
        starting.wait()
        try:
            SocketPath(f"unix:{path}").bind(bind)
        except OSError as error:
            outcomes.append(str(error))
        else:
            outcomes.append("bound")

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["a server listens there already"] * 5 + ["bound"]
    assert [one.name for one in tmp_path.iterdir()] == ["socket"]
