"""Compares two versions of a task: claims, losses on the same held-out part, speed, size and origin."""

from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from service.contract import spec
from training.errors import TrainingError
from training.evaluate.scorer import HeldOut, Loss, Own
from training.evaluate.scoring import held_out, score
from training.evaluate.version import Version
from training.recipes.chance import CONFIDENCE, bootstrap

# So small a share of the first's loss is nobody's concern, however sure it is.
NEGLIGIBLE = 0.001
# A part so small that an average says next to nothing.
FEWEST_UNITS = 30
SPEED_ROWS = (1, 64)
SPEED_RUNS = 30
SPEED_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Difference:
    """A measure of two versions on the same held-out part, less being better.

    Attributes:
        title: of the measure, with its unit.
        first, second: their means.
        low, high: confidence interval of second - first, from pairs of units drawn again and again.
        units: characters, texts or days.
        form: how numbers are written.
    """

    title: str
    first: float
    second: float
    low: float
    high: float
    units: int
    form: str

    @property
    def is_worse(self) -> bool:
        """Return whether the second loses more than chance explains, and more than is negligible."""
        # Written so that NaN is worse.
        return not self.low <= NEGLIGIBLE * abs(self.first)

    @property
    def is_better(self) -> bool:
        """Return whether the second loses less, by more than chance explains and than is negligible."""
        return self.high < -NEGLIGIBLE * abs(self.first)

    @property
    def verdict(self) -> str:
        """Return the verdict in a word or two."""
        return "worse" if self.is_worse else "better" if self.is_better else "no difference that counts"

    def __str__(self) -> str:
        first, second, change, low, high = (
            format(value, sign + self.form)
            for value, sign in (
                (self.first, ""),
                (self.second, ""),
                (self.second - self.first, "+"),
                (self.low, "+"),
                (self.high, "+"),
            )
        )
        return (
            f"{self.title}: {first} to {second}, {change} "
            f"({CONFIDENCE:.0%} interval {low} to {high}, {self.units:,} units): {self.verdict}"
        )


def difference(first: Loss, second: Loss) -> Difference:
    """Return the second's mean loss less the first's, with its bootstrap interval.

    The bootstrap is Efron's (1979), in blocks on a ring (Politis & Romano 1992).

    Units are paired, so that what is hard for both does not count as noise; neighbours are drawn in blocks.
    """
    change = second.values - first.values
    low, high = bootstrap(change, first.block)
    return Difference(
        first.title,
        float(first.values.mean()),
        float(second.values.mean()),
        low,
        high,
        len(change),
        first.form,
    )


