"""Several engines of one model, each with a thread and rows of its own on one graph: the way to use more cores where a tick's work is too small to
be cut up.

A sequence stays with the engine that it is given to: the one with the fewest, but prompts that may be kept go where an equal prompt went, as long as
that engine is not much busier.
"""

import threading
from collections.abc import Iterable
from collections.abc import Sequence as Engines

from service.engine.engine import Engine
from service.engine.prompts import key_of_prompt
from service.engine.sequence import Sequence
from service.errors import ModelFailure, Overloaded

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
        """Put sequences into the queue, all or none.

        Raises:
            Overloaded: they do not fit.
            ModelFailure: an engine that they are given to has stopped on an error of its own.
        """
        if len(self.engines) == 1:
            self.engines[0].submit(sequences)
            return
        with self._lock:
            waiting = sum(engine.num_waiting for engine in self.engines)
            if waiting + len(sequences) > self._max_waiting:
                message = f"model {self.name}: expected at most {self._max_waiting} waiting sequences, found {waiting} and {len(sequences)} more"
                raise Overloaded(message, max(engine.retry_after_s() for engine in self.engines))
            given = self._deal(sequences)
            for home, part in enumerate(given):
                if not part:
                    continue  # nothing to wake it for
                try:
                    self.engines[home].submit(part)
                except ModelFailure:
                    self.cancel(sequence for earlier in given[:home] for sequence in earlier)
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
