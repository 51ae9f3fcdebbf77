"""service.api.generation, served in this process."""

import asyncio
import math
from typing import Any

import grpc
import pytest

from seqserve.v1 import text_generation_pb2 as pb
from seqserve.v1.text_generation_pb2_grpc import TextGenerationStub
from service.api.generation import MAX_ALTERNATIVES
from service.engine.group import EngineGroup
from service.engine.request import ANYONE
from service.tasks.generation import GenerationOptions, GenerationTask
from tests.service.api.conftest import Running
from tests.service.api.rich import code_of_call, fields_of, finish, refused_with, unpack
from tests.tiny import VOCABULARY

MODEL = "letters"


def task_of(running: Running) -> GenerationTask:
    task = running.repository.table.find(MODEL, 0, "text-generation").task
    assert isinstance(task, GenerationTask)
    return task


def engine_of(running: Running) -> EngineGroup:
    return running.repository.table.find(MODEL, 0, "text-generation").engine


async def generate(running: Running, **fields: Any) -> list[pb.GenerateResponse]:
    responses: list[pb.GenerateResponse] = await finish(
        TextGenerationStub(running.channel).Generate(pb.GenerateRequest(model=MODEL, **fields))
    )
    return responses


async def test_text_is_that_of_the_task(running: Running) -> None:
    options = GenerationOptions("abc", 50, 0.5, 4, 0.75, 2**64 - 1, wants_logprobs=True)
    right = [piece async for piece in task_of(running).generate(options, ANYONE)]
    found = await generate(
        running,
        prompt="abc",
        max_tokens=50,
        temperature=0.5,
        top_k=4,
        top_p=0.75,
        seed=2**64 - 1,
        logprobs=True,
    )
    assert "".join(one.text for one in found) == "".join(one.text for one in right)
    assert [logprob for one in found for logprob in one.logprobs] == [
        logprob for one in right for logprob in one.logprobs
    ]


async def test_tokens_are_counted_in_every_message(running: Running) -> None:
    for one in await generate(running, prompt="abc", max_tokens=50, seed=1, logprobs=True):
        assert one.token_count == len(one.text) == len(one.logprobs)
        assert one.seed == 1


async def test_usage_and_reason_come_in_the_last_message_alone(running: Running) -> None:
    *others, last = await generate(running, prompt="abc", max_tokens=50, seed=1)
    assert (last.finish_reason, last.usage.prompt_tokens, last.usage.generated_tokens) == (
        pb.FINISH_REASON_LENGTH,
        3,
        50,
    )
    assert not any(one.finish_reason or one.HasField("usage") for one in others)


async def test_stop_string_ends_the_text(running: Running) -> None:
    whole = "".join(one.text for one in await generate(running, prompt="abc", max_tokens=50, seed=1))
    found = await generate(running, prompt="abc", max_tokens=50, seed=1, stop=[whole[10:13]])
    assert found[-1].finish_reason == pb.FINISH_REASON_STOP
    assert "".join(one.text for one in found) == whole[: whole.index(whole[10:13])]


@pytest.mark.parametrize(
    ("given", "unset"), [({"temperature": 1.0}, {}), ({"top_p": 1.0}, {})], ids=["temperature 1", "top_p 1"]
)
async def test_unset_option_differs_from_zero(
    running: Running, given: dict[str, Any], unset: dict[str, Any]
) -> None:
    texts = [
        "".join(one.text for one in await generate(running, prompt="a", max_tokens=30, seed=3, **options))
        for options in (given, unset)
    ]
    assert texts[0] == texts[1]


async def test_temperature_zero_is_greedy_for_every_seed(running: Running) -> None:
    texts = [
        "".join(
            one.text for one in await generate(running, prompt="a", max_tokens=30, seed=seed, temperature=0.0)
        )
        for seed in (1, 2)
    ]
    assert texts[0] == texts[1]


