"""Bounds the encoder runs of one model that wait or are under way, and shares the bound among clients."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import Overloaded

# A caller who is refused may try again when a part of those that wait has run.
_RETRY_AFTER_S = 1.0


class Pending:
    """Counts the runs of one model by client; used from the event loop alone.

    Once the bound is reached, a client is still admitted up to its share of it, so that one who fills it does
    not keep the others out.

    Args:
        model: name of the model, for error texts.
        max_pending: runs at most, but for the shares of clients that come late.
    """

    def __init__(self, model: str, max_pending: int) -> None:
        self._model = model
        self._max = max_pending
        self._by_client: Counter[str] = Counter()
        self._total = 0

    @contextmanager
    def place(self, client: str) -> Iterator[None]:
        """Count a run of a client while the context is open.

        Raises:
            Overloaded: there are too many, and the client has its share of them.
        """
        own = self._by_client[client]
        share = self._max // (len(self._by_client) + (not own))
        if self._total >= self._max and own >= share:
            raise Overloaded(
                f"model {self._model}: expected at most {self._max} sources that wait for its encoder, "
                f"found {self._total} and 1 more",
                _RETRY_AFTER_S,
            )
        self._by_client[client] += 1
        self._total += 1
        try:
            yield
        finally:
            self._total -= 1
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]
