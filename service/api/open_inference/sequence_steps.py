"""Requests of sequences, in their turn: each is answered from the state that the one before it has left.

The state belongs to the caller, the model and the id of the sequence. No version is leased between requests:
one that was unloaded or replaced meanwhile ends its sequences at their next requests.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from prometheus_client import Counter

from service.api.bidi import Turns
from service.api.open_inference.interfaces.interface import Interface, Outcome, StatefulInterface
from service.api.open_inference.parameters import Parameters
from service.api.open_inference.sequence_parameters import SEQUENCE_ID, SequenceMark
from service.api.open_inference.sequence_store import OpenSequence, SequenceKey, SequenceStore
from service.api.open_inference.tensors import Tensor
from service.engine.request import Caller
from service.errors import InvalidArgument, SequenceUnknown, shown
from service.models.loading import Served
from service.models.table import VersionTable
from service.security.state_tokens import binding_of
from service.tasks.pacing import Pace

# Interval at which idle sequences are looked for; a request of one that is due finds it forgotten at once.
FORGET_INTERVAL_S = 1.0


@dataclass(slots=True, eq=False)
class _Line:
    """Requests of one sequence that are being answered or wait for their turn."""

    turns: Turns = field(default_factory=Turns)
    num_requests: int = 0


class SequenceSteps:
    """Gives each request of a sequence its turn, and the state before it.

    Args:
        store: open sequences.
        table: versions by name and number.
        forgotten: counts the sequences that are forgotten because they were idle.
        clock: returns the time, monotonic seconds.
    """

    def __init__(
        self,
        store: SequenceStore,
        table: VersionTable,
        forgotten: Counter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._table = table
        self._forgotten = forgotten
        self._clock = clock
        self._num_counted = 0
        self._lines: dict[SequenceKey, _Line] = {}

    async def watch(self) -> None:
        """Forget idle sequences, for ever."""
        while True:
            await asyncio.sleep(FORGET_INTERVAL_S)
            pace = Pace()
            while self._forget_idle():
                await pace.rest()

    @asynccontextmanager
    async def turn(self, key: SequenceKey, mark: SequenceMark) -> AsyncIterator["Step"]:
        """Wait until the earlier requests of a sequence have been answered, and yield the step to take.

        A start ends the open sequence of its key, whatever becomes of the start itself.

        Raises:
            SequenceUnknown: the version that the sequence was begun on serves no more.
        """
        line = self._lines.setdefault(key, _Line())
        line.num_requests += 1
        try:
            if line.turns.is_taken:
                await line.turns.wait()
            line.turns.is_taken = True
            try:
                with self._step(key, mark) as step:
                    yield step
            finally:
                line.turns.pass_on()
        finally:
            line.num_requests -= 1
            if not line.num_requests:
                del self._lines[key]

    @contextmanager
    def _step(self, key: SequenceKey, mark: SequenceMark) -> Iterator["Step"]:
        if mark.is_start:
            self._forget_idle()  # which makes room
            self._store.end(key)
        step = Step(self._store, self._clock, key, mark)
        try:
            if (sequence := step.sequence) is not None:
                self._check_serves(step, sequence.version)
            yield step
        finally:
            step.close()
            self._count_forgotten()

    def _check_serves(self, step: "Step", version: int) -> None:
        entry = self._table.entry(step.key.model, version)
        if entry is None or entry.served is None:
            raise step.lost(f"version {version} of the model, which answered it so far, serves no more")

    def _forget_idle(self) -> bool:
        may_be_more = self._store.forget_idle(self._clock())
        self._count_forgotten()
        return may_be_more

    def _count_forgotten(self) -> None:
        if (num_forgotten := self._store.num_forgotten) > self._num_counted:
            self._forgotten.inc(num_forgotten - self._num_counted)
            self._num_counted = num_forgotten


class Step:
    """One request of a sequence whose turn it is.

    A step that ends without an answer leaves its sequence as it was; a start leaves none.

    Args:
        store: open sequences.
        clock: returns the time, monotonic seconds.
        key: names that the sequence is found by.
        mark: place of the request in the sequence.

    Attributes:
        key: names that the sequence is found by.
        sequence: the open sequence, taken; None: it is not open, or not yet.
    """

    def __init__(
        self, store: SequenceStore, clock: Callable[[], float], key: SequenceKey, mark: SequenceMark
    ) -> None:
        self.key = key
        self.sequence = store.take(key, clock())
        self._store = store
        self._clock = clock
        self._mark = mark
        self._ends = mark.is_start

    @property
    def version(self) -> int:
        """Version that answers: that of the open sequence, or what the request names."""
        return self.key.version if self.sequence is None else self.sequence.version

    def begin(self, served: Served, interface: Interface) -> None:
        """Open the sequence at a start, or check that the version is still the one that it was begun on.

        Args:
            served: version that answers, leased.
            interface: its interface.

        Raises:
            InvalidArgument: the model keeps no state between requests.
            SequenceUnknown: the request is no start, and the sequence is not open.
            SequencesExhausted, BytesExhausted: there is no room for a further sequence.
        """
        if not isinstance(interface, StatefulInterface):
            raise InvalidArgument(
                SEQUENCE_ID,
                f"expected none or 0, since no state of model {served.spec.name} is kept between requests, "
                f"found {shown(self.key.id)}",
            )
        binding = binding_of(served.spec, served.spec_text, served.variant).header
        if self._mark.is_start:
            if not self._mark.is_end:
                opened = OpenSequence(served.spec.version, binding, interface.state_bytes)
                self._store.begin(self.key, opened, self._clock())
                self.sequence = opened
        elif self.sequence is None:
            raise self.lost("it was not begun with sequence_start, has ended, or was idle for too long")
        elif self.sequence.binding != binding:
            raise self.lost(
                f"version {served.spec.version} of the model was replaced by another of its number"
            )

    async def advance(
        self,
        interface: StatefulInterface,
        tensors: Mapping[str, Tensor],
        parameters: Parameters,
        caller: Caller,
    ) -> Outcome:
        """Answer the request from the state before it, and keep the state after it.

        Raises:
            InvalidArgument: there is more than one row, or the task refuses the values.
            Overloaded, DeadlineExceeded, ModelFailure: the engine cannot answer.
        """
        for name, tensor in tensors.items():
            if len(tensor) != 1:
                raise InvalidArgument(
                    name, f"expected one row for a request of a sequence, found {len(tensor)}"
                )
        before = None if self.sequence is None else self.sequence.state
        outcome, after = await interface.advance(before, tensors, parameters, caller)
        if self.sequence is not None:
            self.sequence.state = after
        self._ends = self._mark.is_end
        return outcome

    def lost(self, reason: str) -> SequenceUnknown:
        """Return the error for a sequence that cannot go on, after forgetting it."""
        self._ends = True
        return SequenceUnknown(
            f"sequence {shown(self.key.id)}: expected an open sequence of model {shown(self.key.model)}, "
            f"found none: {reason}; begin anew with sequence_start"
        )

    def close(self) -> None:
        """Leave the sequence idle, or forget it where it is over."""
        if self.sequence is None:
            return
        if self._ends:
            self._store.end(self.key)
        else:
            self._store.put_back(self.key, self._clock())
