"""service.transport.loop, polling, descriptors and waker: nothing that the loop is told of is lost."""

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from service.transport import polling, waker
from service.transport.loop import CompletionLoop, completion_loop

PATIENCE_S = 20.0


class Tag:
    """A tag that puts itself into the queue again until it has been handled some times, or for ever."""

    def __init__(self, loop: CompletionLoop, times: float) -> None:
        self.waker = loop._completions._waker._call
        self.left = times
        self.done = asyncio.Event()
        self.start()

    def start(self) -> None:
        self.waker.start_server_batch((), self)

    def __call__(self, _: object) -> None:
        self.left -= 1
        if self.left > 0:
            self.start()
        else:
            self.done.set()


def loop_here() -> CompletionLoop:
    return completion_loop(asyncio.get_running_loop())


@contextmanager
def switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


# Waking.


async def test_no_wake_of_other_threads_is_lost() -> None:
    """Each thread waits for its call before it makes the next one, so that the loop falls asleep often."""
    loop, per_thread, num_threads = loop_here(), 300, 4

    def call_often() -> None:
        for _ in range(per_thread):
            is_called = threading.Event()
            loop.call_soon_threadsafe(is_called.set)
            assert is_called.wait(PATIENCE_S)

    with switching_often():
        await asyncio.gather(*(asyncio.to_thread(call_often) for _ in range(num_threads)))


async def test_wake_before_the_loop_sleeps_ends_its_next_wait() -> None:
    loop_here()._completions.wake()
    started = time.monotonic()
    loop_here()._completions.select(PATIENCE_S)
    assert time.monotonic() - started < polling._MAX_WAIT_S / 2


async def test_timers_are_called_in_time_and_in_order() -> None:
    loop = loop_here()
    called: list[tuple[float, float]] = []
    started = loop.time()

    def note(delay: float) -> None:
        called.append((delay, loop.time() - started))

    for delay in (0.03, 0.01, 0.3, 0.02):  # one is longer than a wait
        loop.call_later(delay, note, delay)
    await asyncio.sleep(0.31)
    assert [delay for delay, _ in called] == [0.01, 0.02, 0.03, 0.3]
    assert all(found >= delay - 0.001 for delay, found in called)


def test_waits_are_short_since_the_clock_may_be_set_back() -> None:
    assert polling._deadline(None) is None
    assert polling._deadline(0) == polling._deadline(-1) == 0
    now = time.time()
    assert now <= (polling._deadline(1e6) or 0) <= time.time() + polling._MAX_WAIT_S
    assert (polling._deadline(0.01) or 0) <= time.time() + 0.01


# Events of the queue.


async def test_tag_that_raises_is_reported_and_the_loop_goes_on() -> None:
    loop, reported = loop_here(), []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))

    def fail(_: object) -> None:
        raise ZeroDivisionError

    loop._completions._waker._call.start_server_batch((), fail)
    await Tag(loop, 3).done.wait()
    loop.set_exception_handler(None)
    assert [type(error) for error in reported] == [ZeroDivisionError]


async def test_timers_and_descriptors_are_handled_while_events_never_end() -> None:
    loop = loop_here()
    flood = Tag(loop, float("inf"))
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.sleep(0.01)
        assert await asyncio.to_thread(lambda: 5) == 5
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.send(b"x")
        assert await loop.sock_recv(ours, 1) == b"x"
    flood.left = 0
    await flood.done.wait()
    ours.close()
    theirs.close()


# An idle loop.


async def test_call_when_idle_comes_once_and_after_whatever_is_ready() -> None:
    loop = loop_here()
    order: list[object] = []
    loop.call_when_idle(lambda: order.append("idle"))
    for number in range(3):
        loop.call_soon(order.append, number)
    tag = Tag(loop, 3)
    await tag.done.wait()
    await asyncio.sleep(0.02)
    assert order == [0, 1, 2, "idle"]


async def test_call_when_idle_comes_at_once_in_a_loop_without_work() -> None:
    loop = loop_here()
    is_idle = asyncio.Event()
    started = time.monotonic()
    loop.call_when_idle(is_idle.set)
    await is_idle.wait()
    assert time.monotonic() - started < polling.MAX_IDLE_DELAY_S


@pytest.mark.parametrize("kind", ["events", "callbacks"])
async def test_call_when_idle_comes_after_the_longest_delay_under_a_flood(kind: str) -> None:
    loop = loop_here()
    is_idle, is_over = asyncio.Event(), False

    def spin() -> None:
        if not is_over:
            loop.call_soon(spin)

    flood = Tag(loop, float("inf") if kind == "events" else 1)
    spin()
    started = time.monotonic()
    loop.call_when_idle(is_idle.set)
    async with asyncio.timeout(PATIENCE_S):
        await is_idle.wait()
    assert time.monotonic() - started >= polling.MAX_IDLE_DELAY_S
    flood.left, is_over = 0, True
    await flood.done.wait()


async def test_idle_call_that_asks_for_another_gets_it_later() -> None:
    loop, order = loop_here(), []
    is_done = asyncio.Event()

    def again() -> None:
        order.append("first")
        loop.call_soon(order.append, "between")
        loop.call_when_idle(lambda: order.append("second"))
        loop.call_when_idle(is_done.set)

    loop.call_when_idle(again)
    await is_done.wait()
    assert order == ["first", "between", "second"]


async def test_idle_call_that_raises_is_reported_and_those_after_it_are_called() -> None:
    loop, reported, is_called = loop_here(), [], asyncio.Event()
    loop.set_exception_handler(lambda _, context: reported.append(type(context["exception"])))

    def fail() -> None:
        raise ZeroDivisionError

    loop.call_when_idle(fail)
    loop.call_when_idle(is_called.set)
    async with asyncio.timeout(PATIENCE_S):
        await is_called.wait()
    loop.set_exception_handler(None)
    assert reported == [ZeroDivisionError]


