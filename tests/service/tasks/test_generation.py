"""service.tasks.generation on the fake cell, whose every text is known."""

import asyncio
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.contract import spec
from service.engine.request import ANYONE, Caller
from service.engine.sampling import Sampling
from service.engine.streaming import Submitter
from service.errors import DeadlineExceeded, InvalidArgument, ModelFailure
from service.tasks import pacing
from service.tasks.generation import GenerationOptions, GenerationTask, TextScore
from service.tasks.pieces import Finish, TextPiece
from service.tasks.text import Characters
from tests.service.builders import LIMITS, generation_task
from tests.service.engine.fakes import Bench, FakeCell, expected, generation_of, running_engine, score_of
from tests.service.tasks.test_stops import naive

CHARACTERS = "abcdefg"
SPEC = spec.Generation(
    text=spec.Characters(kind="characters", vocabulary=CHARACTERS), start_token=2, max_tokens=10
)


def task_of(engine: Submitter, max_backlog: int = 100, described: spec.Generation = SPEC) -> GenerationTask:
    limits = replace(LIMITS, backlog=max_backlog)
    return generation_task("letters", described, engine, limits)


async def pieces_of(options: GenerationOptions, max_backlog: int = 100) -> list[TextPiece]:
    async with running_engine() as engine:
        return [piece async for piece in task_of(engine, max_backlog).generate(options, ANYONE)]


def text_of(pieces: list[TextPiece]) -> str:
    return "".join(piece.text for piece in pieces)


def logprobs_of(pieces: list[TextPiece]) -> list[float]:
    return [logprob for piece in pieces for logprob in piece.logprobs]


def alone(prompt: str, max_tokens: int, sampling: Sampling) -> tuple[str, list[float]]:
    """Return the whole text, and each character's log-probability, without a service around it."""
    tokens = expected(generation_of([CHARACTERS.index(one) for one in prompt], max_tokens, sampling))
    return "".join(CHARACTERS[one.token] for one in tokens), [one.logprob for one in tokens]


# Options.


@pytest.mark.parametrize(
    ("options", "field", "found"),
    [
        pytest.param(
            {"temperature": -0.5},
            "temperature",
            "expected a finite number >= 0, found -0.5",
            id="negative temperature",
        ),
        pytest.param({"temperature": math.nan}, "temperature", "found nan", id="temperature NaN"),
        pytest.param({"temperature": math.inf}, "temperature", "found inf", id="infinite temperature"),
        pytest.param({"top_p": 0.0}, "top_p", "expected a number in (0, 1], found 0.0", id="top_p zero"),
        pytest.param({"top_p": -0.1}, "top_p", "found -0.1", id="negative top_p"),
        pytest.param({"top_p": 1.01}, "top_p", "found 1.01", id="top_p above one"),
        pytest.param({"top_p": math.nan}, "top_p", "found nan", id="top_p NaN"),
        pytest.param(
            {"stops": ("a",) * 5},
            "stop",
            "expected at most 4 stop strings, found 5",
            id="too many stop strings",
        ),
        pytest.param(
            {"stops": ("a", "")}, "stop[1]", "expected at least 1 characters, found 0", id="empty stop string"
        ),
        pytest.param(
            {"stops": ("a" * 11,)},
            "stop[0]",
            "expected at most 10 characters, found 11",
            id="too long a stop string",
        ),
        pytest.param(
            {"max_tokens": 65}, "max_tokens", "expected at most 64 tokens, found 65", id="too many tokens"
        ),
        pytest.param(
            {"prompt": "a" * 201},
            "prompt",
            "expected at most 200 characters, found 201",
            id="too long a prompt",
        ),
        pytest.param({"prompt": "aZ"}, "prompt", "character 'Z'", id="unknown character"),
    ],
)
async def test_wrong_option_is_refused_before_anything_runs(
    options: dict[str, Any], field: str, found: str
) -> None:
    bench = Bench()
    with pytest.raises(InvalidArgument) as refusal:
        await anext(
            aiter(task_of(bench.group).generate(GenerationOptions(**{"prompt": "ab"} | options), ANYONE))
        )
    assert refusal.value.violations[0].field == field
    assert found in str(refusal.value)
    assert not bench.tick()


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"temperature": 1e30},
        {"top_p": 1.0},
        {"top_p": 1e-30},
        {"top_k": 2**32 - 1},
        {"stops": ("a" * 10,) * 4},
        {"max_tokens": 64},
        {"prompt": "a" * 200},
        {"seed": 2**64 - 1},
    ],
    ids=str,
)
async def test_option_at_the_edge_is_taken(options: dict[str, Any]) -> None:
    pieces = await pieces_of(GenerationOptions(**{"prompt": "ab"} | options))
    assert pieces[-1].finish is not None


