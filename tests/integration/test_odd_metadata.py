"""Several hundred odd header fields: each call ends with its answer or a refusal, and nobody else notices."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.integration.process import ServerProcess
from tests.integration.wire import CLASSIFY, Answer, Fields, call, classify_message, fields_of, framed
from tests.integration.withstood import MARK, withstood

OK, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL = 0, 4, 12, 13
# No status: the stream was reset, or the connection closed.
CUT = None
AT_A_TIME = 16
QUICK_S = 10
ODD = MARK.encode()
BYTES = (*range(33), 127, 128, 255)
VALUES = (b"", ODD, b"-1", b"\xff\xfe", b"9" * 20)
# Fields that gRPC, its load balancers or HTTP give a meaning.
KNOWN = (
    b"connection",
    b"transfer-encoding",
    b"host",
    b"content-length",
    b"cookie",
    b"upgrade",
    b"grpc-status",
    b"grpc-message",
    b"grpc-status-details-bin",
    b"grpc-trace-bin",
    b"grpc-tags-bin",
    b"grpc-previous-rpc-attempts",
    b"grpc-retry-pushback-ms",
    b"grpc-accept-encoding",
    b"grpclb_client_stats",
    b"endpoint-load-metrics-bin",
    b"lb-cost-bin",
    b"lb-token",
    b"x-forwarded-for",
    b"x-envoy-peer-metadata",
)

Case = tuple[str, Fields]


def with_field(key: bytes, value: bytes) -> Case:
    return f"{key[:40]!r}: {value[:20]!r}", fields_of(CLASSIFY, (key, value))


def replacing(key: bytes, *values: bytes) -> Case:
    """Return a call's fields with other values of one of them, or none."""
    others = [field for field in fields_of() if field[0] != key]
    own = [(key, value) for value in values]
    return f"{key!r}: {[value[:20] for value in values]}", (
        own + others if key.startswith(b":") else others + own
    )


def values() -> Iterator[Case]:
    for byte in BYTES:
        for key in (b"x-odd", b"x-request-id", b"user-agent", b"authorization", b"traceparent"):
            yield with_field(key, b"a" + bytes([byte]) + b"b")
    for value in (b"", b"a" * 128, b"a" * 129, b"a" * 4096, b" ", b"\xc3\xa4", b"a\nb", b"{}", b"\x1b[31m"):
        yield with_field(b"x-request-id", value)
    for key in (b"x-odd", b"x-request-id"):
        repeated = [(key, b"%d" % number) for number in range(100)]
        yield f"100 of {key!r}", fields_of(CLASSIFY, *repeated)


def keys() -> Iterator[Case]:
    for byte in BYTES:
        yield with_field(b"x-" + bytes([byte]) + ODD, b"v")
    for key in (b"", b"-bin", b"X-Upper", b":odd", b":path", b":method", b"x-\xc3\xa4", b"x" * 4000, *KNOWN):
        for value in VALUES:
            yield with_field(key, value)
    for value in (b"!!!", b"A", b"====", b"\xff", b"AAAA=AAAA", b"A" * 5, b" ", b"\0"):
        yield with_field(b"x-odd-bin", value)


def timeouts() -> Iterator[Case]:
    numbers = ("0", "1", "9" * 8, "9" * 9, "-1", "", "1.5", " 1", "0x1", "1e3", "00000001")
    for number in numbers:
        for unit in "numSMHs":
            yield with_field(b"grpc-timeout", (number + unit).encode())
    for value in (b"1", b"1S ", b"1SS", b"\0", b"S1", b"\xff", b"1" * 4000 + b"S"):
        yield with_field(b"grpc-timeout", value)
    yield "two timeouts", fields_of(CLASSIFY, (b"grpc-timeout", b"5S"), (b"grpc-timeout", b"1n"))


def replaced() -> Iterator[Case]:
    """Yield calls whose own fields are odd, missing, double or in another order."""
    odd: dict[bytes, tuple[bytes, ...]] = {
        b"content-type": (b"application/grpc+json", b"application/grpcX", b"APPLICATION/GRPC", b"text/html"),
        b"te": (b"gzip", b"TRAILERS", b"trailers, deflate"),
        b":method": (b"GET", b"PUT", b"OPTIONS", b"post", b"CONNECT"),
        b":scheme": (b"https", b"ftp"),
        b":authority": (b"\xff", b"a b", b"x" * 4000, b"[::1", b"a:99999999"),
        b":path": (b"/", b"//", b"*", CLASSIFY + b"?x", CLASSIFY + b"/", CLASSIFY[1:], b"/" * 4000),
    }
    for key, values in odd.items():
        yield replacing(key)
        yield replacing(key, b"")
        for value in values:
            yield replacing(key, value)
            yield replacing(key, value, value)
    yield "pseudo-header fields last", [*fields_of()[4:], *fields_of()[:4]]


async def answers_to(server: ServerProcess, cases: list[Case]) -> dict[str, Answer]:
    limit = asyncio.Semaphore(AT_A_TIME)

    async def answer_to(fields: Fields) -> Answer:
        async with limit, asyncio.timeout(QUICK_S):
            return await call(server.grpc_port, fields, framed(classify_message()))

    found = await asyncio.gather(*(answer_to(fields) for _, fields in cases))
    return dict(zip((name for name, _ in cases), found, strict=True))


@pytest.mark.parametrize(
    ("cases", "count", "codes"),
    [
        (list(values()), 190, {OK, CUT}),
        (list(keys()), 180, {OK, UNIMPLEMENTED, INTERNAL, CUT}),
        (list(timeouts()), 80, {OK, DEADLINE_EXCEEDED, INTERNAL}),
        (list(replaced()), 60, {OK, UNIMPLEMENTED, INTERNAL, CUT}),
    ],
    ids=["values", "keys", "timeouts", "fields of gRPC's own"],
)
async def test_odd_fields_end_their_own_call_at_most(
    tiny_server: ServerProcess, cases: list[Case], count: int, codes: set[int | None]
) -> None:
    """INTERNAL is gRPC's own refusal of a field that it cannot read; no handler has run then."""
    assert len(cases) >= count
    right = await call(tiny_server.grpc_port, fields_of(), framed(classify_message()))
    assert right.code == OK
    async with withstood(tiny_server):
        found = await answers_to(tiny_server, cases)
    assert {name: one for name, one in found.items() if one.code not in codes} == {}
    assert {name: one for name, one in found.items() if one.code == OK and one.data != right.data} == {}


async def test_whole_range_of_timeouts_is_served(tiny_server: ServerProcess) -> None:
    cases = [
        with_field(b"grpc-timeout", value)
        for value in (b"99999999u", b"99999999m", b"1S", b"99999999S", b"1M", b"99999999M", b"99999999H")
    ]
    found = await answers_to(tiny_server, cases)
    assert {name: one.code for name, one in found.items() if one.code != OK} == {}
