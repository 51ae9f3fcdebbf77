"""Several engines of one model, each with a thread and rows of its own on one graph: the way to use more
cores where a tick's work is too small to be cut up.

A sequence stays with the engine that it is given to: the one with the fewest, but prompts that may be kept go
    where an equal prompt went, as long as
that engine is not much busier.
"""

import threading
from collections.abc import Iterable
from collections.abc import Sequence as Engines

from service.engine.engine import Engine
from service.engine.prompts import key_of_prompt
from service.engine.room import ensure_room
from service.engine.sequence import Sequence
from service.errors import ModelFailure

# How much busier than the idlest an engine may be and still get a prompt that it may know.
_SLACK = 8


class EngineGroup:
    """Engines behind one queue bound.

    Args:
        engines: at least one, none started; of the same model.
        max_waiting: sequences that may wait for a slot, in all of them.
    """

    def __init__(self, engines: Engines[Engine], max_waiting: int) -> None:
        self.name = engines[0].name
        self.engines = tuple(engines)
        self._max_waiting = max_waiting
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.engines)

    @property
    def slots(self) -> int:
        """Most sequences active side by side, in all of them."""
        return sum(engine.limits.slots for engine in self.engines)

    @property
    def active(self) -> int:
        """Sequences that hold a slot."""
        return sum(engine.active for engine in self.engines)

    @property
    def has_failed(self) -> bool:
        """Whether one of them has stopped on an error of its own."""
        return any(engine.has_failed for engine in self.engines)

    def submit(self, sequences: list[Sequence]) -> None:
        """Put sequences of one client into the queue, all or none.

        Raises:
            Overloaded: they do not fit, and nobody with more waiting can make room; or their deadline is too
                near.
            ModelFailure: an engine that they are given to has stopped on an error of its own.
        """
        if len(self.engines) == 1:
            self.engines[0].submit(sequences)
            return
        with self._lock:
            given = [
                (engine, part)
                for engine, part in zip(self.engines, self._deal(sequences), strict=True)
                if part
            ]
            for engine, part in given:
                engine.check(part)
            ensure_room(
                self.name,
                [engine.room for engine in self.engines],
                self._max_waiting,
                sequences,
                self._retry_after_s,
            )
            for number, (engine, part) in enumerate(given):
                try:
                    engine.put(part)
                except ModelFailure:
                    self.cancel(sequence for _, earlier in given[:number] for sequence in earlier)
                    raise

    def cancel(self, sequences: Iterable[Sequence]) -> None:
        """Their callers have left: rows are free at the next tick. Those already over are passed by."""
        leaving: list[list[Sequence]] = [[] for _ in self.engines]
        for sequence in sequences:
            leaving[sequence.home].append(sequence)
        for engine, part in zip(self.engines, leaving, strict=True):
            engine.cancel(part)

    def wake(self) -> None:
        """Look again: a slow reader has caught up."""
        for engine in self.engines:
            engine.wake()

    def start(self) -> None:
        """Run each in a thread until `stop`."""
        for engine in self.engines:
            engine.start()

    def stop(self) -> None:
        """End the threads after their current ticks."""
        for engine in self.engines:
            engine.stop()

    def _retry_after_s(self) -> float:
        return max(engine.retry_after_s() for engine in self.engines)

    def _deal(self, sequences: list[Sequence]) -> list[list[Sequence]]:
        """Sequences by engine."""
        load = [engine.num_waiting + engine.active for engine in self.engines]
        given: list[list[Sequence]] = [[] for _ in self.engines]
        for sequence in sequences:
            home = load.index(min(load))
            key = key_of_prompt(sequence)
            if key is not None and load[preferred := hash(key) % len(load)] <= load[home] + _SLACK:
                home = preferred
            sequence.home = home
            load[home] += 1
            given[home].append(sequence)
        return given
