"""The callers' side of a model's engines: whether a request is refused at once, and which engine gets it.

Several engines of one model share one graph, each with rows of its own and a thread of its own: the way to
use more cores where a tick's work is too small to be cut up. What is decided here is decided from numbers
that callers own or may read; engines are reached by their inboxes alone.
"""

import threading
from collections.abc import Sequence

from service.engine.core import EngineCore
from service.engine.estimator import Load, ensure_in_time, steps_until_answer
from service.engine.inbox import MAX_ROWS, Cancel, Evict, Resume, Submit
from service.engine.prompt_cache import prompt_of
from service.engine.request import Account, Row
from service.engine.ticks import Ring, TickRecord, TickRecorder
from service.errors import Overloaded

# How much busier than the idlest an engine may be and still get a prompt whose state it may have cached.
_SLACK = 8
# Accounts of clients without waiting rows are forgotten when there are so many in all, and twice as many as
# useful.
_MIN_ACCOUNTS = 256


class EngineGroup:
    """Engines behind one bound on waiting rows.

    Args:
        engines: at least one, of the same model, numbered in this order.
        max_waiting: rows that may wait for their first slot, in all of them.
    """

    def __init__(self, engines: Sequence[EngineCore], max_waiting: int) -> None:
        assert [engine.facts.number for engine in engines] == list(range(len(engines)))
        self.name = engines[0].name
        self.engines = tuple(engines)
        self._max_waiting = max_waiting
        self._lock = threading.Lock()  # between callers; no engine takes it
        self._accounts: dict[str, Account] = {}
        self._max_accounts = _MIN_ACCOUNTS
        self._most = 0  # no client has more rows waiting
        self._submitted = [0] * len(self.engines)  # by engine, less those that were to be evicted

    def __len__(self) -> int:
        return len(self.engines)

    @property
    def slots(self) -> int:
        """Rows active side by side at most, in all engines."""
        return sum(engine.limits.slots for engine in self.engines)

    @property
    def active(self) -> int:
        """Rows that hold a slot."""
        return sum(engine.facts.num_active for engine in self.engines)

    @property
    def num_waiting(self) -> int:
        """Rows that wait for their first slot."""
        return sum(map(self._waiting_in, self.engines))

    def _waiting_in(self, engine: EngineCore) -> int:
        """Return the rows that wait for their first slot in one engine, those in its inbox included."""
        return self._submitted[engine.facts.number] - engine.facts.num_left

    @property
    def has_failed(self) -> bool:
        """True if one of the engines has stopped on an error of its own."""
        return any(engine.facts.has_failed for engine in self.engines)

    def start_recording(self) -> tuple[Ring[TickRecord], ...]:
        """Have each engine record its ticks from its next one on; return the rings in the engines' order."""
        recorders = [TickRecorder() for _ in self.engines]
        for engine, recorder in zip(self.engines, recorders, strict=True):
            engine.recorder = recorder
        return tuple(recorder.ring for recorder in recorders)

    def stop_recording(self) -> None:
        """Have the engines record no more; the rings keep what they hold."""
        for engine in self.engines:
            engine.recorder = None

    def submit(self, rows: list[Row]) -> None:
        """Put rows of one client into the queue, all or none.

        Raises:
            Overloaded: they do not fit, and no client with more waiting rows can make room.
            DeadlineTooNear: at the measured throughput the answer would come after the deadline. One that has
                passed already ends at the next turn.
            ModelFailure: an engine that they would be given to has stopped on an error of its own.
        """
        with self._lock:
            account = self._account_of(rows[0].client)
            parts = self._deal(rows)
            for number, part in parts.items():
                self._check(self.engines[number], part, account)
            if (excess := self.num_waiting + len(rows) - self._max_waiting) > 0:
                self._make_room(account, len(rows), excess)
            self._most += len(rows)
            for number, part in parts.items():
                self._submitted[number] += len(part)
                account.submitted[number] += len(part)
                account.submitted_steps[number] += sum(row.prefill_steps for row in part)
                for row in part:
                    row.account, row.engine = account, number
                for start in range(0, len(part), MAX_ROWS):
                    self.engines[number].inbox.put(Submit(part[start : start + MAX_ROWS]))

    def cancel(self, rows: list[Row]) -> None:
        """Free the rows at the next turn; those that are over are ignored."""
        for number, engine in enumerate(self.engines):
            leaving = [row for row in rows if row.engine == number and not row.is_over]
            for start in range(0, len(leaving), MAX_ROWS):
                engine.inbox.put(Cancel(leaving[start : start + MAX_ROWS]))

    def resume(self, row: Row) -> None:
        """Let a row go on that was suspended because its reader was slow."""
        self.engines[row.engine].inbox.put(Resume(row))

    def _account_of(self, client: str) -> Account:
        account = self._accounts.get(client)
        if account is None:
            if len(self._accounts) >= self._max_accounts:
                self._accounts = {name: one for name, one in self._accounts.items() if one.waiting}
                self._max_accounts = max(_MIN_ACCOUNTS, 2 * len(self._accounts))
            account = self._accounts[client] = Account.of_engines(len(self.engines))
        return account

    def _deal(self, rows: list[Row]) -> dict[int, list[Row]]:
        """Give each row to the engine with the fewest, a prompt to the one that may have its state cached."""
        if len(self.engines) == 1:
            return {0: rows}
        load = [self._waiting_in(engine) + engine.facts.num_active for engine in self.engines]
        parts: dict[int, list[Row]] = {}
        for row in rows:
            number = load.index(min(load))
            prompt = prompt_of(row.request)
            if prompt is not None:
                preferred = hash(prompt.tobytes()) % len(load)
                if load[preferred] <= load[number] + _SLACK:
                    number = preferred
            load[number] += 1
            parts.setdefault(number, []).append(row)
        return parts

    def _check(self, engine: EngineCore, rows: list[Row], account: Account) -> None:
        """Refuse rows of a failed engine, and those that it cannot answer in time."""
        facts = engine.facts
        if facts.has_failed:
            raise engine.failure()
        deadline = rows[0].deadline
        if deadline is None or (left_s := deadline - engine.clock()) <= 0:
            return
        load = self._load_of(engine, rows[0].client, account)
        is_idle = not (facts.num_active or self.num_waiting)
        needed_s = engine.estimator.seconds_for(steps_until_answer(rows, load), is_idle)
        ensure_in_time(self.name, left_s, needed_s)

    def _load_of(self, engine: EngineCore, client: str, account: Account) -> Load:
        """Return the rows with prefill steps left that a client's next rows meet in an engine."""
        facts, number = engine.facts, engine.facts.number
        held, held_steps = facts.prefilling.of(client)
        own = max(0, account.waiting_in(number)) + held
        # Rows that hold a slot have half of their steps left on average.
        is_alone = held == facts.num_prefilling
        active_steps = facts.prefill_steps if is_alone else min(held_steps // 2, facts.prefill_steps)
        own_steps = max(0, account.submitted_steps[number] - account.left_steps[number]) + active_steps
        others = max(0, facts.num_waiting + facts.num_prefilling - own)
        return Load(
            own,
            own_steps,
            others,
            max(0, facts.waiting_steps + facts.prefill_steps - own_steps),
            min(others, max(0, facts.num_clients - (own > 0))),
            engine.limits.chunk_rows or engine.limits.slots,
            engine.estimator.usual_rows,
        )

    def _make_room(self, account: Account, count: int, excess: int) -> None:
        """Evict the newest waiting rows of the client with most, if the arriving client still has fewer.

        Raises:
            Overloaded: there is no room, and nothing was evicted.
        """
        wanted = account.waiting + count
        if wanted < self._most:  # else all are looked through for each of a thousand refusals
            longest, most = max(self._accounts.items(), key=lambda item: item[1].waiting)
            self._most = most.waiting
        retry_after_s = max(
            engine.estimator.retry_after_s(engine.facts.num_waiting) for engine in self.engines
        )
        if wanted >= self._most or self._most < excess:
            raise Overloaded(
                f"model {self.name}: expected at most {self._max_waiting} waiting sequences, "
                f"found {self.num_waiting} and {count} more",
                retry_after_s,
            )
        evicted = [0] * len(self.engines)
        for _ in range(excess):
            number = max(range(len(self.engines)), key=most.waiting_in)
            most.submitted[number] -= 1
            self._submitted[number] -= 1
            evicted[number] += 1
        for engine, number in zip(self.engines, evicted, strict=True):
            for done in range(0, number, MAX_ROWS):
                engine.inbox.put(Evict(longest, most, min(MAX_ROWS, number - done), retry_after_s))
