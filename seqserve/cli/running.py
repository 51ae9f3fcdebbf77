"""Runs a user's sequences: many in one request, and each refusal told by the place of its sequence."""

import re
from collections.abc import Iterable, Iterator

from seqserve.cli.given import Given
from seqserve.cli.infer_output import Answered
from seqserve.cli.output import escape_controls
from seqserve.cli.session import describe
from seqserve.client import Client
from seqserve.errors import InvalidArgument, Overloaded, SeqserveError
from seqserve.sequence_results import SequenceOutput

MOST_SEQUENCES = 64
MOST_VALUES = 200_000
"""Numbers or characters in a request of several sequences, well below the 4 MiB that servers take."""

_INPUT = re.compile(r"(?:inputs|initial)\[(\d+)\]")
_TOO_LARGE = "ANSWER_TOO_LARGE"


class Runner:
    """Runs sequences through one version of a model.

    Args:
        client: The client.
        model: Name of the model.
        version: Its version.
        every: Whether every time step is answered; None leaves it to the model.
        raw: Whether the network's own outputs are wanted.
    """

    def __init__(self, client: Client, model: str, version: int, every: bool | None, raw: bool) -> None:
        self._client = client
        self._model = model
        self._version = version
        self._every = every
        self._raw = raw

    def run(self, given: Iterable[Given]) -> Iterator[Answered]:
        """Run sequences, and yield each with its output or its error, in their order.

        Raises:
            SeqserveError: A request failed for another reason than one of its sequences.
        """
        for batch in batches(given):
            yield from self._run(batch)

    def _run(self, batch: list[Given]) -> Iterator[Answered]:
        """Run one request; where sequences are refused, once more without them."""
        try:
            outputs = self._infer(batch)
        except InvalidArgument as error:
            refused = refusals(error, batch)
            if len(batch) > 1 and not refused and _may_be_for_their_number(error):
                yield from self._halves(batch)
                return
            if not refused and error.reason == _TOO_LARGE:
                refused = {0: f"{batch[0].place}: {escape_controls(str(error))}"}
            if not refused:
                raise
            yield from self._without(batch, refused, error)
            return
        except Overloaded as error:
            if not _is_too_large(error):
                raise
            if len(batch) > 1:
                yield from self._halves(batch)
            else:
                said = f"{batch[0].place}: expected less than the server takes in one request: {error}"
                yield Answered(batch[0], None, error, escape_controls(said))
            return
        for each, output in zip(batch, outputs, strict=True):
            yield Answered(each, output)

    def _halves(self, batch: list[Given]) -> Iterator[Answered]:
        half = len(batch) // 2
        yield from self._run(batch[:half])
        yield from self._run(batch[half:])

    def _without(
        self, batch: list[Given], refused: dict[int, str], error: SeqserveError
    ) -> Iterator[Answered]:
        rest = iter(self._run([each for index, each in enumerate(batch) if index not in refused]))
        for index, each in enumerate(batch):
            yield Answered(each, None, error, refused[index]) if index in refused else next(rest)

    def _infer(self, batch: list[Given]) -> list[SequenceOutput]:
        if not batch:
            return []
        has_initial = any(each.initial for each in batch)
        return self._client.infer(
            [each.value for each in batch],
            model=self._model,
            version=self._version,
            every=self._every,
            raw=self._raw,
            initial=[each.initial or {} for each in batch] if has_initial else None,
        )


def batches(given: Iterable[Given]) -> Iterator[list[Given]]:
    """Group sequences into requests of at most MOST_SEQUENCES and, but for single ones, MOST_VALUES."""
    batch: list[Given] = []
    values = 0
    for each in given:
        size = _size(each.value)
        if batch and (len(batch) == MOST_SEQUENCES or values + size > MOST_VALUES):
            yield batch
            batch, values = [], 0
        batch.append(each)
        values += size
    if batch:
        yield batch


def refusals(error: InvalidArgument, batch: list[Given]) -> dict[int, str]:
    """Return which sequences an error names, with a description of each; none if it names anything else."""
    found: dict[int, str] = {}
    for field, description in error.violations:
        place = _INPUT.match(field)
        if place is None or int(place[1]) >= len(batch):
            return {}
        index = int(place[1])
        found.setdefault(index, f"{batch[index].place}: {escape_controls(description)}")
    return found


def described(error: SeqserveError, given: Given, fields: tuple[str, ...]) -> str:
    """Describe the error of one message with the place of its sequence instead of the message's field."""
    violations = error.violations if isinstance(error, InvalidArgument) else ()
    told = [description for name, description in violations if name.startswith(fields)]
    if told and len(told) == len(violations):
        return f"{given.place}: {escape_controls('; '.join(told))}"
    return f"{given.place}: {describe(error)}"


def _may_be_for_their_number(error: InvalidArgument) -> bool:
    return error.reason == _TOO_LARGE or any(field == "inputs" for field, _ in error.violations)


def _is_too_large(error: Overloaded) -> bool:
    """Return whether gRPC itself refused a request for its size; the server gives a reason."""
    return not error.reason and "larger than max" in str(error)


def _size(value: object) -> int:
    size = getattr(value, "size", None)
    if isinstance(size, int):
        return size
    if isinstance(value, list) and value and isinstance(value[0], list):
        return len(value) * len(value[0])
    return len(value) if isinstance(value, (str, list)) else 1
