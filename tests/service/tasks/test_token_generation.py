"""service.tasks.generation over the tokens of a tokenizer, on the fake cell, whose tokens are known: texts,
counts and log-probabilities belong together, and generations go on exactly from the states on the way.
"""

from bisect import bisect_left
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from service.contract import spec
from service.engine.request import ANYONE
from service.engine.sampling import Sampling
from service.engine.streaming import Submitter
from service.errors import InvalidArgument, StateNeeded
from service.tasks.detokenizer import Detokenizer, token_texts
from service.tasks.generation import GenerationOptions
from service.tasks.pieces import STATE_TOKENS, Finish, TextPiece
from tests.service.builders import LIMITS, generation_task
from tests.service.engine.fakes import Bench, Generated, expected, generation_of, running_engine, score_of
from tests.service.tasks.test_stops import naive

# Two letters, a token of several characters, the three bytes of a character, and the start, or the end.
NAMES = ("a", "b", "\u0120ab", "\u00e4", "\u00b8", "\u0138", "<end>")
END = 6
TOKENS = 40
LONG = replace(LIMITS, text_length=2000, tokens=2000)


def tokenizer() -> Tokenizer:
    vocabulary = {name: token for token, name in enumerate(NAMES)}
    made = Tokenizer(models.BPE(vocabulary, [], ignore_merges=True))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([NAMES[END]])
    return made


TOKENIZER = tokenizer()
TEXTS = token_texts(TOKENIZER, ())
FILE = spec.TokenizerFile(kind="tokenizer", file="tokenizer.json")
SPEC = spec.Generation(text=FILE, start_token=END, max_tokens=10)
ENDING = SPEC.model_copy(update={"end_tokens": [END]})


async def run(
    engine: Submitter, options: GenerationOptions, max_backlog: int = 100, section: spec.Generation = SPEC
) -> list[TextPiece]:
    task = generation_task("words", section, engine, replace(LONG, backlog=max_backlog), TOKENIZER)
    return [piece async for piece in task.generate(options, ANYONE)]


def text_of(pieces: list[TextPiece]) -> str:
    return "".join(piece.text for piece in pieces)


def logprobs_of(pieces: list[TextPiece]) -> list[float]:
    return [logprob for piece in pieces for logprob in piece.logprobs]


def count_of(pieces: list[TextPiece]) -> int:
    return sum(len(piece.ends) for piece in pieces)


def alone(prompt: list[int], seed: int, max_tokens: int = TOKENS) -> list[Generated]:
    """Return the tokens after a prompt, without a service around them."""
    return expected(generation_of(prompt, max_tokens, Sampling(seed=seed)))


class Right(NamedTuple):
    """The answer that is right: its text, how many tokens that is of, and how many were generated."""

    text: str
    shown: int
    generated: int
    is_stopped: bool


def right_of(tokens: list[Generated], stops: list[str]) -> Right:
    """Decode the tokens one by one and cut the text at the first stop string."""
    detokenizer = Detokenizer(TEXTS)
    found = detokenizer.push([one.token for one in tokens])
    rest = detokenizer.flush()
    whole = found.text + rest.text
    ends = [*found.ends, *(len(found.text) + end for end in rest.ends)]
    cut = naive(whole, stops)
    if cut.stopped_after is None:
        return Right(whole, len(tokens), len(tokens), False)
    starts = [0, *ends]
    shown = sum(
        end <= len(cut.text) or start < len(cut.text) for start, end in zip(starts, ends, strict=False)
    )
    generated = min(bisect_left(list(found.after), cut.stopped_after) + 1, len(tokens))
    return Right(cut.text, shown, generated, True)


# Stop strings.