# Generation.


@pytest.mark.parametrize(
    "sampling", [Sampling(0.0, seed=1), Sampling(1.0, seed=7), Sampling(0.7, 3, 0.9, 2**63)], ids=str
)
async def test_text_is_that_of_the_sequence_alone(sampling: Sampling) -> None:
    options = GenerationOptions(
        "abc", 30, sampling.temperature, sampling.top_k, sampling.top_p, sampling.seed, wants_logprobs=True
    )
    pieces = await pieces_of(options)
    assert (text_of(pieces), logprobs_of(pieces)) == alone("abc", 30, sampling)


async def test_slow_pauses_do_not_change_the_text() -> None:
    assert (
        text_of(await pieces_of(GenerationOptions("abc", 60, seed=4), max_backlog=1))
        == alone("abc", 60, Sampling(seed=4))[0]
    )


async def test_empty_prompt_starts_with_the_start_token() -> None:
    pieces = await pieces_of(GenerationOptions("", 12, seed=4))
    assert text_of(pieces) == alone(CHARACTERS[SPEC.start_token], 12, Sampling(seed=4))[0]
    assert pieces[-1].prompt_tokens == 0


async def test_unset_options_mean_temperature_one_and_no_cut() -> None:
    assert (
        text_of(await pieces_of(GenerationOptions("ab", 40, seed=9)))
        == alone("ab", 40, Sampling(1.0, 0, 1.0, 9))[0]
    )


async def test_model_says_how_many_tokens_when_nobody_does() -> None:
    assert len(text_of(await pieces_of(GenerationOptions("ab", seed=1)))) == SPEC.max_tokens


async def test_model_default_is_cut_to_the_limit_of_the_server() -> None:
    described = SPEC.model_copy(update={"max_tokens": 1000})
    async with running_engine() as engine:
        pieces = [
            piece
            async for piece in task_of(engine, described=described).generate(
                GenerationOptions("ab", seed=1), ANYONE
            )
        ]
    assert len(text_of(pieces)) == LIMITS.tokens


async def test_drawn_seed_gives_the_same_text_again() -> None:
    first = await pieces_of(GenerationOptions("ab", 40))
    [seed] = {piece.seed for piece in first}
    assert text_of(await pieces_of(GenerationOptions("ab", 40, seed=seed))) == text_of(first)


async def test_drawn_seeds_fit_a_double_and_use_all_of_its_bits() -> None:
    """Seeds are drawn uniformly below 2**53, so that languages whose numbers are doubles keep them.

    Of 60 seeds at least one has each bit set and one has it clear: by chance 53 * 2 * 2**-60 of runs fail.
    """
    seeds = {(await pieces_of(GenerationOptions("ab", 1)))[0].seed for _ in range(60)}
    assert len(seeds) == 60
    assert all(int(float(seed)) == seed < 2**53 for seed in seeds)
    for bit in range(53):
        assert {seed >> bit & 1 for seed in seeds} == {0, 1}, bit


