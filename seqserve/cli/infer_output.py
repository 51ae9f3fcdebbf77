"""Prints the outputs of sequences: as a table, tab-separated or as JSON; of embeddings as much as fits."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import typer

from seqserve.cli.given import Given
from seqserve.cli.output import escape_controls
from seqserve.cli.session import print_json
from seqserve.cli.tables import Column, has_wide_terminal, print_tab_separated, print_table
from seqserve.errors import InvalidArgument, SeqserveError
from seqserve.results import ModelInfo
from seqserve.sequence_results import SequenceOutput

_MOST_DRAWN = 8
_SHOWN_NUMBERS = 4


class Answered(NamedTuple):
    """A sequence and its output, or the error that it got and its description for the user."""

    given: Given
    output: SequenceOutput | None
    error: SeqserveError | None = None
    description: str = ""


def print_outputs(
    answers: Iterable[Answered],
    model: ModelInfo,
    *,
    every: bool | None,
    as_json: bool,
    is_streaming: bool = False,
) -> int:
    """Print outputs: a row of a table for each row, or a line of JSON for each sequence.

    Errors go to standard error, as JSON to standard output.

    Args:
        answers: Sequences with their outputs or errors.
        model: The model.
        every: Whether every time step was asked for; None left it to the model.
        as_json: Whether to print JSON.
        is_streaming: Whether each row is printed as it comes, tab-separated, on a terminal, too.

    Returns:
        The number of sequences that failed.
    """
    failed: list[Answered] = []
    good = _good(answers, failed, as_json)
    if as_json:
        for each in good:
            print_json(_facts(each))
    elif (first := next(good, None)) is not None:
        by_default = model.output_steps == "every" if every is None else every
        has_steps = by_default or (is_streaming and model.input != "text")
        layout = Layout(model, first, has_steps=has_steps, is_drawn=has_wide_terminal())
        rows = chain.from_iterable(map(layout.rows, chain([first], good)))
        if is_streaming:
            for cells in chain([[column.title for column in layout.columns]], rows):
                print_tab_separated(cells)
        else:
            print_table(layout.columns, rows)
    return len(failed)


def print_error(answered: Answered) -> None:
    """Print on standard error why a sequence has no output."""
    typer.echo(f"error: {escape_controls(answered.description, keep=chr(10))}", err=True)


def facts_of_error(answered: Answered) -> dict[str, Any]:
    """Return what JSON says of an error."""
    error = answered.error
    assert error is not None
    violations = error.violations if isinstance(error, InvalidArgument) else ()
    return {
        "code": error.code.name,
        "message": answered.description,
        "violations": [violation._asdict() for violation in violations],
    }


class Layout:
    """The columns of the table of outputs, as the first output has them.

    Args:
        model: The model, for names of labels and of numbers.
        first: The first sequence with an output.
        has_steps: Whether a row is the output of a time step, and so needs its number.
        is_drawn: Whether the table is drawn on a terminal; wide rows are then shortened.
    """

    def __init__(self, model: ModelInfo, first: Answered, *, has_steps: bool, is_drawn: bool) -> None:
        output = first.output
        assert output is not None
        rows = max(output.steps, 1)
        self._is_text = first.given.text is not None
        self._has_steps = output.steps > 1 or has_steps
        self._has_names = not self._is_text or self._has_steps
        self._has_labels = bool(output.labels)
        self._probabilities = names_of(len(output.flat_probabilities) // rows, model.labels, "probability")
        self._values = names_of(output.width, _number_names(model), "value")
        self._is_short = is_drawn
        self._drops_probabilities = is_drawn and self._has_labels and len(self._probabilities) > _MOST_DRAWN
        self.columns = list(self._columns())

    def _columns(self) -> Iterator[Column]:
        if self._has_names:
            yield Column("sequence")
        if self._has_steps:
            yield Column("step", is_number=True)
        if self._has_labels:
            yield Column("label")
            yield Column("probability", is_number=True)
        if not self._drops_probabilities:
            yield from self._number_columns(self._probabilities, "probabilities")
        yield from self._number_columns(self._values, "values")
        if self._is_text:
            yield Column("text", is_text=True)

    def _number_columns(self, names: Sequence[str], title: str) -> Iterator[Column]:
        if self._is_short and len(names) > _MOST_DRAWN:
            yield Column(f"{len(names)} {title}")
        else:
            yield from (Column(name, is_number=True) for name in names)

    def rows(self, answered: Answered) -> Iterator[list[str]]:
        """Iterate over the rows of one output; steps are counted from 1, or go on in a stream."""
        output = answered.output
        assert output is not None
        first_step = output.position - output.steps if output.position else 0
        probabilities, values = output.probability_rows, output.value_rows
        for row in range(output.steps):
            cells = [answered.given.name] if self._has_names else []
            if self._has_steps:
                cells.append(str(first_step + row + 1))
            if self._has_labels:
                label = output.labels[row] if row < len(output.labels) else ""
                cells += [label, f"{max(probabilities[row], default=0.0):.6f}"]
            if not self._drops_probabilities:
                cells += self._numbers(probabilities[row], "{:.6f}")
            cells += self._numbers(values[row], "{:.6g}")
            if self._is_text:
                cells.append(_piece(answered, output, row))
            yield cells

    def _numbers(self, numbers: Sequence[float], form: str) -> list[str]:
        found = [form.format(each) for each in numbers]
        if self._is_short and len(found) > _MOST_DRAWN:
            return [", ".join([*found[:_SHOWN_NUMBERS], "..."])]
        return found


def names_of(count: int, known: Sequence[str], kind: str) -> list[str]:
    """Return titles for so many numbers: those that are known, or else the kind with a number."""
    if len(known) == count:
        return list(known)
    return [kind] if count == 1 else [f"{kind} {number}" for number in range(1, count + 1)]


def _good(answers: Iterable[Answered], failed: list[Answered], as_json: bool) -> Iterator[Answered]:
    """Iterate over what has an output; report and collect the rest."""
    for each in answers:
        if each.error is None:
            yield each
            continue
        failed.append(each)
        if as_json:
            print_json(_name(each.given) | {"error": facts_of_error(each)})
        else:
            print_error(each)


def _facts(answered: Answered) -> dict[str, Any]:
    output = answered.output
    assert output is not None
    facts: dict[str, Any] = _name(answered.given) | {"steps": output.steps, "version": output.version}
    if output.position:
        facts["position"] = output.position
    if output.labels:
        facts["labels"] = list(output.labels)
    if output.flat_probabilities:
        facts["probabilities"] = output.probability_rows
    if output.flat_values:
        facts["values"] = output.value_rows
    if output.spans:
        facts["spans"] = [list(span) for span in output.spans]
    return facts


def _name(given: Given) -> dict[str, Any]:
    return {"sequence": given.name} if given.text is None else {"sequence": given.name, "text": given.text}


def _piece(answered: Answered, output: SequenceOutput, row: int) -> str:
    text = answered.given.text or ""
    return text[slice(*output.spans[row])] if output.steps > 1 and row < len(output.spans) else text


def _number_names(model: ModelInfo) -> list[str]:
    """Return the names of the numbers that a model answers with, from model.json, or none."""
    section = model.spec.get("sequences")
    output = section.get("output") if isinstance(section, dict) else None
    columns = output.get("columns") if isinstance(output, dict) else None
    names = [column.get("name") for column in columns or () if isinstance(column, dict)]
    return [name for name in names if isinstance(name, str)]
