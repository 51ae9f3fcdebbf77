"""What is sent: lengths, texts, arrival times. All follow from fixed seeds."""

from itertools import product

import numpy as np
from numpy.typing import NDArray

from training.data.files import read_table
from training.data.sources import REVIEWS

Tokens = NDArray[np.int64]

MEAN_LENGTH = 50
SIGMA = 1.0
LEAST_LENGTH, MOST_LENGTH = 1, 400
SEED = 20
SHORT = 20
WORDS = 5_000
UNKNOWN = "[UNK]"

_CONSONANTS = "bdfghklmnprstvz"
_VOWELS = "aeiou"


def mixed_lengths(count: int, seed: int = SEED) -> Tokens:
    """Lengths of texts, int64 (count,): lognormal, mean 50, sigma 1, clipped to 1..400."""
    drawn = np.random.default_rng(seed).lognormal(np.log(MEAN_LENGTH) - SIGMA**2 / 2, SIGMA, count)
    return np.clip(np.rint(drawn), LEAST_LENGTH, MOST_LENGTH).astype(np.int64)


def token_arrays(lengths: Tokens, vocabulary: int, seed: int = SEED) -> list[Tokens]:
    """Random token ids of the given lengths; 0, the unknown word, is left out."""
    generator = np.random.default_rng(seed)
    return [generator.integers(1, vocabulary, length) for length in lengths]


def vocabulary() -> list[str]:
    """5,000 words that a tokenizer can tell apart, the unknown one first: text of any exact number of tokens
    can be made of them.
    """
    syllables = ["".join(pair) for pair in product(_CONSONANTS, _VOWELS)]
    words = [one + two for one, two in product(syllables, syllables)]
    return [
        UNKNOWN,
        *(
            word + syllables[index % len(syllables)] * (index % 2)
            for index, word in enumerate(words[: WORDS - 1])
        ),
    ]


def texts_of(arrays: list[Tokens], words: list[str]) -> list[str]:
    """The texts that a tokenizer of these words turns into these ids."""
    return [" ".join([words[token] for token in tokens.tolist()]) for tokens in arrays]


def review_texts(count: int | None = None, seed: int = SEED) -> list[str]:
    """Movie-review sentences that ship with the repository, in random order; None: all of them."""
    texts = [row.cells[0] for row in read_table(REVIEWS.path, ["text"], delimiter="\t")]
    order = np.random.default_rng(seed).permutation(len(texts))[:count]
    return [texts[index] for index in order]


def poisson_arrivals(rate: float, seconds: float, seed: int = SEED) -> NDArray[np.float64]:
    """Times of arrival, seconds from the start, of independent requests at `rate` a second: an open loop,
    which does not wait for answers.
    """
    generator = np.random.default_rng(seed)
    gaps = generator.exponential(1 / rate, int(rate * seconds * 1.5) + 50)
    times = gaps.cumsum()
    return times[times < seconds]
