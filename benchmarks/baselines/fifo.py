"""First in, first out: how general model servers batch. Requests wait until 32 are there or 2 ms have passed,
and run padded to the longest.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_ROWS = 32
MOST_DELAY_S = 0.002


@dataclass(frozen=True, slots=True)
class _Waiting:
    inputs: NDArray[Any]
    arrived_at: float
    answer: "asyncio.Future[NDArray[np.float32]]"


class FifoBatcher:
    """Collects sequences into batches and runs them one batch after the other in a thread, while the next
    batch gathers.

    Args:
        run: a whole batch to its outputs, one row each.
        most_rows: of a batch.
        most_delay_s: how long the first of a batch may wait for others.
    """

    def __init__(
        self,
        run: Callable[[Sequence[NDArray[Any]]], NDArray[np.float32]],
        most_rows: int = MOST_ROWS,
        most_delay_s: float = MOST_DELAY_S,
    ) -> None:
        self._run = run
        self._most_rows = most_rows
        self._most_delay_s = most_delay_s
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._executor = ThreadPoolExecutor(1)
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._serve())

    async def classify(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        """The outputs of some sequences; each takes its own place in the line."""
        waiting = [_Waiting(one, self._loop.time(), self._loop.create_future()) for one in inputs]
        for one in waiting:
            self._queue.put_nowait(one)
        return [await one.answer for one in waiting]

    async def close(self) -> None:
        """Stop; those still waiting get no answer."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._executor.shutdown()

    async def _serve(self) -> None:
        while True:
            batch = await self._next_batch()
            try:
                outputs = await self._loop.run_in_executor(
                    self._executor, self._run, [one.inputs for one in batch]
                )
            except Exception as error:
                self._settle(batch, [error] * len(batch))
            else:
                self._settle(batch, list(outputs))

    async def _next_batch(self) -> list[_Waiting]:
        batch = [await self._queue.get()]
        limit = batch[0].arrived_at + self._most_delay_s
        while len(batch) < self._most_rows:
            if not self._queue.empty():
                batch.append(self._queue.get_nowait())
                continue
            left = limit - self._loop.time()
            if left <= 0:
                break
            try:
                batch.append(await asyncio.wait_for(self._queue.get(), left))
            except TimeoutError:
                break
        return batch

    @staticmethod
    def _settle(batch: list[_Waiting], answers: Sequence[NDArray[np.float32] | Exception]) -> None:
        for one, answer in zip(batch, answers, strict=True):
            if one.answer.done():  # its caller has left
                continue
            if isinstance(answer, Exception):
                one.answer.set_exception(answer)
            else:
                one.answer.set_result(answer)
