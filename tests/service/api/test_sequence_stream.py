"""service.api.sequence_stream, served in this process."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from itertools import pairwise
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqserve.v1 import sequences_pb2 as pb
from seqserve.v1.sequences_pb2_grpc import SequencesStub
from tests.service.api.conftest import IN_FLIGHT, MAX_SERIES, Running
from tests.service.api.rich import fields_of, finish, unpack

MODEL = "activity"
PATIENCE_S = 20.0
STEPS = np.random.default_rng(1).uniform(0.1, 2.0, (40, 3)).astype(np.float32)
EVERY, LAST = pb.OUTPUT_STEPS_EVERY, pb.OUTPUT_STEPS_LAST


def steps(start: int, end: int, factor: float = 1.0) -> pb.SequenceInput:
    return pb.SequenceInput(steps=pb.StepValues(values=(STEPS[start:end] * np.float32(factor)).ravel()))


def text(said: str) -> pb.SequenceInput:
    return pb.SequenceInput(text=said)


def push(one: pb.SequenceInput | None = None, name: str = "", **fields: Any) -> pb.InferStreamRequest:
    return pb.InferStreamRequest(input=one, id=name, **fields)


def first(one: pb.SequenceInput | None = None, name: str = "", **fields: Any) -> pb.InferStreamRequest:
    return push(one, name, **{"model": MODEL} | fields)


async def answers(
    running: Running, requests: Iterable[pb.InferStreamRequest]
) -> list[pb.InferStreamResponse]:
    async with asyncio.timeout(PATIENCE_S):
        return list(await finish(SequencesStub(running.channel).InferStream(iter(list(requests)))))


async def unary(running: Running, one: pb.SequenceInput, model: str = MODEL, **fields: Any) -> Any:
    request = pb.InferRequest(model=model, inputs=[one], **fields)
    response = await SequencesStub(running.channel).Infer(request)
    return response.outputs[0]


def code(response: pb.InferStreamResponse) -> grpc.StatusCode:
    return next(one for one in grpc.StatusCode if one.value[0] == response.error.code)


def field_of(response: pb.InferStreamResponse) -> str:
    """The field that an answer's error names."""
    assert code(response) is grpc.StatusCode.INVALID_ARGUMENT, response.error
    assert not response.HasField("output")
    [violation] = unpack(response.error)["BadRequest"].field_violations
    return str(violation.field)


# Outputs.


@settings(max_examples=15)
@given(cuts=st.lists(st.integers(1, 39), max_size=6))
async def test_messages_in_any_cut_give_the_outputs_of_the_whole(
    sequencing: Running, cuts: list[int]
) -> None:
    pairs = list(pairwise(sorted({0, 40, *cuts})))
    found = await answers(sequencing, [first(steps(*pair), output_steps=EVERY, raw=True) for pair in pairs])
    whole = await unary(sequencing, steps(0, 40), output_steps=EVERY, raw=True)
    together = pb.SequenceOutput(steps=0, width=3)
    for one in found:
        together.steps += one.output.steps
        together.values.extend(one.output.values)
        together.labels.extend(one.output.labels)
        together.probabilities.extend(one.output.probabilities)
    assert together == whole
    assert [one.position for one in found] == [end for _, end in pairs]


async def test_last_step_is_that_of_the_sequence_so_far(sequencing: Running) -> None:
    found = await answers(sequencing, [first(steps(0, 7)), push(steps(7, 8)), push(steps(8, 20))])
    assert [one.output for one in found] == [await unary(sequencing, steps(0, end)) for end in (7, 8, 20)]


async def test_text_is_tagged_message_by_message(sequencing: Running) -> None:
    found = await answers(sequencing, [first(text("abé"), model="tags"), push(text("fg"))])
    whole = await unary(sequencing, text("abéfg"), "tags")
    assert [list(one.output.labels) for one in found] == [whole.labels[:3], whole.labels[3:]]
    assert [[(span.start, span.end) for span in one.output.spans] for one in found] == [
        [(0, 1), (1, 2), (2, 3)],
        [(0, 1), (1, 2)],
    ]


async def test_classifier_answers_step_by_step(sequencing: Running) -> None:
    found = await answers(sequencing, [first(text("good"), model="moods"), push(text("film"))])
    assert found[-1].output.labels == (await unary(sequencing, text("good film"), "moods")).labels


async def test_sequences_of_one_stream_know_nothing_of_each_other(sequencing: Running) -> None:
    names = {"a": 1.0, "b": 3.0, "": 0.5}
    found = await answers(
        sequencing,
        [first(steps(end - 3, end, factor), name) for end in (3, 6, 9) for name, factor in names.items()],
    )
    for name, factor in names.items():
        own = [one.output for one in found if one.id == name]
        assert own == [await unary(sequencing, steps(0, end, factor)) for end in (3, 6, 9)]


