"""Floods of well-formed and malformed HTTP/2 frames on one connection: bounded memory, others are served.

Each flood is as large as a peer sends within a second; what a peer that goes on for hours costs is a proxy's
matter.
"""

import asyncio
from collections.abc import Iterable

import pytest
from hpack import Encoder

from tests.integration.process import ServerProcess
from tests.integration.test_http2_abuse import CONTINUATION, HEADERS, PREFACE, SETTINGS, connected, frame
from tests.integration.wire import CLASSIFY, call, classify_message, fields_of, framed, wire
from tests.integration.withstood import withstood

DATA, PRIORITY, RST_STREAM, GOAWAY, WINDOW_UPDATE = 0, 2, 3, 7, 8
END_STREAM, END_HEADERS = 1, 4
OK = 0
MIB = 1 << 20
MAX_GROWTH = 64 * MIB
HELLO = PREFACE + frame(SETTINGS, 0, 0, b"")
STREAM = b"/seqserve.v1.TextClassification/ClassifyStream"


def headers_frame(stream: int, block: bytes | None = None, flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, flags, stream, Encoder().encode(fields_of()) if block is None else block)


def streams(count: int) -> Iterable[int]:
    return range(1, 2 * count, 2)


async def flood(server: ServerProcess, chunks: Iterable[bytes]) -> bool:
    """Send chunks on one connection; return whether the server has closed it."""
    async with withstood(server, MAX_GROWTH), connected(server) as raw:
        return await raw.send(chunks)


async def test_priorities_of_streams_that_do_not_exist_cost_nothing(tiny_server: ServerProcess) -> None:
    many = b"".join(frame(PRIORITY, 0, stream, b"\0\0\0\0\x10") for stream in streams(1_000))
    await flood(tiny_server, [HELLO, *[many] * 100])


async def test_streams_that_depend_on_themselves_cost_nothing(tiny_server: ServerProcess) -> None:
    many = b"".join(
        frame(PRIORITY, 0, stream, stream.to_bytes(4, "big") + b"\x10") for stream in streams(1_000)
    )
    await flood(tiny_server, [HELLO, *[many] * 10])


@pytest.mark.parametrize("payload", [b"", b"\x20", b"\x00\x01a\x01b"], ids=["empty", "size", "fields"])
async def test_continuation_without_end_is_bounded(tiny_server: ServerProcess, payload: bytes) -> None:
    """The empty ones cost a peer 9 bytes each, and the others add a field or a size of the table each."""
    many = frame(CONTINUATION, 0, 1, payload) * 1_000
    await flood(tiny_server, [HELLO, headers_frame(1, b"", flags=0), *[many] * 100])


async def test_continuation_of_another_stream_ends_the_connection(tiny_server: ServerProcess) -> None:
    chunks = [HELLO, headers_frame(1, b"", flags=0), frame(CONTINUATION, END_HEADERS, 3, b"")]
    async with withstood(tiny_server), connected(tiny_server) as raw:
        assert await raw.send(chunks, wait_s=5)


def bomb() -> tuple[bytes, bytes]:
    """Return a header block that puts a field of 3,900 bytes into the table, and one that repeats it.

    The second is of 3,000 bytes and stands for 11 MiB.
    """
    encoder = Encoder()
    plain = encoder.encode(fields_of())
    stored = encoder.encode([(b"x-big", b"a" * 3_900)], huffman=False)
    return plain + stored, Encoder().encode(fields_of()[:4]) + b"\xbe" * 3_000


async def test_references_to_a_large_entry_of_the_table_are_bounded(tiny_server: ServerProcess) -> None:
    first, repeating = bomb()
    chunks = [headers_frame(stream, repeating) for stream in streams(200)][1:]
    await flood(tiny_server, [HELLO, headers_frame(1, first), *chunks])


async def test_changes_of_the_size_of_the_table_are_bounded(tiny_server: ServerProcess) -> None:
    block = Encoder().encode(fields_of())
    changes = b"\x20\x3f\xe1\x1f" * 1_000  # to 0, and to 4,096
    await flood(tiny_server, [HELLO, *[headers_frame(stream, changes + block) for stream in streams(200)]])


@pytest.mark.parametrize(
    "block",
    [
        b"\x3f\xff\xff\xff\x7f",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\xfe\xff",
        b"\x40\x7f\xff\xff\xff\x07a",
    ],
    ids=["table of gigabytes", "index beyond all", "index of nothing", "string of gigabytes"],
)
async def test_broken_header_block_is_refused(tiny_server: ServerProcess, block: bytes) -> None:
    async with withstood(tiny_server, MAX_GROWTH):
        for _ in range(10):
            async with connected(tiny_server) as raw:
                await raw.send([HELLO, headers_frame(1, block)])


