"""service.api.sequences and service.api.sequence_messages, served in this process."""

import asyncio
from typing import Any

import grpc
import numpy as np
import pytest
from grpc import aio

from seqserve.v1 import sequences_pb2 as pb
from seqserve.v1.sequences_pb2_grpc import SequencesStub
from service.engine.request import ANYONE
from service.tasks.limits import MAX_ANSWER_BYTES
from service.tasks.sequences import SequenceInput
from tests import contract2
from tests.service.api.conftest import Running
from tests.service.api.rich import code_of_call, fields_of, refused_with, unpack

EVERY, LAST = pb.OUTPUT_STEPS_EVERY, pb.OUTPUT_STEPS_LAST
PATIENCE_S = 20.0


def infer(running: Running, model: str, *inputs: pb.SequenceInput, **fields: Any) -> Any:
    request = pb.InferRequest(model=model, inputs=inputs, **fields)
    return SequencesStub(running.channel).Infer(request, timeout=PATIENCE_S)


def steps(values: Any, **fields: Any) -> pb.SequenceInput:
    return pb.SequenceInput(steps=pb.StepValues(values=np.ravel(values), **fields))


def tokens(*ids: int) -> pb.SequenceInput:
    return pb.SequenceInput(tokens=pb.TokenIds(ids=ids))


def text(said: str) -> pb.SequenceInput:
    return pb.SequenceInput(text=said)


ROWS = np.array([[0.5, 1.0, 2.0], [1.5, -1.0, 0.5]], np.float32)


async def test_label_of_each_sequence_with_its_probabilities(sequencing: Running) -> None:
    response = await infer(sequencing, "activity", steps(ROWS), steps(ROWS[:1], features=3))
    assert response.version == 1
    labels = contract2.ACTIVITY.section["output"]["labels"]
    for output in response.outputs:
        assert (output.steps, output.width, list(output.values), list(output.spans)) == (1, 0, [], [])
        assert output.labels == [labels[int(np.argmax(output.probabilities))]]
        assert sum(output.probabilities) == pytest.approx(1)
    assert response.outputs[0] != response.outputs[1]


async def test_every_step_and_raw_outputs_when_asked_for(sequencing: Running) -> None:
    [output] = (await infer(sequencing, "activity", steps(ROWS), output_steps=EVERY, raw=True)).outputs
    features = np.stack([(ROWS[:, 0] - 0.5) / 2, ROWS[:, 1], (np.log(ROWS[:, 2]) - 1) / 0.5], axis=1)
    expected = contract2.Reference(contract2.ACTIVITY).outputs(features.astype(np.float32))
    assert (output.steps, output.width) == (2, 3)
    np.testing.assert_allclose(np.reshape(output.values, (2, 3)), expected, atol=1e-6)
    assert (len(output.labels), len(output.probabilities)) == (2, 6)


async def test_embedding_has_values_alone(sequencing: Running) -> None:
    [output] = (await infer(sequencing, "vanilla", steps(np.ones((5, 2))))).outputs
    assert (output.steps, output.width, len(output.values)) == (1, 6, 6)
    assert (list(output.labels), list(output.probabilities)) == ([], [])


async def test_text_is_tagged_with_spans(sequencing: Running) -> None:
    [output] = (await infer(sequencing, "word-tags", text("the  dog."))).outputs
    assert [(one.start, one.end) for one in output.spans] == [(0, 3), (5, 8), (8, 9)]
    assert len(output.labels) == output.steps == 3


async def test_one_output_may_stand_for_two_labels(sequencing: Running) -> None:
    [output] = (await infer(sequencing, "voice", steps(np.ones((4, 4))))).outputs
    assert (len(output.labels), len(output.probabilities)) == (4, 8)
    assert set(output.labels) <= {"silence", "speech"}


async def test_classifier_gives_what_classify_gives(sequencing: Running) -> None:
    [output] = (await infer(sequencing, "moods", text("a good film"))).outputs
    assert output.spans == [pb.TextSpan(start=0, end=11)]
    assert output.labels[0] in ("negative", "positive")


