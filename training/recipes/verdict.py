"""Says in plain lines what came of a run: better than its baselines or not, how it went, what to try next.

Everything follows from the held-out results and from the course of the run; nothing is measured here.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from training.export.gate import INT8_KEY
from training.loop.course import Course
from training.loop.schedule import best_epoch
from training.recipes.chance import bootstrap
from training.recipes.report import Measure, Results

BASELINE, OWN = "baseline_", "held_out"
# Mean over the labels of the share that is found, per cent.
RECALL_KEY = "macro_recall"
# Falling by at least this share in the last epoch, a development loss has not settled; risen by more than it,
# the loss has left its least value.
NOTABLE_SHARE = 0.01
# Averages over fewer units say next to nothing.
FEWEST_UNITS = 30
# Points by which the mean recall may stay behind the accuracy before rare labels count as neglected.
RECALL_GAP = 10.0
MOST_DROPOUT, MORE_DROPOUT = 0.6, 0.2


class Comparison(NamedTuple):
    """The network beside one baseline, in the main measure.

    Attributes:
        title: of the baseline.
        own, other: values of the network and of the baseline.
        gain: by how much the network is better, in the measure's unit; negative where it is worse.
        is_sure: whether chance does not explain the difference; None: nobody could tell.
    """

    title: str
    own: float
    other: float
    gain: float
    is_sure: bool | None

    @property
    def is_better(self) -> bool:
        """Return whether the network is better; a value that is no number is not."""
        return self.gain > 0

    def line(self, measure: Measure) -> str:
        """Return the comparison in words."""
        word = "better than" if self.gain > 0 else "no better than" if self.gain == 0 else "worse than"
        if math.isnan(self.gain):
            word = "not comparable with"
        values = f"{format(self.own, measure.form)} against {format(self.other, measure.form)}"
        by = f", {_by(self)}" if self.gain and math.isfinite(self.gain) else ""
        chance = {True: "; beyond chance", False: "; chance explains as much", None: ""}[self.is_sure]
        return f"{word} {self.title}: {measure.title} {values}{by}{chance}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a run.

    Attributes:
        measure: the main one.
        comparisons: with each baseline, in the table's order.
        course: a line on how training went; "": nobody knows.
        advice: what to try next, an option each, the most promising first.
    """

    measure: Measure
    comparisons: tuple[Comparison, ...]
    course: str
    advice: tuple[str, ...]

    @property
    def beats_baselines(self) -> bool:
        """Return whether the network is better than every baseline; where there is none, it is not."""
        return bool(self.comparisons) and all(one.is_better for one in self.comparisons)

    @property
    def headline(self) -> str:
        """Return the result in a sentence."""
        if not self.comparisons:
            return "Not measured beside any baseline."
        if not self.beats_baselines:
            return "Does not beat its baselines: use it to try things out, not to rely on."
        if any(one.is_sure is False for one in self.comparisons):
            return "Beats its baselines, but not all of them by more than chance explains."
        return "Beats its baselines."

    def lines(self) -> list[str]:
        """Return the verdict as lines for a terminal."""
        compared = [one.line(self.measure) for one in self.comparisons]
        return [self.headline, *compared, *([self.course] if self.course else []), *self._next_lines()]

    def markdown(self) -> str:
        """Return the verdict as a section of the model card."""
        first, *rest = self.lines()
        return "\n".join([f"**{first}**", "", *(f"- {line}" for line in rest)])

    def shortfall(self) -> str:
        """Return by how much the network misses what it does not beat, in a line."""
        lost = [one.line(self.measure) for one in self.comparisons if not one.is_better]
        return "; ".join(lost) or self.headline

    def _next_lines(self) -> list[str]:
        return [f"try next: {'; or '.join(self.advice)}"] if self.advice else []


def verdict(results: Results, course: Course | None) -> Verdict:
    """Return what came of a run.

    Args:
        results: on the held-out part.
        course: of the run; None: not known.
    """
    measure = results.main_measure
    comparisons = tuple(_comparisons(results, measure))
    said, advice = ("", ()) if course is None or not course.history else _course(course, comparisons)
    neglected = course is not None and course.class_weights is None and _neglects_labels(results)
    more = ("--class-weights balanced, since rare labels are seldom found",) if neglected else ()
    return Verdict(measure, comparisons, said, (*more, *advice))


def _comparisons(results: Results, measure: Measure) -> list[Comparison]:
    keys = [contender.key for contender in results.contenders]
    own = _own(results, measure)
    found = []
    for index, key in enumerate(keys):
        other = measure.values[index]
        if own is None or other is None or not key.startswith(BASELINE):
            continue
        mine = measure.values[own]
        assert mine is not None
        sign = 1 if measure.better == "more" else -1
        title = results.contenders[index].title
        found.append(Comparison(title, mine, other, sign * (mine - other), _is_sure(measure, own, index)))
    return found


