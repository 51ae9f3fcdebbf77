"""The baselines are what their names say, so that beating them means something."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.files import read_utf8
from training.data.sources import PLAYS
from training.recipes.baselines import constant_interval, naive_bayes, witten_bell


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(0, 3), min_size=6, max_size=60),
    st.lists(st.integers(0, 3), max_size=6),
    st.integers(1, 5),
)
def test_probabilities_of_all_next_characters_sum_to_one(
    train: list[int], context: list[int], order: int
) -> None:
    total = sum(
        witten_bell(np.array(train), np.array([*context, character]), 4, order)[-1] for character in range(4)
    )
    assert total == pytest.approx(1)


def test_ngram_agrees_with_a_calculation_by_hand() -> None:
    # After "a" (3 of 5 characters): "b" twice; so P(b | a) = (2 + 1 * P(b)) / (2 + 1), P(b) = (2 + 2 / 2) /
    # (5 + 2).
    train = np.array([0, 1, 0, 1, 0])
    np.testing.assert_allclose(witten_bell(train, np.array([1]), 2, order=2), [(2 + 3 / 7) / 3])


def test_five_gram_reaches_its_known_loss_on_the_plays() -> None:
    text = read_utf8(PLAYS.path)
    index = {character: token for token, character in enumerate(sorted(set(text)))}
    ids = np.array([index[character] for character in text])
    cut = round(0.9 * len(ids))
    loss = -np.log(witten_bell(ids[:cut], ids[cut:], len(index))).mean()
    assert loss == pytest.approx(1.672, abs=0.001)


def test_naive_bayes_reads_words_pairs_and_signs() -> None:
    train = ["good", "so good", "not good", ":)", "bad", "so bad", "not bad", ":("]
    labels = np.array([1, 1, 0, 1, 0, 0, 1, 0])
    assert naive_bayes(train, labels, ["it is good", "not good", ":)", ":("], 2).argmax(axis=1).tolist() == [
        1,
        0,
        1,
        0,
    ]


def test_constant_interval_covers_its_share_of_the_changes_it_comes_from() -> None:
    changes = np.random.default_rng(0).normal(size=(1000, 2))
    quantiles = constant_interval(changes, (0.1, 0.5, 0.9))
    assert quantiles.shape == (2, 3)
    for step in range(2):
        low, _, high = quantiles[step]
        assert ((low <= changes[:, step]) & (changes[:, step] <= high)).mean() == pytest.approx(0.8, abs=0.01)