# File descriptors.


async def test_descriptor_is_read_as_often_as_it_is_ready_until_its_reader_is_removed() -> None:
    loop, found = loop_here(), []
    ours, theirs = socket.socketpair()
    come = asyncio.Event()

    def read() -> None:
        found.append(ours.recv(1))
        come.set()

    loop.add_reader(ours, read)
    for number in range(50):
        come.clear()
        theirs.send(bytes([number]))
        await asyncio.wait_for(come.wait(), PATIENCE_S)
    theirs.send(b"many")  # read one by one: it stays ready
    while len(found) < 54:
        come.clear()
        await asyncio.wait_for(come.wait(), PATIENCE_S)
    assert loop.remove_reader(ours)
    theirs.send(b"x")
    await asyncio.sleep(0.01)
    assert found == [bytes([number]) for number in range(50)] + [b"m", b"a", b"n", b"y"]
    ours.close()
    theirs.close()


async def test_streams_write_and_read_through_sockets() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(1 << 22))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        data = os.urandom(1 << 22)
        writer.write(data)
        assert await reader.readexactly(1 << 22) == data
        writer.close()
        await writer.wait_closed()


async def test_process_of_the_loop_ends_and_is_waited_for() -> None:
    process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    async with asyncio.timeout(PATIENCE_S):
        out, _ = await process.communicate(b"said")
    assert (out, process.returncode) == (b"said", 0)


async def test_signal_wakes_a_loop_that_waits() -> None:
    loop, come = loop_here(), asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, come.set)
    try:
        for _ in range(5):
            come.clear()
            threading.Timer(0.005, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            started = time.monotonic()
            await come.wait()
            assert time.monotonic() - started < PATIENCE_S
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)


# Beginning and end.


def test_loops_of_one_process_leave_no_thread_and_no_descriptor() -> None:
    async def work() -> int:
        return await asyncio.to_thread(lambda: 5)

    def open_now() -> int:
        return len(os.listdir("/proc/self/fd"))

    def run() -> None:
        with asyncio.Runner(loop_factory=CompletionLoop) as runner:
            assert runner.run(work()) == 5

    run()  # gRPC's core opens what it keeps
    before = open_now(), threading.active_count()
    for _ in range(5):
        run()
    assert (open_now(), threading.active_count()) == before


def test_loop_with_timers_readers_and_idle_calls_pending_is_closed() -> None:
    loop = CompletionLoop()
    ours, theirs = socket.socketpair()
    loop.add_reader(ours, lambda: None)
    loop.call_later(1e6, lambda: None)
    loop.call_soon(loop.call_when_idle, lambda: None)
    loop.call_soon(loop.stop)
    theirs.send(b"x")
    loop.run_forever()
    closing = threading.Thread(target=loop.close, daemon=True)
    closing.start()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    loop.close()
    ours.close()
    theirs.close()


def test_two_loops_in_two_threads_wake_each_other() -> None:
    counts = [0, 0]

    def run(number: int, loops: list[CompletionLoop], ready: threading.Barrier) -> None:
        async def main() -> None:
            loops[number] = loop_here()
            await asyncio.to_thread(ready.wait)
            turn: asyncio.Queue[int] = asyncio.Queue()
            turns[number] = turn
            await asyncio.to_thread(ready.wait)
            for _ in range(100):
                counts[number] += 1
                other = 1 - number
                loops[other].call_soon_threadsafe(turns[other].put_nowait, number)
                async with asyncio.timeout(PATIENCE_S):
                    await turn.get()

        turns: dict[int, Any] = shared
        with asyncio.Runner(loop_factory=CompletionLoop) as runner:
            runner.run(main())

    shared: dict[int, Any] = {}
    loops: list[Any] = [None, None]
    ready = threading.Barrier(2)
    threads = [threading.Thread(target=run, args=(number, loops, ready)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert counts == [100, 100]


def test_waker_that_cannot_listen_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf:
        """A server that can bind nothing."""

        def __init__(self, *_: object) -> None:
            self.register_completion_queue: Callable[[object], None] = print
            self.register_method: Callable[[object], None] = print

        def add_http2_port(self, _: bytes) -> int:
            return 0

    monkeypatch.setattr(waker, "cygrpc", type("Core", (), {"Server": Deaf}))
    with pytest.raises(RuntimeError, match="expected a socket to listen on"):
        waker.Waker(cygrpc.CompletionQueue())


def test_waker_that_cannot_reach_itself_says_so_and_leaves_the_queue_empty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process at its limit of descriptors, whose socket accepts nobody, hung at its start."""

    def elsewhere(_: bytes, *rest: Any) -> Any:
        return make(b"unix-abstract:seqserve-nobody-listens-here", *rest)

    make = cygrpc.Channel
    monkeypatch.setattr(waker, "_SECONDS", 0.2)
    monkeypatch.setattr(cygrpc, "Channel", elsewhere)
    queue = cygrpc.CompletionQueue()
    with pytest.raises(RuntimeError, match="expected a call through"):
        waker.Waker(queue)
    queue.shutdown()
    event = queue.poll(time.time() + PATIENCE_S)
    assert event.completion_type == cygrpc.CompletionType.queue_shutdown


def test_waker_needs_no_thread_of_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """grpc's stubs start one, and where that failed their channel was waited for without end."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    queue = cygrpc.CompletionQueue()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        made = waker.Waker(queue)
    made.wake()
    assert queue.poll(time.time() + PATIENCE_S).completion_type == cygrpc.CompletionType.operation_complete
    queue.shutdown()
