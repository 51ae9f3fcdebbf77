"""training.networks.ngram: the table says what the baseline says, and a part of it is a distribution."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.networks.ngram import FREE, PLACE_BYTES, UNSEEN, Ids, NgramTable, count_ngrams
from training.recipes.baselines import witten_bell

LARGE = 1 << 20


def random_ids(vocabulary: int, length: int, seed: int) -> Ids:
    """Return ids of which a few are frequent."""
    return (np.random.default_rng(seed).random(length) ** 3 * vocabulary).astype(np.int64)


def said_of(table: NgramTable, train: Ids, text: Ids) -> np.ndarray:
    """Return the probability of each id of a text that follows the training text."""
    contexts = table.contexts(np.concatenate([train, text]))[len(train) - 1 : -1]
    result: np.ndarray = table.probabilities(contexts)[np.arange(len(text)), text]
    return result


@settings(max_examples=40, deadline=None)
@given(
    vocabulary=st.integers(2, 40),
    order=st.integers(2, 6),
    length=st.integers(8, 400),
    seed=st.integers(0, 1000),
)
def test_whole_table_says_what_the_baseline_says(vocabulary: int, order: int, length: int, seed: int) -> None:
    train, text = random_ids(vocabulary, length, seed), random_ids(vocabulary, 50, seed + 1)
    table = count_ngrams(train, vocabulary, order, LARGE)
    assert said_of(table, train, text) == pytest.approx(witten_bell(train, text, vocabulary, order), rel=1e-9)


@pytest.mark.parametrize("places", [0, 20, 60, 200])
def test_small_table_keeps_the_frequent_contexts_and_a_distribution(places: int) -> None:
    train = random_ids(12, 3000, 0)
    table = count_ngrams(train, 12, 5, (places + 12) * PLACE_BYTES)
    assert table.size <= max(places, 12)
    everything = table.probabilities(table.contexts(random_ids(12, 200, 1)))
    assert everything.sum(axis=1) == pytest.approx(1)
    assert (everything > 0).all()


def test_table_is_about_as_long_as_there_are_ngrams() -> None:
    table = count_ngrams(random_ids(60, 20_000, 0), 60, 4, LARGE)
    assert table.size < len(table.base) < 1.05 * table.size + 200


def test_each_ngram_has_a_number_of_its_own() -> None:
    table = count_ngrams(random_ids(9, 500, 0), 9, 3, LARGE)
    used = np.flatnonzero(table.context != FREE)
    assert len({(table.context[place], place - table.base[table.context[place]]) for place in used}) == len(
        used
    )
    assert UNSEEN not in used


def test_a_token_that_was_never_seen_is_possible() -> None:
    table = count_ngrams(np.zeros(50, np.int64), 3, 4, LARGE)
    said = table.probabilities(table.contexts(np.array([0, 2])))
    assert (said > 0).all()
    assert said[1, 0] > said[1, 1] == said[1, 2]
