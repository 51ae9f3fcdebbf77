"""A process of equal priority that keeps a server's core busy, as other people's programs do."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.machine import pinned
from benchmarks.rounds import Sample


@contextmanager
def busy_neighbour(core: int) -> Iterator[None]:
    """Keep a core busy with a process of its own while the context lasts."""
    with pinned({core}):
        process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def beside_neighbour(run: Callable[[], Sample], core: int) -> Callable[[], Sample]:
    """Return a contestant that runs while a neighbour keeps the core busy."""

    def contestant() -> Sample:
        with busy_neighbour(core):
            return run()

    return contestant
