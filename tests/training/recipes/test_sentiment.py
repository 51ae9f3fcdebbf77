"""The text classifier: its data, its tokens, its batches, and the recipe from end to end."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from service.contract import spec
from tests.training.conftest import Command
from training.data.label_tokenizers import word_tokenizer
from training.data.sources import own_data
from training.data.tokenizing import UNKNOWN_ID
from training.errors import TrainingError
from training.loop.fit import build_network
from training.loop.tuning import Tuning
from training.networks.network import NetworkConfig
from training.recipes.sentiment import (
    MORE_KINDS,
    Parts,
    SentimentObjective,
    Table,
    Texts,
    all_logits,
    calibration_error,
    encode,
    last_logits,
    log_loss,
    read_labelled,
    read_more_reviews,
    read_reviews,
    split,
)


def test_reviews_have_two_labels_by_the_sign_of_their_rating() -> None:
    reviews = read_reviews()
    assert reviews.labels == ["negative", "positive"]
    assert np.bincount(reviews.classes).tolist() == [5325, 5241]
    assert len(set(reviews.texts)) == len(reviews.texts)
    # sigmoid(1.2 * 2.26666666667) of the first one
    assert reviews.targets[0].tolist() == pytest.approx([0.0618, 0.9382], abs=1e-4)


def test_more_reviews_are_rated_texts_of_four_kinds_and_none_is_a_movie_review() -> None:
    """A held-out sentence among them would make the classifier look better than it is."""
    more = read_more_reviews()
    assert {kind: len(read_more_reviews([kind]).texts) for kind in MORE_KINDS} == {
        "amazon": 3598,
        "nyt": 4878,
        "tweet": 4196,
        "word": 7504,
    }
    assert len(more.texts) == 20_176 == len(set(more.texts))
    movies, others = (
        {" ".join(text.lower().split()) for text in texts.texts} for texts in (read_reviews(), more)
    )
    assert not movies & others


def test_more_texts_follow_the_first_ones_with_their_targets() -> None:
    first, second = (
        Texts(["a", "b"], ["x"], np.eye(2, dtype=np.float32)[:1]),
        Texts(["a", "b"], ["y"], np.eye(2, dtype=np.float32)[1:]),
    )
    both = first.with_more(second)
    assert (both.texts, both.classes.tolist()) == (["x", "y"], [0, 1])


def test_split_is_random_by_the_seed_and_each_text_is_in_one_part() -> None:
    reviews = read_reviews()
    parts = split(reviews, 0)
    assert [len(part.texts) for part in parts] == [8453, 1056, 1057]
    assert sorted(text for part in parts for text in part.texts) == sorted(reviews.texts)
    assert split(reviews, 0).held_out.texts == parts.held_out.texts
    assert split(reviews, 1).held_out.texts != parts.held_out.texts


def test_tokens_are_lower_case_words_and_signs_seen_twice() -> None:
    tokenizer = word_tokenizer(["A film, a Film!", "Once"])
    assert sorted(tokenizer.get_vocab()) == ["[UNK]", "a", "film"]
    assert [tokenizer.id_to_token(token) for token in encode(tokenizer, ["FILM, a once"])[0].tolist()] == [
        "film",
        "[UNK]",
        "a",
        "[UNK]",
    ]


def test_tokenizer_read_from_its_file_gives_the_same_tokens() -> None:
    texts = split(read_reviews(), 0).held_out.texts[:100]
    tokenizer = word_tokenizer(texts)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            encode(tokenizer, texts), encode(Tokenizer.from_str(tokenizer.to_str()), texts), strict=True
        )
    )


def test_loss_is_the_same_whatever_the_padding_holds() -> None:
    network = build_network(NetworkConfig("lstm", 1, 8, 2, vocabulary=9, embedding=4), 0, "cpu").eval()
    lengths = torch.tensor([4, 2])
    some, other = (
        last_logits(network, torch.tensor([[1, 2, 3, 4], [5, 6, filler, filler]]), lengths)
        for filler in (0, 8)
    )
    assert torch.equal(some, other)


def test_an_epoch_reads_every_text_once_in_batches_of_similar_lengths(reviews_file: Path) -> None:
    parts = split(read_labelled(Table(own_data(reviews_file), "review", "verdict")), 0)
    tokenizer = word_tokenizer(parts.train.texts)
    network = build_network(
        NetworkConfig("gru", 1, 4, 3, vocabulary=tokenizer.get_vocab_size(), embedding=4), 0, "cpu"
    )
    objective = SentimentObjective(network, parts, tokenizer, "cpu")
    batches = objective._batches()
    assert sorted(index for batch in batches for index in batch) == list(range(len(parts.train.texts)))
    assert len(batches) == objective.steps_per_epoch == len(list(objective.losses(0)))


def test_logits_of_many_texts_equal_those_of_each_alone() -> None:
    network = build_network(NetworkConfig("lstm", 1, 8, 2, vocabulary=9, embedding=4), 0, "cpu").eval()
    texts = [torch.randint(9, (length,)) for length in (3, 1, 7)]
    alone = torch.cat([all_logits(network, [text], "cpu") for text in texts])
    torch.testing.assert_close(all_logits(network, texts, "cpu"), alone, atol=1e-6, rtol=0)


def test_measures_agree_with_calculations_by_hand() -> None:
    probabilities, classes = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]]), np.array([0, 1, 1])
    assert log_loss(probabilities, classes) == pytest.approx(-np.log(0.9 * 0.1 * 0.6) / 3)
    # Two texts at 90 % of which one is right, one at 60 % that is right.
    assert calibration_error(probabilities, classes) == pytest.approx((2 * 0.4 + 0.4) / 3)


@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_own_texts_of_three_labels_are_learnt_and_exported(
    command: Command, reviews_file: Path, tmp_path: Path, cell: str
) -> None:
    columns = ("--text-column", "review", "--label-column", "verdict")
    assert (
        command(
            "sentiment",
            "--csv",
            reviews_file,
            *columns,
            "--hidden",
            16,
            "--epochs",
            20,
            "--cell",
            cell,
            "--repository",
            "models",
        )
        == 0
    )
    folder = tmp_path / "models" / "sentiment" / "1"
    model, _ = spec.read_spec(folder)
    assert model.classification is not None
    assert model.classification.labels == ["bad", "good", "so-so"]
    assert model.metrics["held_out_accuracy"] == 100
    tokenizer = Tokenizer.from_file(str(folder / model.classification.text.file))
    assert tokenizer.encode("unheard of").ids == [UNKNOWN_ID, tokenizer.token_to_id("of") or UNKNOWN_ID]
    assert len({golden.length for golden in model.golden}) >= 1


def _table(folder: Path, rows: list[str]) -> Table:
    path = folder / "labels.csv"
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return Table(own_data(path), "text", "label")


def test_repeated_text_counts_once_with_its_first_label(tmp_path: Path) -> None:
    texts = read_labelled(
        _table(tmp_path, [f"text {index % 25},{'yes' if index < 20 else 'no'}" for index in range(50)])
    )
    assert len(texts.texts) == 25
    assert np.bincount(texts.classes).tolist() == [5, 20]


def test_one_label_too_few_texts_or_a_label_without_training_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="expected two or more different labels"):
        read_labelled(_table(tmp_path, [f"text {index},yes" for index in range(30)]))
    with pytest.raises(TrainingError, match="expected at least 20 different texts"):
        read_labelled(_table(tmp_path, ["one,yes", "two,no"]))
    rare = read_labelled(_table(tmp_path, ["rare,no", *(f"text {index},yes" for index in range(30))]))
    with pytest.raises(TrainingError, match="label 'no': expected texts of it in the training part"):
        split(rare, _seed_that_holds_out(0, len(rare.texts)))


def _seed_that_holds_out(index: int, count: int) -> int:
    return next(
        seed for seed in range(100) if index in np.random.default_rng(seed).permutation(count)[-count // 10 :]
    )


def test_class_weights_weigh_the_loss_of_training_and_development() -> None:
    """A text counts by its label's weight: here a is asked to count three times as much as b."""
    texts = Texts(["a", "b"], ["x x", "y y", "z z", "x y"], np.eye(2, dtype=np.float32)[[0, 1, 1, 1]])
    parts = Parts(texts, texts, texts)
    tokenizer = word_tokenizer(texts.texts)
    config = NetworkConfig("lstm", 1, 4, 2, vocabulary=tokenizer.get_vocab_size(), embedding=4)
    network = build_network(config, 0, "cpu").eval()
    objective = SentimentObjective(network, parts, tokenizer, "cpu", Tuning(class_weights="a=3"))
    with torch.no_grad():
        logits = all_logits(network, encode(tokenizer, texts.texts), "cpu")
        given = -logits.log_softmax(dim=1)[range(4), texts.classes]
        expected = float((given * torch.tensor([3.0, 1.0, 1.0, 1.0])).sum() / 6)
        assert objective.develop() == pytest.approx(expected)
