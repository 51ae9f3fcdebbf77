"""seqserve.v1.TextClassification."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from seqserve.v1 import text_classification_pb2 as pb
from seqserve.v1.text_classification_pb2_grpc import TextClassificationServicer
from service.api.deadline import deadline_of
from service.api.errors import status_of
from service.errors import ServiceError
from service.repository import Repository
from service.tasks.classification import ClassificationTask, Classified


class ClassificationApi(TextClassificationServicer):
    """Classify and ClassifyStream.

    Args:
        repository: where models are found.
        in_flight: requests of one stream computed side by side; more wait in the caller's flow control.
    """

    def __init__(self, repository: Repository, in_flight: int) -> None:
        self._repository = repository
        self._in_flight = in_flight

    async def Classify(self, request: pb.ClassifyRequest, context: Any) -> pb.ClassifyResponse:
        """Classify a few texts."""
        return await self._answer(request, deadline_of(context))

    async def ClassifyStream(self, request_iterator: AsyncIterator[pb.ClassifyRequest], context: Any) -> AsyncIterator[pb.ClassifyResponse]:
        """Classify request after request, answers in order of completion."""
        deadline = deadline_of(context)
        answers: asyncio.Queue[pb.ClassifyResponse | None] = asyncio.Queue()
        places = asyncio.Semaphore(self._in_flight)

        async def answer(request: pb.ClassifyRequest) -> None:
            try:
                response = await self._answer(request, deadline)
            except ServiceError as error:
                response = pb.ClassifyResponse(id=request.id, error=status_of(error))
            answers.put_nowait(response)

        async def read() -> None:
            async with asyncio.TaskGroup() as group:
                async for request in request_iterator:
                    await places.acquire()
                    group.create_task(answer(request))
            answers.put_nowait(None)

        async with asyncio.TaskGroup() as group:
            reader = group.create_task(read())
            try:
                while (response := await answers.get()) is not None:
                    yield response
                    # Only a written answer makes place, so that a caller who does not read stops being read from.
                    places.release()
            finally:
                reader.cancel()

    async def _answer(self, request: pb.ClassifyRequest, deadline: float | None) -> pb.ClassifyResponse:
        task = self._repository.find(request.model, request.version, "text-classification").task
        assert isinstance(task, ClassificationTask)
        results = await task.classify(request.texts, deadline)
        return pb.ClassifyResponse(results=map(_result, results), id=request.id)


def _result(classified: Classified) -> pb.Classification:
    ranked = [pb.LabelProbability(label=label, probability=probability) for label, probability in classified.ranked]
    return pb.Classification(label=ranked[0].label, probability=ranked[0].probability, probabilities=ranked, token_count=classified.token_count)
