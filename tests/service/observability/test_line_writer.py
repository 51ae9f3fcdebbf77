"""service.observability.line_writer."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import pytest

from service.observability import line_writer
from service.observability.line_writer import LineWriter

PATIENCE_S = 10.0


class Reports:
    """Keeps the numbers of dropped lines that are reported."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.come = threading.Event()

    def __call__(self, number: int) -> None:
        self.numbers.append(number)
        self.come.set()


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def read_lines(descriptor: int, number: int) -> list[str]:
    data = b""
    while data.count(b"\n") < number:
        data += os.read(descriptor, 1 << 16)
    return data.decode().splitlines()


def fill(writer: LineWriter, line: str) -> int:
    """Put lines until they are dropped; return the number put before."""
    number = 0
    while not writer.num_dropped:
        writer.put(line)
        number += 1
    return number - 1


def test_lines_are_written_in_order() -> None:
    with pipe() as (reading, writing):
        writer = LineWriter(writing, Reports())
        for number in range(1000):
            writer.put(f"line {number}")
        assert read_lines(reading, 1000) == [f"line {number}" for number in range(1000)]
        writer.close()
        assert writer.num_dropped == 0


def test_what_cannot_be_encoded_is_escaped() -> None:
    with pipe() as (reading, writing):
        writer = LineWriter(writing, Reports())
        writer.put("a\udcff")
        assert read_lines(reading, 1) == ["a\\udcff"]
        writer.close()


def test_lines_of_a_full_queue_are_dropped_counted_and_reported_once_it_flows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(line_writer, "MAX_WAITING", 100_000)
    reports = Reports()
    with pipe() as (reading, writing):
        writer = LineWriter(writing, reports)
        number = fill(writer, "x" * 1000)
        for _ in range(9):
            writer.put("x" * 1000)
        dropped = writer.num_dropped
        assert dropped == 10
        assert len(read_lines(reading, number)) == number
        assert reports.come.wait(PATIENCE_S)
        assert reports.numbers == [10]
        writer.put("flows again")
        assert read_lines(reading, 1) == ["flows again"]
        writer.close()


def test_close_waits_for_no_reader_longer_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_writer, "MAX_WAITING", 200_000)
    monkeypatch.setattr(line_writer, "CLOSE_S", 0.2)
    with pipe() as (reading, writing):
        writer = LineWriter(writing, Reports())
        number = fill(writer, "x" * 1000)
        started = monotonic()
        writer.close()
        assert monotonic() - started < 2
        read_lines(reading, number)  # lets the thread end before its pipe is closed
        writer.close()


def test_reader_who_has_gone_costs_the_lines_alone() -> None:
    reports = Reports()
    reading, writing = os.pipe()
    os.close(reading)
    writer = LineWriter(writing, reports)
    writer.put("first")
    writer.put("second")
    writer.close()
    os.close(writing)
    assert writer.num_dropped == 2
    assert reports.numbers == []