@pytest.mark.parametrize("seed", [2**53 - 1, 2**53 + 1, 2**63, 2**64 - 1])
async def test_given_seed_of_64_bits_is_used_and_returned(seed: int) -> None:
    pieces = await pieces_of(GenerationOptions("ab", 40, seed=seed))
    assert {piece.seed for piece in pieces} == {seed}
    assert text_of(pieces) == alone("ab", 40, Sampling(seed=seed))[0]


async def test_text_that_was_held_back_is_sent_in_pieces_of_bounded_size() -> None:
    """The stop string begins as the text does and ends otherwise, so that all is released at the end."""
    whole, logprobs = alone("abc", 40, Sampling(seed=4))
    stop = whole[:39] + ("a" if whole[39] != "a" else "b")
    limits = replace(LIMITS, stop_length=100, answer_bytes=64 * 5)
    options = GenerationOptions("abc", 40, seed=4, stops=(stop,), wants_logprobs=True)
    async with running_engine() as engine:
        task = generation_task("letters", SPEC, engine, limits)
        pieces = [piece async for piece in task.generate(options, ANYONE)]
    assert [len(piece.text) for piece in pieces] == [5] * 8
    assert (text_of(pieces), logprobs_of(pieces)) == (whole, logprobs)
    assert [piece.finish for piece in pieces] == [None] * 7 + [Finish.LENGTH]


async def test_finish_and_usage_are_in_the_last_piece_alone() -> None:
    *others, last = await pieces_of(GenerationOptions("abc", 30, seed=1))
    assert (last.finish, last.prompt_tokens, last.generated_tokens) == (Finish.LENGTH, 3, 30)
    assert {(one.finish, one.prompt_tokens, one.generated_tokens) for one in others} <= {(None, 0, 0)}


async def test_first_token_does_not_wait_for_a_second() -> None:
    bench = Bench()
    generation = task_of(bench.group).generate(GenerationOptions("a", 30, seed=1), ANYONE)
    first = asyncio.ensure_future(anext(generation))
    await asyncio.sleep(0)
    bench.tick()
    assert (await first).text == alone("a", 30, Sampling(seed=1))[0][0]
    await generation.aclose()


async def test_logprobs_nobody_asked_for_are_not_sent() -> None:
    assert logprobs_of(await pieces_of(GenerationOptions("abc", 30, seed=1, stops=("zz",)))) == []


# Stop strings.


@settings(max_examples=40)
@given(
    stops=st.lists(st.text("abcdefg", min_size=1, max_size=3), max_size=4),
    seed=st.integers(0, 1000),
    max_backlog=st.integers(1, 20),
)
async def test_stop_strings_cut_text_logprobs_and_usage_alike(
    stops: list[str], seed: int, max_backlog: int
) -> None:
    whole, logprobs = alone("abc", 40, Sampling(seed=seed))
    cut = naive(whole, stops)
    pieces = await pieces_of(
        GenerationOptions("abc", 40, seed=seed, stops=tuple(stops), wants_logprobs=True), max_backlog
    )
    assert text_of(pieces) == cut.text
    assert all(len(piece.logprobs) == len(piece.text) for piece in pieces)
    assert logprobs_of(pieces) == logprobs[: len(cut.text)]
    assert pieces[-1].finish is (Finish.LENGTH if cut.stopped_after is None else Finish.STOP)
    assert pieces[-1].generated_tokens == (cut.stopped_after or len(whole))


async def test_stop_string_as_the_very_last_token_is_a_stop() -> None:
    whole, _ = alone("abc", 20, Sampling(seed=3))
    end = naive(whole, [whole[-4:]]).stopped_after
    assert end is not None
    pieces = await pieces_of(GenerationOptions("abc", end, seed=3, stops=(whole[-4:],)))
    assert (pieces[-1].finish, text_of(pieces)) == (Finish.STOP, whole[: end - 4])


async def test_unfinished_stop_string_is_text_at_the_end() -> None:
    whole, _ = alone("abc", 20, Sampling(seed=3))
    pieces = await pieces_of(GenerationOptions("abc", 20, seed=3, stops=(whole[-3:] + "gggggg",)))
    assert text_of(pieces) == whole