class Speed(NamedTuple):
    """Speed of decoding, one step a run, on one thread: time steps a second over all rows."""

    rows: int
    first: float
    second: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that `compare` shows.

    Attributes:
        first, second: name@version.
        facts: of both: shape, sizes, data, provenance.
        claims: numbers of both model.json; None where one has none.
        differences: measured here, on the same held-out part.
        part: what that part is.
        speeds: measured here.
        notices: what must not be overlooked.
    """

    first: str
    second: str
    facts: dict[str, tuple[str, str]]
    claims: dict[str, tuple[float | None, float | None]]
    differences: tuple[Difference, ...]
    part: str
    speeds: tuple[Speed, ...]
    notices: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the comparison for programs."""
        differences = [{**asdict(one), "verdict": one.verdict} for one in self.differences]
        return {**asdict(self), "differences": differences, "speeds": [one._asdict() for one in self.speeds]}

    def tables(self) -> Group:
        """Return the comparison for a terminal."""
        measured = Table(
            title=f"measured here, on the same {self.part}; less is better", title_justify="left"
        )
        for title in ("held out", self.first, self.second, "difference", f"{CONFIDENCE:.0%} interval", ""):
            measured.add_column(escape(title), justify="left" if title in ("held out", "") else "right")
        for one in self.differences:
            change, low, high = (
                format(value, "+" + one.form) for value in (one.second - one.first, one.low, one.high)
            )
            measured.add_row(
                escape(one.title),
                format(one.first, one.form),
                format(one.second, one.form),
                change,
                f"{low} to {high}",
                one.verdict,
            )
        speed = Table(title="steps a second, one step a run, one thread", title_justify="left")
        for title in ("rows", self.first, self.second, "times"):
            speed.add_column(escape(title), justify="right")
        for rows, first, second in self.speeds:
            speed.add_row(str(rows), f"{first:,.0f}", f"{second:,.0f}", f"{second / first:.2f}")
        claimed = Table(title="as model.json has it", title_justify="left")
        for title in ("", self.first, self.second, "difference"):
            claimed.add_column(escape(title), justify="right" if title else "left")
        for name, (one_value, other) in self.claims.items():
            change = "" if one_value is None or other is None else f"{other - one_value:+.4g}"
            claimed.add_row(escape(name), _number(one_value), _number(other), change)
        facts = Table(title="made of", title_justify="left")
        for title in ("", self.first, self.second):
            facts.add_column(escape(title), overflow="fold")
        for name, pair in self.facts.items():
            is_same = pair[0] == pair[1]
            facts.add_row(name, escape(pair[0]), "[dim]the same[/dim]" if is_same else escape(pair[1]))
        return Group(
            *[f"[bold red]NOTE[/bold red] {escape(notice)}" for notice in self.notices],
            measured,
            speed,
            claimed,
            facts,
        )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def common_part(first: Version, second: Version, own: Own) -> HeldOut:
    """Return the part that neither version was trained on.

    Raises:
        TrainingError: there is none: other tasks, answers of other shapes, other held-out parts.
    """
    if first.model.task != second.model.task:
        raise TrainingError(
            "expected versions of one task, found "
            f"{first.title} for {first.model.task} and {second.title} for {second.model.task}"
        )
    for what, one, other in _shapes(first.model, second.model):
        if one != other:
            raise TrainingError(
                f"expected versions with the same {what}, "
                f"found {one} in {first.title} and {other} in {second.title}"
            )
    part, other_part = held_out(first, own), held_out(second, own)
    if part.sha256 != other_part.sha256:
        raise TrainingError(
            f"expected versions with one held-out part, found {part} of sha256 {part.sha256[:12]} "
            f"in {first.title} and {other_part} of sha256 {other_part.sha256[:12]} in {second.title} "
            f"(data {(first.model.provenance.data_sha256 or 'unknown')[:12]} "
            f"and {(second.model.provenance.data_sha256 or 'unknown')[:12]}, "
            f"seeds {first.model.provenance.seed} and {second.model.provenance.seed}): "
            "what one has not seen, the other may have been trained on"
        )
    return part


def _shapes(first: spec.ModelSpec, second: spec.ModelSpec) -> list[tuple[str, object, object]]:
    """Return the shapes that answers consist of."""
    if first.classification is not None and second.classification is not None:
        return [("labels", first.classification.labels, second.classification.labels)]
    if first.forecasting is not None and second.forecasting is not None:
        one, other = first.forecasting, second.forecasting
        columns = [[column.name for column in forecast.columns] for forecast in (one, other)]
        return [
            ("columns", columns[0], columns[1]),
            ("target", one.target, other.target),
            ("horizon", one.horizon, other.horizon),
            ("quantiles", one.quantiles, other.quantiles),
        ]
    if first.sequences is not None and second.sequences is not None:
        outputs = [section.output for section in (first.sequences, second.sequences)]
        numbers = [[column.name for column in output.columns or ()] for output in outputs]
        return [
            ("labels", outputs[0].labels, outputs[1].labels),
            ("columns", numbers[0], numbers[1]),
            ("steps", outputs[0].steps, outputs[1].steps),
        ]
    return []


def differences(first: Version, second: Version, part: HeldOut) -> tuple[Difference, ...]:
    """Return the losses of both versions on the part, with the weights that are served by default."""
    found = tuple(
        difference(one, other) for one, other in zip(score(first, part), score(second, part), strict=True)
    )
    if found[0].units < FEWEST_UNITS:
        raise TrainingError(
            f"expected a held-out part of at least {FEWEST_UNITS}, found {found[0].units}: chance decides"
        )
    return found


