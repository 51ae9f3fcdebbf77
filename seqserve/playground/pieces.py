"""Cuts a labelled text into pieces of one label each, and describes outputs as rows of a table."""

from collections.abc import Sequence
from typing import NamedTuple

from seqserve.results import ModelInfo
from seqserve.sequence_results import SequenceOutput
from seqserve.tabular import Record

MAX_PIECES = 1000


class Piece(NamedTuple):
    """A part of a text.

    Attributes:
        text: Its characters.
        label: Label of all its rows; "": no row stands for these characters, or no label holds.
        place: Place of the label among the model's, which chooses its colour; None without a label.
        probability: The lowest probability of the label in its rows; None without a label.
    """

    text: str
    label: str = ""
    place: int | None = None
    probability: float | None = None


def pieces_of(text: str, output: SequenceOutput, labels: Sequence[str]) -> list[Piece]:
    """Cut a text at the borders of its labels; characters without a row make pieces of their own.

    Rows whose spans touch and have the same label make one piece. Beyond MAX_PIECES, the rest of the text is
    one piece without a label.

    Args:
        text: The text as it was sent.
        output: Its output, one row a step, with spans and labels.
        labels: Labels of the model.
    """
    places = {label: place for place, label in enumerate(labels)}
    shares = output.probability_rows
    pieces: list[Piece] = []
    end = 0
    for row, (first, after) in enumerate(output.spans):
        if len(pieces) >= MAX_PIECES:
            break
        if first > end:
            pieces.append(Piece(text[end:first]))
        label = output.labels[row]
        place = places.get(label)
        probability = shares[row][place] if place is not None and place < len(shares[row]) else None
        piece = Piece(text[max(first, end) : after], label, place, probability)
        if piece.text:
            pieces[-1:] = _joined(pieces[-1:], piece) if first <= end else [*pieces[-1:], piece]
        end = max(end, after)
    return [*pieces, Piece(text[end:])] if end < len(text) else pieces


def records_of(output: SequenceOutput, model: ModelInfo, text: str = "") -> list[Record]:
    """Return an output as rows of a table: step, text, label, then probabilities and values by their names.

    Args:
        output: The output.
        model: The model, whose labels name the probabilities.
        text: The text that was sent; "": it was none.
    """
    first = output.position - output.steps if output.position else 0
    probabilities, values = output.probability_rows, output.value_rows
    records: list[Record] = []
    for row in range(output.steps):
        record: Record = {"step": first + row + 1}
        if text:
            record["text"] = text[slice(*output.spans[row])] if row < len(output.spans) else text
        if output.labels:
            record["label"] = output.labels[row]
        names = output_names(model, len(probabilities[row]), is_probability=True)
        record |= dict(zip(names, probabilities[row], strict=True))
        names = output_names(model, len(values[row]), is_probability=False)
        records.append(record | dict(zip(names, values[row], strict=True)))
    return records


def output_names(model: ModelInfo, count: int, *, is_probability: bool) -> list[str]:
    """Return the titles of so many numbers: labels, the columns of model.json, or the kind with a number."""
    kind = "probability" if is_probability else "value"
    if is_probability and len(model.labels) == count:
        return [f"{kind} {label}" for label in model.labels]
    named = [] if is_probability else _column_names(model)
    return named if len(named) == count else [f"{kind} {number}" for number in range(1, count + 1)]


def line_names(model: ModelInfo, count: int, *, is_probability: bool) -> list[str]:
    """Return short titles for the lines of a chart, whose axis says what they are."""
    return [
        name.removeprefix("probability ")
        for name in output_names(model, count, is_probability=is_probability)
    ]


def _column_names(model: ModelInfo) -> list[str]:
    section = model.spec.get("sequences")
    output = section.get("output") if isinstance(section, dict) else None
    columns = output.get("columns") if isinstance(output, dict) else None
    return [column["name"] for column in columns or ()]


def _joined(last: list[Piece], piece: Piece) -> list[Piece]:
    if not last or last[0].label != piece.label:
        return [*last, piece]
    known = [each.probability for each in (last[0], piece) if each.probability is not None]
    return [last[0]._replace(text=last[0].text + piece.text, probability=min(known, default=None))]