async def test_stopped_generation_frees_its_row() -> None:
    async with running_engine(slots=1) as engine:
        task = task_of(engine, max_backlog=1)
        for seed in range(5):
            whole, _ = alone("abc", 64, Sampling(seed=seed))
            options = GenerationOptions("abc", 64, seed=seed, stops=(whole[0],))
            assert text_of([piece async for piece in task.generate(options, ANYONE)]) == ""


# Ends.


async def test_abandoned_generation_frees_its_row() -> None:
    bench = Bench(slots=1)
    generation = task_of(bench.group).generate(GenerationOptions("a", 50, seed=1), ANYONE)
    first = asyncio.ensure_future(anext(generation))
    await asyncio.sleep(0)
    bench.tick()
    await first
    await generation.aclose()
    assert not bench.tick()
    assert bench.active == 0


async def test_failure_ends_the_stream_after_its_text() -> None:
    text = ""

    async def read(engine: Submitter) -> None:
        nonlocal text
        async for piece in task_of(engine).generate(GenerationOptions("a", 50, seed=1), ANYONE):
            text += piece.text

    async with running_engine(FakeCell(failures=[4])) as engine:
        with pytest.raises(ModelFailure):
            await read(engine)
    assert text == alone("a", 50, Sampling(seed=1))[0][:4]


async def test_passed_deadline_ends_the_stream() -> None:
    async with running_engine() as engine:
        with pytest.raises(DeadlineExceeded):
            await anext(aiter(task_of(engine).generate(GenerationOptions("a"), Caller(0.0))))


# Scores.


async def scores_of(task: GenerationTask, texts: list[str]) -> list[TextScore]:
    return await task.score(await task.encode_texts(texts, ANYONE), ANYONE)


async def test_scores_are_those_of_each_text_alone() -> None:
    texts = ["ab", "gfedcba", "aaaaaaaaaaaaaaaaaaaa"]
    async with running_engine() as engine:
        scores = await scores_of(task_of(engine), texts)
    for text, score in zip(texts, scores, strict=True):
        right = expected(score_of([CHARACTERS.index(one) for one in text]))[0]
        np.testing.assert_array_equal(score.token_logprobs, right)


async def test_others_run_between_texts_to_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "SLICE_S", 0.0)
    encoded: list[str] = []
    encode = Characters.encode

    def watched(characters: Characters, text: str, field: str) -> Any:
        encoded.append(text)
        asyncio.get_running_loop().call_soon(encoded.append, "another call")
        return encode(characters, text, field)

    monkeypatch.setattr(Characters, "encode", watched)
    async with running_engine() as engine:
        await scores_of(task_of(engine), ["ab", "cd"])
    assert encoded == ["ab", "another call", "cd", "another call"]