@settings(max_examples=30, deadline=None)
@given(
    stops=st.lists(st.text("ab \u4e16", min_size=1, max_size=4), max_size=3),
    seed=st.integers(0, 10_000),
    max_backlog=st.integers(1, 20),
)
async def test_text_counts_and_logprobs_are_those_of_the_tokens_shown(
    stops: list[str], seed: int, max_backlog: int
) -> None:
    tokens = alone([0, 1], seed)
    right = right_of(tokens, stops)
    options = GenerationOptions("ab", TOKENS, seed=seed, stops=tuple(stops), wants_logprobs=True)
    async with running_engine() as engine:
        pieces = await run(engine, options, max_backlog)
    assert text_of(pieces) == right.text
    assert all(len(piece.logprobs) == len(piece.ends) for piece in pieces)
    assert logprobs_of(pieces) == [one.logprob for one in tokens][: right.shown]
    assert pieces[-1].generated_tokens == right.generated
    assert pieces[-1].prompt_tokens == 2
    assert pieces[-1].finish is (Finish.STOP if right.is_stopped else Finish.LENGTH)


async def test_stop_string_in_the_middle_of_a_token_sends_what_is_before_it() -> None:
    seed = next(seed for seed in range(1000) if alone([0], seed, 2)[0].token == 2)
    async with running_engine() as engine:
        [last] = await run(engine, GenerationOptions("a", 2, seed=seed, stops=("b",), wants_logprobs=True))
    assert (last.text, list(last.ends), last.finish) == (" a", [2], Finish.STOP)
    assert last.logprobs == [alone([0], seed, 2)[0].logprob]
    assert last.generated_tokens == 1


async def test_piece_is_cut_between_characters_and_between_tokens() -> None:
    piece = TextPiece(" ab ab", [3, 3, 3, 6], [1.0, 2.0, 3.0, 4.0], 7, Finish.LENGTH, 1, 4)
    parts = []
    while piece.is_longer(2):
        part, piece = piece.cut(2)
        parts.append((part.text, list(part.ends), part.logprobs, part.finish))
    parts.append((piece.text, list(piece.ends), piece.logprobs, piece.finish))
    assert "".join(text for text, *_ in parts) == " ab ab"
    assert [one for _, _, logprobs, _ in parts for one in logprobs] == [1.0, 2.0, 3.0, 4.0]
    assert all(len(text) <= 2 and len(ends) <= 2 for text, ends, *_ in parts)
    assert all(0 <= end <= len(text) for text, ends, *_ in parts for end in ends)
    assert [finish for *_, finish in parts[:-1]] == [None] * (len(parts) - 1)
    assert parts[-1][-1] is Finish.LENGTH


# Start and end tokens.


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    stops=st.lists(st.text("ab \u4e16", min_size=1, max_size=3), max_size=2),
    max_backlog=st.integers(1, 20),
)
async def test_end_token_ends_the_text_and_is_counted(seed: int, stops: list[str], max_backlog: int) -> None:
    tokens = alone([0, 1], seed)
    end = next((index for index, one in enumerate(tokens) if one.token == END), None)
    right = right_of(tokens[:end], stops)
    options = GenerationOptions("ab", TOKENS, seed=seed, stops=tuple(stops), wants_logprobs=True)
    async with running_engine(end_tokens=[END]) as engine:
        pieces = await run(engine, options, max_backlog, ENDING)
    last = pieces[-1]
    assert text_of(pieces) == right.text
    assert logprobs_of(pieces) == [one.logprob for one in tokens][: right.shown]
    if last.finish is Finish.END_TOKEN:
        assert end is not None
        assert last.generated_tokens == end + 1
    else:
        assert last.generated_tokens == right.generated
        assert last.finish is (Finish.STOP if right.is_stopped else Finish.LENGTH)
        assert right.is_stopped or end is None


async def test_end_token_is_the_first_one_too() -> None:
    seed = next(seed for seed in range(1000) if alone([0], seed, 1)[0].token == END)
    async with running_engine(end_tokens=[END]) as engine:
        [last] = await run(engine, GenerationOptions("a", 5, seed=seed), section=ENDING)
        [again] = await run(engine, GenerationOptions("a", 1, seed=seed), section=ENDING)
    assert (last.text, last.finish, last.generated_tokens) == ("", Finish.END_TOKEN, 1)
    assert again.finish is Finish.END_TOKEN


