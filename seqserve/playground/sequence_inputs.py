"""Reads sequences that are typed or dropped: a text, token ids, or rows of numbers, as a model takes them."""

import re
from dataclasses import dataclass

from seqserve.cli.given import Given, token_ids
from seqserve.cli.session import UsageError
from seqserve.frames import model_columns
from seqserve.playground.downloads import csv_of
from seqserve.playground.examples import example_steps, example_texts, example_tokens
from seqserve.playground.uploads import FileRefusedError, HowToRead, read_lines, read_tables, short_name
from seqserve.results import ModelInfo
from seqserve.tables.errors import TableError
from seqserve.tables.numbers import parse_number

MAX_SEQUENCES = 1000
TYPED = "the field"
_WORD = re.compile(r"\s*\S+|\s+")


@dataclass(frozen=True, slots=True)
class Takes:
    """The input of a model in words.

    Attributes:
        what: What a sequence is made of.
        hint: How to type it.
    """

    what: str
    hint: str

    @classmethod
    def of(cls, model: ModelInfo) -> "Takes":
        """Describe what a model takes."""
        if model.input == "text":
            return cls("text", "Text; in a file, each line is a text.")
        if model.input == "tokens":
            return cls("token ids", "Whole numbers with spaces between them; each line is a sequence.")
        names = model_columns(model).names
        width = len(names) or len(model.features)
        values = f"the columns {', '.join(names)}" if names else f"{width or 'the right number of'} values"
        return cls("rows of numbers", f"CSV, a row for each time step, with {values}.")


def typed_sequences(model: ModelInfo, text: str) -> list[Given]:
    """Read what was typed: one text, or the lines or rows of a file.

    Raises:
        FileRefusedError: It is empty, or cannot be read.
    """
    if not text.strip():
        raise FileRefusedError("Expected a sequence in the field, found nothing")
    if model.input == "text":
        return [Given("1", text, TYPED, text=text)]
    return file_sequences(model, TYPED, text.encode(), HowToRead(is_oldest_first=True))


def file_sequences(model: ModelInfo, name: str, data: bytes, how: HowToRead) -> list[Given]:
    """Read the sequences of a file.

    Raises:
        FileRefusedError: The file cannot be read, or has more than MAX_SEQUENCES sequences.
    """
    short = short_name(name)
    if model.input == "steps":
        tables = read_tables(name, data, model_columns(model).names, how)
        found = [
            Given(rows.name or str(number), rows.values, f"sequence {rows.name or number} of {short}")
            for number, rows in enumerate(tables, 1)
        ]
    else:
        lines = [line for line in read_lines(name, data, how.encoding) if line.text.strip()]
        found = [
            _line(model, line.text, f"line {line.number} of {short}", number)
            for number, line in enumerate(lines, 1)
        ]
    if not found:
        raise FileRefusedError(f"{short}: expected at least one sequence, found none")
    if len(found) > MAX_SEQUENCES:
        raise FileRefusedError(f"{short}: expected at most {MAX_SEQUENCES:,} sequences, found {len(found):,}")
    return found


def example_input(model: ModelInfo, number: int) -> str:
    """Return one of the golden examples of a model as text for the field; "" if it has none.

    Args:
        model: The model.
        number: Which example; numbers beyond the last begin again with the first.
    """
    if model.input == "steps":
        if not (series := example_steps(model)):
            return ""
        rows = series[number % len(series)]
        names = model_columns(model).names or [f"value {place}" for place in range(1, len(rows[0]) + 1)]
        return (
            csv_of(names, ([f"{value:.7g}" for value in row] for row in rows)).decode().replace("\r\n", "\n")
        )
    if model.input == "tokens":
        examples = [" ".join(map(str, each)) for each in example_tokens(model)]
    else:
        examples = example_texts(model)
    return examples[number % len(examples)] if examples else ""


def parse_initial(values: dict[str, str]) -> dict[str, list[float]] | None:
    """Parse what the init graph takes: numbers with spaces or commas between them; None if it takes nothing.

    Raises:
        FileRefusedError: A cell is no finite number.
    """
    try:
        found = {
            name: [parse_number(name, cell) for cell in text.replace(",", " ").split()]
            for name, text in values.items()
        }
    except TableError as error:
        raise FileRefusedError(str(error)) from error
    return found or None


def time_steps(given: Given) -> list[object]:
    """Cut a sequence into what a stream sends: rows, token ids, or words with the space before them."""
    if given.text is not None:
        return list(_WORD.findall(given.text))
    return list(given.value)


def joined(parts: list[object]) -> object:
    """Join parts of `time_steps` to what the client takes for one push."""
    return "".join(map(str, parts)) if isinstance(parts[0], str) else parts


def _line(model: ModelInfo, text: str, place: str, number: int) -> Given:
    if model.input == "text":
        return Given(str(number), text, place, text=text)
    try:
        return Given(str(number), token_ids(text, place), place)
    except UsageError as error:
        raise FileRefusedError(str(error)) from error
