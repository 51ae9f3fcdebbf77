"""service.api.connections."""

import asyncio
import os
import resource
import socket
from collections import Counter as Counts
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter

from service.api import connections
from service.api.connections import (
    IDLE_MS,
    MAX_CHOSEN,
    STALLED_MS,
    Connection,
    Guard,
    Kind,
    Sockets,
    choose,
    kind_of,
    max_accepted,
    peer_of,
)

PATIENCE_S = 10.0


def of_host(host: str, number: int, idle_ms: int = 0) -> list[Connection]:
    """Return connections of a host; the first is idle for `idle_ms`, each further one a millisecond less."""
    return [Connection(one, f"{host}:{one}", host, idle_ms - one, one) for one in range(number)]


def peers(found: list[Connection]) -> set[str]:
    return {one.peer for one in found}


def test_nothing_is_shut_below_nine_tenths() -> None:
    assert choose(of_host("a", 90), set(), 100) == []


def test_longest_idle_ones_are_shut_above_nine_tenths() -> None:
    assert peers(choose(of_host("a", 95, 9000), set(), 100)) == {f"a:{one}" for one in range(5)}


def test_oldest_is_shut_where_the_idle_time_is_equal() -> None:
    equal = [Connection(one, f"a:{one}", "a", 0, one) for one in range(10)]
    assert peers(choose(equal, set(), 10)) == {"a:0"}


def test_host_that_has_most_is_shut_first() -> None:
    found = choose([*of_host("a", 80, 9000), *of_host("b", 20, 90_000)], set(), 100)
    assert Counts(one.host for one in found) == {"a": 10}


def test_hosts_with_an_equal_share_lose_none() -> None:
    found = choose([*of_host("a", 60), *of_host("b", 38)], peers(of_host("a", 60)), 100)
    assert found == []


def test_busy_ones_stay_while_there_are_idle_ones() -> None:
    all_open = of_host("a", 100, 9000)
    busy = peers(all_open[:95])
    found = choose(all_open, busy, 100)
    assert peers(found[:5]) == peers(all_open[95:])
    assert found[5:] == []


def test_busy_ones_are_shut_for_the_last_places_alone() -> None:
    all_open = of_host("a", 1000)
    found = choose(all_open, peers(all_open), 1000)
    assert len(found) == 10
    assert choose(all_open[:990], peers(all_open), 1000) == []


def test_newcomer_stays_where_another_host_holds_all_with_calls() -> None:
    attackers = of_host("a", 99)
    newcomer = of_host("b", 1)
    found = choose([*attackers, *newcomer], peers(attackers), 100)
    assert Counts(one.host for one in found) == {"a": 1}


@pytest.mark.parametrize(
    ("idle_ms", "has_call", "kind"),
    [
        (IDLE_MS, False, Kind.IDLE),
        (STALLED_MS, True, Kind.STALLED),
        (IDLE_MS - 1, False, Kind.PAUSED),
        (STALLED_MS - 1, True, Kind.CALLING),
    ],
)
def test_kind_is_that_of_call_and_data(idle_ms: int, has_call: bool, kind: Kind) -> None:
    one = Connection(1, "a:1", "a", idle_ms, 1)
    assert kind_of(one, {"a:1"} if has_call else set()) is kind


def test_pooled_connection_between_two_calls_stays_beside_idle_streams() -> None:
    streams = of_host("a", 185, STALLED_MS + 1000)
    pooled = replace(of_host("a", 1, 300)[0], peer="a:pooled", inode=1000)
    found = choose([*streams, pooled], peers(streams), 200)
    assert peers(found) == {f"a:{one}" for one in range(6)}
    just_opened = of_host("a", 185, 500)
    assert choose([*just_opened, pooled], peers(just_opened), 200) == []


connection_lists = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([0, IDLE_MS, STALLED_MS]), st.booleans()), max_size=60
)


