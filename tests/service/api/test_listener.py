"""service.api.listener: whoever comes after an accept loop has ended gets in, and calls from before go on."""

import asyncio
import errno
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from grpc import aio
from prometheus_client import CollectorRegistry, Counter

from service import addresses
from service.api import listener
from service.api.listener import Listener, _Series
from tests.service.sockets import NoIpv6
from tests.service.transport.builders import BreakingServer, add_echo

PATIENCE_S = 20.0
# What a newcomer may have to wait.
SOON_S = 1.0
ALONE = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
]


class Bench:
    """A listener whose servers break at a call of a method that is not known."""

    def __init__(self, address: str) -> None:
        self.release = asyncio.Event()
        self.registry = CollectorRegistry()
        losses = Counter("losses", "Accept loops that have ended.", registry=self.registry)
        options = [("grpc.so_reuseport", 0)]
        self.listener = Listener(address, None, options, self._register, losses, BreakingServer)
        port = self.listener.bind()
        self.address = address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"
        self._channels: list[aio.Channel] = []

    def _register(self, server: Any) -> None:
        add_echo(server, self.release)

    def stream(self) -> Any:
        """A call from a connection of its own."""
        channel: Any = aio.insecure_channel(self.address, options=ALONE)
        self._channels.append(channel)
        return channel.unary_stream("/test.Echo/Echo")(b"x", wait_for_ready=True)

    async def lose(self) -> None:
        """Break the accept loop, and wait until that is known."""
        before = self.losses
        channel: Any = aio.insecure_channel(self.address, options=ALONE)
        async with channel:
            call = channel.unary_unary("/no/such")(b"", wait_for_ready=True)
            await until(lambda: self.losses > before)
            call.cancel()

    @property
    def losses(self) -> float:
        return self.registry.get_sample_value("losses_total") or 0.0

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


@asynccontextmanager
async def listening(address: str = "127.0.0.1:0") -> AsyncIterator[Bench]:
    bench = Bench(address)
    await bench.listener.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield bench
    finally:
        await bench.listener.stop(0)
        await bench.close()


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 - a counter has no event to await
        await asyncio.sleep(0.001)


async def rest_of(call: Any) -> list[bytes]:
    """The messages of a stream that has been read from before."""
    messages = []
    while (message := await call.read()) is not aio.EOF:
        messages.append(message)
    return messages


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:0", "[::]:0", "unix:"])
async def test_newcomers_get_in_soon_and_calls_from_before_go_on(address: str, tmp_path: Path) -> None:
    async with listening(f"unix:{tmp_path}/socket" if address == "unix:" else address) as bench:
        before = bench.stream()
        assert await before.read() == b"x"
        await bench.lose()
        assert bench.listener.is_alive()
        async with asyncio.timeout(SOON_S):
            newcomer = bench.stream()
            assert await newcomer.read() == b"x"
        assert bench.listener.is_accepting()
        bench.release.set()
        assert await rest_of(before) == await rest_of(newcomer) == [b"end"]
    assert not bench.listener.is_accepting()
    assert bench.listener.is_alive()


async def test_a_series_of_losses_is_borne() -> None:
    async with listening() as bench:
        calls = []
        for number in range(1, listener.MAX_OLD + 1):
            await bench.lose()
            assert bench.losses == number
            async with asyncio.timeout(SOON_S):
                calls.append(bench.stream())
                assert await calls[-1].read() == b"x"
        bench.release.set()
        assert [await rest_of(call) for call in calls] == [[b"end"]] * len(calls)


async def test_of_too_many_lost_servers_the_oldest_ends_its_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MAX_OLD", 1)
    async with listening() as bench:
        calls = []
        for _ in range(2):
            calls.append(bench.stream())
            assert await calls[-1].read() == b"x"
            await bench.lose()
        with pytest.raises(aio.AioRpcError):
            await rest_of(calls[0])
        bench.release.set()
        assert await rest_of(calls[1]) == [b"end"]


