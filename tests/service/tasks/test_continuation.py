"""service.tasks.generation on the fake cell: what is continued, from a state or from the text sent, is what
one undisturbed run gives.
"""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.request import ANYONE, Caller
from service.engine.streaming import Submitter
from service.errors import DeadlineExceeded, InvalidArgument, ModelFailure
from service.tasks.generation import GenerationOptions
from service.tasks.pieces import Finish, TextPiece
from tests.service.engine.fakes import Bench, FakeCell, running_engine
from tests.service.tasks.test_generation import CHARACTERS, logprobs_of, task_of, text_of

TOKENS = 40
letters = st.text(CHARACTERS, max_size=3)
stop_sets = st.lists(st.text(CHARACTERS, min_size=1, max_size=3), max_size=4)
samplings = st.sampled_from([{"temperature": 0.0}, {}, {"temperature": 0.7, "top_k": 3, "top_p": 0.9}])


async def run(engine: Submitter, options: GenerationOptions, max_backlog: int = 100) -> list[TextPiece]:
    return [piece async for piece in task_of(engine, max_backlog).generate(options, ANYONE)]


# From a state.


@given(
    sampling=samplings,
    prompt=letters,
    further=letters,
    first=st.integers(1, 20),
    second=st.integers(1, 20),
    seed=st.integers(0, 2**64 - 1),
)
async def test_state_continues_as_one_run_would(
    sampling: dict[str, Any], prompt: str, further: str, first: int, second: int, seed: int
) -> None:
    options = GenerationOptions(prompt, first, seed=seed, wants_logprobs=True, wants_state=True, **sampling)
    async with running_engine() as engine:
        begun = await run(engine, options)
        state = begun[-1].state
        assert state is not None
        assert not any(piece.state for piece in begun[:-1])
        rest = await run(engine, replace(options, prompt=further, max_tokens=second, seed=None, state=state))
        sent = text_of(begun)
        if further:
            start = prompt or CHARACTERS[2]  # an empty prompt is the start token
            whole = await run(engine, replace(options, prompt=start + sent + further, max_tokens=second))
            assert (text_of(rest), logprobs_of(rest)) == (text_of(whole), logprobs_of(whole))
        else:
            whole = await run(engine, replace(options, max_tokens=first + second))
            assert (sent + text_of(rest), logprobs_of(begun) + logprobs_of(rest)) == (
                text_of(whole),
                logprobs_of(whole),
            )
        assert {piece.seed for piece in rest} == {seed}
        assert rest[-1].state is not None
        assert whole[-1].state is not None
        assert [one.tolist() for one in rest[-1].state.rows] == [one.tolist() for one in whole[-1].state.rows]
        assert replace(rest[-1].state, rows=()) == replace(whole[-1].state, rows=())
        assert rest[-1].prompt_tokens == len(further)


@settings(max_examples=40)
@given(stops=stop_sets, seed=st.integers(0, 1000), max_backlog=st.integers(1, 20))
async def test_state_at_a_stop_is_that_after_the_stop_string(
    stops: list[str], seed: int, max_backlog: int
) -> None:
    options = GenerationOptions("abc", TOKENS, seed=seed, stops=tuple(stops), wants_state=True)
    async with running_engine() as engine:
        stopped = (await run(engine, options, max_backlog))[-1]
        right = (await run(engine, replace(options, stops=(), max_tokens=stopped.generated_tokens)))[-1]
        assert stopped.state is not None
        assert right.state is not None
        assert replace(stopped.state, rows=()) == replace(right.state, rows=())
        assert [one.tolist() for one in stopped.state.rows] == [one.tolist() for one in right.state.rows]


async def test_another_seed_may_go_on_from_a_state() -> None:
    options = GenerationOptions("abc", 5, seed=1, wants_state=True)
    async with running_engine() as engine:
        begun = await run(engine, options)
        rest = await run(engine, GenerationOptions("", 20, seed=2, state=begun[-1].state))
        whole = await run(engine, GenerationOptions("abc" + text_of(begun), 20, seed=2))
    assert text_of(rest) == text_of(whole)
    assert {piece.seed for piece in rest} == {2}


async def test_no_state_comes_where_nobody_asked() -> None:
    async with running_engine() as engine:
        assert all(piece.state is None for piece in await run(engine, GenerationOptions("abc", 20, seed=1)))


async def test_state_at_a_stop_that_cannot_be_had_is_the_error_of_the_call() -> None:
    bench = Bench()
    options = GenerationOptions("abc", 1, seed=1, wants_state=True)
    async with running_engine() as engine:
        text = text_of(await run(engine, options))
    async with running_engine(FakeCell(failures=[2])) as engine:
        with pytest.raises(ModelFailure):
            await run(engine, replace(options, stops=(text,)))
    with pytest.raises(DeadlineExceeded):
        async with running_engine() as engine:
            [_ async for _ in task_of(engine).generate(options, Caller(0.0))]
    assert not bench.tick()


# From the text that was sent.


