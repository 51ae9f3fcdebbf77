"""The ledger: every optimisation of the serving core, how it is taken out, and by what it is judged.

`python -m benchmarks.ledger` measures it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.rows import contests
from benchmarks.rows.contests import cpu, p50, p99, p99_to_p50, rate
from benchmarks.workshop import Row


@dataclass(frozen=True, slots=True)
class Optimisation:
    """One entry of the ledger that is measured.

    Attributes:
        name: as `benchmarks.without` has it.
        title: what it is.
        taken_out: how it is taken out.
        measures: by which it is judged.
        open: makes its contest ready.
    """

    name: str
    title: str
    taken_out: str
    measures: Sequence[contests.Measure]
    open: contests.Open

    @property
    def row(self) -> Row:
        """The same as a row that can be measured; its claims are in the order of the measures."""
        return Row(self.name, self.title, "as the load has it", self.open)


@dataclass(frozen=True, slots=True)
class Referred:
    """One entry of the ledger that another row of the benchmarks has measured.

    Attributes:
        name: short.
        title: what it is.
        taken_out: how it is taken out.
        row: name of the row in results.json.
        load: what that row measures.
        unit: of its values; more is better.
        ours, theirs: its contestants with the optimisation and without it.
    """

    name: str
    title: str
    taken_out: str
    row: str
    load: str
    unit: str
    ours: str
    theirs: str


def _served(
    name: str, title: str, taken_out: str, contest: contests.ServerContest, *measures: contests.Measure
) -> Optimisation:
    """Return an entry that is measured through real servers."""
    return Optimisation(name, title, taken_out, measures, contests.through_servers(name, contest, measures))


def _forecasting(served: Mapping[str, contests.Load]) -> contests.ServerContest:
    """Return loads for servers whose turns are in the event loop."""
    return contests.ServerContest("stock", served, "loop")


_UNARY = {contests.FORECAST: contests.forecasts(contests.IN_FLIGHT, 1500)}
# Full collections are rare: more calls see some of them.
_MANY = {contests.FORECAST: contests.forecasts(contests.IN_FLIGHT, 3000)}
_DAYS = {contests.FORECAST_STREAM: contests.pushed_days}

LEDGER: tuple[Optimisation | Referred, ...] = (
    Optimisation(
        "chunk-rows",
        "chunk ticks of many rows",
        "`SEQSERVE_CHUNK_ROWS=1`",
        contests.CLASSIFIED,
        contests.chunk_rows_contest,
    ),
    Optimisation(
        "head",
        "head asked at wanted positions",
        "asked at every step",
        contests.PREFILLED,
        contests.head_contest,
    ),
    Optimisation(
        "bindings",
        "bindings kept by shape",
        "bound anew each tick",
        contests.BOUND,
        contests.bindings_contest,
    ),
    Optimisation(
        "sampler", "sampler over all rows", "one row at a time", contests.GENERATED, contests.sampler_contest
    ),
    _served(
        "token-batches",
        "tokens handed over in batches",
        "write intervals of 0",
        contests.ServerContest("charlm", {contests.CHARLM: contests.characters_streamed}),
        rate(contests.CHARLM, "characters/s"),
    ),
    _served(
        "prompt-cache",
        "prompt cache",
        "`SEQSERVE_PROMPT_CACHE_BYTES=0`",
        contests.ServerContest("charlm", {contests.SAME_PROMPT: contests.same_prompt}),
        rate(contests.SAME_PROMPT, "calls/s"),
    ),
    Referred(
        "engines",
        "several engines on one session",
        "one engine, one core",
        "S9",
        "classification, 2 engines on 2 cores",
        "sequences/s",
        "(b) 2 engines, one session of 1 thread",
        "one core",
    ),
    Referred(
        "int8", "int8", "fp32", "S7", "64 streams of charlm, in process", "characters/s", "int8", "fp32"
    ),
    _served(
        "loop-driver",
        "turns in the event loop",
        "`SEQSERVE_ENGINE_DRIVER=thread` against `loop`",
        _forecasting({contests.FORECAST_ALONE: contests.forecasts(1, 500), **_UNARY}),
        p50(contests.FORECAST_ALONE),
        cpu(contests.FORECAST_ALONE),
        cpu(contests.FORECAST),
    ),
    _served(
        "idle",
        "wait for an idle event loop before a turn",
        "a turn in the next pass of the loop",
        _forecasting(_UNARY),
        cpu(contests.FORECAST),
        p99_to_p50(contests.FORECAST),
    ),
    _served(
        "delivery",
        "one call into the event loop a turn",
        "one call an output",
        contests.ServerContest("sentiment", {contests.CLASSIFY: contests.classified}, "thread"),
        cpu(contests.CLASSIFY),
        rate(contests.CLASSIFY, "calls/s"),
    ),
    _served(
        "plain-numbers",
        "plain numbers for one short series",
        "arrays",
        _forecasting(_UNARY | _DAYS),
        cpu(contests.FORECAST),
        cpu(contests.FORECAST_STREAM, "message"),
    ),
    _served(
        "yield",
        "a pass of the event loop before a write",
        "written at once",
        _forecasting(_UNARY | _DAYS),
        cpu(contests.FORECAST),
        cpu(contests.FORECAST_STREAM, "message"),
    ),
    _served(
        "core",
        "waiting for gRPC's core in the event loop's thread",
        "a thread that posts each event",
        _forecasting({contests.LIVE: contests.live}),
        cpu(contests.LIVE),
    ),
    _served(
        "collector",
        "garbage collector frozen, with higher thresholds",
        "as Python starts it",
        _forecasting(_MANY),
        cpu(contests.FORECAST),
        p99(contests.FORECAST),
    ),
    _served(
        "nothing",
        "(control: two equal servers)",
        "nothing",
        _forecasting(_UNARY | _DAYS),
        cpu(contests.FORECAST),
        cpu(contests.FORECAST_STREAM, "message"),
    ),
)