@given(connection_lists, st.integers(1, 60))
def test_hosts_over_their_share_lose_those_not_in_use_first(
    drawn: list[tuple[str, int, bool]], limit: int
) -> None:
    all_open = [Connection(one, f"{host}:{one}", host, ms, one) for one, (host, ms, _) in enumerate(drawn)]
    busy = {one.peer for one, (_, _, has_call) in zip(all_open, drawn, strict=True) if has_call}
    found = choose(all_open, busy, limit)
    max_open, max_busy = (max(1, min(limit - 1, int(limit * share))) for share in (0.9, 0.99))
    assert len(set(found)) == len(found)
    assert len(all_open) - len(found) >= min(len(all_open), max_open)
    kinds = [kind_of(one, busy) for one in found]
    assert kinds == sorted(kinds)
    for number, kind in enumerate(kinds):
        assert kind <= Kind.STALLED or len(all_open) - number > max_busy
    before, lost = Counts(one.host for one in all_open), Counts(one.host for one in found)
    assert all(before[host] - lost[host] > max_open / len(before) - 1 for host in lost)
    if len(all_open) > max_busy:
        assert len(all_open) - len(found) <= max_busy


@pytest.mark.parametrize(
    ("limit", "descriptors", "accepted_by_core"),
    [(1, 1024, 17), (300, 1024, 330), (1000, 65536, 1100), (1000, 1024, 1016), (1000, 64, 1000)],
)
def test_core_accepts_more_as_far_as_there_are_descriptors(
    monkeypatch: pytest.MonkeyPatch, limit: int, descriptors: int, accepted_by_core: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    assert max_accepted(limit) == accepted_by_core


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
def test_small_limit_leaves_a_place_and_a_connection(limit: int) -> None:
    left = limit - len(choose(of_host("a", limit), set(), limit))
    assert left == max(1, min(limit - 1, int(limit * 0.9)))


def test_number_shut_at_once_is_bounded() -> None:
    assert len(choose(of_host("a", 3 * MAX_CHOSEN), set(), 10)) == MAX_CHOSEN


@pytest.mark.parametrize(
    ("address", "found"),
    [
        (("10.0.0.1", 5), ("10.0.0.1", "ipv4:10.0.0.1:5")),
        (("::ffff:10.0.0.1", 5, 0, 0), ("10.0.0.1", "ipv4:10.0.0.1:5")),
        (("::1", 5, 0, 0), ("0000:0000:0000:0000", "ipv6:%5B::1%5D:5")),
        (("2001:db8:1:2:3::4", 5, 0, 0), ("2001:0db8:0001:0002", "ipv6:%5B2001:db8:1:2:3::4%5D:5")),
    ],
)
def test_peer_is_named_as_grpc_does(address: tuple[object, ...], found: tuple[str, str]) -> None:
    assert peer_of(address) == found


@contextmanager
def accepted(number: int, path: Path | None = None) -> Iterator[tuple[str, list[socket.socket]]]:
    """Yield a listening address and the clients' ends of connections that this process has accepted."""
    family = socket.AF_INET if path is None else socket.AF_UNIX
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket(family))
        listening.bind(("127.0.0.1", 0) if path is None else str(path))
        listening.listen()
        address = listening.getsockname()
        clients = []
        for _ in range(number):
            client = stack.enter_context(socket.socket(family))
            client.connect(address)
            client.settimeout(PATIENCE_S)
            clients.append(client)
            stack.enter_context(listening.accept()[0])
        yield f"unix:{address}" if path else f"{address[0]}:{address[1]}", clients


def descriptors() -> list[int]:
    return [int(one) for one in os.listdir("/proc/self/fd")]


def test_connections_are_found_and_shut_down() -> None:
    with accepted(3) as (address, clients):
        sockets = Sockets(address)
        before = len(descriptors())
        found = {one.peer: one for one in sockets.find(descriptors())}
        first = f"ipv4:127.0.0.1:{clients[0].getsockname()[1]}"
        assert len(found) == 3
        assert found[first].host == "127.0.0.1"
        assert sockets.shut_down(found[first])
        assert clients[0].recv(1) == b""
        clients[1].settimeout(0)
        with pytest.raises(BlockingIOError):
            clients[1].recv(1)
        assert len(descriptors()) == before
        sockets.close()


def test_connections_of_a_unix_socket_have_their_process_as_host(tmp_path: Path) -> None:
    with accepted(2, tmp_path / "socket") as (address, clients):
        sockets = Sockets(address, {str(tmp_path / "socket")})
        found = list(sockets.find(descriptors()))
        assert {(one.peer, one.host) for one in found} == {("unix:", f"process {os.getpid()}")}
        assert len(found) == 2
        assert all(sockets.shut_down(one) for one in found)
        assert [client.recv(1) for client in clients] == [b"", b""]
        sockets.close()