@pytest.mark.parametrize(
    ("prepends", "prompt", "inputs", "counted"),
    [(False, "", [END], 0), (True, "", [END], 0), (False, "ab", [0, 1], 2), (True, "ab", [END, 0, 1], 2)],
)
async def test_start_token_is_fed_where_the_section_says(
    prepends: bool, prompt: str, inputs: list[int], counted: int
) -> None:
    section = SPEC.model_copy(update={"prepend_start": prepends})
    async with running_engine() as engine:
        pieces = await run(engine, GenerationOptions(prompt, 20, seed=5), section=section)
    assert text_of(pieces) == right_of(alone(inputs, 5, 20), []).text
    assert pieces[-1].prompt_tokens == counted


async def test_score_is_of_all_tokens_but_the_first_and_begins_as_prompts_do() -> None:
    section = SPEC.model_copy(update={"prepend_start": True})
    async with running_engine() as engine:
        for described, tokens in ((SPEC, [0, 1, 2]), (section, [END, 0, 1, 2])):
            task = generation_task("words", described, engine, LONG, TOKENIZER)
            [score] = await task.score(await task.encode_texts(["ab ab"], ANYONE), ANYONE)
            assert score.token_logprobs.tolist() == expected(score_of(tokens))[0].tolist()
            assert score.perplexity == pytest.approx(np.exp(-np.mean(score.token_logprobs)))
        task = generation_task("words", SPEC, engine, LONG, TOKENIZER)
        with pytest.raises(InvalidArgument, match=r"texts\[0\]: expected at least 2 tokens, found 1"):
            await task.encode_texts([" ab"], ANYONE)


async def test_long_prompts_are_encoded_in_a_thread() -> None:
    async with running_engine() as engine:
        text = "ab" * 500
        long = await run(engine, GenerationOptions(text, 5, seed=1))
    assert text_of(long) == right_of(alone([0, 1] * 500, 1, 5), []).text


# Going on.


async def test_text_alone_is_refused_with_what_to_keep() -> None:
    bench = Bench()
    with pytest.raises(StateNeeded) as refusal:
        await run(bench.group, GenerationOptions("ab", 20, seed=1, generated="a b"))
    assert refusal.value.violations[0].field == "generated"
    assert str(refusal.value) == (
        "generated: expected none, since texts of model words do not determine their tokens, found 3 "
        "characters; send the last state that a message had (return_state), or the request again with its "
        "seed and without this field, and skip what has come"
    )
    assert not bench.tick()


@settings(max_examples=30, deadline=None)
@given(
    stops=st.lists(st.text("ab \u4e16", min_size=1, max_size=4), max_size=2),
    seed=st.integers(0, 10_000),
    max_backlog=st.integers(1, 10),
    prompt=st.sampled_from(["", "ab"]),
    section=st.sampled_from([SPEC, ENDING]),
)
async def test_generation_goes_on_from_each_state_on_the_way(
    stops: list[str], seed: int, max_backlog: int, prompt: str, section: spec.Generation
) -> None:
    options = GenerationOptions(
        prompt, 100, seed=seed, stops=tuple(stops), wants_logprobs=True, wants_state=True
    )
    async with running_engine(end_tokens=section.end_tokens) as engine:
        whole = await run(engine, options, max_backlog, section)
        for index, piece in enumerate(whole[:-1]):
            if piece.state is None:
                continue
            done = whole[: index + 1]
            rest = await run(engine, replace(options, prompt="", state=piece.state), section=section)
            assert text_of(done) + text_of(rest) == text_of(whole)
            assert logprobs_of(done) + logprobs_of(rest) == logprobs_of(whole)
            assert _ending(rest[-1]) == _ending(whole[-1])


def _ending(last: TextPiece) -> tuple[Any, ...]:
    """Return what the last piece says, its state as numbers."""
    assert last.state is not None
    rows = [one.tolist() for one in last.state.rows]
    return last.finish, last.prompt_tokens, last.generated_tokens, replace(last.state, rows=()), rows


