"""Sentences about values that pydantic refused: what was expected and what was found, without its own terms.

The place of a value is left to the caller: a variable of the environment, or a path in a file.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

MAX_MEANT = 3
MAX_PLACE, MAX_SENTENCE = 100, 400  # characters of one place, and of the sentence about it
MAX_SENTENCES = 5
_MAX_FOUND = 80  # characters of a value in a sentence
_MAX_WHOLE = 1e15  # a larger bound is written with an exponent
_MISSING = object()

# What was expected, by pydantic's type of error; a field in braces is of the error's context.
_EXPECTED: Mapping[str, str] = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "an object",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_type": "a whole number",
    "invalid_key": "a text as key",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_attributes_type": "an object",
    "model_type": "an object",
    "path_type": "a path",
    "string_pattern_mismatch": "{form}",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "{min_length} or more characters",
    "string_type": "a text",
    "too_long": "at most {max_length} items",
    "too_short": "{min_length} or more items",
    "union_tag_invalid": "one of {expected_tags} as {discriminator}",
    "union_tag_not_found": "an object with {discriminator}",
}

_FILE = "model.json: "
# The forms of sentences, the most telling first. A place is a path such as golden[0].steps, or a file.
_PATH = r"(?P<place>[\w.]+(?:\[[^\]]*\])?(?:\.[\w.\[\]]+)?)"
_SENTENCES = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        rf"(?:{_FILE})?{_PATH}: expected (?P<expected>.*), found (?P<found>.*)",
        rf"(?:{_FILE})?{_PATH}: (?P<expected>\w+ must .*), found (?P<found>.*)",
        rf"(?:{_FILE})?{_PATH} must (?P<expected>.*), found (?P<found>.*)",
        rf"(?:{_FILE})?{_PATH} must (?P<expected>.*)",
        r"sha256 of (?P<place>.+?): expected (?P<expected>.*), found (?P<found>.*)",
        rf"(?:{_FILE})?{_PATH}: .*",
    )
)

# Patterns of the contract, in words.
_FORMS: Mapping[str, str] = {
    "^[0-9a-f]{64}$": "a sha256, 64 digits of 0-9 and a-f",
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$": "up to 64 letters, digits and . _ -, a letter or digit first",
}


def sentences(error: ValidationError, text: str | bytes, known: Iterable[str]) -> list[str]:
    """Return a sentence for each of the first five things that are wrong in a JSON document.

    Args:
        error: What validating the document raised.
        text: The document.
        known: Names of the fields that its objects can have.
    """
    try:
        document = json.loads(text)
    except ValueError:
        document = None  # the error says where it is no JSON
    names = list(known)
    # Without the inputs, which pydantic would convert for every error, however many there are.
    found = error.errors(include_url=False, include_input=False)[:MAX_SENTENCES]
    return [_with_place(document, one, names) for one in found]


def parts_of(text: str) -> dict[str, str]:
    """Return the parts of a sentence for programs: place, expected and found, as far as it has them.

    Args:
        text: A sentence on a file or on a place in it, or several, of which the first counts.
    """
    # A sentence has a bounded length, and the time of the patterns grows with its square.
    sentence = text[: len(_FILE) + MAX_PLACE + MAX_SENTENCE].partition("; ")[0]
    for form in _SENTENCES:
        if found := form.fullmatch(sentence):
            return {name: part for name, part in found.groupdict().items() if part}
    return {}


def _with_place(document: object, error: ErrorDetails, known: Sequence[str]) -> str:
    path, value = _find(document, error["loc"], is_missing=error["type"] == "missing")
    sentence = sentence_of(error, "" if value is _MISSING else _shown(value))
    if error["type"] == "extra_forbidden":
        sentence += meant(str(error["loc"][-1])[:MAX_PLACE], known)
    place = path if len(path) <= MAX_PLACE else path[:MAX_PLACE] + "..."
    return f"{place}: {sentence}"[: MAX_PLACE + MAX_SENTENCE] if place else sentence[:MAX_SENTENCE]


def sentence_of(error: ErrorDetails, found: str = "") -> str:
    """Return what was expected and what was found.

    Args:
        error: One of `ValidationError.errors()`.
        found: The value at the error's place as it is to be shown; empty: it is left out.
    """
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return "expected a value, found no such field"
    if kind == "extra_forbidden":
        return "no field has that name"
    if kind == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    if kind == "json_invalid":
        return f"expected JSON, found something else: {context['error']}"
    if kind not in _EXPECTED:
        return str(error["msg"])
    expected = _EXPECTED[kind].format(
        **{name: _plain(value) for name, value in context.items()}, **_form(context)
    )
    return f"expected {expected}" + (f", found {found}" if found else "")


def _plain(value: object) -> object:
    """Return a bound as people write it: 0 and not 0.0, 3.4e+38 without all its digits."""
    if not isinstance(value, float):
        return value
    return int(value) if value.is_integer() and abs(value) < _MAX_WHOLE else f"{value:g}"


def _form(context: Mapping[str, object]) -> dict[str, str]:
    pattern = str(context.get("pattern", ""))
    return {"form": _FORMS.get(pattern, f"a text of the form {pattern}")}


def _shown(value: object) -> str:
    """Return a value as JSON has it, in one line of bounded length; of lists and objects the size alone."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    # A text is cut before it is converted: of a million characters no more are looked at.
    is_cut = isinstance(value, str) and len(value) > _MAX_FOUND
    text = json.dumps(value[:_MAX_FOUND] if isinstance(value, str) else value, ensure_ascii=True, default=str)
    return text[:_MAX_FOUND] + "..." if is_cut or len(text) > _MAX_FOUND else text


def meant(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return a question about the known names that are most like a name, such as "; did you mean a or b?".

    It is empty if none is like it. The prefix is put before each name.
    """
    near = difflib.get_close_matches(name, list(known), MAX_MEANT)
    return f"; did you mean {' or '.join(prefix + one for one in near)}?" if near else ""


def _find(document: object, location: Sequence[int | str], *, is_missing: bool) -> tuple[str, object]:
    """Find the place in a document that pydantic's location means.

    Args:
        document: The document as `json.loads` returns it.
        location: `loc` of an error. It holds names of variants, which the document does not have.
        is_missing: the last part of the location is a field that the document should have.

    Returns:
        The path, such as golden[0].steps, and the value there, or a mark for `sentence_of` if there is none.
    """
    path, value = "", document
    for index, part in enumerate(location):
        if isinstance(part, int):
            within = isinstance(value, list) and part < len(value)
            path += f"[{part}]"
            value = value[part] if within and isinstance(value, list) else _MISSING
        elif isinstance(value, dict) and part in value:
            path, value = f"{path}.{part}", value[part]
        elif index == len(location) - 1 and is_missing:
            path, value = f"{path}.{part}", _MISSING
    return path.removeprefix("."), value
