"""service.api.rest.decompression."""

import gzip
import zlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.rest.decompression import decompressed
from service.errors import InvalidArgument


async def parts_of(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def read(data: bytes, size: int = 1000) -> bytes:
    return b"".join([part async for part in decompressed(parts_of(data, size))])


@given(st.binary(max_size=300), st.integers(1, 50), st.booleans())
async def test_body_in_any_parts_is_what_was_compressed(data: bytes, size: int, is_gzip: bool) -> None:
    assert await read(gzip.compress(data) if is_gzip else zlib.compress(data), size) == data


async def test_no_slice_is_large_however_much_comes_of_a_part() -> None:
    data = gzip.compress(bytes(10 << 20))
    sizes = [len(part) async for part in decompressed(parts_of(data, len(data)))]
    assert (sum(sizes), max(sizes)) == (10 << 20, 1 << 16)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"abc", "other bytes"),
        (gzip.compress(b"abc", mtime=0)[:-4], "its beginning alone"),
        (b"", "its beginning alone"),
        (gzip.compress(b"abc", mtime=0) + b"x", "bytes after its end"),
        (gzip.compress(b"abc", mtime=0) * 2, "bytes after its end"),
        (zlib.compress(b"abc")[:-1] + b"x", "other bytes"),
    ],
)
async def test_other_bytes_are_refused(data: bytes, found: str) -> None:
    with pytest.raises(InvalidArgument, match=f"in the format of its Content-Encoding, found {found}"):
        await read(data)