async def test_messages_sent_ahead_are_answered_in_order(sequencing: Running) -> None:
    found = await answers(sequencing, [first(steps(index, index + 1)) for index in range(40)])
    assert [one.position for one in found] == list(range(1, 41))
    assert [one.version for one in found] == [1] * 40


async def test_answer_comes_while_the_stream_is_open(sequencing: Running) -> None:
    is_answered = asyncio.Event()

    async def ask() -> AsyncIterator[pb.InferStreamRequest]:
        yield first(steps(0, 1))
        await is_answered.wait()
        yield push(steps(1, 2))

    found = 0
    async with asyncio.timeout(PATIENCE_S):
        async for _ in SequencesStub(sequencing.channel).InferStream(ask()):
            found += 1
            is_answered.set()
    assert found == 2


async def test_later_message_may_say_again_what_the_first_said(sequencing: Running) -> None:
    explicit: dict[str, Any] = {"model": MODEL, "version": 1, "output_steps": EVERY, "raw": True}
    found = await answers(sequencing, [first(steps(0, 2), **explicit), push(steps(2, 3), **explicit)])
    assert [one.output.width for one in found] == [3, 3]


# The end of a sequence.


async def test_end_forgets_the_sequence(sequencing: Running) -> None:
    found = await answers(
        sequencing,
        [first(steps(0, 3)), push(steps(3, 6), end=True), push(steps(0, 1)), first(steps(0, 4))],
    )
    assert [one.position for one in found] == [3, 6, 0, 4]
    assert field_of(found[2]) == "model"
    assert found[3].output == await unary(sequencing, steps(0, 4))


async def test_message_without_steps_may_end_a_sequence(sequencing: Running) -> None:
    [_, ended, again] = await answers(
        sequencing, [first(steps(0, 3)), push(end=True, return_state=True), first(steps(0, 1))]
    )
    assert (ended.position, ended.HasField("output"), ended.HasField("error")) == (3, False, False)
    assert again.position == 1
    [further] = await answers(sequencing, [first(steps(3, 5), state=ended.state)])
    assert further.output == await unary(sequencing, steps(0, 5))


async def test_ended_sequences_make_room_for_others(sequencing: Running) -> None:
    requests = [first(steps(0, 1), str(index), end=True) for index in range(3 * MAX_SERIES)]
    assert not any(one.HasField("error") for one in await answers(sequencing, requests))


async def test_failed_message_does_not_end_its_sequence(sequencing: Running) -> None:
    found = await answers(
        sequencing, [first(steps(0, 3)), push(text("a"), end=True), push(steps(3, 4), end=True)]
    )
    assert [(one.position, one.HasField("error")) for one in found] == [(3, False), (3, True), (4, False)]


# What is wrong with a message is its own answer.


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        pytest.param(push(steps(0, 1)), "model", id="no model"),
        pytest.param(first(steps(0, 1), model="windowed"), "model", id="a model with a window"),
        pytest.param(first(), "input", id="no input"),
        pytest.param(first(end=True), "input", id="no input, and the end"),
        pytest.param(first(pb.SequenceInput()), "input", id="an empty input"),
        pytest.param(first(text("a")), "input", id="another kind"),
        pytest.param(first(steps(0, 0)), "input.steps.values", id="no step"),
        pytest.param(
            first(pb.SequenceInput(steps=pb.StepValues(values=[1, 2]))),
            "input.steps.values",
            id="half a step",
        ),
        pytest.param(
            first(pb.SequenceInput(steps=pb.StepValues(features=2, values=[1, 2]))),
            "input.steps.features",
            id="another width",
        ),
        pytest.param(
            first(pb.SequenceInput(steps=pb.StepValues(values=[1, 2, 0]))),
            "input.steps.values[2]",
            id="the logarithm of zero",
        ),
        pytest.param(
            first(pb.SequenceInput(initial={"image": pb.StepValues(values=[1])}, steps=steps(0, 1).steps)),
            "input.initial",
            id="no init graph",
        ),
        pytest.param(first(steps(0, 1), output_steps=7), "output_steps", id="unknown steps"),
        pytest.param(first(steps(0, 1), state=b"SQS\x01"), "state", id="no state"),
    ],
)
async def test_wrong_first_message_opens_nothing_and_the_next_is_the_first(
    sequencing: Running, wrong: pb.InferStreamRequest, field: str
) -> None:
    found = await answers(sequencing, [wrong, first(steps(0, 2))])
    assert field_of(found[0]) == field
    assert (found[0].position, found[0].version) == (0, 0)
    assert found[1].output == await unary(sequencing, steps(0, 2))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        pytest.param(push(steps(0, 1), model="tags"), "model", id="another model"),
        pytest.param(push(steps(0, 1), version=2), "version", id="another version"),
        pytest.param(push(steps(0, 1), output_steps=EVERY), "output_steps", id="other steps"),
        pytest.param(push(steps(0, 1), raw=True), "raw", id="raw"),
        pytest.param(push(steps(0, 1), state=b"SQS\x01"), "state", id="a state"),
        pytest.param(push(), "input", id="no input"),
        pytest.param(push(steps(0, 0)), "input.steps.values", id="no step"),
        pytest.param(
            push(pb.SequenceInput(initial={"image": pb.StepValues(values=[1])}), end=True),
            "input.initial",
            id="initial with the end",
        ),
    ],
)
async def test_wrong_later_message_leaves_its_sequence_as_it_was(
    sequencing: Running, wrong: pb.InferStreamRequest, field: str
) -> None:
    found = await answers(sequencing, [first(steps(0, 5)), wrong, push(steps(5, 6))])
    assert field_of(found[1]) == field
    assert found[1].position == 5
    assert found[2].output == await unary(sequencing, steps(0, 6))


