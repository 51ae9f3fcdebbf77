"""service.api.open_inference.sequence_parameters: ids and marks in every form."""

from collections.abc import Mapping

import pytest

from service.api.open_inference.parameters import Value
from service.api.open_inference.sequence_parameters import SequenceMark, mark_of
from service.errors import InvalidArgument
from tests.integration.tensors import infer_request


def mark(values: Mapping[str, Value]) -> SequenceMark | None:
    return mark_of(infer_request("model", {}, values).parameters)


@pytest.mark.parametrize(
    "found", [7, 7.0, "7", 2**64 - 1, str(2**64 - 1), "a", "007", "ünï", "0" * 1024], ids=repr
)
def test_id_is_read_in_every_form(found: Value) -> None:
    expected = str(int(found)) if isinstance(found, float) else str(found)
    assert mark({"sequence_id": found}) == SequenceMark(expected, False, False)


@pytest.mark.parametrize("found", [0, 0.0, "0", ""], ids=repr)
def test_id_of_0_stands_for_none(found: Value) -> None:
    assert mark({"sequence_id": found, "sequence_start": False, "sequence_end": "false"}) is None


def test_other_parameters_are_left_alone() -> None:
    assert mark({}) is None
    assert mark({"horizon": "x", "unknown": 1}) is None
    assert mark({"horizon": "x", "sequence_id": "a"}) == SequenceMark("a", False, False)


@pytest.mark.parametrize("truth", [True, "true"], ids=repr)
def test_start_and_end_are_read_as_truth_or_text(truth: Value) -> None:
    assert mark({"sequence_id": "a", "sequence_start": truth}) == SequenceMark("a", True, False)
    assert mark({"sequence_id": "a", "sequence_end": truth}) == SequenceMark("a", False, True)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"sequence_id": -1}, "sequence_id: expected a whole number of 0..2**64-1, found -1"),
        ({"sequence_id": 0.5}, "sequence_id: expected a whole number of 0..2**64-1, found 0.5"),
        ({"sequence_id": True}, "sequence_id: expected a whole number of 0..2**64-1, found True"),
        ({"sequence_id": "a" * 1025}, "sequence_id: expected at most 1024 characters, found 1025"),
        ({"sequence_id": "a", "sequence_start": 1}, "sequence_start: expected true or false, found 1"),
        (
            {"sequence_id": "a", "sequence_end": "yes"},
            "sequence_end: expected true or false, found the text 'yes'",
        ),
        (
            {"sequence_start": True},
            "sequence_id: expected the id of the sequence that starts or ends, found none",
        ),
        (
            {"sequence_id": 0, "sequence_end": "true"},
            "sequence_id: expected the id of the sequence that starts or ends, found none",
        ),
    ],
)
def test_value_that_does_not_fit_is_refused_by_name(values: Mapping[str, Value], text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        mark(values)
    assert str(refused.value) == text
