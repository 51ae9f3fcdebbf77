"""Reads the sequences of a user: texts, token ids, tables, JSON lines, and arrays of numpy."""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from seqserve.cli.inputs import STDIN
from seqserve.cli.observations import read_bytes, series_name
from seqserve.cli.session import UsageError
from seqserve.cli.texts import from_arguments, read_lines
from seqserve.results import ModelInfo
from seqserve.tables.errors import TableError
from seqserve.tables.files import Origin
from seqserve.tables.lines import iter_lines
from seqserve.tables.numbers import LARGEST
from seqserve.tables.observations import Reading
from seqserve.tables.sequences import read_sequences

CSV, JSON_LINES, NPY, TEXT = "csv", "jsonl", "npy", "text"
FORMATS = (CSV, JSON_LINES, NPY, TEXT)
_BY_SUFFIX = {".npy": NPY, ".jsonl": JSON_LINES, ".ndjson": JSON_LINES, ".json": JSON_LINES, ".csv": CSV}
_NPY_MARK = b"\x93NUMPY"
_WHOLE = ("text", "tokens", "steps")
_LONGEST_LINE = 1 << 24


class Given(NamedTuple):
    """A sequence of the user's, or new time steps of one.

    Attributes:
        name: Its name, or its number in the input.
        value: What the client takes for it.
        place: Where it stands: "line 3 of words.txt", "sequence walk of moves.csv".
        initial: What the model's init graph takes, or None.
        text: The text that it is, or None.
    """

    name: str
    value: Any
    place: str
    initial: dict[str, Any] | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Choices of the user about the input.

    Attributes:
        file: The file; None or "-": standard input.
        form: One of FORMATS; "": told by the file's name and first bytes.
        sequence: Column, or key, that names the sequence of a row; "": there is none.
        reading: How to read a table.
        encoding: Encoding of a table's text.
    """

    file: Path | None
    form: str
    sequence: str
    reading: Reading
    encoding: str

    @property
    def name(self) -> str:
        """Name that messages call the input by."""
        return series_name(self.file)


def given_texts(arguments: Sequence[str], file: Path | None, *, is_input: bool) -> Iterator[Given]:
    """Iterate over texts: those given as arguments, or the lines of an input as they come.

    Raises:
        UsageError: A text is not UTF-8, or the input cannot be read.
    """
    texts = read_lines(file) if is_input else iter(from_arguments(arguments))
    for number, each in enumerate(texts, 1):
        yield Given(str(number), each.text, each.place, text=each.text)


def given_sequences(model: ModelInfo, wanted: Wanted) -> Iterator[Given]:
    """Iterate over the sequences of a file or of standard input.

    Raises:
        UsageError: The input cannot be read or understood; the text says where.
    """
    form = form_of(model, wanted)
    if form == TEXT and model.input == "text":
        _check_sequence(wanted, form, model)
        yield from given_texts((), wanted.file, is_input=True)
        return
    try:
        data = read_bytes(wanted.file)
        form = form or _form_by_content(data, model)
        _check_sequence(wanted, form, model)
        origin = Origin.of_bytes(wanted.name, data, wanted.encoding)
        if form == NPY:
            yield from _of_array(model, data, wanted.name)
        elif form == JSON_LINES:
            yield from _of_json(model, origin, wanted)
        elif form == TEXT or model.input == "tokens":
            for number, line in enumerate(iter_lines(origin, _LONGEST_LINE), 1):
                if line.strip():
                    place = f"line {number} of {wanted.name}"
                    yield Given(str(number), token_ids(line, place), place)
        else:
            for index, rows in enumerate(read_sequences(origin, wanted.reading, wanted.sequence), 1):
                place = f"sequence {rows.name} of {wanted.name}" if rows.name else wanted.name
                yield Given(rows.name or str(index), rows.values, place)
    except TableError as error:
        raise UsageError(str(error)) from error


def form_of(model: ModelInfo, wanted: Wanted) -> str:
    """Return the form of the input as far as it is known before reading; "" if its content tells."""
    if wanted.form:
        return wanted.form
    suffix = wanted.file.suffix.lower() if wanted.file is not None and str(wanted.file) != STDIN else ""
    if suffix in _BY_SUFFIX and not (model.input == "text" and suffix == ".csv"):
        return _BY_SUFFIX[suffix]
    return TEXT if model.input == "text" else ""


def token_ids(line: str, place: str) -> list[int]:
    """Parse whole numbers with spaces or commas between them.

    Raises:
        UsageError: One is none.
    """
    found = []
    for cell in line.replace(",", " ").split():
        if not (cell.isascii() and cell.isdecimal() and len(cell) < 20):
            raise UsageError(f"{place}: expected token ids, whole numbers, found {cell[:40]!r}")
        found.append(int(cell))
    return found


class JsonReader:
    """Reads one value of JSON: a row of a sequence, or a whole one.

    An object with one of the keys text, tokens or steps is a whole sequence, which `id` may name and for
    which `initial` may hold what an init graph takes. Another object is a row, its values by the names of the
    model's columns. A list of numbers is a row, or the tokens of a sequence for a model that takes tokens. A
    list of lists is a whole sequence.

    Args:
        model: The model.
        sequence: Key that names the sequence of a row; "": there is none.
    """

    def __init__(self, model: ModelInfo, names: Sequence[str], sequence: str) -> None:
        self._takes_tokens = model.input == "tokens"
        self._names = names
        self._sequence = sequence

    def read(self, text: str, number: int, place: str) -> tuple[Given, bool]:
        """Return what a line holds, and whether it is a row.

        Raises:
            UsageError: It is no JSON, or none of these forms.
        """
        try:
            value = json.loads(text)
        except ValueError as error:
            raise UsageError(f"{place}: expected JSON, found none: {error}") from error
        except RecursionError as error:
            raise UsageError(f"{place}: expected JSON of few levels, found too many") from error
        if isinstance(value, str):
            return Given(str(number), value, place, text=value), False
        if isinstance(value, dict):
            if any(key in value and key not in self._names for key in _WHOLE):
                return self._whole(value, number, place), False
            return self._named_row(value, place), True
        if not isinstance(value, list) or not value:
            raise UsageError(f"{place}: expected an object, or a list that is not empty, found {text[:40]!r}")
        if self._takes_tokens or isinstance(value[0], list):
            return Given(str(number), value, place), False
        if self._sequence:
            what = f"{place}: expected an object with the key {self._sequence}, which --sequence names"
            raise UsageError(f"{what}, found a list")
        return Given(
            "", [_number(each, f"{place}: value {at}") for at, each in enumerate(value, 1)], place
        ), True

    def _whole(self, value: dict[str, Any], number: int, place: str) -> Given:
        keys = [key for key in _WHOLE if key in value]
        if len(keys) > 1:
            raise UsageError(
                f"{place}: expected one of the keys {', '.join(_WHOLE)}, found {', '.join(keys)}"
            )
        name = value.get("id", number)
        found, initial = value[keys[0]], value.get("initial")
        if initial is not None and not isinstance(initial, dict):
            raise UsageError(f"{place}: initial: expected an object of rows by name")
        is_text = keys[0] == "text"
        if is_text and not isinstance(found, str):
            raise UsageError(f"{place}: text: expected a text, found none")
        return Given(_name(name, place), found, place, initial, found if is_text else None)

    def _named_row(self, value: dict[str, Any], place: str) -> Given:
        if not self._names:
            raise UsageError(f"{place}: expected a list of numbers, as the model names no columns")
        for name in [*self._names, *([self._sequence] if self._sequence else [])]:
            if name not in value:
                found = ", ".join(map(str, value))[:200] or "none"
                raise UsageError(f"{place}: expected the key {name}, found {found}")
        row = [_number(value[name], f"{place}: {name}") for name in self._names]
        return Given(_name(value[self._sequence], place) if self._sequence else "", row, place)


def _of_json(model: ModelInfo, origin: Origin, wanted: Wanted) -> Iterator[Given]:
    """Iterate over whole sequences as they stand, then over those that rows make together."""
    reader = JsonReader(model, wanted.reading.names, wanted.sequence)
    rows: dict[str, list[Any]] = {}
    for number, line in enumerate(iter_lines(origin, _LONGEST_LINE), 1):
        if not line.strip():
            continue
        place = f"line {number} of {wanted.name}"
        found, is_row = reader.read(line, number, place)
        if is_row:
            before = rows.setdefault(found.name, [])
            if before and len(found.value) != len(before[0]):
                what = f"expected {len(before[0])} values, as in the rows before it"
                raise UsageError(f"{place}: {what}, found {len(found.value)}")
            before.append(found.value)
        else:
            yield found
    for number, (name, values) in enumerate(rows.items(), 1):
        whole = f"sequence {name} of {wanted.name}" if name else wanted.name
        yield Given(name or str(number), values, whole)


def _of_array(model: ModelInfo, data: bytes, name: str) -> Iterator[Given]:
    """Iterate over the sequences of an array: one of one or two dimensions, or one in each row of three.

    An array of whole numbers of two dimensions has the tokens of a sequence in each row, for a model that
    takes tokens.
    """
    try:
        import numpy as np  # noqa: PLC0415 - needed for this form alone
    except ImportError as error:
        raise UsageError(f"{name}: reading .npy needs the package numpy: pip install numpy") from error
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UsageError(f"{name}: expected an array of numpy (.npy), found none: {error}") from error
    if not isinstance(array, np.ndarray):
        raise UsageError(f"{name}: expected one array of numpy (.npy), found several (.npz)")
    is_several = array.ndim == 3 or (array.ndim == 2 and model.input == "tokens")
    for number, each in enumerate(array if is_several else [array], 1):
        yield Given(str(number), each, f"sequence {number} of {name}" if is_several else name)


def _form_by_content(data: bytes, model: ModelInfo) -> str:
    if data.startswith(_NPY_MARK):
        return NPY
    head = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip()
    if head[:1] in (b"{", b"["):
        return JSON_LINES
    return TEXT if model.input == "tokens" else CSV


def _check_sequence(wanted: Wanted, form: str, model: ModelInfo) -> None:
    """Check that --sequence is given for rows alone.

    Raises:
        UsageError: It is given for an input whose lines are whole sequences.
    """
    if wanted.sequence and (form not in (CSV, JSON_LINES) or model.input in ("text", "tokens")):
        what = "--sequence: expected a table or JSON lines of rows"
        raise UsageError(f"{what}, found {form} for a model that takes {model.input or 'something else'}")


def _name(value: Any, place: str) -> str:
    if isinstance(value, (dict, list)) or value is None:
        raise UsageError(f"{place}: expected the name of a sequence, a text or a number")
    return str(value)


def _number(value: Any, place: str) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not abs(value) <= LARGEST:
        raise UsageError(f"{place}: expected a finite number, found {json.dumps(value)[:60]}")
    return float(value)