async def test_states_come_on_the_way_and_not_with_every_piece() -> None:
    """A state comes where a batch of tokens ends with a character: of 600 some do, whatever the batches."""
    async with running_engine() as engine:
        pieces = await run(engine, GenerationOptions("ab", 600, seed=1, wants_state=True), 1)
        silent = await run(engine, GenerationOptions("ab", 600, seed=1), 1)
    states = [piece.state for piece in pieces[:-1] if piece.state is not None]
    assert 1 <= len(states) <= 600 // STATE_TOKENS
    assert not any(piece.state for piece in silent)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    first=st.integers(1, 20),
    second=st.integers(1, 20),
    further=st.sampled_from(["", "ab"]),
)
async def test_last_state_begins_a_generation_of_its_own(
    seed: int, first: int, second: int, further: str
) -> None:
    """A character that the first one has begun is shown whole by the second, or not if a prompt follows."""
    options = GenerationOptions("ab", first, seed=seed, wants_logprobs=True, wants_state=True)
    async with running_engine() as engine:
        begun = await run(engine, options)
        rest = await run(
            engine,
            replace(options, prompt=further, max_tokens=second, state=begun[-1].state, wants_state=False),
        )
        tokens = [one.token for one in alone([0, 1], seed, first)]
        right = alone([0, 1, *tokens, *([0, 1] if further else [])], seed, second)
    assert (rest[-1].prompt_tokens, rest[-1].generated_tokens) == (len(further), second)
    assert logprobs_of(rest) == [one.logprob for one in right]
    if not further:
        both = right_of([*alone([0, 1], seed, first), *right], [])
        assert text_of(begun) + text_of(rest) == both.text


async def test_max_tokens_of_a_broken_generation_counts_from_its_start() -> None:
    async with running_engine() as engine:
        pieces = await run(engine, GenerationOptions("ab", 600, seed=1, wants_state=True), 1)
        state = next(piece.state for piece in pieces[:-1] if piece.state is not None)
        assert state.progress is not None
        done = state.progress.generated_tokens
        with pytest.raises(
            InvalidArgument, match=f"expected fewer tokens before it than the {done} to generate"
        ):
            await run(engine, GenerationOptions("", done, seed=1, state=state))
        [last] = await run(engine, GenerationOptions("ab", 1, seed=1, state=state))
    assert last.generated_tokens == 1


# End tokens of a model whose tokens are characters.


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), max_backlog=st.integers(1, 20), cut=st.integers(0, 10))
async def test_characters_may_have_an_end_token(seed: int, max_backlog: int, cut: int) -> None:
    characters = spec.Characters(kind="characters", vocabulary="abcdef.")
    section = spec.Generation(text=characters, start_token=END, end_tokens=[END], max_tokens=10)
    tokens = alone([0, 1], seed)
    end = next((index for index, one in enumerate(tokens) if one.token == END), None)
    whole = "".join("abcdef."[one.token] for one in tokens[:end])
    options = GenerationOptions("ab", TOKENS, seed=seed, wants_logprobs=True)
    async with running_engine(end_tokens=[END]) as engine:
        task = generation_task("letters", section, engine, replace(LONG, backlog=max_backlog))
        pieces = [piece async for piece in task.generate(options, ANYONE)]
        broken = replace(options, generated=whole[:cut])
        rest = [piece async for piece in task.generate(broken, ANYONE)]
        with pytest.raises(InvalidArgument, match="found an end token in it"):
            await anext(task.generate(replace(options, generated="a."), ANYONE))
    for found, sent in ((pieces, ""), (rest, whole[:cut])):
        assert sent + text_of(found) == whole
        assert logprobs_of(found) == [one.logprob for one in tokens[len(sent) : end]]
        assert found[-1].generated_tokens == (len(whole) if end is None else end + 1)
        assert found[-1].finish is (Finish.LENGTH if end is None else Finish.END_TOKEN)
