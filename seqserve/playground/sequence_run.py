"""Runs whole sequences through a model, many in a request; those that are refused have a sentence each."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from seqserve.aio import AsyncClient
from seqserve.cli.given import Given
from seqserve.cli.infer_output import Answered
from seqserve.cli.running import batches, refusals
from seqserve.errors import InvalidArgument, Overloaded
from seqserve.playground.downloads import csv_of_records
from seqserve.playground.pieces import records_of
from seqserve.results import ModelInfo
from seqserve.tabular import Record


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of a request for sequences.

    Attributes:
        model: The model.
        every: Whether every time step is answered; None leaves it to the model.
        raw: Whether the network's own outputs are wanted.
        initial: What the init graph takes, the same for all sequences; None without an init graph.
    """

    model: ModelInfo
    every: bool | None = None
    raw: bool = False
    initial: dict[str, list[float]] | None = None


async def run_sequences(client: AsyncClient, given: Sequence[Given], asked: Asked) -> AsyncIterator[Answered]:
    """Run sequences, and yield each with its output or the reason of its refusal, in their order.

    Raises:
        SeqserveError: A request failed for another reason than one of its sequences.
    """
    for batch in batches(given):
        for answered in await _run(client, batch, asked):
            yield answered


async def _run(client: AsyncClient, batch: list[Given], asked: Asked) -> list[Answered]:
    """Run one request; where sequences are refused, once more without them."""
    if not batch:
        return []
    try:
        outputs = await client.infer(
            [each.value for each in batch],
            model=asked.model.name,
            version=asked.model.version,
            every=asked.every,
            raw=asked.raw,
            initial=asked.initial,
        )
    except InvalidArgument as error:
        if not (refused := refusals(error, batch)):
            raise
        rest = [each for index, each in enumerate(batch) if index not in refused]
        answers = iter(await _run(client, rest, asked))
        return [
            Answered(each, None, error, refused[index]) if index in refused else next(answers)
            for index, each in enumerate(batch)
        ]
    except Overloaded as error:
        # gRPC refuses a request for its size without a reason; the server gives one.
        if error.reason or len(batch) > 1:
            raise
        what = f"{batch[0].place}: expected a sequence that the server takes in one request"
        return [Answered(batch[0], None, error, f"{what}, found a larger one: {error}")]
    return [Answered(each, output) for each, output in zip(batch, outputs, strict=True)]


def table_of(answers: Sequence[Answered], model: ModelInfo) -> bytes:
    """Return the outputs of sequences as CSV: a row for each row of an output, with the sequence's name."""
    records: list[Record] = []
    for each in answers:
        named: Record = {"sequence": each.given.name}
        if each.output is None:
            records.append(named | {"error": each.description})
        else:
            records += [named | record for record in records_of(each.output, model, each.given.text or "")]
    return csv_of_records(records)
