"""Servicer of seqserve.v1.TextClassification."""

from collections.abc import Iterable
from typing import Any

from seqserve.v1 import text_classification_pb2 as pb
from seqserve.v1.text_classification_pb2_grpc import TextClassificationServicer
from service.api.answer_limits import check_classes
from service.api.bidi import Write, serve_stream
from service.api.caller import caller_of, current_request_id
from service.api.errors import status_of
from service.api.versions import TaskVersions
from service.engine.request import Caller
from service.errors import ServiceError
from service.models.table import VersionTable
from service.tasks.classification import ClassificationTask, Classified
from service.tasks.limits import check_id


class ClassificationApi(TextClassificationServicer):
    """Serves Classify and ClassifyStream.

    Args:
        table: versions by name and number.
        max_in_flight: maximum of requests of one stream that are read and not yet answered.
    """

    def __init__(self, table: VersionTable, max_in_flight: int) -> None:
        self._versions = TaskVersions(table, "text-classification", ClassificationTask)
        self._max_in_flight = max_in_flight

    async def Classify(self, request: pb.ClassifyRequest, context: Any) -> pb.ClassifyResponse:
        """Classify the texts of one request."""
        check_id(request.id)
        return await self._classify(request, caller_of(context))

    # The generated class declares a generator; this writes the responses itself.
    async def ClassifyStream(self, requests: Any, context: Any) -> None:  # type: ignore[override]
        """Classify the requests of a stream concurrently; responses come in the order of completion."""
        caller = caller_of(context)

        async def answer(request: pb.ClassifyRequest, write: Write[pb.ClassifyResponse]) -> None:
            check_id(request.id)  # an answer would carry it: the call ends
            try:
                response = await self._classify(request, caller)
            except ServiceError as error:
                status = status_of(error, current_request_id.get())
                response = pb.ClassifyResponse(id=request.id, error=status)
            await write(response)

        await serve_stream(requests, context, self._max_in_flight, answer)

    async def _classify(self, request: pb.ClassifyRequest, caller: Caller) -> pb.ClassifyResponse:
        with self._versions.lease(request.model, request.version) as (served, task):
            check_classes(request.texts, request.id, task)
            results = await task.classify(request.texts, caller)
        return _response(request.id, served.spec.version, results)


def _response(name: str, version: int, results: Iterable[Classified]) -> pb.ClassifyResponse:
    # Set field by field: constructors with keyword arguments take several times as long.
    response = pb.ClassifyResponse()
    response.id = name
    response.version = version
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