def compare(first: Version, second: Version, own: Own) -> Comparison:
    """Compare two versions in every way.

    Raises:
        TrainingError: they cannot be compared.
    """
    part = common_part(first, second, own)
    titles = [first.title, second.title]
    if titles[0] == titles[1]:
        titles = ["/".join(version.folder.parts[-3:]) for version in (first, second)]
    return Comparison(
        first=titles[0],
        second=titles[1],
        facts=_facts(first, second),
        claims=_claims(first.model, second.model),
        differences=differences(first, second, part),
        part=str(part),
        speeds=tuple(speeds(first, second)),
        notices=tuple(_notices(first, second, part)),
    )


def _claims(first: spec.ModelSpec, second: spec.ModelSpec) -> dict[str, tuple[float | None, float | None]]:
    names = [*first.metrics, *(name for name in second.metrics if name not in first.metrics)]
    return {name: (first.metrics.get(name), second.metrics.get(name)) for name in names}


def _notices(first: Version, second: Version, part: HeldOut) -> list[str]:
    hashes = [version.model.provenance.data_sha256 for version in (first, second)]
    if hashes[0] == hashes[1]:
        return []
    return [
        (
            f"trained on different data: sha256 {hashes[0]} and {hashes[1]}; "
            f"what is held out, {part}, is the same"
        )
    ]


def _facts(first: Version, second: Version) -> dict[str, tuple[str, str]]:
    def of(version: Version) -> dict[str, str]:
        model, made = version.model, version.model.provenance
        return {
            "network": f"{model.network.words}, {model.outputs} outputs",
            "input": f"{model.input.size} {model.input.kind}",
            **{
                f"{name}, bytes": f"{len(version.files[one.file]):,}"
                for name, one in sorted(model.variants.items())
            },
            "data": made.data,
            "data sha256": made.data_sha256 or "unknown",
            "recipe": made.recipe,
            "commit": made.commit,
            "seed": str(made.seed),
            "created": made.created,
            **{f"{name}": number for name, number in sorted(made.versions.items())},
        }

    one, other = of(first), of(second)
    return {
        name: (one.get(name, "none"), other.get(name, "none"))
        for name in [*one, *(name for name in other if name not in one)]
    }


def speeds(first: Version, second: Version) -> list[Speed]:
    """Return the decoding speeds of both versions, measured in turns.

    So a busy moment of the machine strikes both.
    """
    runs = [_Decoder(version) for version in (first, second)]
    found = []
    for rows in SPEED_ROWS:
        times: list[list[float]] = [[], []]
        for _ in range(SPEED_ROUNDS):
            for run, seen in zip(runs, times, strict=True):
                seen.append(run.seconds(rows))
        one, other = (rows / min(seen) for seen in times)
        found.append(Speed(rows, one, other))
    return found


class _Decoder:
    """A graph that runs one step of some rows again and again."""

    def __init__(self, version: Version) -> None:
        self._model = version.model
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        graph = version.files[version.model.variants["fp32"].file]
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def seconds(self, rows: int) -> float:
        """Return the time of the fastest run: other load makes runs slower, never faster."""
        is_tokens = self._model.input.kind == "tokens"
        one_step = (
            np.zeros((rows, 1), np.int64)
            if is_tokens
            else np.zeros((rows, 1, self._model.input.size), np.float32)
        )
        state = {pair.input: np.zeros((rows, pair.size), np.float32) for pair in self._model.network.states}
        feeds = {
            spec.INPUT: one_step,
            spec.LENGTHS: np.ones(rows, np.int32),
            spec.WANTED: np.arange(rows),
            **state,
        }
        # A whole network has no states and gives all steps.
        inputs = {one.name for one in self._session.get_inputs()}
        feeds = {name: value for name, value in feeds.items() if name in inputs}
        self._session.run(None, feeds)
        times = []
        for _ in range(SPEED_RUNS):
            started = perf_counter()
            self._session.run(None, feeds)
            times.append(perf_counter() - started)
        return min(times)
