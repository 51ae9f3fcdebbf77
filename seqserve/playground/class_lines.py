"""Classifies the lines of a file over one stream of the client, and makes a table of the answers."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

from seqserve.aio import AsyncClient
from seqserve.errors import InvalidArgument, SeqserveError
from seqserve.playground.downloads import csv_of
from seqserve.playground.uploads import Line
from seqserve.results import Classification

MAX_IN_FLIGHT = 128


@dataclass(frozen=True, slots=True)
class ClassifiedLine:
    """A line and its classification, or why the server refused it.

    Attributes:
        line: The line.
        result: Its classification, or None.
        error: A sentence about the failure; "": there is none.
    """

    line: Line
    result: Classification | None
    error: str = ""


async def classify_lines(
    client: AsyncClient, lines: Iterable[Line], model: str, version: int = 0
) -> AsyncGenerator[ClassifiedLine, None]:
    """Classify lines over one stream; yield each as it is answered, in order of completion.

    At most MAX_IN_FLIGHT lines are sent and not yet yielded. Leaving the iteration cancels the call.

    Raises:
        SeqserveError: The call failed.
    """
    asked: dict[str, Line] = {}
    free = asyncio.Semaphore(MAX_IN_FLIGHT)

    async def requests() -> AsyncIterator[tuple[str, str]]:
        for line in lines:
            await free.acquire()
            asked[str(line.number)] = line
            yield str(line.number), line.text

    async with client.classify_stream(requests(), model=model, version=version) as stream:
        async for answer in stream:
            line = asked.pop(answer.id)
            free.release()
            if answer.error is None:
                yield ClassifiedLine(line, answer.results[0])
            else:
                yield ClassifiedLine(line, None, line_error(line, answer.error))


def line_error(line: Line, error: SeqserveError) -> str:
    """Describe why a line was refused, by its number instead of the request's field."""
    if not line.text.strip():
        return f"line {line.number} is empty"
    violations = error.violations if isinstance(error, InvalidArgument) else ()
    said = "; ".join(description for _, description in violations) or str(error)
    return f"line {line.number}: {said}"


def table_of(found: Iterable[ClassifiedLine], labels: Sequence[str]) -> bytes:
    """Return classified lines as CSV, in the order of the file.

    The columns are the line's number, its text, label and probability, the error, and the probability of each
    label.
    """
    titles = ["line", "text", "label", "probability", "error", *(f"probability {label}" for label in labels)]
    return csv_of(titles, (_row(each, labels) for each in sorted(found, key=lambda each: each.line.number)))


def _row(each: ClassifiedLine, labels: Sequence[str]) -> list[object]:
    if each.result is None:
        return [each.line.number, each.line.text, "", "", each.error, *([""] * len(labels))]
    shares = {one.label: one.probability for one in each.result.probabilities}
    told = [each.result.label, each.result.probability, ""]
    return [each.line.number, each.line.text, *told, *(shares.get(label, "") for label in labels)]
