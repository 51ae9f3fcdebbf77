"""Brings sequences to the fixed length that a network was trained with."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.contract.spec import Network, Window
from service.errors import InvalidArgument


class Fitted(NamedTuple):
    """A sequence as the network gets it.

    Attributes:
        inputs: (T,) token ids or float32 (T, F), T being the window's length.
        kept: time steps of the sequence that are in it.
        rows: time steps of it that are not padding, as many as are kept.
    """

    inputs: NDArray[Any]
    kept: slice
    rows: slice


class WindowFit:
    """Fits sequences into one model's window.

    Args:
        window: the window; None: sequences of any length are taken as they are.
    """

    def __init__(self, window: Window | None) -> None:
        self._window = window

    @classmethod
    def of(cls, network: Network) -> "WindowFit":
        """Return the fit of a network."""
        return cls(network.window)

    def fit(self, inputs: NDArray[Any], field: str) -> Fitted:
        """Cut or pad a sequence.

        Args:
            inputs: (T,) token ids or float32 (T, F), T >= 1.
            field: its path in the request.

        Raises:
            InvalidArgument: it is longer than the window, and the model refuses longer ones.
        """
        count, window = len(inputs), self._window
        if window is None or count == window.to:
            return Fitted(inputs, slice(0, count), slice(0, count))
        if count > window.to:
            kept = self._cut(window, count, field)
            return Fitted(inputs[kept], kept, slice(0, window.to))
        padded = np.full((window.to, *inputs.shape[1:]), window.value, inputs.dtype)
        start = window.to - count if window.side == "left" else 0
        rows = slice(start, start + count)
        padded[rows] = inputs
        return Fitted(padded, slice(0, count), rows)

    @staticmethod
    def _cut(window: Window, count: int, field: str) -> slice:
        if window.longer == "refuse":
            raise InvalidArgument(
                field, f"expected at most {window.to} time steps, the model's fixed length, found {count}"
            )
        return slice(0, window.to) if window.longer == "keep_first" else slice(count - window.to, count)
