"""Reads rows of numbers that belong to sequences: CSV, arrays of numpy (.npz), Parquet.

A column says to which sequence a row belongs, others what is to be learnt of it, the rest are the features of
a time step. The rows of a sequence stand together, oldest first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seqserve.tables.files import Origin
from seqserve.tables.rows import iter_rows
from training.data.files import check_regular, iter_table, number, table_errors
from training.data.sources import Source
from training.errors import TrainingError

Floats = NDArray[np.float64]

# The arrays of a .npz file.
VALUES, SEQUENCE, TARGET, COLUMNS = "values", "sequence", "target", "columns"
NUMPY, PARQUET = ".npz", ".parquet"


@dataclass(frozen=True, slots=True)
class RowsChoice:
    """A file of rows, and which of its columns mean what.

    Attributes:
        source: the file.
        sequence: column that says to which sequence a row belongs.
        targets: columns to be learnt, one or more.
        columns: features of a time step; (): all columns that are neither.
    """

    source: Source
    sequence: str
    targets: tuple[str, ...]
    columns: tuple[str, ...] = ()

    def facts(self) -> dict[str, str]:
        """Return the choice by name, for a checkpoint."""
        named = {"sequence": self.sequence, "targets": ",".join(self.targets)}
        return named | {"columns": ",".join(self.columns)}


class OneSequence(NamedTuple):
    """The rows of one sequence.

    Attributes:
        name: of the sequence.
        values: float64 (T, F), finite.
        targets: the cells of the target columns of each row, as text: T tuples.
        place: where its first row stands, for messages.
    """

    name: str
    values: Floats
    targets: list[tuple[str, ...]]
    place: str


class FeatureSequences(NamedTuple):
    """All sequences of a file, and the names of their features."""

    columns: tuple[str, ...]
    sequences: list[OneSequence]


class _Rows(NamedTuple):
    """Rows before they are grouped.

    Attributes:
        columns: names of the features.
        names: the sequence of each row.
        values: float64 (N, F).
        targets: N tuples of cells.
        place: says where a row stands.
    """

    columns: tuple[str, ...]
    names: list[str]
    values: Floats
    targets: list[tuple[str, ...]]
    place: Callable[[int], str]


def read_feature_sequences(choice: RowsChoice) -> FeatureSequences:
    """Read the sequences of a file.

    Raises:
        TrainingError: it cannot be read, lacks a column, has a cell that is no finite number, or the rows of
            a sequence do not stand together.
    """
    _check_choice(choice)
    reader = {NUMPY: _numpy, PARQUET: _parquet}.get(choice.source.path.suffix.lower(), _csv)
    rows = reader(choice)
    if not rows.names:
        raise TrainingError(f"{choice.source.path}: expected rows of sequences, found none")
    found: list[OneSequence] = []
    begun: dict[str, str] = {}
    for name, group in groupby(range(len(rows.names)), key=rows.names.__getitem__):
        indices = list(group)
        if name in begun:
            raise TrainingError(
                f"{rows.place(indices[0])}: expected the rows of a sequence together, found {name!r} again, "
                f"which began at {begun[name]}: sort the file by {choice.sequence}"
            )
        begun[name] = rows.place(indices[0])
        part = slice(indices[0], indices[-1] + 1)
        found.append(OneSequence(name, rows.values[part], rows.targets[part], begun[name]))
    return FeatureSequences(rows.columns, found)


def _check_choice(choice: RowsChoice) -> None:
    named = (choice.sequence, *choice.targets, *choice.columns)
    for name in named:
        if named.count(name) > 1:
            raise TrainingError(
                "--sequence, --target and --columns: expected different columns, "
                f"found {name!r} {named.count(name)} times"
            )


def _csv(choice: RowsChoice) -> _Rows:
    source = choice.source
    path = source.path
    columns = choice.columns or _other_columns(choice)
    width, names, targets, cells, lines = len(columns), [], [], [], []
    wanted = (choice.sequence, *choice.targets, *columns)
    for row in iter_table(path, wanted, source.delimiter, source.encoding):
        names.append(row.cells[0])
        targets.append(row.cells[1:-width])
        cells.append(
            [number(path, row, name, cell) for name, cell in zip(columns, row.cells[-width:], strict=True)]
        )
        lines.append(row.line)
    values = np.array(cells, np.float64).reshape(-1, width)
    return _Rows(columns, names, values, targets, lambda index: f"{path}: line {lines[index]}")


def _other_columns(choice: RowsChoice) -> tuple[str, ...]:
    """Return the columns of a CSV file that are neither the sequence nor a target."""
    source = choice.source
    with table_errors():
        origin = Origin.of_file(source.path, source.encoding)
        header = next(iter_rows(origin, source.delimiter, (choice.sequence, *choice.targets)), None)
    titles = header.cells if header else ()
    taken = {name.casefold() for name in (choice.sequence, *choice.targets)}
    return _some(choice, [title for title in titles if title and title.casefold() not in taken])


def _some(choice: RowsChoice, columns: Sequence[str]) -> tuple[str, ...]:
    if not columns:
        raise TrainingError(
            f"{choice.source.path}: expected columns of features beside {choice.sequence} and "
            f"{', '.join(choice.targets)}, found none"
        )
    return tuple(columns)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a .npz file by name, `values` and `target` among them.

    Raises:
        TrainingError: it is none, or lacks one of the two.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise TrainingError(
            f"{path}: expected arrays of numpy, found a file that is none: {error}"
        ) from error
    if missing := {VALUES, TARGET} - set(arrays):
        raise TrainingError(
            f"{path}: expected arrays {VALUES} and {TARGET}, found none named {', '.join(sorted(missing))}"
        )
    return arrays


def _numpy(choice: RowsChoice) -> _Rows:
    """Read .npz: `values` (N, F) with `sequence` (N,), or (sequences, T, F); `target`; maybe `columns`."""
    path = choice.source.path
    arrays = _arrays(path)
    values, target = arrays[VALUES], arrays[TARGET]
    if values.dtype.kind not in "fiu":
        raise TrainingError(f"{path}: {VALUES}: expected numbers, found {values.dtype}")
    if values.ndim == 3:
        count, steps, _ = values.shape
        sequence = np.repeat(np.arange(count), steps)
        target = np.repeat(target, steps, axis=0) if len(target) == count else target
        values = values.reshape(count * steps, -1)
    elif SEQUENCE in arrays:
        sequence = arrays[SEQUENCE]
    else:
        raise TrainingError(f"{path}: expected an array {SEQUENCE} beside {VALUES} of (rows, features)")
    if values.ndim != 2 or not len(values) == len(sequence) == len(target):
        raise TrainingError(
            f"{path}: expected {VALUES} (rows, features), {SEQUENCE} and {TARGET} of as many rows, "
            f"found {values.shape}, {sequence.shape} and {target.shape}"
        )
    titles = [str(name) for name in arrays.get(COLUMNS, [f"x{index}" for index in range(values.shape[1])])]
    if len(titles) != values.shape[1]:
        raise TrainingError(
            f"{path}: {COLUMNS}: expected {values.shape[1]} names, one a feature, found {len(titles)}"
        )
    target = target.reshape(len(target), -1)
    if target.shape[1] != len(choice.targets):
        raise TrainingError(
            f"{path}: --target: expected {target.shape[1]} names, as {TARGET} has columns, "
            f"found {len(choice.targets)}"
        )
    kept = [_index(path, titles, name) for name in choice.columns] or list(range(len(titles)))
    columns = tuple(titles[index] for index in kept)
    return _of_arrays(path, columns, sequence, values[:, kept], target)


def _index(path: Path, titles: Sequence[str], name: str) -> int:
    if name not in titles:
        raise TrainingError(
            f"{path}: expected a column {name}, found no such column among {', '.join(titles)}"
        )
    return titles.index(name)


def _of_arrays(
    path: Path, columns: tuple[str, ...], sequence: NDArray[Any], values: NDArray[Any], target: NDArray[Any]
) -> _Rows:
    """Return the rows of arrays, numbered from 1; check that all values are finite.

    Raises:
        TrainingError: a value is not finite.
    """
    numbers = values.astype(np.float64)
    if len(wrong := np.argwhere(~np.isfinite(numbers))):
        row, column = wrong[0]
        raise TrainingError(
            f"{path}: row {row + 1}: column {columns[column]}: expected a finite number, "
            f"found {numbers[row, column]}"
        )
    cells = [tuple(str(cell) for cell in row) for row in target.tolist()]
    names = [str(name) for name in sequence.tolist()]
    return _Rows(columns, names, numbers, cells, lambda index: f"{path}: row {index + 1}")


def _parquet(choice: RowsChoice) -> _Rows:
    path = choice.source.path
    try:
        import pyarrow.parquet  # noqa: PLC0415 - no part of the extra: 40 MB for those alone who have such files
    except ImportError as error:
        raise TrainingError(
            f"{path}: Parquet needs the package pyarrow, found none: pip install pyarrow"
        ) from error
    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise TrainingError(f"{path}: expected a Parquet file, found one that is none: {error}") from error
    titles = list(table.column_names)
    taken = (choice.sequence, *choice.targets)
    for name in taken:
        _index(path, titles, name)
    columns = choice.columns or _some(choice, [title for title in titles if title not in taken])
    arrays = [np.asarray(table.column(_index(path, titles, name)).to_numpy()) for name in columns]
    for name, array in zip(columns, arrays, strict=True):
        if array.dtype.kind not in "fiu":
            raise TrainingError(
                f"{path}: column {name}: expected numbers, found {array.dtype}; --columns names those to use"
            )
    target = np.array([table.column(name).to_pylist() for name in choice.targets], object).T
    sequence = np.array(table.column(choice.sequence).to_pylist(), object)
    return _of_arrays(path, tuple(columns), sequence, np.stack(arrays, 1), target)


def rows_source(path: Path, encoding: str, delimiter: str, own: Callable[[Path, str, str], Source]) -> Source:
    """Return the source of a file of rows: of .npz and Parquet without the checks of text.

    Args:
        path: the file.
        encoding, delimiter: of a CSV file.
        own: makes the source of a CSV file.
    Raises:
        TrainingError: it cannot be read more than once.
    """
    if path.suffix.lower() not in (NUMPY, PARQUET):
        return own(path, encoding, delimiter)
    check_regular(path)
    return Source(path, f"{path.name}, given by the user", "not recorded", is_own=True)
