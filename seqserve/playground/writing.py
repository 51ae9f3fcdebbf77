"""Declares the settings of the page Write, the link that shares them, and the tokens of a piece."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final
from urllib.parse import quote, unquote

from seqserve.playground.token_text import Token
from seqserve.results import ModelInfo, TextPiece

SHARE: Final = "#share="
MAX_LINK: Final = 32_000
"""Characters of a link's fragment; browsers take more."""
MAX_TOKENS: Final = 20_000
"""Tokens of a text at most: a page of more elements gets slow."""
MAX_RANKED: Final = 20_000
"""Characters of prompt and text up to which alternatives are asked for, whose answer is then below 4 MiB."""
NUM_ALTERNATIVES: Final = 5
_MAX_SEED: Final = 2**64 - 1
_NUM_SETTINGS: Final = 2


class WrongSetting(Exception):
    """A setting or a link cannot be used; the text is a sentence for users."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one text.

    Attributes:
        max_tokens: Tokens to generate; 0 means the model's own default.
        temperature: Divisor of the logits; 0 is greedy.
        top_k: Tokens to sample from; 0 means all.
        top_p: Sum of the probabilities to sample from; 1 means all.
        seed: Seed of the sampling, or None for one that the server draws.
        stop: Stop strings.
    """

    max_tokens: int = 400
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """A text to write: a prompt, a model's version, and one or two settings."""

    prompt: str
    model: str
    version: int
    settings: tuple[Settings, ...]


def settings_of(found: Mapping[str, Any]) -> Settings:
    """Return settings with the values of a form or a link; what is missing or empty has its default.

    Raises:
        WrongSetting: A value has the wrong type, or is a number that is never valid.
    """
    known = {field.name for field in fields(Settings)}
    if extra := sorted(set(found) - known):
        raise WrongSetting(f"Expected the settings {', '.join(sorted(known))}, found {extra[0]!r} too.")
    given = {name: value for name, value in found.items() if value not in (None, "", [])}
    return Settings(
        max_tokens=_whole("max_tokens", given.get("max_tokens", 0), MAX_TOKENS),
        temperature=_number("temperature", given.get("temperature", 1.0)),
        top_k=_whole("top_k", given.get("top_k", 0), 2**32 - 1),
        top_p=_number("top_p", given.get("top_p", 1.0)),
        seed=_whole("seed", given["seed"], _MAX_SEED) if "seed" in given else None,
        stop=_texts("stop", given.get("stop", ())),
    )


def fragment_of(draft: Draft) -> str:
    """Return the fragment of a link that holds a draft. A fragment stays in the browser: no server sees it.

    Raises:
        WrongSetting: The draft is too long for a link.
    """
    settings = [asdict(each) for each in draft.settings]
    said = {"prompt": draft.prompt, "model": draft.model, "version": draft.version, "settings": settings}
    fragment = SHARE + quote(json.dumps(said, separators=(",", ":"), ensure_ascii=False), safe="")
    if len(fragment) > MAX_LINK:
        raise WrongSetting(
            f"The link would have {len(fragment)} characters, more than {MAX_LINK}: shorten the prompt."
        )
    return fragment


def draft_of(fragment: str) -> Draft | None:
    """Return the draft that a link's fragment holds, or None where it holds none.

    Raises:
        WrongSetting: It holds one that cannot be read.
    """
    if not fragment.startswith(SHARE):
        return None
    if len(fragment) > MAX_LINK:
        raise WrongSetting(f"Expected a link of at most {MAX_LINK} characters, found {len(fragment)}.")
    try:
        said = json.loads(unquote(fragment.removeprefix(SHARE), errors="strict"))
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or set(said) != {"prompt", "model", "version", "settings"}:
        raise WrongSetting("The link cannot be read: it is cut off, or none that this page has made.")
    several = said["settings"]
    if not (isinstance(several, list) and 0 < len(several) <= _NUM_SETTINGS):
        raise WrongSetting("The link cannot be read: expected one or two settings.")
    if not all(isinstance(each, dict) for each in several):
        raise WrongSetting("The link cannot be read: a setting is no object.")
    prompt, model = (_texts(name, [said[name]])[0] for name in ("prompt", "model"))
    version = _whole("version", said["version"], 2**32 - 1)
    return Draft(prompt, model, version, tuple(map(settings_of, several)))


def tokens_of(piece: TextPiece, *, are_characters: bool) -> list[Token]:
    """Return the tokens of a piece as they are shown.

    Args:
        piece: A piece, with log-probabilities.
        are_characters: Whether the model's tokens are characters. Otherwise the piece is shown as one, with
            the mean of its tokens' log-probabilities: a message does not say where one ends.
    """
    if not piece.text:
        return []
    if are_characters:
        # A stop string may have cut characters whose log-probabilities are there.
        return [Token(text, logprob) for text, logprob in zip(piece.text, piece.logprobs, strict=False)]
    mean = sum(piece.logprobs) / len(piece.logprobs) if piece.logprobs else None
    return [Token(piece.text, mean)]


def are_characters(model: ModelInfo) -> bool:
    """Return whether the tokens of a language model are characters."""
    text = _generation(model).get("text")
    return isinstance(text, dict) and text.get("kind") == "characters"


def start_text(model: ModelInfo) -> str:
    """Return the character that a text without a prompt starts from, of a model of characters.

    It is "" where the server puts it before every text to score by itself.
    """
    section = _generation(model)
    vocabulary, start = section["text"]["vocabulary"], section["start_token"]
    return "" if section.get("prepend_start") else str(vocabulary[start])


def _generation(model: ModelInfo) -> Mapping[str, Any]:
    section = model.spec.get("generation")
    return section if isinstance(section, dict) else {}


def _whole(name: str, found: Any, most: int) -> int:
    try:
        number = int(found) if isinstance(found, (int, str)) or float(found).is_integer() else None
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or isinstance(found, bool) or not 0 <= number <= most:
        raise WrongSetting(f"{name}: expected a whole number of 0..{most}, found {_shown(found)}.")
    return number


def _number(name: str, found: Any) -> float:
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise WrongSetting(f"{name}: expected a number, found {_shown(found)}.")
    return float(found)


def _texts(name: str, found: Any) -> tuple[str, ...]:
    if not isinstance(found, (list, tuple)) or not all(isinstance(each, str) for each in found):
        raise WrongSetting(f"{name}: expected text, found {_shown(found)}.")
    return tuple(found)


def _shown(found: Any) -> str:
    return repr(found)[:80]
