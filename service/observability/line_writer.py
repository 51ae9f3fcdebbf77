"""Writer of log lines to a file descriptor, in a thread of its own, so that no caller waits for a reader.

Lines wait in a bounded queue. While it is full, because nobody reads the pipe or the disk is slow, further
lines are dropped and counted; once the queue is empty again, one line says how many were dropped. The
descriptor may be a non-blocking one: a process that shares its pipe or terminal can make it so at any time.
"""

import os
import select
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

# Characters that may wait to be written, each line counted with its overhead.
MAX_WAITING = 4 << 20
_OVERHEAD = 100
# Pause after a write, so that the lines of many calls share a wake-up of the thread.
GATHER_S = 0.01
# Time that the lines still waiting get at the end of the process.
CLOSE_S = 1.0


class LineWriter:
    """Queue of lines and the thread that writes them in order.

    Args:
        descriptor: file descriptor to write to; it stays open.
        report: called in the writer's thread with the number of lines dropped since its last call, once the
            queue is empty again.
    """

    def __init__(self, descriptor: int, report: Callable[[int], None]) -> None:
        self._descriptor = descriptor
        self._report = report
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        # The callers' side counts what was put and dropped under its lock, the thread what it took and lost.
        self._lock = threading.Lock()
        self._size_put, self._size_taken = 0, 0
        self._dropped, self._lost, self._reported = 0, 0, 0
        self._is_line_cut = False  # the last write ended within a line
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def num_dropped(self) -> int:
        """Number of lines dropped so far: the queue was full, or the write failed."""
        return self._dropped + self._lost

    def put(self, line: str) -> None:
        """Queue a line, given without its newline, or drop it while the queue is full; never blocks."""
        size = len(line) + _OVERHEAD
        with self._lock:
            if self._size_put - self._size_taken + size > MAX_WAITING:
                self._dropped += 1
                return
            self._size_put += size
            self._lines.put(line)

    def close(self) -> None:
        """Write what waits, for at most `CLOSE_S` seconds; later lines are not written."""
        self._closing.set()
        self._lines.put(None)
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        is_over = False
        while not is_over:
            lines, is_over = self._next_lines()
            try:
                if self._write(lines) and self._lines.empty():
                    self._report_dropped()
            except Exception:  # mostly no memory is left: the log itself is where an error would be told
                self._lost += max(1, len(lines))
            self._size_taken += sum(len(line) + _OVERHEAD for line in lines)
            self._closing.wait(GATHER_S)

    def _report_dropped(self) -> None:
        if dropped := self.num_dropped - self._reported:
            self._reported += dropped
            self._report(dropped)

    def _next_lines(self) -> tuple[list[str], bool]:
        """Wait for a line and take all that wait; return them, and whether the end has come."""
        lines: list[str] = []
        line = self._lines.get()
        try:
            while line is not None:
                lines.append(line)
                line = self._lines.get_nowait()
        except Empty:
            return lines, False
        return lines, True

    def _write(self, lines: list[str]) -> bool:
        """Write lines and return True, or count those that could not be written; none are not written."""
        if not lines:
            return False
        data = "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace")
        if self._is_line_cut:
            data = b"\n" + data
        try:
            while data:
                written = self._write_some(data)
                self._is_line_cut = data[written - 1 : written] != b"\n"
                data = data[written:]
        except OSError:  # nobody holds the other end, or the disk is full: there is no place to say so
            self._lost += min(len(lines), max(1, data.count(b"\n")))
            return False
        return True

    def _write_some(self, data: bytes) -> int:
        """Write a part of data, once the descriptor takes some, and return the number of bytes."""
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:
                ready = select.poll()
                ready.register(self._descriptor, select.POLLOUT)
                ready.poll()
