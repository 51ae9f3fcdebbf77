"""Answers each new row of a growing file, or of standard input, as it comes."""

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import typer

from seqserve.cli.given import JSON_LINES, Given, JsonReader, Wanted, form_of, token_ids
from seqserve.cli.infer_output import Answered
from seqserve.cli.inputs import STDIN
from seqserve.cli.output import escape_controls
from seqserve.cli.running import Runner, described
from seqserve.cli.session import UsageError
from seqserve.errors import InvalidArgument, WrongValue
from seqserve.infer_streams import InferStream
from seqserve.results import ModelInfo
from seqserve.tables.errors import TableError
from seqserve.tables.files import UTF8
from seqserve.tables.growing import RowReader, iter_decoded, iter_growing, iter_stream

POLL_S = 0.1
_SINGLE = "1"  # the name of the sequence where rows name none
_Read: TypeAlias = Callable[[int, str], Given | None]


def follow(stream: InferStream, runner: Runner, model: ModelInfo, wanted: Wanted) -> Iterator[Answered]:
    """Send each new time step to its sequence, and yield its output; a text is a sequence of its own.

    A line that cannot be read, or that the server refuses, gets an error, and its sequence goes on without
    it. Where none was answered yet, it ends the command.

    Args:
        stream: Where sequences are kept.
        runner: Runs texts.
        model: The model.
        wanted: The input.

    Raises:
        UsageError: The input cannot be read, or its first line is refused.
        SeqserveError: The call failed.
    """
    read = _reader(model, wanted)
    has_answered = False
    for number, line in _lines(wanted):
        for answered in _answers(stream, runner, read, number, line, wanted):
            if answered.output is None and not has_answered:
                raise UsageError(answered.description)
            has_answered = True
            yield answered


def _answers(
    stream: InferStream, runner: Runner, read: _Read, number: int, line: str | TableError, wanted: Wanted
) -> Iterator[Answered]:
    """Iterate over the answer to a line, or to the error of one that is no text; a header has none."""
    try:
        if isinstance(line, TableError):
            raise line
        given = read(number, line)
    except (TableError, UsageError) as error:
        place = f"line {number} of {wanted.name}"
        yield Answered(Given("", None, place), None, WrongValue(str(error)), str(error))
        return
    if given is None:
        return
    if isinstance(given.value, str):
        yield from runner.run([given])
        return
    try:
        output = stream.push(given.value, sequence_id=given.name, initial=given.initial)
    except InvalidArgument as error:
        yield Answered(given, None, error, described(error, given, ("input", "steps", "initial")))
    else:
        yield Answered(given, output)


def _reader(model: ModelInfo, wanted: Wanted) -> _Read:
    """Return what reads a line: as JSON where it begins so, and else as the model's input."""
    names = wanted.reading.names
    objects = JsonReader(model, names, wanted.sequence)
    rows = RowReader(wanted.name, names, wanted.sequence, wanted.reading.delimiter)
    is_json = form_of(model, wanted) == JSON_LINES

    def read(number: int, line: str) -> Given | None:
        place = f"line {number} of {wanted.name}"
        if is_json or (model.input != "text" and line.lstrip()[:1] in ("{", "[")):
            found, is_row = objects.read(line, number, place)
            return found._replace(name=found.name or _SINGLE, value=[found.value]) if is_row else found
        if model.input == "text":
            return Given(str(number), line, place, text=line)
        if model.input == "tokens":
            return Given(_SINGLE, token_ids(line, place), place)
        row = rows.read(number, line)
        return None if row is None else Given(row[0] or _SINGLE, [row[1]], place)

    return read


def _lines(wanted: Wanted) -> Iterator[tuple[int, str | TableError]]:
    if wanted.encoding.lower().replace("_", "-") not in (UTF8, "utf8"):
        raise UsageError(f"--encoding: expected {UTF8} beside --follow, found {wanted.encoding}")
    if wanted.file is None or str(wanted.file) == STDIN:
        lines = iter_stream(sys.stdin.buffer, wanted.name)
    elif wanted.file.is_file():
        lines = iter_growing(wanted.file, wanted.name, partial(time.sleep, POLL_S), _say)
    else:
        lines = _lines_of_pipe(wanted)
    try:
        yield from iter_decoded(lines, wanted.name)
    except TableError as error:
        raise UsageError(str(error)) from error


def _lines_of_pipe(wanted: Wanted) -> Iterator[bytes]:
    """Iterate over the lines of a named pipe, to its end."""
    assert wanted.file is not None
    try:
        with wanted.file.open("rb") as stream:
            yield from iter_stream(stream, wanted.name)
    except OSError as error:
        raise UsageError(f"{wanted.name}: cannot be read: {error.strerror}") from error


def _say(text: str) -> None:
    """Tell the user something on standard error."""
    typer.echo(f"note: {escape_controls(text)}", err=True)
