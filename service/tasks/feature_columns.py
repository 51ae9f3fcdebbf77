"""Checks the values of time steps and makes the features of them that a network sees."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.contract.spec import FeatureColumn
from service.errors import InvalidArgument


class FeatureColumns:
    """One model's columns: feature = (f(value) - mean) / scale.

    The arithmetic is in 64 bits and element by element, so that a time step has the same features whatever
    comes with it.

    Args:
        columns: the columns, in order; None: values are the network's features themselves.
        width: number of values of a time step, F.

    Attributes:
        width: the same.
    """

    def __init__(self, columns: Sequence[FeatureColumn] | None, width: int) -> None:
        self.width = width
        self._columns = columns
        self._is_log = np.array([column.transform == "log" for column in columns or ()])
        self._has_log = bool(self._is_log.any())
        self._means = np.array([column.mean for column in columns or ()])
        self._scales = np.array([column.scale for column in columns or ()])

    def features(self, values: NDArray[np.float32], field: str) -> NDArray[np.float32]:
        """Return the features of time steps.

        Args:
            values: float32 (T, F), as a caller sends them.
            field: path of the values in the request; the first wrong one is named by its place in them.

        Returns:
            float32 (T, F), all finite.

        Raises:
            InvalidArgument: rows have another width, or a value is not finite, not positive where the
                logarithm is taken, or too far from the training data for 32 bits.
        """
        if values.shape[1] != self.width:
            raise InvalidArgument(
                field, f"expected {self.width} values a time step{self._names()}, found {values.shape[1]}"
            )
        if self._columns is None:
            features = values
        else:
            # A value outside the domain of its column comes out as a feature that is not finite.
            with np.errstate(all="ignore"):
                features = ((self._levels(values) - self._means) / self._scales).astype(np.float32)
        if not np.isfinite(features).all():
            self._refuse(values, features, field)
        return features

    def _levels(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return f(value), float64 (T, F)."""
        wide = values.astype(np.float64)
        if self._has_log:
            wide[:, self._is_log] = np.log(wide[:, self._is_log])
        return wide

    def _refuse(self, values: NDArray[np.float32], features: NDArray[np.float32], field: str) -> None:
        row, column = np.argwhere(~np.isfinite(features))[0].tolist()
        found = float(values[row, column])
        if self._columns is None:
            expected = "a finite number"
        else:
            name, is_log = self._columns[column].name, bool(self._is_log[column])
            expected = f"a finite number{' above 0' if is_log else ''} for {name}"
            if np.isfinite(found) and (found > 0 or not is_log):
                expected = f"a value of {name} whose feature 32 bits can hold"
        raise InvalidArgument(f"{field}[{row * self.width + column}]", f"expected {expected}, found {found}")

    def _names(self) -> str:
        return f" ({', '.join(column.name for column in self._columns[:20])})" if self._columns else ""