WINDOWS = {
    "zero": [frame(WINDOW_UPDATE, 0, 0, bytes(4))],
    "zero of a stream": [headers_frame(1), frame(WINDOW_UPDATE, 0, 1, bytes(4))],
    "overflow": [frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff")] * 3,
    "overflow of a stream": [headers_frame(1), *[frame(WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff")] * 3],
    "of no stream": [frame(WINDOW_UPDATE, 0, 99, b"\0\0\0\1")],
    "cut short": [frame(WINDOW_UPDATE, 0, 0, b"\0")],
    "one by one": [frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1") * 1_000] * 50,
    "shrunk by settings": [headers_frame(1), *[frame(SETTINGS, 0, 0, b"\0\4\0\0\0\0")] * 100],
}


@pytest.mark.parametrize("name", WINDOWS)
async def test_odd_windows_hold_up_nobody_else(tiny_server: ServerProcess, name: str) -> None:
    await flood(tiny_server, [HELLO, *WINDOWS[name]])


async def test_data_on_closed_and_unknown_streams_is_dropped(tiny_server: ServerProcess) -> None:
    message = framed(classify_message())
    whole = headers_frame(1) + frame(DATA, END_STREAM, 1, message)
    late = frame(DATA, 0, 1, bytes(16_000)) + frame(DATA, 0, 99, bytes(16_000))
    await flood(tiny_server, [HELLO, whole, *[late] * 1_000])


async def test_resets_of_any_stream_cost_nothing(tiny_server: ServerProcess) -> None:
    resets = b"".join(frame(RST_STREAM, 0, stream, b"\0\0\0\x08") for stream in streams(1_000))
    await flood(tiny_server, [HELLO, *[resets] * 100])


async def test_streams_begun_and_reset_are_forgotten(tiny_server: ServerProcess) -> None:
    chunks = (
        headers_frame(stream) + frame(DATA, 0, stream, b"\0\0\0\1") + frame(RST_STREAM, 0, stream, bytes(4))
        for stream in streams(5_000)
    )
    await flood(tiny_server, [HELLO, *chunks])


async def test_call_after_a_goaway_of_the_client_is_answered_or_cut(tiny_server: ServerProcess) -> None:
    async with withstood(tiny_server, MAX_GROWTH):
        async with wire(tiny_server.grpc_port) as connection:
            stream = connection.begin(fields_of())
            goaway = frame(GOAWAY, 0, 0, bytes(8) + b"bye" * 5_000)
            connection.writer.write(goaway)
            await connection.send(stream, framed(classify_message()))
            assert (await connection.answer(stream)).code in (OK, None)
        async with connected(tiny_server) as raw:
            await raw.send([HELLO, *[goaway] * 1_000])


async def test_message_in_frames_of_one_byte_is_read(tiny_server: ServerProcess) -> None:
    data = framed(classify_message(*["good film"] * 100))
    async with withstood(tiny_server, MAX_GROWTH):
        found = await asyncio.gather(
            *(call(tiny_server.grpc_port, fields_of(path), data, part=1) for path in (CLASSIFY, STREAM))
        )
    assert [one.code for one in found] == [OK, OK]
    assert found[0].data == found[1].data


async def test_frames_without_data_are_no_message(tiny_server: ServerProcess) -> None:
    empty = frame(DATA, 0, 1, b"") * 1_000
    await flood(tiny_server, [HELLO, headers_frame(1), *[empty] * 100])


async def test_padding_is_no_message(tiny_server: ServerProcess) -> None:
    padded = frame(DATA, 8, 1, b"\xff" + bytes(255))  # all of it is padding
    await flood(tiny_server, [HELLO, headers_frame(1), *[padded * 100] * 3])


async def test_unknown_frames_are_ignored(tiny_server: ServerProcess) -> None:
    async with withstood(tiny_server, MAX_GROWTH), wire(tiny_server.grpc_port) as connection:
        connection.flush()
        for kind in (10, 42, 255):
            connection.writer.write(frame(kind, 255, 0, bytes(16_000)) * 500)
        assert (await connection.call(fields_of(), framed(classify_message()))).code == OK


async def test_frames_of_stream_0_that_belong_to_a_call_are_dropped(tiny_server: ServerProcess) -> None:
    frames = [
        frame(DATA, 0, 0, b"data of the connection"),
        frame(HEADERS, END_HEADERS, 0, b""),
        frame(RST_STREAM, 0, 0, bytes(4)),
    ]
    await flood(tiny_server, [HELLO, *[one * 100 for one in frames]])


@pytest.mark.parametrize(
    "broken",
    [
        frame(SETTINGS, 0, 0, b"odd"),
        frame(SETTINGS, 0, 1, b""),
        b"\xff\xff\xff" + bytes(6),
    ],
    ids=["cut settings", "settings of a stream", "frame of 16 MiB"],
)
async def test_frame_against_the_rules_ends_its_connection_alone(
    tiny_server: ServerProcess, broken: bytes
) -> None:
    async with withstood(tiny_server, MAX_GROWTH), connected(tiny_server) as raw:
        assert await raw.send([HELLO, broken], wait_s=5)