async def test_seed_zero_is_a_seed(running: Running) -> None:
    assert {one.seed for one in await generate(running, prompt="a", max_tokens=5, seed=0)} == {0}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": "Z"}, "prompt"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"stop": [""]}, "stop[0]"),
        ({"max_tokens": 2**32 - 1}, "max_tokens"),
    ],
    ids=str,
)
async def test_wrong_field_is_named(running: Running, fields: dict[str, Any], field: str) -> None:
    assert await fields_of(
        TextGenerationStub(running.channel).Generate(pb.GenerateRequest(model=MODEL, **fields))
    ) == [field]


@pytest.mark.parametrize("prompt", ["", "hab"], ids=["no further prompt", "a further prompt"])
@pytest.mark.parametrize("stop", [[], ["a"]], ids=["length", "stop"])
async def test_sealed_state_continues_the_text(running: Running, prompt: str, stop: list[str]) -> None:
    options: dict[str, Any] = {"temperature": 0.9, "top_p": 0.95, "logprobs": True}
    first = await generate(
        running, prompt="abc", max_tokens=40, seed=5, stop=stop, return_state=True, **options
    )
    assert [bool(one.state) for one in first] == [False] * (len(first) - 1) + [True]
    count = first[-1].usage.generated_tokens
    sent = "".join(
        one.text for one in await generate(running, prompt="abc", max_tokens=count, seed=5, **options)
    )
    rest = await generate(running, prompt=prompt, max_tokens=30, state=first[-1].state, **options)
    whole = await generate(running, prompt="abc" + sent + prompt, max_tokens=30, seed=5, **options)
    assert "".join(one.text for one in rest) == "".join(one.text for one in whole)
    assert [value for one in rest for value in one.logprobs] == [
        value for one in whole for value in one.logprobs
    ]
    assert {one.seed for one in rest} == {5}


async def test_wrong_state_is_refused_with_the_reason(running: Running) -> None:
    stub = TextGenerationStub(running.channel)
    state = (await generate(running, prompt="abc", max_tokens=3, return_state=True))[-1].state
    for wrong, reason in {
        state[:-1]: "truncated",
        state + b"x": "too long",
        state[:-1] + bytes([state[-1] ^ 1]): "altered",
        b"x": "format",
    }.items():
        status = await refused_with(stub.Generate(pb.GenerateRequest(model=MODEL, state=wrong)))
        details = unpack(status)
        [violation] = details["BadRequest"].field_violations
        assert violation.field == "state"
        assert reason in violation.description
        assert details["ErrorInfo"].reason == "INVALID_ARGUMENT"


async def test_text_that_was_sent_before_a_break_is_gone_on_from(running: Running) -> None:
    whole = await generate(running, prompt="abc", max_tokens=50, seed=1, logprobs=True)
    text = "".join(one.text for one in whole)
    rest = await generate(running, prompt="abc", max_tokens=50, seed=1, logprobs=True, generated=text[:20])
    assert "".join(one.text for one in rest) == text[20:]
    assert [value for one in rest for value in one.logprobs] == [
        value for one in whole for value in one.logprobs
    ][20:]
    assert rest[-1].usage == whole[-1].usage
    assert await fields_of(
        TextGenerationStub(running.channel).Generate(pb.GenerateRequest(model=MODEL, generated="a"))
    ) == ["generated"]


async def test_unknown_model_is_not_found(running: Running) -> None:
    assert (
        await code_of_call(TextGenerationStub(running.channel).Generate(pb.GenerateRequest(model="none")))
        is grpc.StatusCode.NOT_FOUND
    )


async def test_passed_deadline_ends_the_stream(running: Running) -> None:
    call = TextGenerationStub(running.channel).Generate(
        pb.GenerateRequest(model=MODEL, max_tokens=100_000), timeout=0.2
    )
    assert await code_of_call(call) is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_cancelled_stream_frees_its_row(running: Running) -> None:
    call = TextGenerationStub(running.channel).Generate(pb.GenerateRequest(model=MODEL, max_tokens=100_000))
    await call.read()
    call.cancel()
    async with asyncio.timeout(20):
        while engine_of(running).active:
            # Other calls keep the engine turning, as they do in a server; each takes a few of its ticks.
            await generate(running, prompt="a", max_tokens=1)
    assert engine_of(running).active == 0


