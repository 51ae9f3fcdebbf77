"""The recipe of tagged words: its files, its tokens, its measures, and the run from end to end."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import Command
from training.data.sources import own_data
from training.data.tagged import Sentence, TaggedChoice, read_tagged
from training.data.word_tokenizer import word_tokenizer
from training.errors import TrainingError
from training.recipes import label
from training.recipes.label_results import FrequentTags, entities, entity_f1, is_bio

SMALL = ("--hidden", 16, "--epochs", 12)


def sentences(count: int = 120) -> list[Sentence]:
    """Return sentences whose word "fish" is a verb before "the", a noun otherwise, among other words."""
    generator = np.random.default_rng(0)
    found = []
    for index in range(count):
        noun = f"{generator.choice(['dog', 'man', 'cat'])}{index % 7}"
        verb = index % 2 == 0
        words = (noun, "fish", "the", "box") if verb else ("the", "fish", "sees", noun)
        tags = ("N", "V", "D", "N") if verb else ("D", "N", "V", "N")
        adverb = str(generator.choice(["today", "often", "well"]))
        found.append(Sentence((*words, adverb, str(index)), (*tags, "A", "X")))
    return found


def write(path: Path, found: list[Sentence]) -> Path:
    blocks = ["".join(f"{token}\t{tag}\n" for token, tag in zip(*one, strict=True)) for one in found]
    path.write_text("\n".join(blocks))
    return path


def test_columns_and_json_lines_hold_the_same_sentences(tmp_path: Path) -> None:
    made = sentences()
    lines = [json.dumps(one._asdict()) for one in made]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    by_columns = read_tagged(TaggedChoice(own_data(write(tmp_path / "t.tsv", made))))
    assert by_columns == made == read_tagged(TaggedChoice(own_data(tmp_path / "t.jsonl")))


def test_columns_of_conllu_are_chosen_and_its_comments_left_out(tmp_path: Path) -> None:
    blocks = []
    for one in sentences():
        rows = enumerate(zip(*one, strict=True), 1)
        lines = [f"{number}\t{token}\t_\t{tag}\n" for number, (token, tag) in rows]
        blocks.append("# sent_id = 1\n" + "".join(lines))
    path = tmp_path / "t.conllu"
    path.write_text("\n".join(blocks))
    assert read_tagged(TaggedChoice(own_data(path), token_column=2, tag_column=4)) == sentences()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("dog N\ncat\n", "line 2: expected a token and its tag, found 'cat'", id="no tag"),
        pytest.param("dog\tN\nbig cat\tN\n", "a token without spaces, found 'big cat'", id="spaces"),
        pytest.param("dog\tN\n", "at least 20 different sentences", id="too few"),
        pytest.param('{"tokens": ["a"], "tags": []}\n', "found 1 tokens and 0 tags", id="unequal"),
        pytest.param('{"tokens": "a"}\n', "both lists of strings", id="no lists"),
        pytest.param('{"tokens": ["a"\n', "found no JSON", id="no JSON"),
        pytest.param(
            "\n\n".join(f"w{n} N" for n in range(30)), "different tags, found N alone", id="one tag"
        ),
    ],
)
def test_faulty_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "t.txt"
    path.write_text(text)
    with pytest.raises(TrainingError) as error:
        read_tagged(TaggedChoice(own_data(path)))
    assert said in str(error.value)


def test_unknown_word_is_its_known_beginning_and_ending() -> None:
    words = [["walking", "talking", "singing", "ringing", "going"], ["walk", "walk", "U.S.", "talk", "talk"]]
    pieces = word_tokenizer(words, "pieces", "lower")
    found = pieces.encode(["Walk", "talkking", "going."], is_pretokenized=True)
    assert found.tokens[:1] == ["walk"]
    assert found.tokens[1:3] == ["talk", "##k"]
    assert found.word_ids[-1] == 2
    assert found.tokens[-1] == "."
    whole = word_tokenizer(words, "words", "lower")
    assert whole.encode("Walk talkking").tokens == ["walk", "[UNK]"]


def test_text_with_spaces_has_the_tokens_of_its_words() -> None:
    tokenizer = word_tokenizer([one.tokens for one in sentences()], "pieces", "lower")
    for one in sentences():
        encoded = label.encode(tokenizer, one, label.labels_of(sentences()))
        assert tokenizer.encode(" ".join(one.tokens)).ids == encoded.tokens.tolist()
        assert len(encoded.last) == len(one.tokens)


def test_entities_are_read_as_conlleval_reads_them() -> None:
    tags = ["B-PER", "I-PER", "O", "I-LOC", "B-LOC", "I-PER"]
    assert entities(tags) == {(0, 2, "PER"), (3, 4, "LOC"), (4, 5, "LOC"), (5, 6, "PER")}
    assert entity_f1([["B-PER", "I-PER", "O"]], [["B-PER", "O", "B-PER"]]) == 0
    assert entity_f1([["B-PER", "O"]], [["B-PER", "B-LOC"]]) == pytest.approx(2 / 3)
    assert is_bio(["O", "B-X", "I-X"])
    assert not is_bio(["O", "I-X"])
    assert not is_bio(["N", "V"])


def test_baseline_gives_unknown_words_the_tag_of_rare_ones() -> None:
    known = [Sentence(("the", "the", "dog", "Cat"), ("D", "D", "N", "N"))]
    baseline = FrequentTags(known)
    assert baseline.tags(Sentence(("The", "horse"), ("D", "N"))) == ["D", "N"]
    assert not baseline.knows("horse")


@pytest.mark.parametrize("direction", ["both", "forward"])
def test_command_learns_what_a_words_own_tag_cannot_tell(
    command: Command, tmp_path: Path, direction: str
) -> None:
    file = write(tmp_path / "tags.tsv", sentences(160))
    assert command("label", file, *SMALL, "--direction", direction) == 0
    folder = tmp_path / "exported" / "tags" / "1"
    model = json.loads((folder / "model.json").read_bytes())
    metrics = model["metrics"]
    # Only a network that looks both ways sees what follows the word.
    assert metrics["held_out_accuracy"] > metrics["baseline_frequent_accuracy"]
    assert model["kind"] == ("whole" if direction == "both" else "chunk")
    assert all(golden["text"] for golden in model["golden"])
    assert (folder / "labels.png").stat().st_size


def test_entity_f1_is_measured_where_tags_are_bio(command: Command, tmp_path: Path) -> None:
    bio = [
        one._replace(tags=tuple({"N": "B-THING"}.get(tag, "O") for tag in one.tags)) for one in sentences()
    ]
    assert command("label", write(tmp_path / "bio.tsv", bio), "--hidden", 8, "--epochs", 2) == 0
    model = json.loads((tmp_path / "exported" / "bio" / "1" / "model.json").read_bytes())
    assert "held_out_entity_f1" in model["metrics"]


def test_run_ends_with_a_verdict_on_what_decides(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "tags.tsv", sentences(160))
    assert command("label", file, *SMALL, "--require-better") == 0
    assert "better than most frequent tag a word: words right, %" in capsys.readouterr().out
    made = json.loads((tmp_path / "exported" / "tags" / "1" / "model.json").read_bytes())
    assert made["metrics"]["beats_baselines"] == 1
    assert made["provenance"]["choices"]["recipe"] == "label"
    bio = [
        one._replace(tags=tuple({"N": "B-THING"}.get(tag, "O") for tag in one.tags)) for one in sentences()
    ]
    some = write(tmp_path / "bio.tsv", bio)
    assert command("label", some, "--hidden", 2, "--epochs", 1, "--require-better") == 1
    shown = capsys.readouterr()
    assert "F1 of entities, %" in shown.out.partition("verdict:")[2]
    assert "--require-better: expected a model that beats its baselines" in shown.err
    assert not (tmp_path / "exported" / "bio").exists()
