"""service.tasks.sequences, with real onnxruntime on small networks of contract 2."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.engine.request import ANYONE
from service.errors import AnswerTooLarge, InvalidArgument
from service.tasks.sequences import SequenceInput, SequenceOutput
from service.tasks.states import StepState
from tests import contract2
from tests.contract2 import ACTIVITY, BEGUN, ODD, TAGS, TOPICS, VANILLA, VOICE, WINDOWED, WORD_TAGS
from tests.contract2_graphs import Net
from tests.service.builders import LIMITS
from tests.service.tasks.sequencers import given as given_to
from tests.service.tasks.sequencers import reference, steps, task_of, text, tokens

PLAIN = (ODD, VANILLA, VOICE, TOPICS, BEGUN)  # networks whose input is what callers send
# Of float32 sums in another order, which vanilla kernels have.
TOLERANCE = 1e-6
ROWS = [[0.1, -0.2, 1.5], [2.0, 0.0, 3.0], [-1.0, 1.0, 0.5]]

ids: Any = [net.name for net in PLAIN]


def random_inputs(net: Net, count: int, seed: int = 3) -> NDArray[Any]:
    [inputs] = contract2.sequences_of(net, (count,), seed)
    return inputs


def raw_of(output: SequenceOutput) -> NDArray[np.float32]:
    assert output.values is not None
    return output.values


async def refusal(net: Net, *inputs: SequenceInput, **fields: Any) -> tuple[str, str]:
    """Return the field and the text of the refusal, after which nothing was run."""
    task, engine = task_of(net)
    with pytest.raises(InvalidArgument) as refused:
        await task.infer(inputs, fields.get("every"), fields.get("raw", False), ANYONE)
    assert engine.num_rows == 0
    [violation] = refused.value.violations
    return violation.field, violation.description


# Whole sequences.


@pytest.mark.parametrize("net", PLAIN, ids=ids)
@pytest.mark.parametrize("every", [True, False])
async def test_raw_outputs_are_those_of_bare_onnxruntime(net: Net, every: bool) -> None:
    task, _ = task_of(net)
    lengths = (1, 7, 20)
    given = [random_inputs(net, count, count) for count in lengths]
    found = await task.infer([given_to(net, one, len(one)) for one in given], every, raw=True, caller=ANYONE)
    for one, output in zip(given, found, strict=True):
        expected = reference(net).outputs(one, contract2.initial_of(net, len(one)))
        np.testing.assert_allclose(raw_of(output), expected if every else expected[-1:], atol=TOLERANCE)
        assert output.steps == (len(one) if every else 1)


@pytest.mark.parametrize(
    ("net", "is_every"), [(ACTIVITY, False), (TAGS, True), (ODD, True), (VANILLA, False), (VOICE, True)]
)
async def test_steps_are_those_that_the_model_was_made_for(net: Net, is_every: bool) -> None:
    task, _ = task_of(net)
    given = steps(ROWS) if net is ACTIVITY else text("abc") if net is TAGS else None
    one = given or given_to(net, random_inputs(net, 3))
    [output] = await task.infer([one], None, raw=False, caller=ANYONE)
    assert output.steps == (3 if is_every else 1)
    assert task.every_by_default is is_every


async def test_columns_turn_values_into_features() -> None:
    task, _ = task_of(ACTIVITY)
    [output] = await task.infer([steps(ROWS)], every=True, raw=True, caller=ANYONE)
    features = [[(x - 0.5) / 2, y, (np.log(power) - 1) / 0.5] for x, y, power in ROWS]
    expected = reference(ACTIVITY).outputs(np.array(features, np.float32))
    np.testing.assert_allclose(raw_of(output), expected, atol=TOLERANCE)
    assert len(output.labels) == 3
    assert output.probabilities is not None
    assert output.probabilities.shape == (3, 3)


async def test_text_and_its_tokens_give_the_same() -> None:
    task, _ = task_of(TAGS)
    said = "hea\nbé"
    given = [text(said), tokens([contract2.VOCABULARY.index(one) for one in said])]
    by_text, by_tokens = await task.infer(given, None, raw=True, caller=ANYONE)
    np.testing.assert_array_equal(raw_of(by_text), raw_of(by_tokens))
    assert by_text.spans == [(index, index + 1) for index in range(len(said))]
    assert by_tokens.spans == []


async def test_one_row_stands_for_the_whole_text() -> None:
    task, _ = task_of(WORD_TAGS)
    [output] = await task.infer([text(" the dog . ")], every=False, raw=False, caller=ANYONE)
    assert output.spans == [(0, 11)]
    assert (output.steps, len(output.labels)) == (1, 1)


async def test_words_have_a_span_each() -> None:
    task, _ = task_of(WORD_TAGS)
    [output] = await task.infer([text("the  dog runs")], None, raw=False, caller=ANYONE)
    assert output.spans == [(0, 3), (5, 8), (9, 13)]


async def test_mixed_kinds_come_back_in_order() -> None:
    task, _ = task_of(WORD_TAGS)
    given = [tokens([1, 2]), text("the dog"), tokens([7]), text(".")]
    found = await task.infer(given, None, raw=True, caller=ANYONE)
    assert [one.steps for one in found] == [2, 2, 1, 1]
    np.testing.assert_array_equal(raw_of(found[0]), raw_of(found[1]))
    np.testing.assert_array_equal(raw_of(found[2]), raw_of(found[3]))


@pytest.mark.parametrize("said", ["abc", "abcdefgh", "abcdefghab"])
async def test_window_is_what_the_network_gets(said: str) -> None:
    task, _ = task_of(WINDOWED)
    ids = [contract2.VOCABULARY.index(one) for one in said]
    window = ([1] * 8 + ids)[-8:]
    expected = reference(WINDOWED).outputs(np.array(window))
    [last] = await task.infer([text(said)], every=False, raw=True, caller=ANYONE)
    np.testing.assert_array_equal(raw_of(last), expected[-1:])
    [every] = await task.infer([text(said)], every=True, raw=True, caller=ANYONE)
    kept = min(8, len(said))
    np.testing.assert_array_equal(raw_of(every), expected[-kept:])
    assert every.spans == [(index, index + 1) for index in range(len(said) - kept, len(said))]


async def test_last_row_of_a_window_padded_at_its_end_is_after_the_padding() -> None:
    net = replace(WINDOWED, window={"to": 6, "side": "right", "value": 2, "longer": "refuse"})
    task, _ = task_of(net)
    expected = reference(net).outputs(np.array([3, 4, 2, 2, 2, 2]))
    [last] = await task.infer([tokens([3, 4])], every=False, raw=True, caller=ANYONE)
    [every] = await task.infer([tokens([3, 4])], every=True, raw=True, caller=ANYONE)
    np.testing.assert_array_equal(raw_of(last), expected[-1:])
    np.testing.assert_array_equal(raw_of(every), expected[:2])


# Steps as they come.


@pytest.mark.parametrize("net", PLAIN, ids=ids)
@settings(max_examples=10)
@given(cuts=st.lists(st.integers(1, 23), max_size=6))
async def test_steps_in_any_cut_give_the_outputs_of_the_whole(net: Net, cuts: list[int]) -> None:
    task, _ = task_of(net)
    inputs, ends = random_inputs(net, 24), sorted({0, 24, *cuts})
    [whole] = await task.infer([given_to(net, inputs)], every=True, raw=True, caller=ANYONE)
    state: StepState | None = None
    rows = []
    for start, end in pairwise(ends):
        one = given_to(net, inputs[start:end])
        later = replace(one, initial=one.initial if state is None else {})
        output, state = await task.advance(state, later, every=True, raw=True, caller=ANYONE)
        assert state.position == end
        rows.append(raw_of(output))
    if net is VANILLA:
        np.testing.assert_allclose(np.concatenate(rows), raw_of(whole), atol=TOLERANCE)
    else:
        np.testing.assert_array_equal(np.concatenate(rows), raw_of(whole))


async def test_last_step_of_a_message_is_that_of_the_sequence_so_far() -> None:
    task, _ = task_of(TOPICS)
    inputs = random_inputs(TOPICS, 9)
    _, state = await task.advance(None, tokens(inputs[:4]), None, raw=True, caller=ANYONE)
    output, state = await task.advance(state, tokens(inputs[4:]), None, raw=True, caller=ANYONE)
    [whole] = await task.infer([tokens(inputs)], None, raw=True, caller=ANYONE)
    np.testing.assert_array_equal(raw_of(output), raw_of(whole))
    assert (output.steps, state.position) == (1, 9)


async def test_initial_counts_at_the_start_alone() -> None:
    task, _ = task_of(BEGUN)
    one = given_to(BEGUN, random_inputs(BEGUN, 2))
    _, state = await task.advance(None, one, None, raw=False, caller=ANYONE)
    with pytest.raises(InvalidArgument) as refused:
        await task.advance(state, one, None, raw=False, caller=ANYONE)
    assert refused.value.violations[0].field == "input.initial"
    assert "beside a state, found 'image', 'speaker'" in str(refused.value)


@pytest.mark.parametrize(("net", "is_streamable"), [(TAGS, True), (WINDOWED, False)])
def test_model_with_a_window_needs_whole_sequences(net: Net, is_streamable: bool) -> None:
    task, _ = task_of(net)
    assert task.is_streamable is is_streamable
    if is_streamable:
        task.check_streamable()
        return
    with pytest.raises(InvalidArgument, match="windowed, which needs whole sequences: send them to Infer"):
        task.check_streamable()


# What is refused.

NOTHING = SequenceInput(None, None, None, {})


@pytest.mark.parametrize(
    ("net", "one", "field", "said"),
    [
        pytest.param(TAGS, steps(ROWS), "inputs[1]", "expected text or tokens", id="steps for tokens"),
        pytest.param(TOPICS, text("a"), "inputs[1]", "expected tokens, as", id="text without a vocabulary"),
        pytest.param(ODD, tokens([1]), "inputs[1]", "expected steps, as", id="tokens for steps"),
        pytest.param(TAGS, NOTHING, "inputs[1]", "found neither text, tokens nor steps", id="nothing"),
        pytest.param(TAGS, text("ax"), "inputs[1].text", "position 1", id="unknown character"),
        pytest.param(TAGS, text(""), "inputs[1].text", "at least 1 characters", id="empty text"),
        pytest.param(TAGS, text("a" * 201), "inputs[1].text", "at most 200 characters", id="long text"),
        pytest.param(TOPICS, tokens([]), "inputs[1].tokens.ids", "at least 1 tokens", id="no token"),
        pytest.param(TOPICS, tokens([1] * 201), "inputs[1].tokens.ids", "at most 200", id="many tokens"),
        pytest.param(TOPICS, tokens([1, 20]), "inputs[1].tokens.ids[1]", "0..19, found 20", id="large token"),
        pytest.param(TOPICS, tokens([-1]), "inputs[1].tokens.ids[0]", "0..19, found -1", id="negative token"),
        pytest.param(ODD, steps(np.ones((0, 4))), "inputs[1].steps.values", "at least 1", id="no step"),
        pytest.param(ODD, steps(np.ones((51, 4))), "inputs[1].steps.values", "at most 50", id="many steps"),
        pytest.param(ODD, steps(np.ones((1, 3))), "inputs[1].steps.values", "expected 4 values", id="narrow"),
        pytest.param(ODD, steps([[1, np.nan, 1, 1]]), "inputs[1].steps.values[1]", "finite", id="NaN"),
        pytest.param(BEGUN, steps([[1, 1]]), "inputs[1].initial", "(image, speaker)", id="no initial"),
    ],
)
async def test_wrong_sequence_is_named(net: Net, one: SequenceInput, field: str, said: str) -> None:
    good = text("a") if net is TAGS else given_to(net, random_inputs(net, 2))
    found = await refusal(net, good, one)
    assert found[0] == field
    assert said in found[1]


@pytest.mark.parametrize("count", [0, 9])
async def test_number_of_sequences_is_bounded(count: int) -> None:
    assert (await refusal(TOPICS, *[tokens([1])] * count))[0] == "inputs"


async def test_answer_is_bounded_before_anything_is_run() -> None:
    """A row of TAGS takes at most 41 bytes, its span and label included."""
    task, engine = task_of(TAGS, replace(LIMITS, answer_bytes=1500))
    assert await task.infer([text("ab" * 15)], every=True, raw=False, caller=ANYONE)
    with pytest.raises(AnswerTooLarge) as refused:
        await task.infer([text("ab" * 50)], every=True, raw=False, caller=ANYONE)
    assert refused.value.violations[0].field == "inputs"
    assert engine.num_rows == 1
    assert await task.infer([text("ab" * 50)], every=False, raw=False, caller=ANYONE)


async def test_answer_in_a_stream_is_bounded_with_what_stands_beside() -> None:
    task, engine = task_of(TAGS, replace(LIMITS, answer_bytes=1500))
    await task.prepare_steps(None, text("ab"), None, raw=False, caller=ANYONE, other_bytes=1000)
    with pytest.raises(AnswerTooLarge):
        await task.prepare_steps(None, text("ab"), None, raw=False, caller=ANYONE, other_bytes=1490)
    assert engine.num_rows == 0


@pytest.mark.parametrize(
    ("net", "takes", "gives", "labels", "width"),
    [
        (ACTIVITY, "steps", "label", 3, 3),
        (TAGS, "text", "label", 3, 3),
        (TOPICS, "tokens", "label", 4, 4),
        (ODD, "steps", "numbers", 0, 2),
        (VANILLA, "steps", "embedding", 0, 6),
        (VOICE, "steps", "label", 2, 1),
    ],
)
def test_task_says_what_it_takes_and_gives(net: Net, takes: str, gives: str, labels: int, width: int) -> None:
    task, _ = task_of(net)
    assert (task.input, task.output, len(task.labels), task.width) == (takes, gives, labels, width)
