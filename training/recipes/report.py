"""Holds held-out results: a table for people, and flat numbers for model.json."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from rich.markup import escape
from rich.table import Table

from seqserve.cli.output import escape_controls
from training import markdown
from training.recipes.chance import Floats


def _shown(title: str) -> str:
    """Return a title, which may hold the user's labels, for a terminal."""
    return escape(escape_controls(title))


class Contender(NamedTuple):
    """A column of the table.

    Attributes:
        title: for people.
        key: how its numbers begin in model.json, such as "held_out" for the network or "baseline_5gram".
    """

    title: str
    key: str


class Measure(NamedTuple):
    """A row of the table.

    Attributes:
        title: for people, with the unit.
        key: how its numbers end in model.json.
        values: one a contender; None: it makes no sense there.
        form: how numbers are written.
        better: which values are better.
        units: one a contender, or (): values of its held-out units, float64 (N,), whose mean is its value,
            the same units for all; None where there are none. They tell what chance explains.
        block: so many neighbouring units depend on each other.
    """

    title: str
    key: str
    values: tuple[float | None, ...]
    form: str = ".3f"
    better: Literal["less", "more"] = "less"
    units: tuple[Floats | None, ...] = ()
    block: int = 1

    def cells(self) -> list[str]:
        """Return the values as text."""
        return ["" if value is None else format(value, self.form) for value in self.values]


@dataclass(frozen=True, slots=True)
class Results:
    """Measurements on the held-out part.

    Attributes:
        title: what was measured on.
        contenders: the network first, then its baselines.
        measures: each with one value a contender.
        main: key of the measure that decides whether the network beats its baselines; "": the first.
    """

    title: str
    contenders: tuple[Contender, ...]
    measures: tuple[Measure, ...]
    main: str = ""

    @property
    def main_measure(self) -> Measure:
        """Return the measure that decides."""
        return next((one for one in self.measures if one.key == self.main), self.measures[0])

    def table(self) -> Table:
        """Return the table for a terminal."""
        table = Table(title=escape(self.title))
        table.add_column("held out", no_wrap=True)
        for contender in self.contenders:
            table.add_column(_shown(contender.title), justify="right")
        for measure in self.measures:
            table.add_row(_shown(measure.title), *measure.cells())
        return table

    def markdown(self) -> str:
        """Return the table for the model card."""
        return markdown.table(
            ["held out", *(contender.title for contender in self.contenders)],
            [[measure.title, *measure.cells()] for measure in self.measures],
        )

    def metrics(self) -> dict[str, float]:
        """Return numbers for model.json by <contender's key>_<measure's key>."""
        return {
            f"{contender.key}_{measure.key}": value
            for measure in self.measures
            for contender, value in zip(self.contenders, measure.values, strict=True)
            if value is not None
        }

    def without(self, prefix: str) -> "Results":
        """Return the results without the contenders whose keys begin so.

        Measures of theirs alone go, too.
        """
        kept = [
            index for index, contender in enumerate(self.contenders) if not contender.key.startswith(prefix)
        ]
        measures = (
            measure._replace(
                values=tuple(measure.values[index] for index in kept),
                units=tuple(measure.units[index] for index in kept) if measure.units else (),
            )
            for measure in self.measures
        )
        filled = (measure for measure in measures if any(value is not None for value in measure.values))
        contenders = tuple(self.contenders[index] for index in kept)
        return Results(self.title, contenders, tuple(filled), self.main)
