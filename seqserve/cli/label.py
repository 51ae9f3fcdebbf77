"""`seqserve label`: labels the parts of texts, drawn in colours on a terminal."""

import sys
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.text import Text

from seqserve.cli.describing import completed
from seqserve.cli.given import given_texts
from seqserve.cli.infer import ModelArgument
from seqserve.cli.infer_output import Answered, facts_of_error, print_error
from seqserve.cli.inputs import FileOption, should_read_input
from seqserve.cli.running import Runner
from seqserve.cli.session import (
    FAILED,
    JsonOption,
    ModelVersion,
    ServerOption,
    TimeoutOption,
    UsageError,
    print_json,
    session,
)
from seqserve.cli.tables import escape, print_tab_separated
from seqserve.results import ModelInfo
from seqserve.sequence_results import SequenceOutput

_COLORS = ("cyan", "green", "yellow", "magenta", "blue", "red")
_NO_LABEL = frozenset({"", "O"})
"""Labels of parts that are nothing in particular; O is that of the forms BIO and IO."""


class Part(NamedTuple):
    """A part of a text, its label and the least probability of its tokens."""

    start: int
    end: int
    label: str
    probability: float


def label(
    context: typer.Context,
    *,
    model: ModelArgument,
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            help="Texts to label; without any, or with -, the lines of standard input.", show_default=False
        ),
    ] = None,
    file: FileOption = None,
    version: ModelVersion = 0,
    server: ServerOption = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Label the parts of texts, such as words by their part of speech, or of each line of a file.

    On a terminal, parts are drawn in the colour of their label, or in brackets where there are no colours;
    elsewhere each is a row: text, start, end, label, probability, part. Parts that touch and have the same
    label are one. A text that is refused gets an error, and the others go on; the exit status is then 1.
    """
    with session(context, server, timeout, as_json) as current:
        arguments = texts or []
        reads_input = should_read_input(arguments, file)
        about = completed(current.client.model(model, version))
        _check_labels(about)
        given = given_texts(arguments, file, is_input=reads_input)
        runner = Runner(current.client, model, about.version, every=True, raw=False)
        failures = _print(runner.run(given), about, current.as_json)
        if failures:
            typer.echo(f"error: {failures} could not be labelled", err=True)
            raise typer.Exit(FAILED)


def _check_labels(about: ModelInfo) -> None:
    """Check that a model labels texts, as far as the server says.

    Raises:
        UsageError: It takes something else, or has no labels.
    """
    if about.input not in ("", "text"):
        raise UsageError(f"{about.name} takes {about.input}, and label takes texts; try seqserve infer")
    if about.output not in ("", "label"):
        raise UsageError(f"{about.name} answers with {about.output}, not labels; try seqserve infer")


def parts(output: SequenceOutput) -> list[Part]:
    """Return the parts that rows stand for; those that touch and have the same label are one.

    Rows that stand for no character, such as those of start and end tokens, are left out. A character that
    several tokens stand for, such as those of its bytes, has the label of the first of them.
    """
    found: list[Part] = []
    rows = zip(output.spans, output.labels, output.probability_rows, strict=True)
    for span, name, probabilities in rows:
        if span.start >= span.end:
            continue
        probability = max(probabilities, default=0.0)
        last = found[-1] if found else None
        start = span.start if last is None else max(span.start, last.end)
        if last is not None and last.end == start and last.label == name:
            end = max(last.end, span.end)
            found[-1] = Part(last.start, end, name, min(last.probability, probability))
        elif start < span.end:
            found.append(Part(start, span.end, name, probability))
    return found


def _print(answers: Iterable[Answered], about: ModelInfo, as_json: bool) -> int:
    """Print texts as they are answered; return the number of those that failed."""
    is_drawn = sys.stdout.isatty() and not as_json
    if not is_drawn and not as_json:
        print_tab_separated(("text", "start", "end", "label", "probability", "part"))
    failures = 0
    for each in answers:
        failures += each.output is None
        if as_json:
            print_json({"text": each.given.text} | _facts(each))
        elif each.output is None:
            print_error(each)
        elif is_drawn:
            _draw(each.given.text or "", parts(each.output), about)
        else:
            _print_rows(each)
    return failures


def _facts(answered: Answered) -> dict[str, Any]:
    if answered.output is None:
        return {"error": facts_of_error(answered)}
    text = answered.given.text or ""
    found = [
        {
            "start": each.start,
            "end": each.end,
            "text": text[each.start : each.end],
            "label": each.label,
            "probability": each.probability,
        }
        for each in parts(answered.output)
    ]
    return {"parts": found, "version": answered.output.version}


def _print_rows(answered: Answered) -> None:
    assert answered.output is not None
    text = answered.given.text or ""
    for each in parts(answered.output):
        piece = text[each.start : each.end]
        numbers = (answered.given.name, str(each.start), str(each.end))
        print_tab_separated((*numbers, each.label, f"{each.probability:.6f}", piece))


def _draw(text: str, found: list[Part], about: ModelInfo) -> None:
    console = Console()
    has_colors = console.color_system is not None and not console.no_color
    names = list(about.labels) or sorted({each.label for each in found})
    line = Text()
    for piece, name in pieces(text, found):
        if name in _NO_LABEL:
            line.append(escape(piece))
        elif has_colors:
            color = _COLORS[names.index(name) % len(_COLORS)] if name in names else _COLORS[0]
            line.append(escape(piece), style=f"bold {color}")
            line.append(f"/{escape(name)}", style=f"dim {color}")
        else:
            line.append(f"[{escape(piece)} {escape(name)}]")
    console.print(line, soft_wrap=True)


def pieces(text: str, found: list[Part]) -> Iterator[tuple[str, str]]:
    """Cut a text into its parts and what is between them, each with its label or ""."""
    edges = [0, *(edge for each in found for edge in (each.start, each.end)), len(text)]
    labels = [name for each in found for name in ("", each.label)] + [""]
    for (start, end), name in zip(pairwise(edges), labels, strict=True):
        if start < end:
            yield text[start:end], name
