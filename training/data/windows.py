"""Turns sequences of rows into windows with targets: parts by sequence, scales of the training part.

No window of a sequence is in another part than the sequence's others.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seqserve.tables.numbers import finite
from training.data.feature_rows import FeatureSequences, Floats, OneSequence
from training.errors import TrainingError

FEWEST_SEQUENCES = 20
FEWEST_OF_CLASS = 3
# Whole numbers of more different values than this are numbers, not classes.
MOST_WHOLE_CLASSES = 20
# Of ten sequences in a row, drawn at random within their class, eight are trained on.
DEAL = 10
DEVELOP_AT, HELD_OUT_AT = 4, 9

Kind = Literal["auto", "classes", "numbers"]
Steps = Literal["last", "every"]


@dataclass(frozen=True, slots=True)
class Cut:
    """How long sequences are cut into windows.

    Attributes:
        window: rows of a window; 0: sequences stay whole.
        stride: rows from the start of a window to that of the next.
    Raises:
        TrainingError: a number is out of its range.
    """

    window: int = 0
    stride: int = 0

    def __post_init__(self) -> None:
        """Check the numbers against each other."""
        if self.stride and not self.window:
            raise TrainingError(f"--stride: expected with --window alone, found {self.stride} without it")
        if self.stride > self.window:
            raise TrainingError(
                f"--stride: expected at most the {self.window} rows of --window, so that no row is left out, "
                f"found {self.stride}"
            )

    def starts(self, length: int) -> list[int]:
        """Return the first rows of the windows of a sequence; the last window ends with the sequence."""
        if not self.window or length <= self.window:
            return [0]
        last = length - self.window
        step = self.stride or self.window
        return sorted({*range(0, last + 1, step), last})


class Window(NamedTuple):
    """A part of a sequence.

    Attributes:
        sequence: number of its sequence.
        values: float64 (T, F), as callers send them.
        target: int64 () or (T,) of classes; float64 (K,) or (T, K) of numbers.
    """

    sequence: int
    values: Floats
    target: NDArray[np.int64] | Floats


@dataclass(frozen=True, slots=True)
class Windows:
    """All windows of a file, in three parts.

    Attributes:
        columns: names of the features.
        targets: names of the target columns.
        labels: names of the classes; (): the targets are numbers.
        steps: one target a sequence (last), or one a time step (every).
        train, develop, held_out: the parts; development picks the epoch, held out is reported.
        notes: what the user should know, a line each.
    """

    columns: tuple[str, ...]
    targets: tuple[str, ...]
    labels: tuple[str, ...]
    steps: Steps
    train: list[Window]
    develop: list[Window]
    held_out: list[Window]
    notes: tuple[str, ...]

    def scales(self) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of each feature over the training part; 1 where it is 0."""
        return _mean_and_scale(np.concatenate([one.values for one in self.train]))

    def target_scales(self) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of each target that is a number over the training part."""
        rows = [np.atleast_2d(np.asarray(one.target, np.float64)) for one in self.train]
        return _mean_and_scale(np.concatenate(rows))


def _mean_and_scale(rows: Floats) -> tuple[Floats, Floats]:
    mean, scale = rows.mean(0), rows.std(0)
    return mean, np.where(scale > 1e-12 * np.maximum(1, np.abs(mean)), scale, 1.0)


def make_windows(
    found: FeatureSequences, targets: tuple[str, ...], cut: Cut, kind: Kind, steps: Steps, seed: int
) -> Windows:
    """Cut sequences into windows and deal the sequences to three parts.

    Args:
        found: the sequences.
        targets: names of the target columns.
        cut: how to cut them.
        kind: whether the targets are classes or numbers; auto: several columns, fractions, or more than
            20 different whole numbers are numbers.
        steps: one target a sequence, or one a time step.
        seed: of the draw.
    Raises:
        TrainingError: sequences are too few, of one class, or have a target that changes where it may not.
    """
    sequences = found.sequences
    if len(sequences) < FEWEST_SEQUENCES:
        raise TrainingError(
            f"expected at least {FEWEST_SEQUENCES} sequences to train on and hold out from, "
            f"found {len(sequences)}"
        )
    if steps == "last":
        for one in sequences:
            _check_constant(one, targets)
    are_numbers = kind == "numbers" or (kind == "auto" and _look_like_numbers(sequences, targets))
    if not are_numbers and len(targets) > 1:
        raise TrainingError(f"--target: expected one column of classes, found {len(targets)}")
    labels = () if are_numbers else _labels(sequences, targets[0], steps)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(sequences))
    if labels:
        # Neighbours of one class are dealt out, so that each part has about the same share of it.
        order = np.array(sorted(order, key=lambda index: _most_frequent(sequences[index])))
    parts: tuple[list[Window], list[Window], list[Window]] = ([], [], [])
    for place, index in enumerate(order):
        part = {DEVELOP_AT: 1, HELD_OUT_AT: 2}.get(place % DEAL, 0)
        parts[part].extend(_cut(int(index), sequences[index], targets, cut, labels, steps))
    notes = (_counts(sequences, labels), f"features: {', '.join(found.columns)}")
    return Windows(found.columns, targets, labels, steps, *parts, notes)


def _check_constant(one: OneSequence, targets: tuple[str, ...]) -> None:
    for step, cells in enumerate(one.targets):
        if cells != one.targets[0]:
            raise TrainingError(
                f"{one.place}: sequence {one.name!r}: expected one value of {', '.join(targets)} a sequence, "
                f"found {', '.join(one.targets[0])!r} and from its row {step + 1} on {', '.join(cells)!r}; "
                "--steps every learns one a time step"
            )


def _look_like_numbers(sequences: list[OneSequence], targets: tuple[str, ...]) -> bool:
    numbers = {finite(cell) for one in sequences for cells in one.targets for cell in cells}
    if None in numbers:
        return False
    is_whole = all(number is not None and number.is_integer() for number in numbers)
    return len(targets) > 1 or not is_whole or len(numbers) > MOST_WHOLE_CLASSES


def _labels(sequences: list[OneSequence], target: str, steps: Steps) -> tuple[str, ...]:
    """Return the classes in the order of their names.

    Raises:
        TrainingError: there is one alone, one without a name, or one of too few sequences.
    """
    counts = Counter(label for one in sequences for label in {cells[0] for cells in one.targets})
    if len(counts) < 2:
        raise TrainingError(
            f"--target: column {target}: expected two or more classes, found {', '.join(map(repr, counts))}"
        )
    if "" in counts:
        raise TrainingError(f"--target: column {target}: expected a class in each row, found an empty cell")
    least = FEWEST_OF_CLASS if steps == "last" else 2
    if few := sorted(label for label, count in counts.items() if count < least):
        raise TrainingError(
            f"--target: column {target}: expected {least} or more sequences of each class, "
            f"found fewer of {', '.join(map(repr, few[:10]))} "
            f"({len(counts)} classes of {len(sequences)} sequences; --kind numbers learns numbers)"
        )
    return tuple(sorted(counts))


def _most_frequent(one: OneSequence) -> str:
    return Counter(cells[0] for cells in one.targets).most_common(1)[0][0]


def _counts(sequences: list[OneSequence], labels: tuple[str, ...]) -> str:
    rows = sum(len(one.values) for one in sequences)
    said = f"{len(sequences):,} sequences of {rows:,} rows"
    if not labels:
        return f"{said}: targets are numbers"
    counts = Counter(map(_most_frequent, sequences))
    shown = ", ".join(f"{label} {counts[label]:,}" for label in labels[:MOST_WHOLE_CLASSES])
    return f"{said}: {shown}{', ...' if len(labels) > MOST_WHOLE_CLASSES else ''}"


def _cut(
    index: int, one: OneSequence, targets: tuple[str, ...], cut: Cut, labels: tuple[str, ...], steps: Steps
) -> list[Window]:
    if labels:
        numbers = {label: number for number, label in enumerate(labels)}
        known: NDArray[np.int64] | Floats = np.array([numbers[cells[0]] for cells in one.targets])
    else:
        known = np.array([[_number(one, targets, cells, at) for at in range(len(targets))]
                          for cells in one.targets])  # fmt: skip
    windows = []
    for start in cut.starts(len(one.values)):
        part = slice(start, start + cut.window if cut.window else None)
        target = known[part] if steps == "every" else known[0]
        windows.append(Window(index, one.values[part], np.asarray(target)))
    return windows


def _number(one: OneSequence, targets: tuple[str, ...], cells: tuple[str, ...], at: int) -> float:
    number = finite(cells[at])
    if number is None:
        raise TrainingError(
            f"{one.place}: sequence {one.name!r}: column {targets[at]}: expected a finite number, "
            f"found {cells[at]!r}"
        )
    return number
