"""The health servicer, on calls whose peers read when the test lets them."""

import asyncio
from typing import Any, NoReturn

import grpc
import pytest
from grpc_health.v1 import health_pb2

from service.api.health import MAX_WATCHES, NOT_SERVING, SERVICE_UNKNOWN, SERVING, HealthServicer
from service.errors import TooManyWatches, Unsupported
from service.transport.call import CallBroken

PATIENCE_S = 20.0
NAME = "model/letters"


class Refused(Exception):
    """What `abort` ends a call with."""


class Context:
    """A call by a peer who reads a message for each `permit`."""

    def __init__(self, permits: int = 1_000, peer: str = "ipv4:127.0.0.1:1") -> None:
        self._peer = peer
        self.permits = asyncio.Semaphore(permits)
        self.is_writing = asyncio.Event()
        self.heard: asyncio.Queue[int] = asyncio.Queue()

    def peer(self) -> str:
        return self._peer

    async def write(self, response: health_pb2.HealthCheckResponse) -> None:
        self.is_writing.set()
        await self.permits.acquire()
        self.heard.put_nowait(response.status)

    async def abort(self, code: grpc.StatusCode) -> NoReturn:
        raise Refused(code)


class BrokenContext(Context):
    """A call whose connection breaks off while grpc writes."""

    async def write(self, response: health_pb2.HealthCheckResponse) -> None:  # noqa: ARG002
        raise CallBroken


def watch(servicer: HealthServicer, context: Context, name: str = NAME) -> "asyncio.Task[None]":
    return asyncio.create_task(servicer.Watch(health_pb2.HealthCheckRequest(service=name), context))


async def check(servicer: HealthServicer, name: str = NAME) -> int:
    answer: Any = await servicer.Check(health_pb2.HealthCheckRequest(service=name), Context())
    return int(answer.status)


async def heard(context: Context) -> int:
    """Wait for the next status that the peer reads."""
    async with asyncio.timeout(PATIENCE_S):
        return await context.heard.get()


async def deaf_watch(servicer: HealthServicer, name: str = NAME) -> tuple[Context, "asyncio.Task[None]"]:
    """A watch whose first write does not come to an end."""
    context = Context(permits=0)
    task = watch(servicer, context, name)
    async with asyncio.timeout(PATIENCE_S):
        await context.is_writing.wait()
    return context, task


async def test_check_tells_the_status_now() -> None:
    servicer = HealthServicer()
    for status in (NOT_SERVING, SERVING):
        servicer.set(NAME, status)
        assert await check(servicer) == status


async def test_check_of_an_unknown_name_is_not_found() -> None:
    with pytest.raises(Refused) as refusal:
        await check(HealthServicer(), "model/nobody")
    assert refusal.value.args == (grpc.StatusCode.NOT_FOUND,)


async def test_list_is_refused() -> None:
    with pytest.raises(Unsupported, match="List is not served"):
        await HealthServicer().List(None, Context())


async def test_watch_tells_the_status_and_each_change() -> None:
    servicer, context = HealthServicer(), Context()
    servicer.set(NAME, NOT_SERVING)
    task = watch(servicer, context)
    assert await heard(context) == NOT_SERVING
    for status in (SERVING, NOT_SERVING, SERVING):
        servicer.set(NAME, status)
        assert await heard(context) == status
    task.cancel()


async def test_watch_of_an_unknown_name_tells_when_it_is_known() -> None:
    servicer, context = HealthServicer(), Context()
    task = watch(servicer, context)
    assert await heard(context) == SERVICE_UNKNOWN
    servicer.set(NAME, SERVING)
    assert await heard(context) == SERVING
    task.cancel()


async def test_status_that_is_set_again_is_not_told_again() -> None:
    servicer, context = HealthServicer(), Context()
    servicer.set(NAME, SERVING)
    task = watch(servicer, context)
    assert await heard(context) == SERVING
    servicer.set(NAME, SERVING)
    servicer.set("model/moods", NOT_SERVING)
    servicer.end_watches()
    await task
    assert await heard(context) == NOT_SERVING
    assert context.heard.empty()


