"""The features of a forecasting model beside the changes of its columns: levels and the calendar."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.contract.spec import CYCLES, Column


class FeatureLayout:
    """The features of each column, in the order of the network's input.

    C: columns, F: features.

    Args:
        columns: those of the model.

    Attributes:
        is_plain: each column has its change as its one feature.
        column_of: index of the column of each feature, (F,).
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self.is_plain = all(column.level is None and column.calendar is None for column in columns)
        self.column_of = [index for index, column in enumerate(columns) for _ in range(column.num_features)]

    def features(self, levels: NDArray[np.float64], changes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return all features.

        Args:
            levels: f(value) of each column, float64 (N, C).
            changes: features of the changes, float32 (N, C); those of a calendar column are left out.

        Returns:
            float32 (N, F); not finite where 32 bits do not hold one.
        """
        found: list[NDArray[np.floating]] = []
        for index, column in enumerate(self._columns):
            if column.calendar is not None:
                found += _cycles(levels[:, index], column)
                continue
            found.append(changes[:, index])
            if column.level is not None:
                found.append((levels[:, index] - column.level.mean) / column.level.scale)
        features: NDArray[np.float32] = np.stack(found, axis=1).astype(np.float32)
        return features


def _cycles(seconds: NDArray[np.float64], column: Column) -> list[NDArray[np.floating]]:
    """Return sine and cosine of each cycle of a calendar column, (N,) each.

    The remainder comes first, and is exact: the sine of a large angle would not be.
    """
    found: list[NDArray[np.floating]] = []
    for cycle in column.calendar or ():
        length, offset = CYCLES[cycle]
        angle = 2 * np.pi * (np.mod(seconds + offset, length) / length)
        found += [np.sin(angle), np.cos(angle)]
    return found
