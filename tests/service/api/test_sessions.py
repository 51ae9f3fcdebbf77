"""service.api.sessions, with messages and sessions made up for it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from google.rpc import status_pb2

from service.api.held_bytes import HeldBytes, Holding
from service.api.sessions import SESSION_BYTES, StreamSessions
from service.errors import InvalidArgument, Withdrawn
from service.models.leases import Leases

WIDTH = 16
STATE_BYTES = 4 * WIDTH
MAX_OPEN = 3


@dataclass
class Message:
    """A message: what to do, and whether the session ends after it."""

    id: str
    does: str = "count"
    is_last: bool = False


@dataclass
class Count:
    """A session that counts its messages."""

    count: int = 0


@dataclass
class Sessions(StreamSessions[Message, str, Count]):
    """Counts the messages of each id; `gate` holds those that say so."""

    leases: Leases
    held: Holding
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        super().__init__(MAX_OPEN, "counts", self.held)

    def _open(self, request: Message, lease: ExitStack) -> tuple[Count, Any]:
        lease.enter_context(self.leases.held_by(self._call))
        if request.does == "not open":
            raise InvalidArgument("does", "expected to open, found not")
        states = [SimpleNamespace(size=WIDTH)]
        return Count(), SimpleNamespace(spec=SimpleNamespace(network=SimpleNamespace(states=states)))

    def _check_same(self, session: Count, request: Message) -> None:
        if request.does == "differ":
            raise InvalidArgument("does", f"expected what was, found another after {session.count}")

    async def _push(self, session: Count, request: Message) -> str:
        if request.does == "wait":
            await self.gate.wait()
        if request.does == "fail":
            raise InvalidArgument("does", "expected more, found less")
        session.count += 1
        return f"{request.id}{session.count}"

    def _failure(self, request: Message, session: Count | None, status: status_pb2.Status) -> str:
        assert status.code
        return f"{request.id} failed" + (f" after {session.count}" if session is not None else "")

    def _is_last(self, request: Message) -> bool:
        return request.is_last


@dataclass
class Stream:
    """Sessions of one call, what they hold, and the answers that they have written."""

    sessions: Sessions
    leases: Leases
    held: HeldBytes
    answers: list[str] = field(default_factory=list)

    async def ask(self, *messages: Message) -> list[str]:
        """Send messages at once and wait for all of their answers."""
        before = len(self.answers)
        await asyncio.gather(*(self.sessions.answer(one, self.write) for one in messages))
        return self.answers[before:]

    async def write(self, answer: str) -> None:
        self.answers.append(answer)

    @property
    def num_held(self) -> float:
        """Sessions that the call is charged for."""
        return self.held.total / (SESSION_BYTES + STATE_BYTES)


def stream(leases: Leases | None = None) -> Stream:
    leases, held = leases or Leases(), HeldBytes(1 << 30)
    return Stream(Sessions(leases, Holding(held, "me")), leases, held)


async def test_messages_of_one_id_are_answered_one_after_the_other() -> None:
    one = stream()
    asking = asyncio.create_task(one.ask(Message("a", "wait"), Message("a")))
    assert await one.ask(Message("b")) == ["b1"]
    one.sessions.gate.set()
    await asking
    assert one.answers == ["b1", "a1", "a2"]


@pytest.mark.parametrize("does", ["fail", "not open"])
async def test_first_message_that_fails_leaves_nothing_open(does: str) -> None:
    one = stream()
    assert await one.ask(Message("a", does)) == ["a failed"]
    assert (one.leases.count, one.num_held) == (0, 0)
    assert await one.ask(Message("a")) == ["a1"]


@pytest.mark.parametrize("does", ["fail", "differ"])
async def test_later_message_that_fails_leaves_its_session_open(does: str) -> None:
    one = stream()
    assert await one.ask(Message("a"), Message("a", does), Message("a")) == ["a1", "a failed after 1", "a2"]
    assert (one.leases.count, one.num_held) == (1, 1)


async def test_session_holds_a_lease_and_bytes_until_its_end() -> None:
    one = stream()
    await one.ask(Message("a"), Message("b"))
    assert (one.leases.count, one.num_held) == (2, 2)
    assert await one.ask(Message("a", is_last=True)) == ["a2"]
    assert (one.leases.count, one.num_held) == (1, 1)
    assert await one.ask(Message("a", is_last=True)) == ["a1"]
    assert (one.leases.count, one.num_held) == (1, 1)


async def test_failed_message_does_not_end_its_session() -> None:
    one = stream()
    await one.ask(Message("a"), Message("a", "fail", is_last=True))
    assert one.leases.count == 1
    assert await one.ask(Message("a")) == ["a2"]


async def test_sessions_beyond_the_limit_are_refused_and_ended_ones_make_room() -> None:
    one = stream()
    await one.ask(*(Message(name) for name in "abc"))
    assert await one.ask(Message("d")) == ["d failed"]
    await one.ask(Message("b", is_last=True))
    assert await one.ask(Message("d")) == ["d1"]


async def test_close_releases_all_sessions() -> None:
    one = stream()
    await one.ask(Message("a"), Message("b"))
    one.sessions.close()
    assert (one.leases.count, one.num_held) == (0, 0)


async def run_call(leases: Leases, work: Callable[[Stream], Awaitable[None]]) -> None:
    """Run a call as the servicers do: its sessions are closed however it ends."""
    one = stream(leases)
    with closing(one.sessions):
        await work(one)


@pytest.mark.parametrize("is_last", [False, True], ids=["open", "just ended"])
async def test_call_whose_version_is_withdrawn_ends_with_the_reason(is_last: bool) -> None:
    """A message whose session ends while the call is being cancelled must not hide why it is."""
    leases, is_open = Leases(), asyncio.Event()

    async def work(one: Stream) -> None:
        await one.ask(Message("a"))
        is_open.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        # The task of a message, which the cancellation has not reached yet.
        await asyncio.shield(asyncio.create_task(one.ask(Message("a", is_last=is_last))))
        raise asyncio.CancelledError

    call = asyncio.create_task(run_call(leases, work))
    await is_open.wait()
    assert leases.withdraw() == 1
    with pytest.raises(Withdrawn):
        await call
    assert leases.count == 0
