"""`seqserve generate`: prints generated text as it arrives."""

import json
import re
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from seqserve.calls import TextStream
from seqserve.cli.choosing import GENERATION, ModelOption, choose_model
from seqserve.cli.inputs import FileOption, should_read_input
from seqserve.cli.observations import read_bytes, series_name
from seqserve.cli.output import escape_controls
from seqserve.cli.session import (
    JsonOption,
    ModelVersion,
    ServerOption,
    TimeoutOption,
    UsageError,
    decode_argument,
    print_json,
    session,
)
from seqserve.cli.source import SourceGiven
from seqserve.cli.texts import GivenText, explained, from_arguments, read_whole
from seqserve.tables.errors import TableError

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}


def generate(  # noqa: PLR0913 - one parameter per option
    context: typer.Context,
    *,
    prompt: Annotated[
        str | None,
        typer.Argument(
            help="Text to continue; without it, or with -, standard input, unless that is a terminal.",
            show_default=False,
        ),
    ] = None,
    file: FileOption = None,
    model: ModelOption = None,
    version: ModelVersion = 0,
    max_tokens: Annotated[
        int,
        typer.Option(
            min=0, max=2**32 - 1, help="Maximum number of tokens to generate; 0 means the model's default."
        ),
    ] = 0,
    temperature: Annotated[
        float | None, typer.Option(help="Divisor of the logits; 0 is greedy. Default: 1.")
    ] = None,
    top_k: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Sample from this many most likely tokens; 0 means all.")
    ] = 0,
    top_p: Annotated[
        float | None,
        typer.Option(help="Sample from the fewest tokens whose probabilities sum to this. Default: off."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**64 - 1, help="Seed of the sampling. Default: drawn by the server."),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(help=r"Stop before this text, in which \n, \t, \r and \\ are escapes. Repeatable."),
    ] = None,
    logprobs: Annotated[
        bool,
        typer.Option(
            "--logprobs", help="Request log-probabilities: printed with --json, their mean in the summary."
        ),
    ] = False,
    initial: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='What the model begins from, such as features of an image, in JSON: {"image": [0.5, ...]}.',
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Text that the model's encoder reads first.", show_default=False),
    ] = None,
    source_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The same from a file: a text; token ids or rows as JSON, where the model takes those.",
            show_default=False,
        ),
    ] = None,
    server: ServerOption = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Generate text after a prompt, and print it as it arrives."""
    with session(context, server, timeout, as_json) as current:
        first = None if initial is None else _rows_by_name(initial)
        wanted = SourceGiven(source, source_file)
        given = _prompt(prompt, file, needs_input=not wanted.is_given)
        name = choose_model(current.client, GENERATION, model)
        stream = current.client.generate(
            given.text,
            model=name,
            version=version,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            stop=[unescape(decode_argument(each, "--stop")) for each in stop or ()],
            logprobs=logprobs,
            initial=first,
            source=wanted.read(current.client, name, version),
        )
        started = time.monotonic()
        show = _print_json if current.as_json else _print_text
        with stream, explained([given]):
            show(stream)
        if sys.stderr.isatty():
            typer.secho(_summary(stream, time.monotonic() - started), err=True, dim=True)


def unescape(text: str) -> str:
    """Replace backslash escapes of newline, tab, carriage return and backslash."""
    return re.sub(r"\\([ntr\\])", lambda found: _ESCAPES[found[1]], text)


def _prompt(prompt: str | None, file: Path | None, *, needs_input: bool) -> GivenText:
    """Return the text to continue; with a source it is empty unless it is given."""
    if prompt is None and file is None and (not needs_input or sys.stdin.isatty()):
        return GivenText("", "no prompt")
    given = [] if prompt is None else [prompt]
    return read_whole(file) if should_read_input(given, file) else from_arguments(given)[0]


def _rows_by_name(file: Path) -> dict[str, Any]:
    """Read rows of numbers by name from a file of JSON; the client checks them.

    Raises:
        UsageError: It cannot be read, or is no object of JSON.
    """
    try:
        found = json.loads(read_bytes(file))
    except TableError as error:
        raise UsageError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--initial: expected JSON in {series_name(file)}: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(
            f'--initial: expected an object such as {{"image": [0.5, 1]}} in {series_name(file)}'
        )
    return found


def _print_json(stream: TextStream) -> None:
    for piece in stream:
        print_json(asdict(piece))


def _print_text(stream: TextStream) -> None:
    is_terminal = sys.stdout.isatty()
    for piece in stream:
        sys.stdout.write(escape_controls(piece.text, keep="\n\t") if is_terminal else piece.text)
        sys.stdout.flush()
    if is_terminal and not stream.text.endswith("\n"):
        sys.stdout.write("\n")


def _summary(stream: TextStream, elapsed_s: float) -> str:
    tokens = stream.usage.generated_tokens if stream.usage else 0
    facts = [
        f"{tokens} tokens",
        f"{tokens / elapsed_s:,.0f} tokens/s",
        f"seed {stream.seed}",
        f"finish reason {stream.finish_reason}",
    ]
    if stream.logprobs:
        facts.append(f"mean log-probability {sum(stream.logprobs) / len(stream.logprobs):.3f}")
    return ", ".join(facts)
