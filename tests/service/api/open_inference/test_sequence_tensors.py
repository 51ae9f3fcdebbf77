"""Tensors and errors of sequences, without a server: what the init graph takes, and paths of fields."""

from collections.abc import Mapping

import numpy as np
import pytest

from service.api.open_inference.interfaces.sequence_errors import initial_errors, sequence_errors
from service.api.open_inference.interfaces.sequence_tensors import sequences_of, tensor_names_of
from service.errors import AnswerTooLarge, InvalidArgument

INITIAL = {"image": "image", "input": "initial_input"}


def test_inputs_of_the_init_graph_have_their_names_unless_these_are_taken() -> None:
    assert tensor_names_of({"image": 5, "speaker": 3}) == {"image": "image", "speaker": "speaker"}
    assert tensor_names_of({"input": 5, "lengths": 3}) == {
        "input": "initial_input",
        "lengths": "initial_lengths",
    }
    assert tensor_names_of({"input": 5, "initial_input": 3}) == {
        "input": "initial_initial_input",
        "initial_input": "initial_input",
    }
    assert tensor_names_of({"prompt": 5, "input": 3}, ("prompt",)) == {
        "prompt": "initial_prompt",
        "input": "input",
    }


@pytest.mark.parametrize(
    ("field", "tensor"),
    [
        ("initial", "inputs"),
        ("initial[image].values", "image"),
        ("initial[image].values[17]", "image[0, 17]"),
        ("initial[input].values[2]", "initial_input[0, 2]"),
        ("initial[other].values", "inputs"),
        ("prompt", "prompt"),
        ("stop[0]", "stop[0]"),
    ],
)
def test_errors_of_a_generation_name_the_tensor_of_the_init_graph(field: str, tensor: str) -> None:
    with pytest.raises(InvalidArgument) as caught, initial_errors(INITIAL):
        raise InvalidArgument(field, "expected something else")
    assert [one.field for one in caught.value.violations] == [tensor]


def test_each_sequence_gets_its_row_of_what_the_init_graph_takes() -> None:
    images, others = np.arange(10.0).reshape(2, 5), np.arange(6.0).reshape(2, 3)
    rows = np.arange(12.0).reshape(2, 3, 2)
    tensors = {"input": rows, "image": images, "initial_input": others, "lengths": np.array([3, 1])}
    first, second = sequences_of(tensors, "steps", INITIAL)
    assert (first.steps is not None, second.steps is not None) == (True, True)
    np.testing.assert_array_equal(np.array(second.steps), rows[1, :1])
    assert second.initial.keys() == INITIAL.keys()
    np.testing.assert_array_equal(second.initial["image"], images[1])
    np.testing.assert_array_equal(second.initial["input"], others[1])
    assert sequences_of({"input": rows}, "steps", INITIAL)[0].initial == {}


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("inputs", "inputs"),
        ("inputs[2].text", "text[2]"),
        ("inputs[2].text[7]", "text[2, 7]"),
        ("inputs[1].tokens.ids", "input[1]"),
        ("inputs[1].tokens.ids[4]", "input[1, 4]"),
        ("inputs[1].steps.values", "input[1]"),
        ("inputs[1].steps.values[17]", "input[1, 5, 2]"),
        ("input.steps.values[17]", "input[0, 5, 2]"),
        ("inputs[3].initial", "inputs"),
        ("input.initial", "inputs"),
        ("inputs[3].initial[image].values", "image[3]"),
        ("inputs[3].initial[image].values[4]", "image[3, 4]"),
        ("input.initial[input].values[4]", "initial_input[0, 4]"),
        ("output_steps", "output_steps"),
    ],
)
def test_field_of_a_message_becomes_the_place_in_a_tensor(path: str, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused, sequence_errors(3, INITIAL):
        raise InvalidArgument(path, "expected more, found less")
    [violation] = refused.value.violations
    assert (violation.field, violation.description) == (field, "expected more, found less")


def test_answer_that_is_too_large_keeps_its_reason() -> None:
    initial: Mapping[str, str] = {}
    with pytest.raises(AnswerTooLarge), sequence_errors(3, initial):
        raise AnswerTooLarge("inputs", 5, 4, "ask for less")
