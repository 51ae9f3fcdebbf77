"""Decides who runs next: pure functions of plain facts, which change nothing.

A row waits, then holds a slot until it is over, or until it is preempted for a client with fewer rows. Rows
with prefill steps left run in chunk ticks, generating ones in step ticks; the two alternate when there are
both, so that prompts never starve streams nor streams prompts.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import InitVar, dataclass, field
from enum import Enum
from itertools import chain, islice
from typing import NamedTuple

from service.engine.queue import FairQueue
from service.engine.request import Row

# A row keeps its slot for so many turns before it may be preempted.
MIN_TURNS = 8
# Preemptions a turn: each costs a copy of the row's state.
MAX_PREEMPTIONS = 4
# Clients that are looked at for a preemption, those whose turn comes first.
_MAX_CLIENTS = 64


class Tick(Enum):
    """The two kinds of ticks: a few steps of rows with prefill steps left, or one step of generating rows."""

    CHUNK = "chunk"
    STEP = "step"


@dataclass(frozen=True, slots=True)
class Occupancy:
    """The rows that hold slots.

    Attributes:
        slots: rows that may be active at a time.
        prefill_slots: rows that may have prefill steps left at a time.
        prefilling: active rows with prefill steps left.
        decoding: active rows that generate.
        held: active rows by client.
        held_in_prefill: those with prefill steps left.
        turn: number of the engine's turn.
    """

    slots: int
    prefill_slots: int
    prefilling: Collection[Row]
    decoding: Collection[Row]
    held: Mapping[str, int]
    held_in_prefill: Mapping[str, int]
    turn: int


class Preemption(NamedTuple):
    """A row that gives its slot up, and the waiting row that gets it."""

    victim: Row
    successor: Row


class Plan(NamedTuple):
    """The changes before the next tick: rows to admit, in order, then rows to preempt for others."""

    admit: list[Row]
    preempt: list[Preemption]


def plan(queue: FairQueue, now: Occupancy) -> Plan:
    """Decide who gets a slot: clients take turns, and each client's first come is first served.

    A row with prefill steps left waits while all prefill slots are taken, and its client's line waits with
    it. Where clients have parts that differ by more than one row, a few rows of the largest are preempted.
    """
    num_active, num_prefilling = len(now.prefilling) + len(now.decoding), len(now.prefilling)
    admit: list[Row] = []
    if num_active < now.slots:
        for row in queue.in_turn():
            if num_active == now.slots or (needs_prefill(row) and num_prefilling == now.prefill_slots):
                break
            admit.append(row)
            num_active += 1
            num_prefilling += needs_prefill(row)
    if len(admit) == len(queue):
        return Plan(admit, [])
    return _even_out(queue, now, _Outlook(now, admit), admit)


def needs_prefill(row: Row) -> bool:
    """Return whether a waiting row would take a prefill slot."""
    return row.prefill_steps_left > 0


def next_tick(num_prefilling: int, num_decoding: int, last: Tick) -> Tick | None:
    """Return the kind that runs next: the other one than last time where there are both, None for no rows."""
    if num_prefilling and num_decoding:
        return Tick.CHUNK if last is Tick.STEP else Tick.STEP
    if num_prefilling or num_decoding:
        return Tick.CHUNK if num_prefilling else Tick.STEP
    return None


@dataclass(slots=True)
class _Outlook:
    """The occupancy as it will be when the plan so far is carried out."""

    now: Occupancy
    admitted: InitVar[list[Row]]
    active: int = field(init=False)
    prefilling: int = field(init=False)
    held: Counter[str] = field(init=False)
    held_in_prefill: Counter[str] = field(init=False)

    def __post_init__(self, admitted: list[Row]) -> None:
        now = self.now
        self.active = len(now.prefilling) + len(now.decoding)
        self.prefilling = len(now.prefilling)
        self.held = Counter(now.held)
        self.held_in_prefill = Counter(now.held_in_prefill)
        for row in admitted:
            self.admit(row)

    @property
    def has_slot(self) -> bool:
        return self.active < self.now.slots

    def can_admit(self, row: Row) -> bool:
        return self.has_slot and (self.has_prefill_slot or not needs_prefill(row))

    @property
    def has_prefill_slot(self) -> bool:
        return self.prefilling < self.now.prefill_slots

    def admit(self, row: Row) -> None:
        self.active += 1
        self.held[row.client] += 1
        if needs_prefill(row):
            self.prefilling += 1
            self.held_in_prefill[row.client] += 1

    def release(self, row: Row, is_prefilling: bool) -> None:
        self.active -= 1
        self.held[row.client] -= 1
        if is_prefilling:
            self.prefilling -= 1
            self.held_in_prefill[row.client] -= 1


def _even_out(queue: FairQueue, now: Occupancy, after: _Outlook, admit: list[Row]) -> Plan:
    """Admit rows that the order of turns held up, and preempt a few rows of the client with most."""
    if not after.has_slot and max(after.held.values()) <= 1:
        return Plan(admit, [])
    preempt: list[Preemption] = []
    taken = set(admit)
    for _ in range(MAX_PREEMPTIONS):
        if (successor := _claimant(queue, after, taken)) is None:
            break
        if after.can_admit(successor):
            admit.append(successor)
        else:
            in_prefill = needs_prefill(successor) and not after.has_prefill_slot
            holders = after.held_in_prefill if in_prefill else after.held
            victim = _longest_held(now, max(holders, key=holders.__getitem__), in_prefill, taken)
            if victim is None:  # not yet: others may be admitted all the same
                taken.add(successor)
                continue
            preempt.append(Preemption(victim, successor))
            taken.add(victim)
            after.release(victim, victim in now.prefilling)
        taken.add(successor)
        after.admit(successor)
    return Plan(admit, preempt)


def _claimant(queue: FairQueue, after: _Outlook, taken: Collection[Row]) -> Row | None:
    """Return the first row in turn whose client has so few rows that another client should give way."""
    max_held = max(after.held.values(), default=0)
    max_prefilling = max(after.held_in_prefill.values(), default=0)
    for client in islice(queue.clients, _MAX_CLIENTS):
        row = queue.first_of(client)
        if row in taken:
            continue
        if needs_prefill(row) and not after.has_prefill_slot:
            if _may_claim(after.held_in_prefill[client], max_prefilling):
                return row
        elif after.has_slot or _may_claim(after.held[client], max_held):
            return row
    return None


def _may_claim(held: int, max_held: int) -> bool:
    """Return whether both clients would be nearer to equal parts afterwards."""
    return held < max_held - 1


def _longest_held(now: Occupancy, client: str, in_prefill: bool, taken: Collection[Row]) -> Row | None:
    """Return the row that a client has held longest, None where it got each of them a moment ago."""
    rows = now.prefilling if in_prefill else chain(now.prefilling, now.decoding)
    held = [
        row
        for row in rows
        if row.client == client and row not in taken and now.turn - row.admitted_in >= MIN_TURNS
    ]
    return min(held, key=lambda row: row.admitted_in) if held else None