async def assert_goes_on(
    engine: Submitter, options: GenerationOptions, sent: str, whole: list[TextPiece]
) -> None:
    rest = await run(engine, replace(options, generated=sent))
    assert sent + text_of(rest) == text_of(whole)
    assert logprobs_of(rest) == logprobs_of(whole)[len(sent) :]
    assert all(len(piece.logprobs) == len(piece.text) for piece in rest)
    last, right = rest[-1], whole[-1]
    assert (last.finish, last.seed, last.prompt_tokens, last.generated_tokens) == (
        right.finish,
        right.seed,
        right.prompt_tokens,
        right.generated_tokens,
    )
    assert last.state is not None
    assert right.state is not None
    assert replace(last.state, rows=()) == replace(right.state, rows=())
    assert [one.tolist() for one in last.state.rows] == [one.tolist() for one in right.state.rows]


@settings(max_examples=40)
@given(
    stops=stop_sets,
    seed=st.integers(0, 1000),
    max_backlog=st.integers(1, 20),
    sampling=samplings,
    prompt=letters,
    data=st.data(),
)
async def test_broken_generation_goes_on_from_any_place(
    stops: list[str], seed: int, max_backlog: int, sampling: dict[str, Any], prompt: str, data: st.DataObject
) -> None:
    options = GenerationOptions(prompt, TOKENS, seed=seed, wants_logprobs=True, wants_state=True, **sampling)
    async with running_engine() as engine:
        free = text_of(await run(engine, options))
        # Stop strings out of the text itself, so that they come up, and overlap, and straddle the place of
        # the break.
        places = st.tuples(st.integers(1, TOKENS - 4), st.integers(1, 4))
        own = [free[start : start + length] for start, length in data.draw(st.lists(places, max_size=2))]
        stopping = replace(options, stops=tuple([*stops, *own][:4]))
        whole = await run(engine, stopping, max_backlog)
        text = text_of(whole)
        boundaries = {sum(len(piece.text) for piece in whole[:count]) for count in range(len(whole))}
        for cut in {*boundaries, data.draw(st.integers(0, len(text)))}:
            if cut < TOKENS:
                await assert_goes_on(engine, stopping, text[:cut], whole)


async def test_broken_continuation_of_a_state_goes_on_too() -> None:
    async with running_engine() as engine:
        state = (await run(engine, GenerationOptions("abc", 7, seed=3, wants_state=True)))[-1].state
        options = GenerationOptions("fg", TOKENS, seed=3, wants_logprobs=True, wants_state=True, state=state)
        whole = await run(engine, options)
        for cut in (1, 20, TOKENS - 1):
            await assert_goes_on(engine, options, text_of(whole)[:cut], whole)


async def test_stop_string_across_the_break_ends_it_without_a_word() -> None:
    async with running_engine() as engine:
        free = text_of(await run(engine, GenerationOptions("abc", TOKENS, seed=1)))
        # Of two stop strings the second is complete at once after the break; its first half was held back, so
        # that nothing of it was sent.
        [last] = await run(
            engine, GenerationOptions("abc", TOKENS, seed=1, stops=(free[10:12],), generated=free[:10])
        )
    assert (last.text, last.finish, last.generated_tokens) == ("", Finish.STOP, 12)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        pytest.param(
            {"generated": "ab"},
            "expected the seed of the call that has sent it in the field seed, found none",
            id="no seed",
        ),
        pytest.param(
            {"generated": "abcde", "seed": 1, "max_tokens": 5},
            "expected fewer characters than the 5 tokens to generate, found 5",
            id="full",
        ),
        pytest.param(
            {"generated": "a" * 10, "seed": 1},
            "expected fewer characters than the 10 tokens to generate, found 10",
            id="default length",
        ),
        pytest.param(
            {"generated": "a" * 1000, "seed": 1, "max_tokens": 64}, "found 1000", id="longer than any"
        ),
        pytest.param(
            {"generated": "aZ", "seed": 1}, "character 'Z' (U+005A) at position 1", id="unknown character"
        ),
        pytest.param(
            {"generated": "abc", "seed": 1, "stops": ("g", "bc")},
            "expected text that was sent, found text with a stop string in it",
            id="stop",
        ),
    ],
)
async def test_text_that_was_never_sent_is_refused_before_anything_runs(
    options: dict[str, Any], found: str
) -> None:
    bench = Bench()
    with pytest.raises(InvalidArgument) as refusal:
        await anext(
            aiter(task_of(bench.group).generate(GenerationOptions(**{"prompt": "ab"} | options), ANYONE))
        )
    assert refusal.value.violations[0].field == "generated"
    assert found in str(refusal.value)
    assert not bench.tick()


async def test_text_that_proves_to_be_the_start_of_a_stop_string_is_refused() -> None:
    async with running_engine() as engine:
        free = text_of(await run(engine, GenerationOptions("abc", TOKENS, seed=1)))
        with pytest.raises(
            InvalidArgument,
            match="expected text that was sent, found text whose end is the start of a stop string",
        ):
            await run(
                engine, GenerationOptions("abc", TOKENS, seed=1, stops=(free[10:12],), generated=free[:11])
            )