async def test_peer_who_does_not_read_holds_up_neither_changes_nor_others() -> None:
    servicer, hearing = HealthServicer(), Context()
    servicer.set(NAME, NOT_SERVING)
    _, deaf = await deaf_watch(servicer)
    task = watch(servicer, hearing)
    for status in (NOT_SERVING, SERVING, NOT_SERVING):
        servicer.set(NAME, status)
        assert await heard(hearing) == status
        assert await check(servicer) == status
    servicer.enter_graceful_shutdown()
    servicer.end_watches()
    await task
    assert not deaf.done()
    assert servicer.num_watches == 1
    deaf.cancel()


async def test_peer_who_reads_again_hears_the_last_of_what_he_missed() -> None:
    servicer = HealthServicer()
    servicer.set(NAME, NOT_SERVING)
    context, task = await deaf_watch(servicer)
    for status in (SERVING, NOT_SERVING, SERVING):
        servicer.set(NAME, status)
    context.permits.release()
    assert await heard(context) == NOT_SERVING  # what was being written
    context.permits.release()
    assert await heard(context) == SERVING
    assert context.heard.empty()
    task.cancel()


async def test_after_the_shutdown_every_name_is_not_serving_for_ever() -> None:
    servicer, context = HealthServicer(), Context()
    servicer.set(NAME, SERVING)
    servicer.set("", SERVING)
    task = watch(servicer, context, "")
    assert await heard(context) == SERVING
    servicer.enter_graceful_shutdown()
    assert await heard(context) == NOT_SERVING
    servicer.set(NAME, SERVING)
    servicer.set("", SERVING)
    assert [await check(servicer, name) for name in ("", NAME)] == [NOT_SERVING] * 2
    assert not task.done()
    task.cancel()


async def test_watches_say_not_serving_and_end_once_told_to() -> None:
    servicer, early, late = HealthServicer(), Context(), Context()
    servicer.set(NAME, SERVING)
    task = watch(servicer, early)
    assert await heard(early) == SERVING
    servicer.end_watches()
    async with asyncio.timeout(PATIENCE_S):
        await task
        await watch(servicer, late)
    assert (await heard(early), await heard(late)) == (NOT_SERVING, NOT_SERVING)


async def test_watch_of_an_unknown_name_ends_as_well() -> None:
    servicer, context = HealthServicer(), Context()
    task = watch(servicer, context)
    assert await heard(context) == SERVICE_UNKNOWN
    servicer.end_watches()
    async with asyncio.timeout(PATIENCE_S):
        await task


async def test_watch_that_ends_gives_everything_back() -> None:
    servicer = HealthServicer()
    tasks = [(await deaf_watch(servicer, name))[1] for name in ("", NAME, NAME)]
    assert servicer.num_watches == 3
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert servicer.num_watches == 0
    assert not servicer._watches
    assert not servicer._by_peer


async def test_one_connection_has_a_bounded_number_of_watches() -> None:
    servicer = HealthServicer()
    held = [(await deaf_watch(servicer))[1] for _ in range(MAX_WATCHES)]
    with pytest.raises(TooManyWatches, match=f"expected at most {MAX_WATCHES} "):
        await watch(servicer, Context())
    other = Context(peer="ipv4:127.0.0.1:2")
    held.append(watch(servicer, other))
    assert await heard(other) == SERVICE_UNKNOWN
    held[0].cancel()
    await asyncio.wait({held[0]})
    again = Context()
    held.append(watch(servicer, again))
    assert await heard(again) == SERVICE_UNKNOWN
    for task in held:
        task.cancel()


async def test_connection_that_breaks_off_during_a_write_counts_as_cancelled() -> None:
    servicer = HealthServicer()
    task = watch(servicer, BrokenContext())
    await asyncio.wait({task})
    assert task.cancelled()
    assert servicer.num_watches == 0
