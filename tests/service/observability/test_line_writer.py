"""service.observability.line_writer."""

import errno
import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import pytest

from service.observability import line_writer
from service.observability.line_writer import LineWriter

PATIENCE_S = 20.0


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
    data, ready = b"", select.poll()
    ready.register(descriptor, select.POLLIN)
    while data.count(b"\n") < number:
        assert ready.poll(1000 * PATIENCE_S), "no more lines come"
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
        assert monotonic() - started < PATIENCE_S
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


def test_non_blocking_descriptor_loses_no_line() -> None:
    """The reader begins only when the pipe is full."""
    with pipe() as (reading, writing):
        os.set_blocking(writing, False)
        writer = LineWriter(writing, Reports())
        lines = [f"line {number} " + "x" * 1000 for number in range(300)]
        for line in lines:
            writer.put(line)
        until_full(writing)
        assert read_lines(reading, 300) == lines
        writer.close()
        assert writer.num_dropped == 0


def until_full(writing: int) -> None:
    ready = select.poll()
    ready.register(writing, select.POLLOUT)
    until = monotonic() + PATIENCE_S
    while ready.poll(0):  # the kernel tells when a pipe is no longer full, but not when it is
        assert monotonic() < until
        threading.Event().wait(0.005)


def test_line_after_one_that_was_cut_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    write, is_full = os.write, threading.Event()

    def write_ten_bytes(descriptor: int, data: bytes) -> int:
        if is_full.is_set():
            raise OSError(errno.ENOSPC, "")
        is_full.set()
        return write(descriptor, data[:10])

    with pipe() as (reading, writing):
        monkeypatch.setattr(os, "write", write_ten_bytes)
        writer = LineWriter(writing, Reports())
        writer.put("a line that is cut")
        until = monotonic() + PATIENCE_S
        while not writer.num_dropped:
            assert monotonic() < until
            threading.Event().wait(0.005)
        monkeypatch.setattr(os, "write", write)
        writer.put("whole")
        assert read_lines(reading, 2) == ["a line tha", "whole"]
        writer.close()
        assert writer.num_dropped == 1


def test_unexpected_error_costs_its_lines_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    write, has_failed = os.write, threading.Event()

    def fail_once(descriptor: int, data: bytes) -> int:
        if has_failed.is_set():
            return write(descriptor, data)
        has_failed.set()
        raise MemoryError

    with pipe() as (reading, writing):
        monkeypatch.setattr(os, "write", fail_once)
        writer = LineWriter(writing, Reports())
        writer.put("lost")
        assert has_failed.wait(PATIENCE_S)
        writer.put("written")
        assert read_lines(reading, 1) == ["written"]
        writer.close()
        assert writer.num_dropped == 1
