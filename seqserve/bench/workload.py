"""What the calls of a load ask: request messages without end, that follow from a seed. Knows messages, and no
network.
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
    """What can be loaded."""

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
"""The task that a model of each has."""

PASSAGE = """\
The harbour was quiet when the first boats came in, and the gulls had not yet found the nets. An old man
counted the baskets aloud, slowly, \\ so that nobody could say later that he had been wrong. The fish were
small this year but there were many of them, and the price had held. \\ His daughter wrote each number in a
book with a blue cover. She had a good hand and a better memory, and the merchants from the town did not \
like to argue with her. By noon the wind had turned, and the last boat was still out. It was a dull and heavy
sea, not dangerous, only long. \\ They waited without a word, as people do who have waited often. When the sail
came round the point at last, somebody laughed, and the work \\ went on as if it had never stopped. In the
evening there was music at the inn, a wonderful old song about a ship that nobody had ever seen.
"""
"""The text that loads are made of where none is given."""

USUAL_LENGTHS = parse_distribution("lognormal:50:1")
"""Of texts and series where none are given."""

_WALK_STEP = 0.01
_WALK_RETURN = 0.02
_WALK_BASE = 100.0


class WorkloadError(Exception):
    """No such load can be made; the text says why."""


class Source(Protocol):
    """Where the inputs of calls come from."""

    def draw(self, random: Random) -> Any:
        """The next input."""


@dataclass(frozen=True, slots=True)
class WholeTexts:
    """Texts as they are, in random order.

    Attributes:
        texts: at least one.
    """

    texts: Sequence[str]

    def draw(self, random: Random) -> str:
        """One of the texts."""
        return self.texts[random.randrange(len(self.texts))]


@dataclass(frozen=True, slots=True)
class CutTexts:
    """Pieces of a text, of given lengths, from anywhere in it; behind its end it begins again.

    Attributes:
        units: the text's characters, or its words.
        separator: between them.
        lengths: of pieces, in units.
        least: units of the shortest piece.
    """

    units: Sequence[str]
    separator: str
    lengths: Distribution
    least: int = 1

    def draw(self, random: Random) -> str:
        """The next piece."""
        length = max(self.least, self.lengths.draw(random))
        start = random.randrange(len(self.units))
        piece = self.units[start : start + length]
        if len(piece) < length:
            piece = list(itertools.islice(itertools.cycle(self.units), start, start + length))
        return self.separator.join(piece)


@dataclass(frozen=True, slots=True)
class CutSeries:
    """Stretches of a long series, of given lengths, from anywhere in it.

    Attributes:
        rows: at least as many as the longest stretch has.
        lengths: of stretches, in observations.
        least: observations of the shortest stretch.
    """

    rows: Rows
    lengths: Distribution
    least: int = 1

    def draw(self, random: Random) -> Rows:
        """The next stretch."""
        length = max(self.least, self.lengths.draw(random))
        start = random.randrange(len(self.rows) - length + 1)
        return self.rows[start : start + length]


def text_source(
    rpc: Rpc, spec: Mapping[str, Any], texts: Sequence[str], lengths: Distribution | None = None
) -> Source:
    """Where the texts for a model come from.

    Lengths are counted in what comes nearest to the model's tokens: characters where it reads characters,
    else words.

    Args:
        rpc: which is called.
        spec: the model's model.json.
        texts: given; empty: a passage of English, without what the model cannot read.
        lengths: of the pieces that the texts are cut into; None: texts given stay whole, and of the passage
            come pieces of the usual lengths.

    Raises:
        WorkloadError: nothing is left of the texts.
    """
    if texts and lengths is None:
        return WholeTexts(texts)
    lengths = lengths or USUAL_LENGTHS
    preprocessing = (spec.get("generation") or spec.get("classification") or {}).get("text") or {}
    reads_characters = preprocessing.get("kind") == "characters"
    least = 2 if rpc is Rpc.SCORE else 1
    if not reads_characters:
        return _cut("words", " ".join(texts or (PASSAGE,)).split(), " ", lengths, least)
    if texts:
        return _cut("characters", "\n".join(texts), "", lengths, least)
    known = preprocessing.get("vocabulary", "")
    return _cut(
        "characters",
        "".join(character for character in PASSAGE if character in known) or known,
        "",
        lengths,
        least,
    )


def _cut(noun: str, units: Sequence[str], separator: str, lengths: Distribution, least: int) -> CutTexts:
    if not units:
        raise WorkloadError(f"the texts hold no {noun}")
    return CutTexts(units, separator, lengths, least)


def series_source(spec: Mapping[str, Any], rows: Rows, lengths: Distribution, seed: int) -> CutSeries:
    """Where the series for a model come from.

    Args:
        spec: the model's model.json.
        rows: of observations, oldest first; empty: a random walk of each of the model's columns.
        lengths: in observations.
        seed: of the walk.

    Raises:
        WorkloadError: the series is too short, or the model does not say what an observation is.
    """
    section = spec.get("forecasting") or {}
    least = int(section.get("least_observations", 1))
    longest = max(least, lengths.most)
    if not rows:
        if not (columns := len(section.get("columns", ()))):
            raise WorkloadError("the model does not name its columns: give a series with --file")
        rows = random_walk(columns, longest + 1000, seed)
    if len(rows) < longest:
        raise WorkloadError(
            f"--lengths {lengths.text}: up to {longest} observations, and the series has {len(rows)}"
        )
    return CutSeries(rows, lengths, least)


def random_walk(columns: int, count: int, seed: int) -> list[list[float]]:
    """Positive values that stay about 100 and move by about 1 % a row, each column by itself."""
    random = Random(seed)  # noqa: S311 -- a load, not a secret
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
    """Serialised request messages without end; the same for the same seed, whatever the pace at which they
    are taken.

    Args:
        rpc: which they are for.
        source: of what they hold.
        seed: of the choice among it.
        model, version: who is asked.
        per_request: texts or series in each; a generation has one.
        max_tokens: of a generation; None: the model's default.
    """
    random = Random(seed)  # noqa: S311 -- a load, not a secret
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
                request = messages.forecast_request(
                    inputs, model=model, version=version, horizon=0, quantiles=()
                )
        yield request.SerializeToString()