async def test_streams_side_by_side_get_their_own_texts(running: Running) -> None:
    together = await asyncio.gather(
        *(generate(running, prompt="abc"[: 1 + seed % 3], max_tokens=40, seed=seed) for seed in range(20))
    )
    for seed, found in enumerate(together):
        alone = await generate(running, prompt="abc"[: 1 + seed % 3], max_tokens=40, seed=seed)
        assert "".join(one.text for one in found) == "".join(one.text for one in alone)


async def test_too_many_stop_strings_are_refused(running: Running) -> None:
    stops = [""] * 10_000
    call = TextGenerationStub(running.channel).Generate(pb.GenerateRequest(model=MODEL, stop=stops))
    assert await fields_of(call) == ["stop"]


async def test_scores_are_those_of_the_task(running: Running) -> None:
    texts = ["abcd", "ba", "hhhhhhhhhh"]
    task = task_of(running)
    right = await task.score(await task.encode_texts(texts, ANYONE), ANYONE)
    found = await TextGenerationStub(running.channel).Score(pb.ScoreRequest(model=MODEL, texts=texts))
    for one, score in zip(found.scores, right, strict=True):
        assert list(one.token_logprobs) == score.token_logprobs.tolist()
        assert (one.total_logprob, one.perplexity) == (score.total, score.perplexity)


@pytest.mark.parametrize(
    ("texts", "field"), [([], "texts"), (["ab", "a"], "texts[1]"), (["ab", "aZ"], "texts[1]")], ids=str
)
async def test_wrong_text_to_score_is_named(running: Running, texts: list[str], field: str) -> None:
    assert await fields_of(
        TextGenerationStub(running.channel).Score(pb.ScoreRequest(model=MODEL, texts=texts))
    ) == [field]


# Alternatives.


async def test_alternatives_are_what_each_text_would_score(running: Running) -> None:
    """A token's log-probability among the alternatives is that of a text which ends with it instead."""
    stub = TextGenerationStub(running.channel)
    [score] = (await stub.Score(pb.ScoreRequest(model=MODEL, texts=["abcd"], alternatives=3))).scores
    assert [len(one.tokens) for one in score.alternatives] == [3, 3, 3]
    for end, (found, logprob) in enumerate(zip(score.alternatives, score.token_logprobs, strict=True), 1):
        texts = ["abcd"[:end] + one.text for one in found.tokens]
        scored = (await stub.Score(pb.ScoreRequest(model=MODEL, texts=texts))).scores
        assert [one.token_logprobs[-1] for one in scored] == [one.logprob for one in found.tokens]
        assert max(one.logprob for one in found.tokens) >= logprob


async def test_alternatives_beyond_the_vocabulary_are_all_there_are(running: Running) -> None:
    stub = TextGenerationStub(running.channel)
    [score] = (await stub.Score(pb.ScoreRequest(model=MODEL, texts=["ab"], alternatives=20))).scores
    [found] = score.alternatives
    assert {one.text for one in found.tokens} == set(VOCABULARY)
    logprobs = [one.logprob for one in found.tokens]
    assert logprobs == sorted(logprobs, reverse=True)
    assert sum(map(math.exp, logprobs)) == pytest.approx(1)
    assert next(one.logprob for one in found.tokens if one.text == "b") == score.token_logprobs[0]


async def test_scores_are_the_same_with_and_without_alternatives(running: Running) -> None:
    stub, texts = TextGenerationStub(running.channel), ["abcd", "hgfedcba" * 30]
    plain = await stub.Score(pb.ScoreRequest(model=MODEL, texts=texts))
    ranked = await stub.Score(pb.ScoreRequest(model=MODEL, texts=texts, alternatives=1))
    for one, other in zip(plain.scores, ranked.scores, strict=True):
        assert list(one.token_logprobs) == list(other.token_logprobs)
        assert not one.alternatives


async def test_too_many_alternatives_are_refused(running: Running) -> None:
    call = TextGenerationStub(running.channel).Score(
        pb.ScoreRequest(model=MODEL, texts=["ab"], alternatives=MAX_ALTERNATIVES + 1)
    )
    assert await fields_of(call) == ["alternatives"]
