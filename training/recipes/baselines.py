"""Computes the simplest methods beside which networks are measured."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.words import words_of

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]


def witten_bell(train: Ids, text: Ids, vocabulary: int, order: int = 5) -> Floats:
    """Return the probability of each character of a text given those before it, by counts of another text.

    The `order` - 1 characters before it count.

    Interpolated Witten-Bell smoothing (Witten & Bell 1991; Chen & Goodman 1998, section 2.4): with N the
    count of a context and D the number of different characters seen after it, P(c | context) = (count(context
    c) + D * P(c | shorter context)) / (N + D), down to 1 / vocabulary.

    Args:
        train: (N,) ids below `vocabulary`, at least `order` of them.
        text: (M,) what follows the training text; its first characters have the training text's last ones as
            context.
        vocabulary: number of different ids.
        order: characters in an n-gram.
    Returns:
        float64 (M,).
    """
    ids = np.concatenate([train, text])
    is_train = np.arange(len(ids)) < len(train)
    probability = np.full(len(ids), 1 / vocabulary)
    context = np.zeros(
        len(ids), np.int64
    )  # a number for the characters before each position, equal where they are equal
    for length in range(order):
        # A gram is its context and one more character; renumbering keeps numbers below len(ids), whatever the
        # order.
        first, gram = np.unique(context * vocabulary + ids, return_index=True, return_inverse=True)[1:]
        # The first `length` positions have no whole context: leave them out.
        counted = np.flatnonzero(is_train[length:]) + length
        gram_count = np.bincount(gram[counted], minlength=len(first))
        context_count = np.bincount(context[counted], minlength=len(ids))
        followers = np.bincount(context[first[gram_count > 0]], minlength=len(ids))
        total = context_count[context] + followers[context]
        interpolated = (gram_count[gram] + followers[context] * probability) / np.maximum(total, 1)
        probability = np.where(total > 0, interpolated, probability)
        context = np.concatenate([[0], gram[:-1]])
    return probability[len(train) :]


def naive_bayes(train: Sequence[str], labels: Ids, texts: Sequence[str], classes: int) -> Floats:
    """Return class probabilities by multinomial naive Bayes over counts of words and pairs of words.

    `words_of` finds the words. Wang & Manning (2012) say why it is hard to beat.

    Args:
        train: texts.
        labels: (N,) their classes, each of 0..classes-1 at least once.
        texts: M of them.
        classes: number of classes.
    Returns:
        float64 (M, classes).
    """
    # scikit-learn takes two seconds to import, and this baseline alone needs it.
    from sklearn.feature_extraction.text import CountVectorizer  # noqa: PLC0415
    from sklearn.naive_bayes import MultinomialNB  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415

    # The usual pattern drops one-letter words and signs; keeping them costs no accuracy and lets texts of
    # emoji through.
    words = CountVectorizer(ngram_range=(1, 2), tokenizer=words_of, token_pattern=None)
    model = make_pipeline(words, MultinomialNB())
    probabilities: Floats = model.fit(train, labels).predict_proba(texts)
    assert probabilities.shape == (len(texts), classes)
    return probabilities


def constant_interval(changes: Floats, quantiles: Sequence[float]) -> Floats:
    """Return the empirical quantiles of the training part's changes, for each step ahead.

    The same change is forecast every day.

    Args:
        changes: (N, horizon).
        quantiles: levels.
    Returns:
        float64 (horizon, levels).
    """
    return np.quantile(changes, quantiles, axis=0).T
