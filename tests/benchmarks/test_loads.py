import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from benchmarks import loads


def test_lengths_have_the_mean_that_is_promised() -> None:
    # Clipping at 400, the 98th to 99th percentile, takes a little off the mean of 50.
    assert 46 < loads.mixed_lengths(100_000).mean() < 50


def test_lengths_are_clipped() -> None:
    lengths = loads.mixed_lengths(100_000)
    assert (lengths.min(), lengths.max()) == (loads.LEAST_LENGTH, loads.MOST_LENGTH)


def test_lengths_follow_from_the_seed() -> None:
    np.testing.assert_array_equal(loads.mixed_lengths(50), loads.mixed_lengths(50))
    assert (loads.mixed_lengths(50) != loads.mixed_lengths(50, seed=1)).any()


def test_words_are_all_different() -> None:
    words = loads.vocabulary()
    assert len(set(words)) == len(words) == loads.WORDS


def test_a_text_has_exactly_the_tokens_that_it_was_made_of() -> None:
    words = loads.vocabulary()
    tokenizer = Tokenizer(
        WordLevel({word: index for index, word in enumerate(words)}, unk_token=loads.UNKNOWN)
    )
    tokenizer.pre_tokenizer = WhitespaceSplit()
    arrays = loads.token_arrays(loads.mixed_lengths(20), loads.WORDS)
    for text, tokens in zip(loads.texts_of(arrays, words), arrays, strict=True):
        assert tokenizer.encode(text).ids == tokens.tolist()


def test_arrivals_come_at_their_rate_and_within_the_time() -> None:
    arrivals = loads.poisson_arrivals(500, 20)
    assert (np.diff(arrivals) >= 0).all()
    assert arrivals[-1] < 20
    # 10,000 expected, standard deviation 100; the seed is fixed.
    assert abs(len(arrivals) - 10_000) < 400


def test_reviews_are_different_texts() -> None:
    texts = loads.review_texts(100)
    assert len(set(texts)) == 100
    assert texts == loads.review_texts(100)
