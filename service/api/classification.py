"""seqserve.v1.TextClassification."""

import asyncio
from collections.abc import Awaitable, Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqserve.v1 import text_classification_pb2 as pb
from seqserve.v1.text_classification_pb2_grpc import TextClassificationServicer
from service.api.caller import caller_of
from service.api.errors import status_of
from service.api.exchange import Exchange
from service.engine.gather import Gather
from service.engine.sequence import Caller, Goal
from service.errors import ServiceError
from service.models.loading import Served
from service.models.repository import Repository
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
        served = _find(self._repository, request)
        with served.uses:
            results = await _task(served).classify(list(request.texts), caller_of(context))
        return _response(request.id, results)

    async def ClassifyStream(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # it writes by itself
        """Classify request after request, answers in order of completion."""
        exchange: Exchange[pb.ClassifyRequest, pb.ClassifyResponse] = Exchange(context, self._in_flight)
        stream = _Stream(self._repository, exchange, caller_of(context))
        try:
            await exchange.run(stream.take)
        finally:
            stream.cancel()


class _Stream:
    """Requests of one ClassifyStream under way.

    Args:
        repository: where models are found.
        exchange: takes the answers.
        caller: whose call it is.
    """

    def __init__(
        self,
        repository: Repository,
        exchange: Exchange[pb.ClassifyRequest, pb.ClassifyResponse],
        caller: Caller,
    ) -> None:
        self._repository = repository
        self._exchange = exchange
        self._caller = caller
        self._running: dict[Gather, Served] = {}

    def take(self, request: pb.ClassifyRequest) -> Awaitable[None] | None:
        """Start a request; what is wrong with it is its own answer."""
        try:
            served = _find(self._repository, request)
            task = _task(served)
            texts = list(request.texts)
            if task.is_long(texts):
                return self._take_long(request.id, served, texts)
            self._start(request.id, served, task.encode(texts))
        except ServiceError as error:
            self._exchange.answer(_refusal(request.id, error))
        return None

    def cancel(self) -> None:
        """The call is over: nobody waits for what still runs."""
        for running, served in self._running.items():
            running.cancel()
            served.uses.end()

    async def _take_long(self, name: str, served: Served, texts: list[str]) -> None:
        try:
            with served.uses:
                self._start(name, served, await asyncio.to_thread(_task(served).encode, texts))
        except ServiceError as error:
            self._exchange.answer(_refusal(name, error))

    def _start(self, name: str, served: Served, inputs: list[NDArray[np.int64]]) -> None:
        task = _task(served)
        running = Gather(task.engine, partial(self._end, name, task, inputs))
        running.submit(inputs, Goal.LAST, self._caller)
        self._running[running] = served
        served.uses.begin()

    def _end(
        self, name: str, task: ClassificationTask, inputs: list[NDArray[np.int64]], ended: Gather
    ) -> None:
        """Answer a request. A tick's results come one after the other, and making their messages there and
        then keeps the code in the caches.
        """
        self._running.pop(ended).uses.end()
        error = ended.error
        try:
            self._exchange.answer(
                _response(name, task.classified(ended.results, inputs))
                if error is None
                else _refusal(name, error)
            )
        except Exception as bug:
            self._exchange.fail(bug)


def _find(repository: Repository, request: pb.ClassifyRequest) -> Served:
    return repository.find(request.model, request.version, "text-classification")


def _task(served: Served) -> ClassificationTask:
    assert isinstance(served.task, ClassificationTask)
    return served.task


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
