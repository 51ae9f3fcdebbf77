"""Sequences that are typed or dropped: what each kind of model takes, and refusals as sentences."""

import pytest

from seqserve.playground.sequence_inputs import (
    MAX_SEQUENCES,
    Takes,
    example_input,
    file_sequences,
    joined,
    parse_initial,
    time_steps,
    typed_sequences,
)
from seqserve.playground.uploads import FileRefusedError, HowToRead
from seqserve.results import FeatureInfo
from tests.playground.infos import model_info

TEXT, TOKENS = model_info(input="text"), model_info(input="tokens")
STEPS = model_info(input="steps", features=(FeatureInfo("x", ""), FeatureInfo("y", "m")))


def test_a_typed_text_is_one_sequence_and_a_file_has_one_a_line() -> None:
    assert [each.value for each in typed_sequences(TEXT, "a\nb")] == ["a\nb"]
    found = file_sequences(TEXT, "t.txt", b"a\n\nb\n", HowToRead())
    assert [(each.name, each.text, each.place) for each in found] == [
        ("1", "a", "line 1 of t.txt"),
        ("2", "b", "line 3 of t.txt"),
    ]


def test_each_line_of_token_ids_is_a_sequence() -> None:
    assert [each.value for each in typed_sequences(TOKENS, "1 2,3\n4")] == [[1, 2, 3], [4]]
    with pytest.raises(
        FileRefusedError, match="line 2 of the field: expected token ids, whole numbers, found '-4'"
    ):
        typed_sequences(TOKENS, "1 2\n-4")


def test_rows_are_matched_by_the_names_of_the_columns() -> None:
    assert typed_sequences(STEPS, "y,x\n2,1\n4,3\n")[0].value == [[1.0, 2.0], [3.0, 4.0]]
    with pytest.raises(FileRefusedError, match="expected a column y, found no such column among x, z"):
        typed_sequences(STEPS, "x,z\n1,2\n")


def test_an_empty_field_and_too_many_sequences_are_refused() -> None:
    with pytest.raises(FileRefusedError, match="found nothing"):
        typed_sequences(TEXT, " \n")
    with pytest.raises(FileRefusedError, match="expected at most 1,000 sequences, found 1,001"):
        file_sequences(TOKENS, "t.txt", b"1\n" * (MAX_SEQUENCES + 1), HowToRead())


def test_a_stream_sends_rows_tokens_or_words_that_make_the_whole_again() -> None:
    assert time_steps(typed_sequences(STEPS, "1,2\n3,4")[0]) == [[1.0, 2.0], [3.0, 4.0]]
    words = time_steps(typed_sequences(TEXT, " the  dog\nruns ")[0])
    assert words == [" the", "  dog", "\nruns", " "]
    assert joined(words) == " the  dog\nruns "
    assert joined([1, 2]) == [1, 2]


def test_an_example_is_text_that_the_field_reads() -> None:
    golden = [{"features": [[1.5, 2.0], [3.0, -4.0]]}, {"features": [[9.0, 9.0]]}]
    model = model_info(input="steps", features=STEPS.features, spec={"golden": golden})
    assert typed_sequences(model, example_input(model, 0))[0].value == [[1.5, 2.0], [3.0, -4.0]]
    assert example_input(model, 3) == "x,y\n9,9\n"
    assert example_input(model_info(input="tokens", spec={"golden": [{"tokens": [1, 2]}]}), 0) == "1 2"
    assert example_input(TEXT, 0) == ""


def test_initial_values_are_numbers_by_name() -> None:
    assert parse_initial({}) is None
    assert parse_initial({"image": "1, 2.5"}) == {"image": [1.0, 2.5]}
    with pytest.raises(FileRefusedError, match="image: expected a finite number, found 'x'"):
        parse_initial({"image": "x"})


def test_a_model_s_input_is_described_with_its_columns() -> None:
    assert "with the columns x, y" in Takes.of(STEPS).hint
    assert Takes.of(TOKENS).what == "token ids"
