"""service.http.compression."""

import asyncio
import gzip
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http.compression import SLICE_BYTES, gzipped, takes_gzip


@pytest.mark.parametrize(
    ("accepted", "takes"),
    [
        ("", False),
        ("gzip", True),
        ("GZip", True),
        ("x-gzip", True),
        ("br, gzip ; q=0.2", True),
        ("gzip;q=1.000", True),
        ("gzip;q=0", False),
        ("gzip;q=0.0, *", False),
        ("identity", False),
        ("identity;q=0", False),
        ("identity;q=0.5, gzip;q=0.4", False),
        ("identity;q=0.5, gzip;q=0.5", True),
        ("identity;q=0, gzip;q=0.001", True),
        ("*", True),
        ("*;q=0", False),
        ("*;q=0, gzip", True),
        ("*;q=0.1, identity", False),
        ("br, deflate", False),
        ("gzipped", False),
        ("gzip;q=x", False),
        ("gzip;q=", False),
        ("gzip;q=nan", False),
        ("gzip;q=2", False),
        ("gzip;q=-1", False),
        ("gzip;level=9", False),
    ],
)
def test_gzip_is_taken_where_it_is_asked_for(accepted: str, takes: bool) -> None:
    assert takes_gzip(accepted) is takes


@given(st.text())
def test_no_header_is_too_odd(accepted: str) -> None:
    assert takes_gzip(accepted) in (True, False)


@pytest.mark.parametrize("size", [0, 1, SLICE_BYTES, 5 * SLICE_BYTES + 1])
async def test_gzipped_data_are_the_same(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert gzip.decompress(await gzipped(data)) == data


async def test_others_run_while_data_are_compressed() -> None:
    longest, last = 0.0, time.monotonic()
    turns = 0
    compressing = asyncio.create_task(gzipped(random.Random(0).randbytes(64 * SLICE_BYTES)))
    while not compressing.done():
        await asyncio.sleep(0)
        now = time.monotonic()
        longest, last, turns = max(longest, now - last), now, turns + 1
    assert turns >= 64
    assert longest < 1
