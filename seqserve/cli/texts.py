"""Text inputs of commands: the same bytes give the same text, or the same refusal, whatever the way in.

Arguments, files, pipes and standard input are UTF-8. A byte-order mark at the start is dropped, and CRLF and
CR become LF. Every text knows its place in the user's input, which errors name.
"""

import codecs
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from seqserve.cli.inputs import STDIN
from seqserve.cli.output import escape_controls
from seqserve.cli.session import UsageError, decode_argument, describe, not_utf8
from seqserve.errors import InvalidArgument, Overloaded, SeqserveError
from seqserve.tables.errors import TableError
from seqserve.tables.files import check_is_plain

MAX_LINE_BYTES = 1 << 28
"""Far above any server's limit, which names the text's length; this bounds the memory of an endless line."""

_LINE_END = re.compile("\r\n?")
# UTF-32 comes first, because its mark begins with that of UTF-16.
_OTHER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_TOO_LARGE = re.compile(r"larger than max \((\d+) vs\. (\d+)\)")
_TEXT_FIELD = re.compile(r"(?:texts\[(\d+)\]|prompt)")


class GivenText(NamedTuple):
    """A text of the user's, and where it stands: "argument 2", "standard input", "line 3 of reviews.txt"."""

    text: str
    place: str


def from_arguments(arguments: Sequence[str]) -> list[GivenText]:
    """Return the texts given as arguments.

    Raises:
        UsageError: One is not UTF-8.
    """
    places = [f"argument {number}" for number in range(1, 1 + len(arguments))]
    return [
        GivenText(_clean(decode_argument(text, place)), place)
        for text, place in zip(arguments, places, strict=True)
    ]


def read_whole(file: Path | None) -> GivenText:
    """Read a file, or standard input if there is none, as one text.

    Raises:
        UsageError: It cannot be read, or is not UTF-8 text.
    """
    return GivenText("".join(_decoded(file)), _name(file))


def read_lines(file: Path | None) -> Iterator[GivenText]:
    """Iterate over the lines of a file, or of standard input, as they arrive, without their line ends.

    Raises:
        UsageError: It cannot be read, or a line is not UTF-8 text; the lines before it are yielded first.
    """
    number, name = 0, _name(file)
    for text in _decoded(file):
        # A lone CR ends a line, too, so that one read may have brought several.
        for line in text.removesuffix("\n").split("\n"):
            number += 1
            yield GivenText(line, f"line {number} of {name}")


def explain(error: SeqserveError, texts: Sequence[GivenText]) -> str:
    """Describe an error for users: each text by its place in the input, not by the request's field."""
    violations = error.violations if isinstance(error, InvalidArgument) else ()
    named = [(_named_text(field, texts), description) for field, description in violations]
    if named and all(given for given, _ in named):
        return "\n".join(_refusal(given, description) for given, description in named if given)
    return describe(error)


@contextmanager
def explained(texts: Sequence[GivenText]) -> Iterator[None]:
    """Convert the server's refusal of a text to an error that names the text's place.

    Raises:
        UsageError: The server refused the request.
    """
    try:
        yield
    except InvalidArgument as error:
        raise UsageError(explain(error, texts)) from error
    except Overloaded as error:
        raise_if_too_large(error, texts)
        raise


def raise_if_too_large(error: Overloaded, texts: Sequence[GivenText]) -> None:
    """Raise an error that names the longest text, if gRPC refused a request for its size.

    Raises:
        UsageError: The request is larger than the server takes.
    """
    if texts and (found := _TOO_LARGE.search(str(error))):
        longest = max(texts, key=lambda given: len(given.text))
        raise UsageError(
            f"{longest.place}: expected a request of at most {found[2]} bytes, found {found[1]}"
        ) from error


def _named_text(field: str, texts: Sequence[GivenText]) -> GivenText | None:
    """Return the text that a field of a request holds, or None if it is another field."""
    found = _TEXT_FIELD.fullmatch(field)
    index = int(found[1] or 0) if found else len(texts)
    return texts[index] if index < len(texts) else None


def _refusal(given: GivenText, description: str) -> str:
    if not given.text:
        return f"{given.place} is empty"
    if given.text.isspace():
        return f"{given.place} holds nothing but white space"
    return f"{given.place}: {escape_controls(description)}"


def _name(file: Path | None) -> str:
    return escape_controls(str(file)) if file is not None and str(file) != STDIN else "standard input"


def _clean(text: str) -> str:
    """Drop a byte-order mark, and make every line end a newline."""
    return _LINE_END.sub("\n", text.removeprefix("\ufeff"))


def _decoded(file: Path | None) -> Iterator[str]:
    """Yield the lines of an input with their newlines, several at once where lone CRs end them."""
    name = _name(file)
    try:
        with _opened(file) as stream:
            for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE_BYTES + 1), b""), 1):
                yield _decoded_line(line, number, name)
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}") from error


@contextmanager
def _opened(file: Path | None) -> Iterator[BinaryIO]:
    if file is None or str(file) == STDIN:
        # The wrapper lives as long as the reading. At its own end it closes the buffer, and the interpreter
        # aborts if that happens at exit while another thread still reads.
        source = sys.stdin
        yield source.buffer
        return
    with file.open("rb") as stream:
        yield stream


def _decoded_line(line: bytes, number: int, name: str) -> str:
    place = f"line {number} of {name}"
    if number == 1 and (mark := next((mark for mark in _OTHER_MARKS if line.startswith(mark)), None)):
        raise UsageError(
            f"{name}: expected UTF-8 text, found {_OTHER_MARKS[mark]}, by its byte-order mark; "
            "save it as UTF-8"
        )
    if len(line) > MAX_LINE_BYTES:
        raise UsageError(f"{place}: expected at most {MAX_LINE_BYTES} bytes, found more")
    if (zero := line.find(0)) >= 0:
        _check_is_plain(name, line, number)
        raise UsageError(
            f"{place}: expected text, found a zero byte at byte {zero + 1} of the line; "
            "text in UTF-16 must be saved as UTF-8"
        )
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        _check_is_plain(name, line, number)
        raise UsageError(not_utf8(place, line[error.start], error.start)) from error
    return _clean(text) if number == 1 else _LINE_END.sub("\n", text)


def _check_is_plain(name: str, line: bytes, number: int) -> None:
    """Raise UsageError where a line that is no text begins a file of packed data."""
    try:
        check_is_plain(name, line if number == 1 else b"")
    except TableError as error:
        raise UsageError(str(error)) from error
