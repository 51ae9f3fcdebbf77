"""Makes a tokenizer of a Keras word index, equal to Keras's own `text_to_word_sequence` on texts of words.

Keras lower-cases a text, replaces the characters of `filters` by spaces, and splits at spaces. Here other
white space separates words, too.
"""

from collections.abc import Mapping

from service.contract import spec
from training.convert.meaning.jsonfiles import parse_json
from training.convert.meaning.words import Words, placeholders, word_level
from training.errors import TrainingError

FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'
UNKNOWN_WORDS = ("<OOV>", "<oov>", "<UNK>", "<unk>", "[UNK]", "UNK", "OOV", "<unknown>")
_SPACE = " "


def from_keras(config: Mapping[str, object], size: int, option: str) -> Words:
    """Return the tokenizer of `Tokenizer.to_json()` of Keras.

    Raises:
        TrainingError: the file is none, or splits texts in a way that cannot be told.
    """
    index = config.get("word_index")
    if isinstance(index, str):
        index = parse_json(index, option, "word_index")
    if not isinstance(index, Mapping):
        raise TrainingError(f"{option}: expected an object word_index in config, found none")
    unknown, filters = config.get("oov_token"), config.get("filters", FILTERS)
    is_lower = config.get("lower", True) is True
    limit = config.get("num_words")
    ids = _checked(index, size, option)
    if isinstance(limit, int):
        # Keras counts the padding, id 0, among num_words.
        ids = {word: token for word, token in ids.items() if token < limit}
    if not isinstance(filters, str):
        filters = ""
    if config.get("char_level"):
        return _characters(ids, size, unknown is not None, is_lower=is_lower, option=option)
    if config.get("split", _SPACE) != _SPACE:
        raise TrainingError(f"{option}: expected words split at spaces, found {config['split']!r}")
    return _words(ids, size, str(unknown) if unknown in ids else None, filters, is_lower=is_lower)


def from_index(index: Mapping[str, object], size: int, option: str) -> Words:
    """Return the tokenizer of a word index, {word: id}, with the filters that Keras has by default.

    Raises:
        TrainingError: it holds something else than ids.
    """
    ids = _checked(index, size, option)
    unknown = next((word for word in UNKNOWN_WORDS if word in ids), None)
    is_lower = not any(word != word.lower() for word in ids if word not in UNKNOWN_WORDS)
    made = _words(ids, size, unknown, FILTERS, is_lower=is_lower)
    case = "lower-cased" if is_lower else "left in their case"
    note = f"texts are {case}, and split at spaces and Keras's usual filters {FILTERS.strip()!r}"
    return made._replace(notes=(note, *made.notes))


def _checked(index: Mapping[str, object], size: int, option: str) -> dict[str, int]:
    """Return the ids below `size` by word; Keras keeps words in the index that the network has no id for."""
    found: dict[str, int] = {}
    owners: dict[int, str] = {}
    for word, token in index.items():
        if type(token) is not int or token < 0:
            raise TrainingError(f"{option}: expected a token id for each word, found {word!r}: {token!r}")
        if token >= size:
            continue
        if token in owners:
            raise TrainingError(
                f"{option}: expected one word for each token id, found {owners[token]!r} and {word!r} "
                f"for {token}"
            )
        found[str(word)], owners[token] = token, str(word)
    if not found:
        raise TrainingError(f"{option}: expected words with token ids below {size}, found none")
    return found


def _words(ids: dict[str, int], size: int, unknown: str | None, filters: str, *, is_lower: bool) -> Words:
    tokenizer = word_level(ids, size, unknown, is_lower=is_lower)
    replaced = {one: _SPACE for one in _with_cases(filters, is_lower) if one != _SPACE}
    notes = (
        ()
        if unknown
        else (
            "the word index has no token for unknown words: texts with words that it lacks are refused, "
            "where Keras drops these words",
        )
    )
    return Words(tokenizer, spec.Normalization(characters=replaced), notes)


def _with_cases(filters: str, is_lower: bool) -> list[str]:
    """Return the characters of a text that become a filtered one: a capital does where texts are lowered."""
    if not is_lower:
        return list(dict.fromkeys(filters))
    lowered = [one for one in filters if one.lower() == one]
    capitals = [one.upper() for one in lowered if len(one.upper()) == 1 and one.upper().lower() == one]
    return list(dict.fromkeys([*lowered, *capitals]))


def _characters(ids: dict[str, int], size: int, has_unknown: bool, *, is_lower: bool, option: str) -> Words:
    """Return the characters of an index of single characters, in the order of their ids."""
    single = {word: token for word, token in ids.items() if len(word) == 1}
    if not single:
        raise TrainingError(f"{option}: expected single characters in word_index, found words")
    by_id = {token: word for word, token in single.items()}
    free = placeholders(list(by_id.values()))
    vocabulary = "".join(by_id.get(token) or next(free) for token in range(size))
    capitals = {
        one.upper(): one
        for one in vocabulary
        if is_lower and len(one.upper()) == 1 and one.upper() not in vocabulary and one.upper().lower() == one
    }
    notes = ("texts with characters that the index lacks are refused",) if has_unknown else ()
    rules = spec.Normalization(characters=dict(list(capitals.items())[:1024])) if capitals else None
    return Words(vocabulary, rules, notes)