@pytest.mark.parametrize(
    ("texts", "field"),
    [
        pytest.param([], "texts", id="no text"),
        pytest.param(["ab"] * 9, "texts", id="too many texts"),
        pytest.param(["ab", "a"], "texts[1]", id="one character has no score"),
        pytest.param([""], "texts[0]", id="empty text"),
        pytest.param(["ab", "a" * 201], "texts[1]", id="too long a text"),
        pytest.param(["ab", "ab", "aZ"], "texts[2]", id="unknown character"),
    ],
)
async def test_wrong_text_to_score_names_its_index(texts: list[str], field: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        await task_of(Bench().group).encode_texts(texts, ANYONE)
    assert refusal.value.violations[0].field == field


@given(st.lists(st.floats(-20, 0, width=32), min_size=1, max_size=50))
def test_total_and_perplexity_follow_from_the_token_logprobs(logprobs: list[float]) -> None:
    score = TextScore(np.array(logprobs, np.float32))
    assert score.total == pytest.approx(math.fsum(logprobs), rel=1e-12, abs=1e-12)
    assert score.perplexity == pytest.approx(math.exp(-math.fsum(logprobs) / len(logprobs)), rel=1e-12)


def test_perplexity_that_no_double_holds_is_infinite() -> None:
    assert TextScore(np.array([-1e4], np.float32)).perplexity == math.inf


# Normalization.

TYPED = SPEC.model_copy(
    update={
        "text": spec.Characters(
            kind="characters",
            vocabulary=CHARACTERS,
            normalization=spec.Normalization(characters={"\u2014": "aa", "\u00ad": "", "\u2019": "b"}),
        )
    }
)


async def typed_pieces(**options: Any) -> list[TextPiece]:
    async with running_engine() as engine:
        task = task_of(engine, described=TYPED)
        return [piece async for piece in task.generate(GenerationOptions(**options), ANYONE)]


async def test_a_typographic_prompt_continues_as_the_plain_one_and_is_counted_as_it() -> None:
    options = {"max_tokens": 20, "seed": 3}
    plain = await typed_pieces(prompt="caab", **options)
    typed = await typed_pieces(prompt="c\u2014\u00ad\u2019", **options)
    assert text_of(typed) == text_of(plain)
    assert (typed[-1].prompt_tokens, typed[-1].generated_tokens) == (4, 20)


async def test_a_broken_generation_of_a_typographic_prompt_continues_exactly() -> None:
    options = {"prompt": "\u2014c", "max_tokens": 20, "seed": 3}
    whole = text_of(await typed_pieces(**options))
    rest = await typed_pieces(**options, generated=whole[:7])
    assert whole[:7] + text_of(rest) == whole
    assert (rest[-1].prompt_tokens, rest[-1].generated_tokens) == (3, 20)


async def test_a_state_after_a_typographic_prompt_continues_exactly() -> None:
    whole = text_of(await typed_pieces(prompt="\u2014", max_tokens=12, seed=3))
    first = await typed_pieces(prompt="\u2014", max_tokens=5, seed=3, wants_state=True)
    rest = await typed_pieces(prompt="", max_tokens=7, state=first[-1].state)
    assert text_of(first) + text_of(rest) == whole


async def test_a_typographic_stop_string_stops_at_what_the_model_writes() -> None:
    options = {"prompt": "c", "max_tokens": 20, "seed": 3}
    written = text_of(await typed_pieces(**options))
    stopped = await typed_pieces(**options, stops=("\u2019",))
    assert stopped[-1].finish is Finish.STOP
    assert text_of(stopped) == written[: written.index("b")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "a", "stops": ("a", "\u00ad")}, "stop[1]: expected characters that the model writes"),
        (
            {"prompt": "a", "generated": "\u2014", "seed": 1},
            "generated: character '\u2014' (U+2014) at position 0",
        ),
        ({"prompt": "\u2014X"}, "prompt: character 'X' (U+0058) at position 1"),
        ({"prompt": "\u2014" * 101}, "prompt: expected at most 200 tokens, found 202"),
    ],
)
async def test_what_normalization_cannot_save_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        await typed_pieces(**options)
    assert message in str(refusal.value)


async def test_texts_to_score_are_as_long_as_their_normalized_forms() -> None:
    """The size of the answer follows from these lengths, not from those of what was sent."""
    (encoded,) = await task_of(Bench().group, described=TYPED).encode_texts(["\u2014" * 50], ANYONE)
    assert len(encoded) == 100


async def test_scores_are_those_of_the_normalized_text() -> None:
    async with running_engine() as engine:
        typed, plain = await scores_of(task_of(engine, described=TYPED), ["c\u2014\u00ad", "caa"])
        assert typed.token_logprobs.tolist() == plain.token_logprobs.tolist()
        with pytest.raises(InvalidArgument, match=r"texts\[0\]: expected at least 2 tokens, found 1"):
            await task_of(engine, described=TYPED).encode_texts(["a\u00ad"], ANYONE)
