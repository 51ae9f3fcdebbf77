"""Makes the tokenizer of a model that labels words: whole words, or words and their parts.

Both split a text at spaces, so that a sentence is sent as its tokens with spaces between them. With `pieces`
signs are split off words, too, and a word that is not in the vocabulary becomes its longest known beginnings,
one after the other (WordPiece; Wu et al. 2016); its ending, which tells much of its tag, is then known even
where the word is not.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

Units = Literal["words", "pieces"]
Case = Literal["lower", "keep"]

UNKNOWN = "[UNK]"
INNER = "##"
MIN_FREQUENCY = 2
MOST_WORDS = 30_000
LONGEST_ENDING = 4
# Words of training texts that an ending must have to be a token.
MIN_ENDINGS = 5
LONGEST_WORD = 100


def word_tokenizer(sentences: Iterable[Iterable[str]], units: Units, case: Case) -> Tokenizer:
    """Make a tokenizer of the words of the training part.

    Args:
        sentences: words of each.
        units: words, of which unknown ones are one token; or words and parts of words.
        case: whether capitals are kept.
    """
    counts: Counter[str] = Counter()
    splitter = pre_tokenizers.Punctuation("isolated")
    for sentence in sentences:
        for word in sentence:
            known = word.lower() if case == "lower" else word
            counts.update(
                [known] if units == "words" else [part for part, _ in splitter.pre_tokenize_str(known)]
            )
    words = [word for word, count in counts.most_common(MOST_WORDS) if count >= MIN_FREQUENCY]
    tokens = [UNKNOWN, *words, *(_parts(counts) if units == "pieces" else ())]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    if units == "words":
        made = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    else:
        model = models.WordPiece(
            vocabulary,
            unk_token=UNKNOWN,
            max_input_chars_per_word=LONGEST_WORD,
            continuing_subword_prefix=INNER,
        )
        made = Tokenizer(model)
        made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), splitter])
    if case == "lower":
        made.normalizer = normalizers.Lowercase()
    return made


def _parts(counts: Counter[str]) -> list[str]:
    """Return characters at the beginning of words and inside, and frequent endings."""
    characters = sorted({character for word in counts for character in word})
    endings: Counter[str] = Counter()
    for word in counts:
        endings.update(word[-length:] for length in range(2, min(LONGEST_ENDING, len(word) - 1) + 1))
    frequent = sorted(ending for ending, count in endings.items() if count >= MIN_ENDINGS)
    return [*characters, *(INNER + part for part in (*characters, *frequent))]