@pytest.mark.parametrize(
    ("model", "one", "field"),
    [
        pytest.param("", tokens(1), "model", id="no model"),
        pytest.param("topics", tokens(), "inputs[0].tokens.ids", id="no token"),
        pytest.param("topics", tokens(2**40), "inputs[0].tokens.ids[0]", id="a token far out"),
        pytest.param("topics", tokens(*[1] * 100_001), "inputs[0].tokens.ids", id="too many tokens"),
        pytest.param("topics", steps([1.0]), "inputs[0]", id="steps for tokens"),
        pytest.param("activity", tokens(1), "inputs[0]", id="tokens for steps"),
        pytest.param("activity", steps([1.0, 2.0]), "inputs[0].steps.values", id="half a step"),
        pytest.param("activity", steps([1.0] * 4, features=4), "inputs[0].steps.features", id="width"),
        pytest.param("activity", steps([1.0] * 30_003), "inputs[0].steps.values", id="too many steps"),
        pytest.param("activity", pb.SequenceInput(), "inputs[0]", id="nothing"),
        pytest.param("tags", text("a" * 100_001), "inputs[0].text", id="too long a text"),
        pytest.param(
            "activity",
            pb.SequenceInput(
                steps=steps(ROWS).steps, initial={str(index): pb.StepValues() for index in range(65)}
            ),
            "inputs[0].initial",
            id="too many initial",
        ),
        pytest.param(
            "activity",
            pb.SequenceInput(steps=steps(ROWS).steps, initial={"a": pb.StepValues(features=2, values=[1])}),
            "inputs[0].initial[a].features",
            id="initial that is no row",
        ),
    ],
)
async def test_wrong_sequence_is_named(
    sequencing: Running, model: str, one: pb.SequenceInput, field: str
) -> None:
    assert await fields_of(infer(sequencing, model, one)) == [field]


@pytest.mark.parametrize("count", [0, 257])
async def test_number_of_sequences_is_bounded(sequencing: Running, count: int) -> None:
    assert await fields_of(infer(sequencing, "topics", *[tokens(1)] * count)) == ["inputs"]


async def test_unknown_steps_are_refused(sequencing: Running) -> None:
    assert await fields_of(infer(sequencing, "topics", tokens(1), output_steps=3)) == ["output_steps"]


async def test_names_are_those_of_models_that_answer(running: Running) -> None:
    status = await refused_with(infer(running, "", text("a")))
    assert "(moods)" in status.message
    status = await refused_with(infer(running, "letters", text("a")))
    assert status.message == (
        "model: expected a model for sequences or text-classification (moods), "
        "found letters, which is for text-generation"
    )
    assert await code_of_call(infer(running, "nobody", text("a"))) is grpc.StatusCode.NOT_FOUND


async def test_answer_that_would_be_too_large_is_refused(sequencing: Running) -> None:
    status = await refused_with(infer(sequencing, "tags", *[text("ab" * 45_000)] * 2))
    info = unpack(status)["ErrorInfo"]
    assert info.reason == "ANSWER_TOO_LARGE"
    assert int(info.metadata["answer_bytes"]) > MAX_ANSWER_BYTES


@pytest.mark.parametrize("raw", [False, True])
async def test_estimate_of_an_answer_is_never_too_low(sequencing: Running, raw: bool) -> None:
    served = sequencing.repository.table.find("tags", 0, "sequences")
    assert served.sequences is not None
    texts = ["ab" * count for count in (1, 50, 2_000)]
    response = await infer(sequencing, "tags", *map(text, texts), raw=raw)
    inputs = [SequenceInput(said, None, None, {}) for said in texts]
    prepared = await served.sequences.prepare(inputs, None, raw, ANYONE)
    assert response.ByteSize() <= prepared.answer_bytes <= 2 * response.ByteSize()


async def test_other_calls_run_beside_a_long_one(sequencing: Running) -> None:
    """A request of many steps is answered in slices, so that a short one sent after it is not held up."""
    long = asyncio.ensure_future(infer(sequencing, "tags", text("ab" * 8_000)))
    short = asyncio.ensure_future(infer(sequencing, "activity", steps(ROWS)))
    done, _ = await asyncio.wait({long, short}, return_when=asyncio.FIRST_COMPLETED)
    assert short in done
    assert (await long).outputs[0].steps == 16_000


async def test_cancelled_call_frees_its_rows(sequencing: Running) -> None:
    call = infer(sequencing, "tags", text("ab" * 40_000))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await infer(sequencing, "activity", steps(ROWS))).outputs
    assert isinstance(call, aio.Call)
