"""seqserve.v1.TextClassification."""

import asyncio
from collections.abc import Awaitable, Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqserve.v1 import text_classification_pb2 as pb
from seqserve.v1.text_classification_pb2_grpc import TextClassificationServicer
from service.api.deadline import deadline_of
from service.api.errors import status_of
from service.api.exchange import Exchange
from service.engine.gather import Gather
from service.engine.sequence import Goal
from service.errors import ServiceError
from service.repository import Repository
from service.tasks.classification import ClassificationTask, Classified


class ClassificationApi(TextClassificationServicer):
    """Classify and ClassifyStream.

    Args:
        repository: where models are found.
        in_flight: requests of one stream read and not yet answered; more wait in the caller's flow control.
    """

    def __init__(self, repository: Repository, in_flight: int) -> None:
        self._repository = repository
        self._in_flight = in_flight

    async def Classify(self, request: pb.ClassifyRequest, context: Any) -> pb.ClassifyResponse:
        """Classify a few texts."""
        results = await _task(self._repository, request).classify(list(request.texts), deadline_of(context))
        return _response(request.id, results)

    async def ClassifyStream(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # it writes by itself
        """Classify request after request, answers in order of completion."""
        exchange: Exchange[pb.ClassifyRequest, pb.ClassifyResponse] = Exchange(context, self._in_flight)
        stream = _Stream(self._repository, exchange, deadline_of(context))
        try:
            await exchange.run(stream.take)
        finally:
            stream.cancel()


class _Stream:
    """Requests of one ClassifyStream under way.

    Args:
        repository: where models are found.
        exchange: takes the answers.
        deadline: of the call, monotonic seconds, or None.
    """

    def __init__(self, repository: Repository, exchange: Exchange[pb.ClassifyRequest, pb.ClassifyResponse], deadline: float | None) -> None:
        self._repository = repository
        self._exchange = exchange
        self._deadline = deadline
        self._running: set[Gather] = set()

    def take(self, request: pb.ClassifyRequest) -> Awaitable[None] | None:
        """Start a request; what is wrong with it is its own answer."""
        try:
            task = _task(self._repository, request)
            texts = list(request.texts)
            if task.is_long(texts):
                return self._take_long(request.id, task, texts)
            self._start(request.id, task, task.encode(texts))
        except ServiceError as error:
            self._exchange.answer(_refusal(request.id, error))
        return None

    def cancel(self) -> None:
        """The call is over: nobody waits for what still runs."""
        for running in self._running:
            running.cancel()

    async def _take_long(self, name: str, task: ClassificationTask, texts: list[str]) -> None:
        try:
            self._start(name, task, await asyncio.to_thread(task.encode, texts))
        except ServiceError as error:
            self._exchange.answer(_refusal(name, error))

    def _start(self, name: str, task: ClassificationTask, inputs: list[NDArray[np.int64]]) -> None:
        running = Gather(task.engine, partial(self._end, name, task, inputs))
        running.submit(inputs, Goal.LAST, self._deadline)
        self._running.add(running)

    def _end(self, name: str, task: ClassificationTask, inputs: list[NDArray[np.int64]], ended: Gather) -> None:
        """Answer a request. A tick's results come one after the other, and making their messages there and then keeps the code in the caches."""
        self._running.discard(ended)
        error = ended.error
        try:
            self._exchange.answer(_response(name, task.classified(ended.results, inputs)) if error is None else _refusal(name, error))
        except Exception as bug:
            self._exchange.fail(bug)


def _task(repository: Repository, request: pb.ClassifyRequest) -> ClassificationTask:
    task = repository.find(request.model, request.version, "text-classification").task
    assert isinstance(task, ClassificationTask)
    return task


def _refusal(name: str, error: BaseException) -> pb.ClassifyResponse:
    """The answer to a request that has failed; an error that nobody foresaw is raised."""
    if not isinstance(error, ServiceError):
        raise error
    return pb.ClassifyResponse(id=name, error=status_of(error))


def _response(name: str, results: Iterable[Classified]) -> pb.ClassifyResponse:
    # Set field by field: constructors with keyword arguments take several times as long.
    response = pb.ClassifyResponse()
    response.id = name
    for classified in results:
        result = response.results.add()
        result.label, result.probability = classified.ranked[0]
        result.token_count = classified.token_count
        add = result.probabilities.add
        for label, probability in classified.ranked:
            one = add()
            one.label = label
            one.probability = probability
    return response
