"""Runs one model version in this process, for programs that have many inputs at hand: no server, no network.

    with Bulk("exported/sentiment/4") as model:
        labels = [found.label for found in model.classify(texts)]

The version is tried, checked, measured and run as a server does it, by the same task and engines, so answers
have the same bits wherever the model is batch-invariant. They have the classes of the Python client.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from prometheus_client import CollectorRegistry

from seqserve.results import Classification, Forecast, ForecastStep, LabelProbability, Quantile
from service.engine.request import Caller
from service.errors import InvalidArgument
from service.models.interface import accept_any
from service.models.loading import Loader, Served, Task
from service.observability.metrics import Metrics
from service.settings import Settings, read_settings
from service.tasks.classification import ClassificationTask, Classified
from service.tasks.forecasting import Forecast as TaskForecast
from service.tasks.forecasting import ForecastingTask, Observations
from service.transport.loop import CompletionLoop

# Requests that run at a time, of all calls together: enough to fill the slots while others are read and
# answered. The engine's queue takes all of their sequences.
_REQUESTS_AT_A_TIME = 8
_CLOSED = "expected a model that is open, found one that was closed"

Input = TypeVar("Input")
Answer = TypeVar("Answer")
Kind = TypeVar("Kind", bound=Task)


class BulkError(Exception):
    """The model cannot do what is asked of it, or has been closed."""


class Bulk:
    """A model version in this process; a context that ends its threads. Any number of threads may call it.

    Args:
        folder: folder of the version, .../<name>/<version>.
        flags: settings as flags of the server, such as "--threads", "1"; SEQSERVE_* variables count as well.

    Raises:
        SettingsRefused: a flag or a variable is wrong.
        SpecError, ModelRefused: the version fails a check of admission.
    """

    def __init__(self, folder: Path | str, *flags: str) -> None:
        path = Path(folder).absolute()
        settings = read_settings([*flags, "--repository", str(path.parents[1])])
        self._items = settings.max_items
        waiting = max(settings.max_waiting, _REQUESTS_AT_A_TIME * self._items)
        self._loop = CompletionLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="bulk", daemon=True)
        self._free = asyncio.Semaphore(_REQUESTS_AT_A_TIME)
        self._lock = threading.Lock()  # no call begins once it is closed
        self._is_closed = False
        try:
            self._served = _load(path, settings.model_copy(update={"max_waiting": waiting}), self._loop)
        except BaseException:
            self._loop.close()
            raise
        self._thread.start()
        self._served.start()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    @property
    def is_batch_invariant(self) -> bool:
        """True where answers have the same bits as a server's, as measured when the version was loaded."""
        return self._served.batch_invariant

    def close(self) -> None:
        """End the engines and the thread; calls that still run in other threads raise BulkError."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result()
        self._served.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def classify(self, texts: Sequence[str]) -> list[Classification | InvalidArgument]:
        """Classify texts; any number of them, run side by side.

        Returns:
            In the order of the texts what the Python client gets for each, or the error of that text.

        Raises:
            BulkError: the model is for another task.
            ModelFailure: the engine failed.
        """
        task, version = self._task(ClassificationTask), self._served.spec.version

        async def answer(part: Sequence[str]) -> list[Classification]:
            return _classifications(await task.classify(part, Caller()), version)

        return self._run(_answers(texts, self._items, self._free, answer))

    def forecast(
        self, series: Sequence[Observations], horizon: int = 0, quantiles: Sequence[float] = ()
    ) -> list[Forecast | InvalidArgument]:
        """Forecast after the last observation of each series; any number of them, run side by side.

        Args:
            series: observations of each, oldest first, each of one value a column of the model.
            horizon: steps ahead; 0: all that the model has.
            quantiles: levels wanted; none: all that the model has.

        Returns:
            In the order of the series what the Python client gets for each, or the error of that series.

        Raises:
            InvalidArgument: the horizon or a level is not one of the model's.
            BulkError: the model is for another task.
            ModelFailure: the engine failed.
        """
        task, version = self._task(ForecastingTask), self._served.spec.version
        task.select(horizon, quantiles)

        async def answer(part: Sequence[Observations]) -> list[Forecast]:
            found = await task.forecast(part, horizon, quantiles, Caller())
            return [_forecast(one, version) for one in found]

        return self._run(_answers(series, self._items, self._free, answer))

    def _task(self, kind: type[Kind]) -> Kind:
        task = self._served.task
        if not isinstance(task, kind):
            model = self._served.spec
            raise BulkError(f"expected a model for another task, found {model.name}, one for {model.task}")
        return task

    def _run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Run a coroutine in the loop's thread, and wait for it; what ends the wait cancels the coroutine."""
        with self._lock:
            if self._is_closed:
                work.close()
                raise BulkError(_CLOSED)
            future: Future[Answer] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise BulkError(_CLOSED) from None
        finally:
            future.cancel()


async def _cancel_others() -> None:
    """Cancel every other task of the loop, and wait until they have ended."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _load(folder: Path, settings: Settings, loop: asyncio.AbstractEventLoop) -> Served:
    """Load a version as a server does; its trial's process ends with that."""
    loader = Loader(settings, Metrics(CollectorRegistry()), loop, _ignore)
    try:
        return loader.load(folder, accept_any)
    finally:
        loader.end_trial()


def _ignore(name: str, version: int) -> None:
    """Do nothing: the calls of an engine that has failed raise, and the caller decides."""


async def _answers(
    inputs: Sequence[Input],
    size: int,
    free: asyncio.Semaphore,
    answer: Callable[[Sequence[Input]], Awaitable[list[Answer]]],
) -> list[Answer | InvalidArgument]:
    """Return the answers of inputs in their order, by requests of at most `size` of them."""

    async def answer_part(part: Sequence[Input]) -> list[Answer | InvalidArgument]:
        async with free:
            try:
                return [*await answer(part)]
            except InvalidArgument as error:
                if len(part) == 1:
                    return [error]
        # One input is wrong: each of them alone.
        return await _answers(part, 1, free, answer)

    parts = [inputs[first : first + size] for first in range(0, len(inputs), size)]
    found = await asyncio.gather(*map(answer_part, parts))
    return [one for part in found for one in part]


def _classifications(found: Sequence[Classified], version: int) -> list[Classification]:
    """Return classifications as the client has them: probabilities go through 32 bits on the wire."""
    numbers = [probability for one in found for _, probability in one.ranked]
    rounded = iter(np.array(numbers, np.float32).tolist())
    answers = []
    for one in found:
        labels = tuple(LabelProbability(label, next(rounded)) for label, _ in one.ranked)
        answers.append(
            Classification(labels[0].label, labels[0].probability, labels, one.token_count, version)
        )
    return answers


def _forecast(found: TaskForecast, version: int) -> Forecast:
    """Return a forecast as the client has it."""
    levels = found.selection.levels
    width = 1 + len(levels)
    steps = (found.numbers[first : first + width] for first in range(0, len(found.numbers), width))
    return Forecast(
        tuple(ForecastStep(median, tuple(map(Quantile, levels, quantiles))) for median, *quantiles in steps),
        found.last_value,
        version=version,
    )
