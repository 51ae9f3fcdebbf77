"""Reads the JSON files of a user, with bounds on their size and a sentence where one cannot be read."""

import json
from pathlib import Path

from training.data.files import check_regular
from training.errors import TrainingError

# Vocabularies of a million words have about 20 MB.
MAX_BYTES = 256 << 20


def read_bytes(path: Path, option: str) -> bytes:
    """Read a file whole.

    Args:
        path: the file.
        option: the option that named it, for error texts.

    Raises:
        TrainingError: it cannot be read, or is larger than MAX_BYTES.
    """
    check_regular(path)
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise TrainingError(f"{option}: expected a file of at most {MAX_BYTES} bytes, found {size} in {path}")
    return path.read_bytes()


def read_text(path: Path, option: str) -> str:
    """Read a file of UTF-8 text whole, its line ends as they are; a byte-order mark is dropped.

    Raises:
        TrainingError: it cannot be read, is too large, or is no UTF-8.
    """
    try:
        return read_bytes(path, option).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TrainingError(
            f"{option}: expected UTF-8 text in {path}, found a byte {error.object[error.start]:#04x} "
            f"at position {error.start}"
        ) from error


def read_json(path: Path, option: str) -> object:
    """Read a file of JSON whole.

    Raises:
        TrainingError: it cannot be read, is too large, or is no JSON.
    """
    return parse_json(read_text(path, option), option, str(path))


def parse_json(text: str, option: str, place: str) -> object:
    """Parse JSON.

    Raises:
        TrainingError: it is none, or is nested too deeply.
    """
    try:
        found: object = json.loads(text)
    except ValueError as error:
        raise TrainingError(f"{option}: expected JSON in {place}, found something else: {error}") from error
    except RecursionError as error:
        raise TrainingError(f"{option}: expected JSON in {place}, found it nested too deeply") from error
    return found
