"""How texts become token ids, beside what the pipelines that made the vocabularies do with them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from service.contract import spec
from service.models.tokenizer_file import read_tokenizer
from service.tasks.text_reader import TextReader
from training.convert.meaning.text import Text, characters_from, tokenizer_from
from training.convert.meaning.word_index import FILTERS
from training.errors import TrainingError

OPTION = "--tokenizer"
WORDS = ["<OOV>", "the", "film", "was", "don't", "good", "x1", "straße", "très"]
INDEX = {word: index for index, word in enumerate(WORDS, 1)}


def text_to_word_sequence(text: str, filters: str = FILTERS, *, lower: bool = True) -> list[str]:
    """Split a text as `keras.preprocessing.text.text_to_word_sequence` did, until Keras 3 dropped it."""
    text = text.lower() if lower else text
    text = text.translate(str.maketrans(filters, " " * len(filters)))
    return [word for word in text.split(" ") if word]


def keras_ids(text: str, config: Mapping[str, Any]) -> list[int]:
    """Return the ids that Keras's Tokenizer gave, with its words that are unknown or beyond num_words."""
    index, limit, unknown = json.loads(config["word_index"]), config["num_words"], config["oov_token"]
    found = []
    for word in text_to_word_sequence(text, config["filters"], lower=config["lower"]):
        token = index.get(word)
        if token is not None and (limit is None or token < limit):
            found.append(token)
        elif unknown is not None:
            found.append(index[unknown])
    return found


def keras_config(**changes: Any) -> dict[str, Any]:
    config = {
        "num_words": None,
        "filters": FILTERS,
        "lower": True,
        "split": " ",
        "char_level": False,
        "oov_token": "<OOV>",
        "document_count": 3,
        "word_index": json.dumps(INDEX),
    }
    return config | changes


def served_ids(made: Text, text: str, size: int) -> list[int]:
    """Return the ids that the service computes with the files of a version."""
    [data] = made.files.values() or [None]
    tokenizer = None if data is None else read_tokenizer("tokenizer.json", data, size)
    (tokens,) = TextReader("made", made.section, tokenizer).read([text], ["text"], with_spans=False)
    return list(map(int, tokens.ids))


# Keras keeps unusual white space within a word, and Python has a rule of its own for a sigma at a word's end.
texts = st.lists(
    st.sampled_from([*WORDS, "Film", "THE", "GOOD", "unheard", "İx", "STRASSE", "ﬁlm"])
    | st.text(st.characters(exclude_characters="Σ", exclude_categories=("Z", "C")), max_size=5)
    | st.sampled_from([*FILTERS, " ", "  "]),
    max_size=12,
).map("".join)


@settings(deadline=None)
@given(texts, st.sampled_from([None, 4, 10]), st.booleans(), st.sampled_from([FILTERS, "\t\n", ",.;\t\n"]))
def test_keras_tokenizer_gives_the_ids_that_keras_gives(
    text: str, num_words: int | None, lower: bool, filters: str
) -> None:
    config = keras_config(num_words=num_words, lower=lower, filters=filters)
    made = tokenizer_from({"class_name": "Tokenizer", "config": config}, 12, OPTION)
    assert made.encode(text) == keras_ids(text, config)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from([*WORDS[1:], "Film", "a!b", "unheard"]), min_size=1).map(" ".join))
def test_service_reads_texts_as_the_conversion_does(text: str) -> None:
    made = tokenizer_from({"config": keras_config()}, 12, OPTION)
    assert served_ids(made, text, 12) == made.encode(text)


def test_json_file_may_hold_the_tokenizer_or_its_text(tmp_path: Path) -> None:
    document = json.dumps({"class_name": "Tokenizer", "config": keras_config()})
    for name, text in {"a.json": document, "b.json": json.dumps(document)}.items():
        (tmp_path / name).write_text(text)
        assert tokenizer_from(tmp_path / name, 10, OPTION).encode("the, FILM! was_x1 odd") == [2, 3, 4, 7, 1]


