"""Maps text to token ids as a converted network was trained with: characters, or a `tokenizers` file.

`--tokenizer` takes a file of the `tokenizers` library, of Keras (`training.convert.meaning.word_index`), or a
list of tokens (`training.convert.meaning.vocabulary`); the last two become a `tokenizers` file.
`--characters` takes single characters in the order of their ids.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from service.contract import spec
from service.contract.normalizing import Normalizer
from training.convert.meaning.jsonfiles import parse_json, read_text
from training.convert.meaning.vocabulary import from_tokens
from training.convert.meaning.word_index import from_index, from_keras
from training.convert.meaning.words import Words, placeholders
from training.errors import TrainingError

TOKENIZER_FILE = "tokenizer.json"
SOURCE_TOKENIZER_FILE = "source_tokenizer.json"
# What tokenizers name the token that begins a text, and the one that ends it.
STARTS = ("<s>", "<bos>", "[BOS]", "<start>", "<sos>", "<|startoftext|>", "<|endoftext|>", "[CLS]")
ENDS = ("</s>", "<eos>", "[EOS]", "<end>", "<|endoftext|>", "[SEP]")


@dataclass(frozen=True, slots=True)
class Text:
    """How texts become token ids.

    Attributes:
        section: what model.json says about it.
        tokenizer: of a file; None: single characters.
        notes: sentences on what was assumed.
    """

    section: spec.Characters | spec.TokenizerFile
    tokenizer: Tokenizer | None = None
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> dict[str, bytes]:
        """The tokenizer's file by its name; nothing for characters."""
        if self.tokenizer is None or not isinstance(self.section, spec.TokenizerFile):
            return {}
        return {self.section.file: self.tokenizer.to_str(pretty=False).encode()}

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, as the service computes them.

        Raises:
            ValueError: a part of the text has no token.
        """
        normalized = Normalizer(self.section.normalization).normalized(text)
        if isinstance(self.section, spec.Characters):
            ids = [self.section.vocabulary.find(character) for character in normalized]
            if -1 in ids:
                character = normalized[ids.index(-1)]
                raise ValueError(f"character {character!r} is none of the network's characters")
            return ids
        assert self.tokenizer is not None, "its file was read"
        try:
            return list(self.tokenizer.encode(normalized).ids)
        except Exception as error:
            raise ValueError(f"the tokenizer has no tokens for it: {error}") from error

    def decode(self, ids: Sequence[int]) -> str | None:
        """Return a text that has these token ids; None: none was found."""
        if isinstance(self.section, spec.Characters):
            text = "".join(self.section.vocabulary[token] for token in ids)
        else:
            assert self.tokenizer is not None, "its file was read"
            text = self.tokenizer.decode(list(ids), skip_special_tokens=False)
        try:
            return text if text and self.encode(text) == list(ids) else None
        except ValueError:
            return None

    def token(self, said: str) -> int | None:
        """Return the id of a token that is given by its number or by its text; None: there is none."""
        if isinstance(self.section, spec.Characters):
            found = self.section.vocabulary.find(said) if len(said) == 1 else -1
            if found >= 0 and not said.isdecimal():
                return found
        elif self.tokenizer is not None and (known := self.tokenizer.token_to_id(said)) is not None:
            return known
        return int(said) if said.isascii() and said.isdecimal() else None


def characters_from(said: str | Sequence[str] | Path, size: int, option: str) -> Text:
    """Return the text section of a network whose tokens are characters.

    Args:
        said: a file, or the characters themselves: JSON, a list, or a string.
        size: number of token ids of the network.
        option: the option that gave them, for error texts.

    Raises:
        TrainingError: the file cannot be read, or the characters are not as many as the network's tokens.
    """
    found: object = said if isinstance(said, list | tuple) else _characters_in(said, option)
    if isinstance(found, Mapping):
        found = _by_id(found, size, option)
    if not isinstance(found, str | list | tuple) or not all(isinstance(one, str) for one in found):
        raise TrainingError(f"{option}: expected a string, a list of characters or an object of their ids")
    tokens = list(found)
    if len(tokens) != size:
        raise TrainingError(
            f"{option}: expected {size} characters, one a token id of the network, found {len(tokens)}; "
            'in a list of JSON, "" stands for an id without a character'
        )
    free = placeholders(tokens)
    notes = _unwritable(tokens)
    vocabulary = "".join(one if len(one) == 1 else next(free) for one in tokens)
    if len(set(vocabulary)) != size:
        twice = sorted({one for one in vocabulary if vocabulary.count(one) > 1})
        raise TrainingError(f"{option}: expected different characters, found {twice[0]!r} twice")
    return Text(spec.Characters(kind="characters", vocabulary=vocabulary), notes=notes)


def _characters_in(said: str | Sequence[str] | Path, option: str) -> object:
    """Return what a file or a string holds: JSON where it is some, else the characters themselves."""
    path = Path(str(said)) if isinstance(said, Path) or _names_file(str(said)) else None
    text = str(said) if path is None else read_text(path, option)
    if text.lstrip().startswith(("[", "{", '"')):
        try:
            return parse_json(text, option, str(path or "its value"))
        except TrainingError:
            return text
    # The line end of a file's last line is hardly meant where the line is all that there is.
    return text[:-1] if path is not None and text.endswith("\n") and text.count("\n") == 1 else text


def _names_file(said: str) -> bool:
    """Return whether a string is the path of a file; a string of characters may be too long for one."""
    try:
        return Path(said).is_file()
    except (OSError, ValueError):
        return False


def _by_id(found: Mapping[object, object], size: int, option: str) -> list[str]:
    """Return tokens in the order of their ids, "" where there is none; either side may hold the ids."""
    pairs = [(key, value) if isinstance(value, int) else (value, key) for key, value in found.items()]
    tokens = [""] * size
    for token, number in pairs:
        if not isinstance(token, str) or not str(number).isdecimal() or not int(str(number)) < size:
            raise TrainingError(
                f"{option}: expected characters and token ids below {size}, found {token!r}: {number!r}"
            )
        tokens[int(str(number))] = token
    return tokens


def _unwritable(tokens: Sequence[str]) -> tuple[str, ...]:
    named = [one for one in tokens if len(one) > 1]
    return (
        (f"tokens that are no single characters cannot be typed: {', '.join(named[:10])}",) if named else ()
    )


def tokenizer_from(said: object, size: int, option: str, file: str = TOKENIZER_FILE) -> Text:
    """Return the text section of a network with a tokenizer.

    Args:
        said: a file; or a `tokenizers.Tokenizer`, a word index, a list of tokens.
        size: number of token ids of the network.
        option: the option that gave it, for error texts.
        file: name of the file that the version holds.

    Raises:
        TrainingError: it cannot be read, its form is unknown, or it has other token ids than the network.
    """
    found = _tokenizer_in(said, option) if isinstance(said, str | Path) else said
    if isinstance(found, Tokenizer):
        words = _of_library(found)
    elif isinstance(found, Mapping) and "model" in found and isinstance(found["model"], Mapping):
        words = _of_library(_parsed(json.dumps(found), option))
    elif isinstance(found, Mapping) and isinstance(found.get("config"), Mapping):
        words = from_keras(found["config"], size, option)
    elif isinstance(found, Mapping):
        words = from_index(found, size, option)
    elif isinstance(found, list | tuple):
        words = from_tokens(found, size, option)
    else:
        raise TrainingError(f"{option}: expected a tokenizer, a word index or a list of tokens")
    if isinstance(words.model, str):
        characters = spec.Characters(
            kind="characters", vocabulary=words.model, normalization=words.normalization
        )
        return Text(characters, notes=words.notes)
    if (count := words.model.get_vocab_size()) != size:
        raise TrainingError(f"{option}: expected {size} tokens, one a token id of the network, found {count}")
    section = spec.TokenizerFile(kind="tokenizer", file=file, normalization=words.normalization)
    return Text(section, words.model, words.notes)


def _tokenizer_in(said: str | Path, option: str) -> object:
    """Return what a file holds: JSON, or the tokens of its lines."""
    path = Path(said)
    text = read_text(path, option)
    if path.suffix == ".json" or text.lstrip().startswith("{"):
        found = parse_json(text, option, str(path))
        # Tokenizer.to_json gives a text, which people write to a file as JSON once more.
        return parse_json(found, option, str(path)) if isinstance(found, str) else found
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def _parsed(text: str, option: str) -> Tokenizer:
    try:
        return Tokenizer.from_str(text)
    except Exception as error:
        raise TrainingError(f"{option}: expected a file of the tokenizers library, found {error}") from error


def _of_library(tokenizer: Tokenizer) -> Words:
    """Return a tokenizer of the library without padding and truncation, which the service does itself."""
    notes = []
    made = Tokenizer.from_str(tokenizer.to_str())
    if made.padding is not None:
        made.no_padding()
        notes.append("the tokenizer's padding is left out: sequences are run in their own lengths")
    if made.truncation is not None:
        made.no_truncation()
        notes.append("the tokenizer's truncation is left out: longer texts are run whole")
    return Words(made, None, tuple(notes))
