"""service.engine.signal."""

import threading
import time

import pytest

from service.engine.signal import Signal, let_others_run
from tests.service.engine.fakes import PATIENCE_S


def test_news_from_before_the_wait_is_not_lost() -> None:
    signal = Signal()
    signal.clear()
    signal.give()
    signal.wait(None)


def test_wait_ends_when_time_is_up() -> None:
    signal = Signal()
    signal.clear()
    started = time.monotonic()
    signal.wait(0.02)
    assert time.monotonic() - started >= 0.02


@pytest.mark.parametrize("givers", [1, 4])
def test_every_piece_of_work_is_seen_whenever_it_is_given(givers: int) -> None:
    """A lost signal would leave the worker waiting for ever behind the last piece."""
    signal, left, seen = Signal(), list[int](), list[int]()
    count = 2000

    def work() -> None:
        while len(seen) < givers * count:
            signal.clear()
            while left:
                seen.append(left.pop())
            if len(seen) < givers * count:
                signal.wait(None)

    def give() -> None:
        for number in range(count):
            left.append(number)
            signal.give()

    worker = threading.Thread(target=work, daemon=True)
    threads = [threading.Thread(target=give, daemon=True) for _ in range(givers)]
    worker.start()
    for thread in threads:
        thread.start()
    worker.join(PATIENCE_S)
    assert not worker.is_alive()


def test_letting_others_run_returns() -> None:
    let_others_run()
