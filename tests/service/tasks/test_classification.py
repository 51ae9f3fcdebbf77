"""service.tasks.classification."""

import asyncio
import math
import threading
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import Whitespace

from service.contract import spec
from service.engine.request import ANYONE, Caller
from service.engine.streaming import Submitter
from service.errors import InvalidArgument
from service.tasks.classification import ClassificationTask, Classified
from service.tasks.inline_time import BURST_S, SHARE, InlineTime
from service.tasks.text_work import TextWork
from service.tasks.windows import WindowFit
from service.tasks.workers import Workers
from tests.service.builders import LIMITS
from tests.service.engine.fakes import VOCABULARY, Bench, expected, last_of, running_engine

WORDS = ["[UNK]", "good", "bad", "film", "a", "the", "not"]
LABELS = [f"label{index}" for index in range(VOCABULARY)]


def words() -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer


def task_of(
    engine: Submitter,
    tokenizer: Tokenizer | None = None,
    inline_time: InlineTime | None = None,
    window: spec.Window | None = None,
) -> ClassificationTask:
    section = spec.Classification(
        text=spec.TokenizerFile(kind="tokenizer", file="tokenizer.json"), labels=LABELS
    )
    text_work = TextWork(Workers(1), inline_time or InlineTime())
    fit = WindowFit(window)
    return ClassificationTask(section, tokenizer or words(), engine, LIMITS, text_work, fit)


async def classify(texts: list[str]) -> list[Classified]:
    async with running_engine() as engine:
        return await task_of(engine).classify(texts, ANYONE)


def probabilities_of(tokens: list[int]) -> list[float]:
    """Return the softmax of the fake network's last logits, by PyTorch."""
    probabilities: list[float] = torch.softmax(
        torch.from_numpy(expected(last_of(tokens))[0]).double(), 0
    ).tolist()
    return probabilities


async def test_probabilities_are_the_softmax_of_the_last_logits() -> None:
    [found] = await classify(["not a good film"])
    right = dict(zip(LABELS, probabilities_of([6, 4, 1, 3]), strict=True))
    assert dict(found.ranked) == pytest.approx(right, rel=1e-12)


async def test_window_is_what_the_network_gets() -> None:
    window = spec.Window(to=4, side="left", value=2.0, longer="refuse")
    async with running_engine() as engine:
        task = task_of(engine, window=window)
        [padded, full] = await task.classify(["good film", "not a good film"], ANYONE)
        with pytest.raises(InvalidArgument, match=r"texts\[1\]: expected at most 4 time steps"):
            await task.classify(["good", "not a good good film"], ANYONE)
    assert padded.token_count == 2
    for found, tokens in ((padded, [2, 2, 1, 3]), (full, [6, 4, 1, 3])):
        right = dict(zip(LABELS, probabilities_of(tokens), strict=True))
        assert dict(found.ranked) == pytest.approx(right, rel=1e-12)


async def test_probabilities_sum_to_one() -> None:
    for found in await classify(["good", "bad film", "the the the"]):
        assert math.fsum(probability for _, probability in found.ranked) == pytest.approx(1.0, rel=1e-12)


async def test_labels_come_most_probable_first() -> None:
    for found in await classify(["good", "bad film", "the the the"]):
        assert [one for _, one in found.ranked] == sorted((one for _, one in found.ranked), reverse=True)
        assert {label for label, _ in found.ranked} == set(LABELS)


async def test_answers_are_in_the_order_of_the_texts() -> None:
    texts = ["good", "bad film", "the the the", "not"]
    assert await classify(texts) == [(await classify([text]))[0] for text in texts]


async def test_tokens_are_counted() -> None:
    assert [one.token_count for one in await classify(["good", "not a good film"])] == [1, 4]


async def test_unknown_words_become_the_unknown_token() -> None:
    [found] = await classify(["zebra film"])
    assert dict(found.ranked) == pytest.approx(
        dict(zip(LABELS, probabilities_of([0, 3]), strict=True)), rel=1e-12
    )


@pytest.mark.parametrize(
    ("texts", "field"),
    [
        pytest.param([], "texts", id="no text"),
        pytest.param(["good"] * 9, "texts", id="too many texts"),
        pytest.param(["good", ""], "texts[1]", id="empty text"),
        pytest.param([" \n\t "], "texts[0]", id="nothing but space"),
        pytest.param(["a" * 201], "texts[0]", id="too long a text"),
    ],
)
async def test_wrong_text_names_its_index(texts: list[str], field: str) -> None:
    bench = Bench()
    with pytest.raises(InvalidArgument) as refusal:
        await task_of(bench.group).classify(texts, ANYONE)
    assert refusal.value.violations[0].field == field
    assert not bench.tick()


# Token ids in place of text.


async def test_token_ids_are_classified_as_the_text_that_they_are() -> None:
    async with running_engine() as engine:
        task = task_of(engine)
        ids = [np.array([6, 4, 1, 3]), np.array([1])]
        assert await task.classify_tokens(ids, ANYONE) == await task.classify(
            ["not a good film", "good"], ANYONE
        )


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        pytest.param([], "input", id="no text"),
        pytest.param([[1]] * 9, "input", id="too many texts"),
        pytest.param([[1], []], "input[1]", id="no token"),
        pytest.param([[1] * 201], "input[0]", id="too many tokens"),
        pytest.param([[1], [0, 7, 1]], "input[1, 1]", id="unknown id"),
        pytest.param([[-1]], "input[0, 0]", id="negative id"),
    ],
)
async def test_wrong_token_ids_name_their_place(inputs: list[list[int]], field: str) -> None:
    bench = Bench()
    with pytest.raises(InvalidArgument) as refusal:
        await task_of(bench.group).classify_tokens([np.array(one, np.int64) for one in inputs], ANYONE)
    assert refusal.value.violations[0].field == field
    assert not bench.tick()