def _own(results: Results, measure: Measure) -> int | None:
    """Return the network's place in the table: the last one, where it was measured in several ways."""
    places = [
        index
        for index, contender in enumerate(results.contenders)
        if contender.key.startswith(OWN) and not contender.key.startswith(INT8_KEY)
    ]
    return next((index for index in reversed(places) if measure.values[index] is not None), None)


def _is_sure(measure: Measure, own: int, other: int) -> bool | None:
    """Return whether the interval of the mean difference leaves out 0; None without values unit by unit."""
    mine, others = (measure.units[index] if measure.units else None for index in (own, other))
    if mine is None or others is None:
        return None
    change = mine - others
    if len(change) < FEWEST_UNITS:
        return False
    low, high = bootstrap(change, measure.block)
    return low > 0 or high < 0


def _by(one: Comparison) -> str:
    """Return the difference, as a share of the baseline's value where that is more than 0."""
    size = abs(one.own - one.other)
    word = "more" if one.own > one.other else "less"
    return f"{100 * size / one.other:.1f} % {word}" if one.other > 0 else f"{size:.4g} {word}"


def _course(course: Course, comparisons: tuple[Comparison, ...]) -> tuple[str, tuple[str, ...]]:
    """Return how training went, and what to try next because of it."""
    develop = [epoch.develop for epoch in course.history]
    last, best = len(develop), best_epoch(develop)
    is_lost = not comparisons or not all(one.is_better for one in comparisons)
    if course.ending == "time" and best == last:
        return (
            f"the time limit ended training in epoch {last} of {course.epochs}, which is the best so far",
            ("a longer --time-limit",),
        )
    if last == 1:
        return "one epoch does not show a course", (f"--epochs {max(4, 4 * course.epochs)}",)
    if best == last and _share(develop[-2], develop[-1]) >= NOTABLE_SHARE:
        fell = f"from {develop[-2]:.4f} to {develop[-1]:.4f}"
        return f"still improving at the last epoch, {last}: development loss fell {fell}", (
            f"--epochs {2 * course.epochs}",
        )
    if is_overfitting(course):
        rose = f"from {develop[best - 1]:.4f} to {develop[-1]:.4f}"
        fell = f"from {course.history[best - 1].train:.4f} to {course.history[-1].train:.4f}"
        return (
            f"overfitting after epoch {best}: development loss rose {rose} by epoch {last}, "
            f"while training loss fell {fell}; the weights of epoch {best} are kept"
        ), _against_overfitting(course)
    if course.ending == "patience":
        return (
            f"stopped early after epoch {last} of {course.epochs}: least development loss in epoch {best}",
            (f"--learning-rate {course.learning_rate / 3:.1g}",),
        )
    settled = f"settled: least development loss in epoch {best} of {last}"
    # Where the last epoch is the best, the falling learning rate may have ended the descent.
    longer = (f"--epochs {2 * course.epochs}",) if best == last else ()
    return settled, (*longer, f"--hidden {2 * course.hidden}", "more data") if is_lost else ()


def is_overfitting(course: Course) -> bool:
    """Return whether the development loss rose after its best epoch while the training loss fell."""
    best = best_epoch([epoch.develop for epoch in course.history])
    kept, last = course.history[best - 1], course.history[-1]
    return _share(kept.develop, last.develop) < -NOTABLE_SHARE and last.train < kept.train


def _against_overfitting(course: Course) -> tuple[str, ...]:
    dropout = min(MOST_DROPOUT, course.dropout + MORE_DROPOUT)
    return (
        "more data",
        *([f"--dropout {dropout:.2g}"] if dropout > course.dropout else []),
        *([f"--hidden {course.hidden // 2}"] if course.hidden > 1 else []),
    )


def _share(before: float, after: float) -> float:
    """Return the share of a loss that is gone; negative where it rose."""
    return (before - after) / max(abs(before), 1e-12)


def _neglects_labels(results: Results) -> bool:
    """Return whether the network finds rare labels far less often than it is right over all."""
    own = next((index for index, one in enumerate(results.contenders) if one.key == OWN), None)
    values = {measure.key: measure.values[own] for measure in results.measures} if own is not None else {}
    accuracy, recall = values.get("accuracy"), values.get(RECALL_KEY)
    return accuracy is not None and recall is not None and accuracy - recall > RECALL_GAP