def test_descriptor_that_is_anothers_by_now_is_left_alone() -> None:
    with accepted(2) as (address, clients):
        sockets = Sockets(address)
        first, second = sockets.find(descriptors())
        stale = Connection(second.descriptor, first.peer, first.host, 0, 0)
        assert not sockets.shut_down(stale)
        for client in clients:
            client.settimeout(0)
            with pytest.raises(BlockingIOError):
                client.recv(1)
        sockets.close()


def test_connection_with_data_since_it_was_found_is_left_alone() -> None:
    with accepted(1) as (address, clients):
        sockets = Sockets(address)
        [found] = sockets.find(descriptors())
        earlier = replace(found, idle_ms=60_000)
        assert not sockets.shut_down(earlier)
        clients[0].settimeout(0)
        with pytest.raises(BlockingIOError):
            clients[0].recv(1)
        assert sockets.shut_down(earlier, despite_data=True)
        sockets.close()


async def test_connection_whose_call_began_meanwhile_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "INTERVAL_S", 0.01)
    shut = Counter("shut", "Shut.", registry=CollectorRegistry())
    with accepted(10) as (address, clients):
        calling = {f"ipv4:127.0.0.1:{one.getsockname()[1]}" for one in clients[:9]}
        new = f"ipv4:127.0.0.1:{clients[9].getsockname()[1]}"
        looks: list[int] = []
        both = asyncio.Event()

        def busy() -> set[str]:
            """Return a call more at every second look, which is the one before the shutdown."""
            looks.append(1)
            if len(looks) > 2:
                both.set()
            return calling if len(looks) % 2 else calling | {new}

        guard = asyncio.create_task(Guard(address, 10, busy, shut).run())
        async with asyncio.timeout(PATIENCE_S):
            await both.wait()
        guard.cancel()
        with suppress(asyncio.CancelledError):
            await guard
        assert number_of(shut) == 0
        clients[9].settimeout(0)
        with pytest.raises(BlockingIOError):
            clients[9].recv(1)


def number_of(counter: Counter) -> float:
    return float(next(iter(counter.collect())).samples[0].value)


async def test_guard_makes_room_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "INTERVAL_S", 0.01)
    shut = Counter("shut", "Shut.", registry=CollectorRegistry())
    with accepted(10) as (address, clients):
        busy = {f"ipv4:127.0.0.1:{one.getsockname()[1]}" for one in clients[:9]}
        guard = asyncio.create_task(Guard(address, 10, lambda: busy, shut).run())
        assert await asyncio.to_thread(clients[9].recv, 1) == b""
        async with asyncio.timeout(PATIENCE_S):
            while number_of(shut) == 0:  # noqa: ASYNC110 -- a counter has no event
                await asyncio.sleep(0.01)
        guard.cancel()
        with suppress(asyncio.CancelledError):
            await guard
        assert number_of(shut) == 1


async def test_connections_that_are_cut_off_are_shut_down_whatever_runs_on_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "INTERVAL_S", 0.01)
    shut = Counter("shut", "Shut.", registry=CollectorRegistry())
    with accepted(3) as (address, clients):
        peers = [f"ipv4:127.0.0.1:{one.getsockname()[1]}" for one in clients]
        watching = Guard(address, 1000, lambda: set(peers), shut)
        guard = asyncio.create_task(watching.run())
        watching.cut_off({peers[1], "ipv4:127.0.0.1:1"})
        assert await asyncio.to_thread(clients[1].recv, 1) == b""
        guard.cancel()
        with suppress(asyncio.CancelledError):
            await guard
        for other in (clients[0], clients[2]):
            other.settimeout(0)
            with pytest.raises(BlockingIOError):
                other.recv(1)


def test_at_the_descriptor_limit_numbers_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = set(descriptors())

    def refuse(_: str) -> list[str]:
        raise OSError("too many open files")

    monkeypatch.setattr(os, "listdir", refuse)
    found = set(connections._descriptors(1024))
    assert len(found ^ expected) <= 1  # that of the listing itself
