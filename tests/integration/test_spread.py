"""Load spread over replicas by the client settings of docs/scaling.md, with gRPC's own channel: counted by
the replicas, not by the client.
"""

import asyncio
import json
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

from grpc import aio

from seqserve.aio import AsyncClient
from tests.chaos.fleet import Fleet
from tests.chaos.watching import metrics
from tests.integration.calls import Calls
from tests.integration.process import ROOT, ServerProcess

NAME = "seqserve.test"
SHARE = 60
IN_FLIGHT = 8
ALLOWED = 0.1
LIMIT_S = 60
TRIES = 20
ADDRESSES = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")
DNS_A, DNS_IN = 1, 1

Ask = Callable[[], Awaitable[object]]
Options = list[tuple[str, Any]]


def documented_options() -> Options:
    """The channel options that docs/scaling.md tells users to set."""
    page = (ROOT / "docs/scaling.md").read_text()
    (config,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    numbers = re.findall(r"^\| `(grpc\.\w+_ms)` \| (\d+) \|", page, re.MULTILINE)
    assert numbers, "docs/scaling.md has no table of channel options"
    return [
        ("grpc.service_config", json.dumps(json.loads(config))),
        *((name, int(value)) for name, value in numbers),
    ]


@asynccontextmanager
async def plain_channel(target: str, **changed: int) -> AsyncIterator[Ask]:
    """A call by gRPC's own channel with the documented options."""
    options = dict(documented_options()) | {f"grpc.{name}": value for name, value in changed.items()}
    async with aio.insecure_channel(target, options=list(options.items())) as channel:
        calls = Calls(channel)
        yield lambda: calls.classify(["good"])


@asynccontextmanager
async def our_client(target: str) -> AsyncIterator[Ask]:
    """The same call by the client that ships."""
    async with AsyncClient(target) as client:
        yield lambda: client.classify(["good"], model="moods")


async def served(servers: Sequence[ServerProcess]) -> list[float]:
    """Calls answered by each, as its metrics have it."""
    found = await asyncio.gather(*map(metrics, servers))
    return [
        sum(
            value
            for name, value in one.items()
            if name.startswith("seqserve_requests_total") and "/Classify" in name
        )
        for one in found
    ]


async def send(ask: Ask, count: int) -> None:
    """So many calls, some at a time; a failed one fails the test."""
    numbers = iter(range(count))

    async def worker() -> None:
        for _ in numbers:
            await ask()

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))


async def send_counted(ask: Ask, servers: Sequence[ServerProcess]) -> list[float]:
    """Send each server's share, and count what each got."""
    before = await served(servers)
    await send(ask, SHARE * len(servers))
    return [after - earlier for after, earlier in zip(await served(servers), before, strict=True)]


async def send_until_all_serve(ask: Ask, servers: Sequence[ServerProcess]) -> None:
    """Round robin takes what is connected: wait until every one is."""
    async with asyncio.timeout(LIMIT_S):
        before = await served(servers)
        while any(after == earlier for after, earlier in zip(await served(servers), before, strict=True)):
            await send(ask, IN_FLIGHT)


def is_even(counts: Sequence[float]) -> bool:
    return all(abs(count - SHARE) <= ALLOWED * SHARE for count in counts)


class Names(asyncio.DatagramProtocol):
    """A name server that answers every A question with `addresses` and everything else with nothing."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = list(addresses)
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        end = data.index(b"\0", 12) + 5
        (kind,) = struct.unpack_from("!H", data, end - 4)
        addresses = self.addresses if kind == DNS_A else []
        header = struct.pack("!HHHHH", 0x8580, 1, len(addresses), 0, 0)
        # 0xC00C: the name of the question, once more; the answer may be kept for no time.
        records = [
            struct.pack("!HHHIH4s", 0xC00C, DNS_A, DNS_IN, 0, 4, socket.inet_aton(one)) for one in addresses
        ]
        assert self._transport is not None
        self._transport.sendto(data[:2] + header + data[12:end] + b"".join(records), addr)


@asynccontextmanager
async def name_server(addresses: Sequence[str]) -> AsyncIterator[tuple[Names, int]]:
    """The server and its port."""
    transport, names = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Names(addresses), local_addr=("127.0.0.1", 0)
    )
    try:
        yield names, transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


def common_port() -> int:
    """A port that is free on every address: a name has several addresses and one port."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in ADDRESSES]
        sockets[0].bind((ADDRESSES[0], 0))
        port = int(sockets[0].getsockname()[1])
        for other, address in zip(sockets[1:], ADDRESSES[1:], strict=True):
            other.bind((address, port))
    return port


@asynccontextmanager
async def replicas(
    repository: Path, addresses: Sequence[str], port: int, **settings: str
) -> AsyncIterator[list[ServerProcess]]:
    """Servers on the same port of several addresses, as pods are."""
    servers = [
        ServerProcess(repository, {"GRPC_ADDRESS": f"{address}:{port}", **settings}) for address in addresses
    ]

    async def start(server: ServerProcess) -> None:
        await server.start()
        await server.wait_for_event("serving")

    try:
        await asyncio.gather(*map(start, servers))
        yield servers
    finally:
        await asyncio.gather(*(server.stop() for server in servers))


async def test_calls_are_spread_evenly_and_outlive_a_replica(tiny_repository: Path) -> None:
    async with (
        Fleet(tiny_repository, 3) as fleet,
        our_client(fleet.target) as ours,
        plain_channel(fleet.target) as ask,
    ):
        servers = [fleet.server(index) for index in range(3)]
        for each in (ours, ask):
            await send_until_all_serve(each, servers)
            counts = await send_counted(each, servers)
            assert is_even(counts), counts
        under_way = asyncio.create_task(send(ask, 4 * SHARE))
        await fleet.kill(0)
        await under_way
        counts = await send_counted(ask, servers[1:])
        assert is_even(counts), counts


async def test_a_replica_that_joins_gets_its_share(tiny_repository: Path) -> None:
    """Connections are asked to close when they have an age; the client looks the name up again and finds one
    more address.
    """
    port = common_port()
    age = {"CONNECTION_AGE_SECONDS": "2"}
    async with (
        name_server(ADDRESSES[:3]) as (names, names_port),
        replicas(tiny_repository, ADDRESSES[:3], port, **age) as first,
        plain_channel(
            f"dns://127.0.0.1:{names_port}/{NAME}:{port}", dns_min_time_between_resolutions_ms=200
        ) as ask,
    ):
        await send_until_all_serve(ask, first)
        async with replicas(tiny_repository, ADDRESSES[3:], port, **age) as joined:
            names.addresses = list(ADDRESSES)
            await send_until_all_serve(ask, joined)
            counts: list[list[float]] = []
            # A connection that closes at its age leaves its turns to the others until it is open again, so
            # one count may fall into such a gap.
            while not counts or not is_even(counts[-1]):
                assert len(counts) < TRIES, counts
                counts.append(await send_counted(ask, [*first, *joined]))
