"""Decodes text line by line, and says where bytes are that are no text."""

import codecs
from collections.abc import Iterator
from io import TextIOWrapper

from seqserve.tables.errors import TableError
from seqserve.tables.files import UTF8, Origin, errno_text

_BLOCK = 1 << 20


def iter_lines(origin: Origin, longest: int = -1) -> Iterator[str]:
    """Iterate over lines with their ends as they are, without a byte-order mark at the start.

    Args:
        origin: What to read.
        longest: Most characters of a line; -1 is any number.

    Raises:
        TableError: It cannot be read, is no text in its encoding, or has a line that is too long.
    """
    try:
        with origin.open() as raw, TextIOWrapper(raw, encoding=origin.encoding, newline="") as file:
            number = 0
            while line := file.readline(longest):
                number += 1
                if "\0" in line:
                    raise TableError(
                        f"{origin.name}: line {number}: expected text, "
                        "found a zero byte (UTF-16 needs --encoding utf-16)"
                    )
                if len(line) == longest and not line.endswith(("\n", "\r")):
                    raise TableError(
                        f"{origin.name}: line {number}: expected a line of less than {longest:,} characters, "
                        "found a longer one"
                    )
                yield line if number > 1 else line.removeprefix("\ufeff")
    except OSError as error:
        raise TableError(f"{origin.name}: cannot be read: {errno_text(error)}") from error
    except LookupError as error:
        raise TableError(
            f"--encoding: expected the name of a text encoding, such as {UTF8} or cp1252, "
            f"found {origin.encoding!r}"
        ) from error
    except UnicodeError as error:
        raise _undecodable(origin) from error


def _undecodable(origin: Origin) -> TableError:
    """Find the first bytes that are no text.

    It is read again, since the first reading knew a position in its buffer alone.
    """
    encoding = origin.encoding
    decoder = codecs.getincrementaldecoder(encoding)()
    line, offset = 1, 0
    with origin.open() as file:
        while True:
            block = file.read(_BLOCK)
            waiting = decoder.getstate()[0]
            try:
                line += decoder.decode(block, final=not block).count("\n")
            except UnicodeDecodeError as error:
                before = error.object[: error.start].decode(encoding, errors="replace")
                found = f"byte 0x{error.object[error.start]:02x}"
                place = f"line {line + before.count(chr(10))}, byte {offset - len(waiting) + error.start}"
                return TableError(
                    f"{origin.name}: {place}: expected {encoding.upper()} text, "
                    f"found {found}{_perhaps(encoding, error.object)}"
                )
            except UnicodeError as error:
                return TableError(
                    f"{origin.name}: line {line}: expected {encoding.upper()} text, found none: {error}"
                )
            if not block:
                return TableError(
                    f"{origin.name}: expected {encoding.upper()} text, found bytes that are none"
                )
            offset += len(block)


def _perhaps(encoding: str, data: bytes) -> str:
    """Say which encoding to try; none is tried unasked, since most read most bytes, and read them wrongly."""
    if encoding != UTF8:
        return ""
    other = "utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "cp1252"
    return f"; if the file is in {other}, say --encoding {other}"