def test_word_index_names_its_assumptions(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_text(json.dumps(INDEX))
    made = tokenizer_from(path, 10, OPTION)
    assert made.encode("The film: unheard") == [2, 3, 1]
    assert ["lower-cased" in note for note in made.notes] == [True]
    cased = tokenizer_from({"A": 1, "b": 2}, 3, OPTION)
    assert cased.encode("A b") == [1, 2]
    assert "left in their case" in cased.notes[0]
    assert "are refused" in cased.notes[1]
    with pytest.raises(ValueError, match="no tokens for it"):
        cased.encode("a")


def test_words_beyond_the_network_are_unknown() -> None:
    made = tokenizer_from(INDEX, 4, OPTION)
    assert made.encode("the film was good") == [2, 3, 1, 1]


def test_characters_of_keras_have_their_ids() -> None:
    index = {"a": 1, "b": 2, "é": 3, " ": 4}
    config = keras_config(char_level=True, word_index=json.dumps(index), oov_token=None)
    made = tokenizer_from({"config": config}, 5, OPTION)
    assert isinstance(made.section, spec.Characters)
    assert made.encode("Ab ÉA") == [1, 2, 4, 3, 1]
    assert served_ids(made, "Ab ÉA", 5) == [1, 2, 4, 3, 1]


def test_vocabulary_file_has_a_token_a_line(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("<pad>\n<unk>\nthe\nfilm\n")
    made = tokenizer_from(path, 4, OPTION)
    assert made.encode("The  film\nodd") == [2, 3, 1]
    assert served_ids(made, "The  film odd", 4) == [2, 3, 1]
    assert made.notes == ("texts are lower-cased and split at white space",)


def test_vocabulary_of_text_vectorization_drops_punctuation() -> None:
    made = tokenizer_from(["", "[UNK]", "the", "dont"], 4, OPTION)
    assert made.encode("THE, don't [UNK] odd") == [2, 3, 1, 1]
    assert served_ids(made, "the don't", 4) == [2, 3]


def test_vocabulary_of_word_pieces_is_split_as_bert_does() -> None:
    tokens = ["[PAD]", "[UNK]", "play", "##ing", "##ed", "!"]
    made = tokenizer_from(tokens, 6, OPTION)
    assert made.encode("Playing played!") == [2, 3, 2, 4, 5]
    assert served_ids(made, "Playing", 6) == [2, 3]


def test_tokenizers_file_is_taken_without_padding(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_padding(length=9)
    tokenizer.enable_truncation(9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for said in (tmp_path / "tokenizer.json", tokenizer):
        made = tokenizer_from(said, 2, OPTION)
        assert (made.encode("a b"), len(made.notes)) == ([1, 0], 2)
        assert served_ids(made, "a b", 2) == [1, 0]
    assert tokenizer.padding is not None


@pytest.mark.parametrize(
    ("said", "size", "found"),
    [
        ({"a": 1, "b": 1}, 3, "expected one word for each token id, found 'a' and 'b' for 1"),
        ({"a": -1}, 3, "expected a token id for each word, found 'a': -1"),
        ({"a": 9}, 3, "expected words with token ids below 3, found none"),
        ({"config": {"word_index": "{"}}, 3, "expected JSON in word_index"),
        ({"config": keras_config(split=",")}, 12, "expected words split at spaces, found ','"),
        ({"model": {"type": "None"}}, 3, "expected a file of the tokenizers library"),
        (["a", "b"], 3, "expected 3 tokens, one a token id of the network, found 2"),
        (["a", "a", "b"], 3, "expected different tokens, found 'a' twice"),
        (Tokenizer(models.WordLevel({"a": 0}, unk_token="a")), 3, "expected 3 tokens"),
        (7, 3, "expected a tokenizer, a word index or a list of tokens"),
    ],
)
def test_tokenizer_that_does_not_fit_is_refused(said: object, size: int, found: str) -> None:
    with pytest.raises(TrainingError) as refused:
        tokenizer_from(said, size, OPTION)
    assert found in str(refused.value)


@pytest.mark.parametrize(
    "said",
    [
        "abc",
        ["a", "b", "c"],
        '"abc"',
        '["a", "b", "c"]',
        '{"a": 0, "b": 1, "c": 2}',
        '{"0": "a", "1": "b", "2": "c"}',
    ],
)
def test_characters_may_be_a_string_or_json(said: Any, tmp_path: Path) -> None:
    assert characters_from(said, 3, "--characters").encode("cab") == [2, 0, 1]
    if isinstance(said, str):
        path = tmp_path / "characters"
        path.write_text(said + "\n")
        assert characters_from(path, 3, "--characters").encode("cab") == [2, 0, 1]
        assert characters_from(str(path), 3, "--characters").encode("cab") == [2, 0, 1]


def test_ids_without_a_character_keep_their_places() -> None:
    made = characters_from(["", "a", "<eos>", "b"], 4, "--characters")
    assert made.encode("ba") == [3, 1]
    assert made.notes == ("tokens that are no single characters cannot be typed: <eos>",)
    assert made.decode([1, 3]) == "ab"
    with pytest.raises(ValueError, match="character 'c' is none"):
        made.encode("c")


def test_characters_of_another_number_are_refused() -> None:
    with pytest.raises(TrainingError, match="expected 4 characters, one a token id of the network, found 3"):
        characters_from("abc", 4, "--characters")
    with pytest.raises(TrainingError, match="found 'a' twice"):
        characters_from("aba", 3, "--characters")
    with pytest.raises(TrainingError, match="token ids below 2"):
        characters_from('{"a": 7}', 2, "--characters")


def test_decoded_text_has_its_own_ids_or_is_left_out() -> None:
    made = tokenizer_from(INDEX, 10, OPTION)
    assert made.decode([2, 3, 6]) == "the film good"
    assert made.decode([2, 0, 3]) is None  # nobody can type the padding
    assert made.decode([]) is None


def test_tokens_are_named_by_text_or_number() -> None:
    made = tokenizer_from(INDEX, 10, OPTION)
    assert (made.token("film"), made.token("5"), made.token("nothing")) == (3, 5, None)
    characters = characters_from("a1\n", 3, "--characters")
    assert (characters.token("\n"), characters.token("2"), characters.token("a")) == (2, 2, 0)
