"""The parts of the page Engine that need no browser: numbers, what the picture is sent, the load."""

import asyncio
from typing import Any

import pytest

from seqserve import ModelInfo, ModelStatus, Overloaded
from seqserve.engine_results import EngineCounters, EngineTick, EngineTicks, RowKind, TickKind, TickRow
from seqserve.playground import engine_load
from seqserve.playground.engine_load import (
    MAX_LENGTH,
    MIN_LENGTH,
    NUM_SEQUENCES,
    NUM_STREAMS,
    lengths,
    rows_of,
    send_load,
    text_of,
)
from seqserve.playground.engine_numbers import EngineWindow
from seqserve.playground.engine_picture import looks, payload
from seqserve.playground.pages.engine import texts_of


def item(
    now_s: float,
    *,
    ticks: tuple[EngineTick, ...] = (),
    dropped: int = 0,
    num_ticks: int = 0,
    **counts: float,
) -> EngineTicks:
    """Return an item of a watch with some counts."""
    names = EngineCounters.__dataclass_fields__
    values: dict[str, Any] = {name: counts.get(name, 0) for name in names} | {"ticks": num_ticks}
    return EngineTicks("letters", 1, now_s, (4,), ticks, dropped, 3, 2, EngineCounters(**values))


# Numbers.


def test_rates_are_of_the_last_second() -> None:
    window = EngineWindow()
    window.add(item(0.0))
    window.add(item(1.0, useful_steps=1000, rows=50))
    found = window.add(item(2.0, useful_steps=1030, padded_steps=10, rows=62, tokens_generated=7))
    assert (found.steps_per_s, found.tokens_per_s, found.useful) == (30.0, 7.0, 0.75)
    assert (found.active, found.waiting) == (3, 2)


def test_nothing_in_the_window_is_shown_as_nothing() -> None:
    found = EngineWindow().add(item(0.0))
    assert (found.rows, found.useful, found.first_token_s) == (None, None, None)
    shown = texts_of(found)
    assert [shown[name] for name in ("rows", "useful", "first_token", "waiting")] == ["-", "-", "-", "2"]


def test_time_to_first_token_is_the_mean_of_ten_seconds() -> None:
    window = EngineWindow()
    window.add(item(0.0))
    window.add(item(1.0, first_tokens=1, time_to_first_token_s=5.0))
    for second in range(2, 12):
        found = window.add(item(float(second), first_tokens=3, time_to_first_token_s=5.5))
    assert found.first_token_s == pytest.approx(0.25)
    assert "250.0 ms" in texts_of(found).values()


def test_version_that_counts_from_zero_starts_the_window_anew() -> None:
    window = EngineWindow()
    window.add(item(0.0, useful_steps=100, num_ticks=10))
    found = window.add(item(0.5, useful_steps=4, num_ticks=1))
    assert found.steps_per_s == 0


def test_dropped_ticks_are_summed_up() -> None:
    window = EngineWindow()
    window.add(item(0.0, dropped=2))
    assert window.add(item(0.1, dropped=3)).dropped == 5


# The picture.


def test_payload_has_each_row_with_the_number_of_its_kind() -> None:
    rows = (TickRow(0, 5, RowKind.PREFILL, 4), TickRow(2, 6, RowKind.LAST, 3))
    tick = EngineTick(1, TickKind.CHUNK, 0.5, 0.25, 4, 7, rows)
    found = payload(item(1.0, ticks=(tick,)))
    names = [look["name"] for look in looks()]
    assert found == {
        "now": 1.0,
        "ticks": [
            [
                1,
                "chunk",
                0.5,
                0.25,
                4,
                7,
                [0, 5, names.index("prefill"), 4, 2, 6, names.index("many to one"), 3],
            ]
        ],
    }


def test_every_kind_has_a_look_of_its_own() -> None:
    found = looks()
    assert {look["name"] for look in found} == {kind.value for kind in RowKind}
    assert len({look["letter"] for look in found}) == len({look["color"] for look in found}) == len(found)


# The load.


def test_lengths_are_mixed_and_the_same_each_time() -> None:
    found = lengths()
    assert found == lengths()
    assert len(found) == len(set(found)) == NUM_SEQUENCES
    assert (min(found), max(found)) == (MIN_LENGTH, MAX_LENGTH)


@pytest.mark.parametrize("length", [1, 8, 400])
def test_text_has_its_length_and_the_letters_of_the_model(length: int) -> None:
    assert len(text_of(length)) == length
    found = text_of(length, "\n abcdefgh")
    assert len(found) == length
    assert set(found) <= set(" abcdefgh")


def test_rows_are_positive_values() -> None:
    found = rows_of(9, 5)
    assert [len(row) for row in found] == [5] * 9
    assert all(value > 0 for row in found for value in row)


class Calls:
    """A client whose calls are counted; some fail.

    Attributes:
        pending: calls that wait and have not ended.
        texts: lengths of the texts that were classified.
    """

    def __init__(self, *, fails: bool = False) -> None:
        self.pending = 0
        self.pushes = 0
        self.has_pushed = asyncio.Event()
        self.texts: list[int] = []
        self._fails = fails

    async def classify(self, texts: list[str], *, model: str, version: int) -> None:
        assert (model, version) == ("moods", 1)
        self.texts.append(len(texts[0]))
        if self._fails:
            raise Overloaded("the queue is full")

    def infer_stream(self, *, model: str, version: int) -> "Calls":
        assert (model, version) == ("moods", 1)
        return self

    async def __aenter__(self) -> "Calls":
        self.pending += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self.pending -= 1

    async def push(self, text: str) -> None:
        assert len(text) == MIN_LENGTH
        self.pushes += 1
        self.has_pushed.set()


def moods() -> ModelInfo:
    return ModelInfo(
        "moods",
        1,
        ModelStatus.READY,
        "",
        "text-classification",
        "lstm",
        1,
        8,
        "fp32",
        "cpu",
        batch_invariant=True,
        golden_max_error=0.0,
        metrics={},
        spec={},
        kind="chunk",
        input="text",
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_load, "ARRIVE_S", 0.01)
    monkeypatch.setattr(engine_load, "PUSH_S", 0.001)


@pytest.mark.usefixtures("quick")
async def test_load_is_twenty_sequences_and_three_streams() -> None:
    calls: Any = Calls()
    await send_load(calls, moods())
    assert sorted(calls.texts) == sorted(lengths())
    assert (calls.pushes, calls.pending) == (12 * NUM_STREAMS, 0)


@pytest.mark.usefixtures("quick")
async def test_call_of_a_load_that_fails_ends_the_others() -> None:
    calls: Any = Calls(fails=True)
    with pytest.raises(Overloaded):
        await send_load(calls, moods())
    assert len(calls.texts) < NUM_SEQUENCES
    assert calls.pending == 0


async def test_cancelled_load_ends_its_calls() -> None:
    calls: Any = Calls()
    load = asyncio.create_task(send_load(calls, moods()))
    await calls.has_pushed.wait()
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    assert calls.pending == 0