async def test_loss_is_one_line_without_what_the_caller_sent() -> None:
    with structlog.testing.capture_logs() as lines:
        async with listening() as bench:
            await bench.lose()
            await until(bench.listener.is_accepting)
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("accepting has ended, listening anew", "error")
    assert line["reason"] == "ValueError"
    assert line["where"].startswith("ask_broken:")
    assert "xff" not in str(lines)


async def test_not_alive_when_the_address_cannot_be_had_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "DOWN_S", 0.3)
    monkeypatch.setattr(listener, "FREE_S", 0.1)
    is_taken = True
    bind = Listener._bind

    def bound(self: Listener, server: Any) -> int:
        if is_taken:
            raise RuntimeError("taken")
        return bind(self, server)

    async with listening() as bench:
        monkeypatch.setattr(Listener, "_bind", bound)
        await bench.lose()
        await until(lambda: not bench.listener.is_alive())
        assert not bench.listener.is_accepting()
        is_taken = False
        await until(bench.listener.is_alive)
        async with asyncio.timeout(SOON_S):
            assert await bench.stream().read() == b"x"


async def test_stop_ends_what_runs_on_old_servers_and_the_new_one_after_the_grace() -> None:
    async with listening() as bench:
        calls = [bench.stream()]
        assert await calls[0].read() == b"x"
        await bench.lose()
        calls.append(bench.stream())
        assert await calls[1].read() == b"x"
        stopped = asyncio.ensure_future(bench.listener.stop(0.2))
        started = time.monotonic()
        for call in calls:
            with pytest.raises(aio.AioRpcError):
                await call.read()
        assert time.monotonic() - started >= 0.15
        await stopped


async def test_stop_waits_for_what_runs_on_old_servers() -> None:
    async with listening() as bench:
        call = bench.stream()
        assert await call.read() == b"x"
        await bench.lose()
        stopped = asyncio.ensure_future(bench.listener.stop(PATIENCE_S))
        bench.release.set()
        assert await rest_of(call) == [b"end"]
        await stopped


async def test_address_that_another_has_cannot_be_bound() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        with pytest.raises(RuntimeError):
            Bench(f"127.0.0.1:{other.getsockname()[1]}")
        assert not await listener._is_free(f"127.0.0.1:{other.getsockname()[1]}")


async def test_name_of_which_another_has_one_address_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of hosts may know localhost as 127.0.0.1 alone; gRPC binds ::1 as well."""
    failures = {"::1": errno.EADDRINUSE}
    monkeypatch.setattr(addresses, "_failure", lambda _family, place: failures.get(place[0]))
    assert not await listener._is_free("localhost:5")
    failures.clear()
    assert await listener._is_free("localhost:5")


async def test_name_without_an_address_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server may be away for a moment; the event loop does not wait for it."""
    threads = []

    def unknown(*_: Any, **_options: Any) -> list[Any]:
        threads.append(threading.current_thread())
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert not await listener._is_free("somewhere:5")
    assert threads != []
    assert threading.main_thread() not in threads


async def test_listens_anew_while_no_thread_is_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: Any) -> bool:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(listener, "FREE_S", 0.1)
    async with listening() as bench:
        monkeypatch.setattr(asyncio, "to_thread", refused)
        await bench.lose()
        async with asyncio.timeout(SOON_S):
            assert await bench.stream().read() == b"x"


async def test_look_up_without_an_answer_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(listener, "FREE_S", 0.05)
    monkeypatch.setattr(addresses, "is_free", lambda _address: released.wait(PATIENCE_S))
    async with asyncio.timeout(SOON_S):
        assert not await listener._is_free("somewhere:5")
    released.set()


async def test_listens_anew_where_there_is_no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making a socket fails there, as binding one does elsewhere."""
    async with listening("localhost:0") as bench:
        monkeypatch.setattr(socket, "socket", NoIpv6)
        await bench.lose()
        async with asyncio.timeout(SOON_S):
            assert await bench.stream().read() == b"x"
        assert not await listener._is_free("[::1]:0")


def test_pauses_grow_to_half_a_second_while_losses_are_close_and_begin_anew_later() -> None:
    series = _Series()
    assert [series.pause(now) for now in range(7)] == [0, 0.05, 0.1, 0.2, 0.4, 0.5, 0.5]
    assert series.pause(100) == 0
