"""`seqserve score`: scores texts with a language model."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from seqserve.cli.choosing import GENERATION, ModelOption, choose_model
from seqserve.cli.inputs import FileOption, should_read_input
from seqserve.cli.session import JsonOption, ModelVersion, ServerOption, TimeoutOption, print_json, session
from seqserve.cli.tables import Column, print_table
from seqserve.cli.texts import GivenText, explained, from_arguments, read_lines, read_whole

_COLUMNS = (
    Column("perplexity", is_number=True),
    Column("nats/token", is_number=True),
    Column("tokens", is_number=True),
    Column("text", is_text=True),
)


def score(  # noqa: PLR0913 - one parameter per option
    context: typer.Context,
    *,
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="Texts to score; without any, or with -, standard input.", show_default=False),
    ] = None,
    file: FileOption = None,
    lines: Annotated[
        bool,
        typer.Option(
            "--lines", help="Score each line of the file or of standard input as a text of its own."
        ),
    ] = False,
    model: ModelOption = None,
    version: ModelVersion = 0,
    server: ServerOption = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score texts with a language model: perplexity, and nats per token."""
    with session(context, server, timeout, as_json) as current:
        given = _texts(texts or [], file, lines)
        scored = [each.text for each in given]
        name = choose_model(current.client, GENERATION, model)
        with explained(given):
            scores = current.client.score(scored, model=name, version=version)
        if current.as_json:
            for text, one in zip(scored, scores, strict=True):
                measured = {"perplexity": one.perplexity, "nats_per_token": one.nats_per_token} | asdict(one)
                del measured["alternatives"]  # the command asks for none
                print_json({"text": text} | measured)
        else:
            print_table(
                _COLUMNS,
                [
                    (f"{one.perplexity:.6g}", f"{one.nats_per_token:.4f}", str(len(one.token_logprobs)), text)
                    for text, one in zip(scored, scores, strict=True)
                ],
            )


def _texts(arguments: list[str], file: Path | None, lines: bool) -> list[GivenText]:
    if not should_read_input(arguments, file):
        return from_arguments(arguments)
    return list(read_lines(file)) if lines else [read_whole(file)]
