"""`seqserve infer`: runs sequences through any model, whole or as their time steps come."""

from collections.abc import Iterator
from typing import Annotated, TypeAlias

import typer

from seqserve.cli.describing import completed
from seqserve.cli.following import follow
from seqserve.cli.given import FORMATS, Given, Wanted, given_sequences, given_texts
from seqserve.cli.infer_output import print_outputs
from seqserve.cli.inputs import FileOption, should_read_input
from seqserve.cli.observations import checked_delimiter
from seqserve.cli.running import Runner
from seqserve.cli.session import (
    FAILED,
    JsonOption,
    ModelVersion,
    ServerOption,
    Session,
    TimeoutOption,
    UsageError,
    session,
)
from seqserve.cli.table_options import DateFormat, Delimiter, OldestFirst
from seqserve.frames import model_columns
from seqserve.results import ModelInfo
from seqserve.tables.files import UTF8
from seqserve.tables.observations import Reading

ModelArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="MODEL", help="Name of the model.", show_default=False)
]


def infer(  # noqa: PLR0913 - one parameter per option
    context: typer.Context,
    *,
    model: ModelArgument,
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            help="Texts, for a model that takes text; without any, or with -, standard input is read.",
            show_default=False,
        ),
    ] = None,
    file: FileOption = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help=f"Form of the input: {', '.join(FORMATS)}. Default: told by the file's name and content.",
            show_default=False,
        ),
    ] = "",
    sequence: Annotated[
        str,
        typer.Option(
            metavar="COLUMN",
            help="Column, or key of JSON, that names the sequence of a row. Default: all rows are one.",
            show_default=False,
        ),
    ] = "",
    every: Annotated[
        bool | None,
        typer.Option(
            "--every/--last",
            help="Answer for every time step, or for the last. Default: as the model was made for.",
            show_default=False,
        ),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Also print the network's own outputs, such as logits.")
    ] = False,
    is_following: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="Answer each row as it is written to the file or comes through the pipe; end by Ctrl-C.",
        ),
    ] = False,
    date_column: Annotated[
        str,
        typer.Option(
            metavar="COLUMN",
            help="Name or number of the column of dates. Default: found by itself.",
            show_default=False,
        ),
    ] = "",
    date_format: DateFormat = "",
    oldest_first: OldestFirst = False,
    encoding: Annotated[str, typer.Option(help="Encoding of a table: utf-8, cp1252, utf-16, ...")] = UTF8,
    delimiter: Delimiter = "",
    version: ModelVersion = 0,
    server: ServerOption = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run sequences through any model: `seqserve models MODEL` says what it takes and gives.

    Rows of numbers come as CSV, as JSON lines (objects or lists, one a row) or as an array of numpy (.npy).
    With a header or objects, values are matched by the model's names for them, and others are ignored.
    Without, they must be in the model's order. Texts come as arguments or lines, tokens as lines of whole
    numbers. A line of JSON may also hold a whole sequence: {"id": ..., "steps": [[...], ...]}, or "tokens",
    or "text", with "initial" where the model computes its first state from something.

    A sequence that is refused gets an error, and the others go on; the exit status is then 1.
    """
    with session(context, server, timeout, as_json) as current:
        arguments = texts or []
        reads_input = should_read_input(arguments, file)
        about = completed(current.client.model(model, version))
        wanted = Wanted(
            file,
            _format(form),
            sequence,
            Reading(
                model_columns(about).names,
                date_column,
                date_format,
                oldest_first,
                None,
                checked_delimiter(delimiter),
            ),
            encoding,
        )
        runner = Runner(current.client, model, about.version, every, raw)
        if is_following:
            failures = _follow(current, runner, about, wanted, every, raw)
        else:
            given = _given(about, arguments, wanted, reads_input)
            failures = print_outputs(runner.run(given), about, every=every, as_json=current.as_json)
        if failures:
            typer.echo(f"error: {failures} failed", err=True)
            raise typer.Exit(FAILED)


def _given(about: ModelInfo, arguments: list[str], wanted: Wanted, reads_input: bool) -> Iterator[Given]:
    if reads_input:
        return given_sequences(about, wanted)
    if about.input not in ("text", ""):
        raise UsageError(
            f"{about.name} takes {about.input}, found texts as arguments: give a file with --file, or a pipe"
        )
    return given_texts(arguments, None, is_input=False)


def _follow(
    current: Session, runner: Runner, about: ModelInfo, wanted: Wanted, every: bool | None, raw: bool
) -> int:
    if about.kind == "whole":
        raise UsageError(f"--follow: {about.name} needs whole sequences (kind whole); leave --follow out")
    with current.client.infer_stream(
        model=about.name, version=about.version, every=every, raw=raw, timeout_s=current.timeout_s
    ) as stream:
        answers = follow(stream, runner, about, wanted)
        return print_outputs(answers, about, every=every, as_json=current.as_json, is_streaming=True)


def _format(form: str) -> str:
    if form and form not in FORMATS:
        raise UsageError(f"--format: expected one of {', '.join(FORMATS)}, found {form!r}")
    return form
