"""Labelled pieces of a text, and outputs as rows of a table."""

from array import array
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from seqserve.playground.pieces import MAX_PIECES, output_names, pieces_of, records_of
from seqserve.sequence_results import SequenceOutput, TextSpan
from tests.playground.infos import model_info

LABELS = ("x", "y")


def output(
    spans: list[tuple[int, int]], labels: list[str], shares: list[float] | None = None
) -> SequenceOutput:
    flat = [value for share in shares or [0.75] * len(labels) for value in (share, 1 - share)]
    named = tuple(TextSpan(*span) for span in spans)
    return SequenceOutput(len(labels), 0, tuple(labels), named, array("f"), array("f", flat))


def test_a_word_a_label_leaves_the_space_between_them_plain() -> None:
    pieces = pieces_of(
        "the dog.", output([(0, 3), (4, 7), (7, 8)], ["x", "y", "y"], [0.75, 0.25, 0.5]), LABELS
    )
    assert [(piece.text, piece.label, piece.place) for piece in pieces] == [
        ("the", "x", 0),
        (" ", "", None),
        ("dog.", "y", 1),
    ]
    assert [piece.probability for piece in pieces] == [0.75, None, 0.5]


@given(st.text(min_size=1, max_size=40), st.data())
def test_pieces_make_the_whole_text(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    spans = list(pairwise(cuts))
    labels = [data.draw(st.sampled_from(["x", "y", ""])) for _ in spans]
    pieces = pieces_of(text, output(spans, labels), LABELS)
    assert "".join(piece.text for piece in pieces) == text
    assert all(piece.text for piece in pieces)


def test_a_long_text_has_a_bounded_number_of_pieces() -> None:
    text = "ab" * MAX_PIECES
    spans = [(place, place + 1) for place in range(len(text))]
    pieces = pieces_of(text, output(spans, ["x", "y"] * MAX_PIECES), LABELS)
    assert len(pieces) == MAX_PIECES + 1
    assert "".join(piece.text for piece in pieces) == text


def test_rows_of_a_stream_count_from_the_position_of_the_sequence() -> None:
    found = SequenceOutput(2, 1, (), (), array("f", [0.5, 1.5]), array("f"), position=10)
    assert records_of(found, model_info()) == [{"step": 9, "value 1": 0.5}, {"step": 10, "value 1": 1.5}]


def test_rows_of_a_text_have_the_characters_that_they_stand_for() -> None:
    [first, second] = records_of(output([(0, 1), (1, 3)], ["x", "y"]), model_info(labels=LABELS), "abc")
    assert (first["step"], first["text"], first["label"], first["probability x"]) == (1, "a", "x", 0.75)
    assert second["text"] == "bc"


def test_numbers_are_named_by_the_columns_of_the_model() -> None:
    columns = [{"name": "speed"}, {"name": "turn"}]
    model = model_info(spec={"sequences": {"output": {"columns": columns}}})
    assert output_names(model, 2, is_probability=False) == ["speed", "turn"]
    assert output_names(model, 3, is_probability=False) == ["value 1", "value 2", "value 3"]
