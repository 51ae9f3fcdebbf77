"""Requests for a load test: an endless sequence determined by a seed.

This module builds messages, without network access.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any, Protocol, TypeAlias

from google.protobuf.message import Message

from seqserve import messages
from seqserve.bench.distribution import Distribution, parse_distribution
from seqserve.v1.text_generation_pb2 import GenerateRequest

Rows: TypeAlias = Sequence[Sequence[float]]


class Rpc(StrEnum):
    """The rpcs that can be loaded."""

    GENERATE = "generate"
    SCORE = "score"
    CLASSIFY = "classify"
    CLASSIFY_STREAM = "classify-stream"
    FORECAST = "forecast"


TASKS = {
    Rpc.GENERATE: "text-generation",
    Rpc.SCORE: "text-generation",
    Rpc.CLASSIFY: "text-classification",
    Rpc.CLASSIFY_STREAM: "text-classification",
    Rpc.FORECAST: "forecasting",
}
"""The task of the model that each rpc needs."""

PASSAGE = (
    "The harbour was quiet when the first boats came in, and the gulls had not yet found the nets. An old "
    "man counted the baskets aloud, slowly, so that nobody could say later that he had been wrong. The "
    "fish were small this year but there were many of them, and the price had held. His daughter wrote "
    "each number in a book with a blue cover. She had a good hand and a better memory, and the merchants "
    "from the town did not like to argue with her. By noon the wind had turned, and the last boat was "
    "still out. It was a dull and heavy sea, not dangerous, only long. They waited without a word, as "
    "people do who have waited often. When the sail came round the point at last, somebody laughed, and "
    "the work went on as if it had never stopped. In the evening there was music at the inn, a wonderful "
    "old song about a ship that nobody had ever seen."
)
"""The default text that requests are cut from."""

USUAL_LENGTHS = parse_distribution("lognormal:50:1")
"""The default lengths of texts and series."""

_WALK_STEP = 0.01
_WALK_RETURN = 0.02
_WALK_BASE = 100.0


class WorkloadError(Exception):
    """The requested workload cannot be built; the text says why."""


class Source(Protocol):
    """Draws the inputs of calls."""

    def draw(self, random: Random) -> Any:
        """Draw the next input."""


@dataclass(frozen=True, slots=True)
class WholeTexts:
    """Uncut texts in random order.

    Attributes:
        texts: The texts; at least one.
    """

    texts: Sequence[str]

    def draw(self, random: Random) -> str:
        """Draw one of the texts."""
        return self.texts[random.randrange(len(self.texts))]


@dataclass(frozen=True, slots=True)
class CutTexts:
    """Random pieces of a text; after its end it starts over.

    Attributes:
        units: The text's characters or words.
        separator: String between two units.
        lengths: Lengths of the pieces, in units.
        min_length: Minimum length of a piece, in units.
    """

    units: Sequence[str]
    separator: str
    lengths: Distribution
    min_length: int = 1

    def draw(self, random: Random) -> str:
        """Draw the next piece."""
        length = max(self.min_length, self.lengths.draw(random))
        start = random.randrange(len(self.units))
        piece = self.units[start : start + length]
        if len(piece) < length:
            piece = list(itertools.islice(itertools.cycle(self.units), start, start + length))
        return self.separator.join(piece)


@dataclass(frozen=True, slots=True)
class CutSeries:
    """Random sections of a long series.

    Attributes:
        rows: The series; at least as long as the longest section.
        lengths: Lengths of the sections, in observations.
        min_length: Minimum length of a section, in observations.
    """

    rows: Rows
    lengths: Distribution
    min_length: int = 1

    def draw(self, random: Random) -> Rows:
        """Draw the next section."""
        length = max(self.min_length, self.lengths.draw(random))
        start = random.randrange(len(self.rows) - length + 1)
        return self.rows[start : start + length]


def text_source(
    rpc: Rpc, spec: Mapping[str, Any], texts: Sequence[str], lengths: Distribution | None = None
) -> Source:
    """Build the source of texts for a model.

    Lengths are counted in the unit closest to the model's tokens: characters for a character model, otherwise
    words.

    Args:
        rpc: The rpc to call.
        spec: The model's model.json.
        texts: The user's texts; if empty, an English passage without the characters the model cannot read.
        lengths: Lengths of the pieces to cut; None leaves the user's texts whole, and cuts the passage into
            pieces of the default lengths.

    Raises:
        WorkloadError: The texts have no words or characters to use.
    """
    if texts and lengths is None:
        return WholeTexts(texts)
    lengths = lengths or USUAL_LENGTHS
    preprocessing = (spec.get("generation") or spec.get("classification") or {}).get("text") or {}
    reads_characters = preprocessing.get("kind") == "characters"
    min_length = 2 if rpc is Rpc.SCORE else 1
    if not reads_characters:
        return _cut_texts("words", " ".join(texts or (PASSAGE,)).split(), " ", lengths, min_length)
    if texts:
        return _cut_texts("characters", "\n".join(texts), "", lengths, min_length)
    known = preprocessing.get("vocabulary", "")
    return _cut_texts(
        "characters",
        "".join(character for character in PASSAGE if character in known) or known,
        "",
        lengths,
        min_length,
    )


def _cut_texts(
    noun: str, units: Sequence[str], separator: str, lengths: Distribution, min_length: int
) -> CutTexts:
    if not units:
        raise WorkloadError(f"the texts hold no {noun}")
    return CutTexts(units, separator, lengths, min_length)


def series_source(spec: Mapping[str, Any], rows: Rows, lengths: Distribution, seed: int) -> CutSeries:
    """Build the source of series for a model.

    Args:
        spec: The model's model.json.
        rows: Observations, oldest first; if empty, a random walk for each of the model's columns.
        lengths: Lengths of the series, in observations.
        seed: Seed of the random walk.

    Raises:
        WorkloadError: The series is too short, or model.json does not name the columns.
    """
    section = spec.get("forecasting") or {}
    min_length = int(section.get("least_observations", 1))
    longest = max(min_length, lengths.max_length)
    if not rows:
        if not (columns := len(section.get("columns", ()))):
            raise WorkloadError("the model does not name its columns: give a series with --file")
        rows = random_walk(columns, longest + 1000, seed)
    if len(rows) < longest:
        raise WorkloadError(
            f"--lengths {lengths.text}: up to {longest} observations, and the series has {len(rows)}"
        )
    return CutSeries(rows, lengths, min_length)


def random_walk(columns: int, count: int, seed: int) -> list[list[float]]:
    """Generate independent columns of positive values near 100 that change by about 1 % per row."""
    random = Random(seed)  # noqa: S311 - a workload, not a secret
    rows: list[list[float]] = []
    values = [_WALK_BASE] * columns
    for _ in range(count):
        values = [
            value * (_WALK_BASE / value) ** _WALK_RETURN * random.lognormvariate(0, _WALK_STEP)
            for value in values
        ]
        rows.append(values)
    return rows


def requests(
    rpc: Rpc,
    source: Source,
    seed: int,
    *,
    model: str,
    version: int = 0,
    per_request: int = 1,
    max_tokens: Distribution | None = None,
) -> Iterator[bytes]:
    """Yield serialised requests without end; the same seed yields the same requests.

    Args:
        rpc: The rpc that the requests are for.
        source: Draws the inputs.
        seed: Seed of the draws.
        model: Name of the model.
        version: Version of the model; 0 means the newest that serves.
        per_request: Texts or series per request; a generation takes one.
        max_tokens: Distribution of the tokens to generate; None means the model's default.
    """
    random = Random(seed)  # noqa: S311 - a workload, not a secret
    while True:
        inputs = [source.draw(random) for _ in range(per_request)]
        match rpc:
            case Rpc.GENERATE:
                limit = 0 if max_tokens is None else max_tokens.draw(random)
                request: Message = GenerateRequest(
                    model=model,
                    version=version,
                    prompt=inputs[0],
                    max_tokens=limit,
                    seed=random.getrandbits(32),
                )
            case Rpc.SCORE:
                request = messages.score_request(inputs, model=model, version=version)
            case Rpc.CLASSIFY | Rpc.CLASSIFY_STREAM:
                request = messages.classify_request(inputs, model=model, version=version)
            case Rpc.FORECAST:
                request, _ = messages.forecast_request(
                    inputs, model=model, version=version, horizon=0, quantiles=()
                )
        yield request.SerializeToString()
