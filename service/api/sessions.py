"""Sessions that a two-way stream keeps open by id; messages of one id are answered one after the other.

`ForecastStream` and `InferStream` are made of this; they differ in what a first message opens and in what a
message is answered with.
"""

import asyncio
from abc import ABC, abstractmethod
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from google.rpc import status_pb2

from service.api.bidi import Turns, Write
from service.api.caller import current_request_id
from service.api.errors import status_of
from service.api.held_bytes import Holding
from service.errors import InvalidArgument, ServiceError, shown
from service.models.loading import Served
from service.security.state_tokens import StateBinding, binding_of
from service.tasks.limits import check_id

# Bytes that an open session holds beside its recurrent state.
SESSION_BYTES = 4 << 10


class _Named(Protocol):
    """A message of a stream."""

    id: str


Request = TypeVar("Request", bound=_Named)
Response = TypeVar("Response")
Session = TypeVar("Session")


@dataclass(slots=True, eq=False)
class _Slot(Generic[Session]):
    """Id of the stream with its messages.

    Attributes:
        turns: lock that answers messages in the order they arrived.
        num_messages: number of messages that are being answered or wait for their turn.
        session: None until a first message has been answered, and again once one has ended it.
        lease: what the session holds.
    """

    turns: Turns = field(default_factory=Turns)
    num_messages: int = 0
    session: Session | None = None
    lease: ExitStack = field(default_factory=ExitStack)


class StreamSessions(ABC, Generic[Request, Response, Session]):
    """Sessions of one call.

    Args:
        max_open: maximum of open sessions.
        noun: what they are, in the plural, for error texts.
        holding: bytes of the call, of which each open session takes some.
    """

    def __init__(self, max_open: int, noun: str, holding: Holding) -> None:
        self._max_open = max_open
        self._noun = noun
        self._holding = holding
        self._slots: dict[str, _Slot[Session]] = {}
        self._leases = ExitStack()
        call = asyncio.current_task()
        assert call is not None, "a call is a task"
        self._call: asyncio.Task[Any] = call

    @abstractmethod
    def _open(self, request: Request, lease: ExitStack) -> tuple[Session, Served]:
        """Return the session that a first message opens, and the version that answers, leased."""

    @abstractmethod
    def _check_same(self, session: Session, request: Request) -> None:
        """Raise InvalidArgument where a later message sets a field otherwise than the first message."""

    @abstractmethod
    async def _push(self, session: Session, request: Request) -> Response:
        """Answer a message and change the session; an error leaves the session as it was."""

    @abstractmethod
    def _failure(self, request: Request, session: Session | None, status: status_pb2.Status) -> Response:
        """Return the answer to a message that failed; without a session its id is not open."""

    def _is_last(self, request: Request) -> bool:
        """Return whether the session ends once the message has been answered."""
        return False

    def close(self) -> None:
        """Release what all sessions hold.

        Raises:
            Withdrawn: the version of one of them was withdrawn, which has cancelled the call.
        """
        with self._leases as leases:
            for slot in self._slots.values():
                leases.push(slot.lease)

    async def answer(self, request: Request, write: Write[Response]) -> None:
        """Answer a message once the earlier messages of its id have been answered."""
        check_id(request.id)  # an answer would carry it: the call ends
        slot = self._slots.get(request.id)
        if slot is None:
            slot = self._slots[request.id] = _Slot()
        slot.num_messages += 1
        if slot.turns.is_taken:
            await slot.turns.wait()
        slot.turns.is_taken = True
        try:
            try:
                response = await self._answer_in(slot, request)
            except ServiceError as error:
                status = status_of(error, current_request_id.get())
                response = self._failure(request, slot.session, status)
            await write(response)
        finally:
            slot.turns.pass_on()
            slot.num_messages -= 1
            if slot.session is None and not slot.num_messages:
                del self._slots[request.id]

    async def _answer_in(self, slot: _Slot[Session], request: Request) -> Response:
        """Answer a message; on an error a new session stays unopened, and an open one open."""
        if slot.session is None:
            with ExitStack() as lease:
                session = self._begin(request, lease)
                response = await self._push(session, request)
                slot.lease = lease.pop_all()
                slot.session = session
        else:
            self._check_same(slot.session, request)
            response = await self._push(slot.session, request)
        if self._is_last(request):
            slot.session = None
            self._release(slot.lease)
        return response

    def _release(self, lease: ExitStack) -> None:
        """Release what an ended session holds.

        A call that is being cancelled may be so because the version was withdrawn: `close` then finds out.
        """
        if self._call.cancelling():
            self._leases.push(lease)
        else:
            lease.close()

    def _begin(self, request: Request, lease: ExitStack) -> Session:
        if len(self._slots) > self._max_open:
            raise InvalidArgument(
                "id", f"expected at most {self._max_open} {self._noun} kept open by a stream, found one more"
            )
        session, served = self._open(request, lease)
        count = SESSION_BYTES + 4 * sum(state.size for state in served.spec.network.states)
        self._holding.take(count)
        lease.callback(self._holding.give_back, count)
        return session


def binding_for(served: Served) -> StateBinding:
    """Return the binding of the states that a version seals."""
    return binding_of(served.spec, served.spec_text, served.variant)


def check_repeated(field: str, first: object, found: object, noun: str) -> None:
    """Raise InvalidArgument where a later message sets a field to another value than the first one did.

    Args:
        field: name of the field.
        first: its value in the first message.
        found: its value in the later message; what is false is not set.
        noun: what the messages belong to, for the error text.
    """
    if found and found != first:
        raise InvalidArgument(
            field, f"expected {first} as in the {noun}'s first message, or nothing, found {shown(found)}"
        )


def check_no_state(state: bytes, noun: str) -> None:
    """Raise InvalidArgument for a later message that has a state."""
    if state:
        raise InvalidArgument(
            "state", f"expected a state in the {noun}'s first message alone, found one in a later message"
        )