async def test_long_texts_are_tokenized_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenizing them takes milliseconds, which other calls should not wait for; the answers are the same."""
    texts = ["good film", "bad", "the film", "not"]
    short = await classify(texts)
    monkeypatch.setattr("service.tasks.text_work._SHORT_CHARACTERS", 0)
    monkeypatch.setattr("service.tasks.text_work._MAX_INLINE_CHARACTERS", 10)
    monkeypatch.setattr("service.tasks.text_work._PIECE_CHARACTERS", 10)
    assert await classify(texts) == short


async def test_long_text_without_a_token_names_its_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.tasks.text_work._SHORT_CHARACTERS", 0)
    monkeypatch.setattr("service.tasks.text_work._MAX_INLINE_CHARACTERS", 10)
    monkeypatch.setattr("service.tasks.text_work._PIECE_CHARACTERS", 10)
    with pytest.raises(InvalidArgument) as refusal:
        await classify(["good film", "bad", "the film", " "])
    assert refusal.value.violations[0].field == "texts[3]"


class Clock:
    """A clock that stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


class Recording:
    """A tokenizer that notes the texts that it is given together, and whether in the event loop's thread.

    Args:
        clock: is moved on at each call, by three bursts of inline time.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.batches: list[list[str]] = []
        self.was_inline: list[bool] = []
        self._clock = clock or Clock()
        self._loop_thread = threading.get_ident()

    model = None

    def get_vocab(self) -> dict[str, int]:
        return {}

    def encode_batch_fast(self, texts: list[str], add_special_tokens: bool) -> list[SimpleNamespace]:
        assert add_special_tokens
        self.batches.append(texts)
        self.was_inline.append(threading.get_ident() == self._loop_thread)
        self._clock.now += 3 * BURST_S
        return [SimpleNamespace(ids=[1]) for _ in texts]


async def test_long_texts_of_clients_are_tokenized_in_turn() -> None:
    """Of a request with many, only a few texts are ahead of another client's."""
    tokenizer = Recording()
    many, one = [[f"{name}{index}" + " " * 190 for index in range(8)] for name in "ab"]
    async with running_engine() as engine:
        task = task_of(engine, cast(Tokenizer, tokenizer))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("service.tasks.text_work._MAX_INLINE_CHARACTERS", 400)
            patch.setattr("service.tasks.text_work._PIECE_CHARACTERS", 400)
            await asyncio.gather(
                task.classify(many, Caller(client="a")), task.classify(one[:3], Caller(client="b"))
            )
    assert [[text[:2] for text in batch] for batch in tokenizer.batches] == [
        ["a0", "a1"],
        ["b0", "b1"],
        ["a2", "a3"],
        ["b2"],
        ["a4", "a5"],
        ["a6", "a7"],
    ]


async def test_texts_are_tokenized_beside_the_event_loop_while_no_inline_time_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else many requests, each short, would hold the event loop as long as one that is long."""
    monkeypatch.setattr("service.tasks.text_work._SHORT_CHARACTERS", 128)
    clock = Clock()
    tokenizer, inline_time = Recording(clock), InlineTime(clock)
    async with running_engine() as engine:
        # Two models share the event loop, and so its time.
        tasks = [task_of(engine, cast(Tokenizer, tokenizer), inline_time) for _ in range(2)]
        answers = [await task.classify(["g" * 129], ANYONE) for task in tasks]
        clock.now += 3 * BURST_S / SHARE
        answers.append(await tasks[1].classify(["g" * 129], ANYONE))
    assert tokenizer.was_inline == [True, False, True]
    assert answers[0] == answers[1] == answers[2]


async def test_short_texts_are_tokenized_in_the_event_loop_at_any_time() -> None:
    """Handing them to a thread would take the event loop as long."""
    clock = Clock()
    tokenizer, inline_time = Recording(clock), InlineTime(clock)
    inline_time.run(clock.move, 10 * BURST_S)
    async with running_engine() as engine:
        await task_of(engine, cast(Tokenizer, tokenizer), inline_time).classify(["g" * 128], ANYONE)
    assert tokenizer.was_inline == [True]
    assert not inline_time.is_left()


async def test_logits_without_probabilities_are_refused_and_give_no_label() -> None:
    task = task_of(cast("Submitter", None))
    for wrong in ([math.nan, 1.0], [math.inf, 1.0], [-math.inf, -math.inf]):
        with pytest.raises(InvalidArgument, match="infinite or no numbers"):
            task._ranked(wrong, "texts[0]")


async def test_word_that_the_tokenizer_would_drop_is_named() -> None:
    tokenizer = Tokenizer(BPE({"g": 0, "o": 1, "d": 2}, []))
    tokenizer.pre_tokenizer = Whitespace()
    async with running_engine() as engine:
        with pytest.raises(InvalidArgument, match=r"^texts\[1\]: character 'f' .* at position 5 begins"):
            await task_of(engine, tokenizer).classify(["good", "good film"], ANYONE)


async def test_word_without_a_token_is_named_where_the_tokenizer_has_none_for_unknown_words() -> None:
    tokenizer = Tokenizer(WordLevel({"good": 0, "bad": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    async with running_engine() as engine:
        with pytest.raises(InvalidArgument, match=r"^texts\[1\]: character 'f' .* at position 5 begins"):
            await task_of(engine, tokenizer).classify(["good", "good film"], ANYONE)