async def test_model_with_a_window_says_what_to_do(sequencing: Running) -> None:
    [found] = await answers(sequencing, [first(text("abc"), model="windowed")])
    assert "send them to Infer" in found.error.message


async def test_endless_id_ends_the_call(sequencing: Running) -> None:
    call = SequencesStub(sequencing.channel).InferStream(iter([first(steps(0, 1), "i" * 1025)]))
    assert await fields_of(call) == ["id"]


async def test_sequences_beyond_the_limit_are_refused_and_failed_ones_do_not_count(
    sequencing: Running,
) -> None:
    failed = [first(None, f"failed {index}") for index in range(MAX_SERIES)]
    starts = [first(steps(0, 1), str(index)) for index in range(MAX_SERIES + 1)]
    found = {one.id: one for one in await answers(sequencing, [*failed, *starts])}
    assert field_of(found[str(MAX_SERIES)]) == "id"
    assert f"at most {MAX_SERIES} sequences" in found[str(MAX_SERIES)].error.message
    assert not any(found[str(index)].HasField("error") for index in range(MAX_SERIES))


async def test_unknown_model_is_not_found(sequencing: Running) -> None:
    [found] = await answers(sequencing, [first(steps(0, 1), model="nobody")])
    assert code(found) is grpc.StatusCode.NOT_FOUND


# Sealed states.


@settings(max_examples=10)
@given(cuts=st.lists(st.integers(1, 39), max_size=4), end=st.booleans())
async def test_sequence_goes_on_from_sealed_states_bit_for_bit(
    sequencing: Running, cuts: list[int], end: bool
) -> None:
    state = b""
    for start, stop in pairwise(sorted({0, 40, *cuts})):
        request = first(steps(start, stop), raw=True, state=state, return_state=True, end=end)
        [found] = await answers(sequencing, [request])
        state = found.state
        assert found.position == stop
    assert found.output == await unary(sequencing, steps(0, 40), raw=True)


async def test_state_is_sent_when_asked_for_alone(sequencing: Running) -> None:
    found = await answers(
        sequencing,
        [
            first(steps(0, 1)),
            push(steps(1, 2), return_state=True),
            push(steps(2, 3)),
            push(return_state=True),
        ],
    )
    assert [bool(one.state) for one in found] == [False, True, False, False]


async def test_state_of_another_model_is_called_so(sequencing: Running) -> None:
    [before] = await answers(sequencing, [first(steps(0, 1), return_state=True)])
    [found] = await answers(sequencing, [first(text("a"), model="tags", state=before.state)])
    assert field_of(found) == "state"
    assert "of model tags, found one of another model" in found.error.message


# Ends.


async def test_more_messages_than_places_are_all_answered(sequencing: Running) -> None:
    count = IN_FLIGHT * 10
    requests = [first(steps(0, 1), str(index % MAX_SERIES)) for index in range(count)]
    assert len(await answers(sequencing, requests)) == count


async def test_cancelled_stream_leaves_the_server_answering(sequencing: Running) -> None:
    async def ask() -> AsyncIterator[pb.InferStreamRequest]:
        while True:
            yield first(steps(0, 1))

    call = SequencesStub(sequencing.channel).InferStream(ask())
    await call.read()
    call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED
    assert (await unary(sequencing, steps(0, 1))).steps == 1
