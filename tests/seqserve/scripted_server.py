"""A server in this process that records what it is asked and answers by script."""

# ruff: noqa: N802 -- names are those of the generated servicers

import threading
from collections.abc import Iterator
from typing import TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from seqserve.v1 import forecasting_pb2 as forecasting
from seqserve.v1 import forecasting_pb2_grpc, models_pb2_grpc, text_classification_pb2_grpc, text_generation_pb2_grpc
from seqserve.v1 import models_pb2 as models
from seqserve.v1 import text_classification_pb2 as classification
from seqserve.v1 import text_generation_pb2 as generation

Answer = TypeVar("Answer", bound=Message)

WAIT_S = 20
GRACE_S = 0.1


class ScriptedServer(
    text_generation_pb2_grpc.TextGenerationServicer,
    text_classification_pb2_grpc.TextClassificationServicer,
    forecasting_pb2_grpc.ForecastingServicer,
    models_pb2_grpc.ModelsServicer,
):
    """Answers by script.

    Attributes:
        address: to connect to.
        secure_address: the same with credentials.
        requests: every request message, in order of arrival.
        failure: what unary calls fail with, streams after their script, and ForecastStream at its next request.
        pieces: the script of Generate.
        holds: Generate stops after its first piece, and ForecastStream before each answer, until `resume` is set.
        resume: see `holds`.
        asked: set when ForecastStream has had a request.
        ended: set when a stream has ended, however.
        completed: whether it ran to the end of its script.
    """

    def __init__(self) -> None:
        self.address = ""
        self.secure_address = ""
        self.requests: list[Message] = []
        self.failure: Status | None = None
        self.pieces: list[generation.GenerateResponse] = []
        self.holds = False
        self.resume = threading.Event()
        self.asked = threading.Event()
        self.ended = threading.Event()
        self.completed = False
        self.scores = generation.ScoreResponse()
        self.models = models.ListModelsResponse()
        self.forecasts = forecasting.ForecastResponse()

    def Generate(self, request: generation.GenerateRequest, context: grpc.ServicerContext) -> Iterator[generation.GenerateResponse]:
        self.requests.append(request)
        self._watch(context)
        for index, piece in enumerate(self.pieces):
            if index == 1 and self.holds:
                assert self.resume.wait(WAIT_S)
            yield piece
        self._fail(context)
        self.completed = context.is_active()

    def Score(self, request: generation.ScoreRequest, context: grpc.ServicerContext) -> generation.ScoreResponse:
        return self._answer(request, context, self.scores)

    def Classify(self, request: classification.ClassifyRequest, context: grpc.ServicerContext) -> classification.ClassifyResponse:
        return self._answer(request, context, classification.ClassifyResponse(results=map(classified, request.texts)))

    def ClassifyStream(
        self, request_iterator: Iterator[classification.ClassifyRequest], context: grpc.ServicerContext
    ) -> Iterator[classification.ClassifyResponse]:
        """Answers in pairs, the second first; a text without letters is refused."""
        self._watch(context)
        held: classification.ClassifyResponse | None = None
        for request in request_iterator:
            self.requests.append(request)
            answer = classification.ClassifyResponse(id=request.id, results=map(classified, request.texts))
            if not all(text.strip() for text in request.texts):
                answer = classification.ClassifyResponse(id=request.id, error=Status(code=3, message="texts[0] has no token"))
            if held is None:
                held = answer
            else:
                yield answer
                yield held
                held = None
        if held is not None:
            yield held
        self._fail(context)
        self._complete(context)

    def Forecast(self, request: forecasting.ForecastRequest, context: grpc.ServicerContext) -> forecasting.ForecastResponse:
        return self._answer(request, context, self.forecasts)

    def ForecastStream(
        self, request_iterator: Iterator[forecasting.ForecastStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[forecasting.ForecastStreamResponse]:
        """Answers with `stock_forecast`, its last value that of the request; refuses a request without an observation."""
        self._watch(context)
        for request in request_iterator:
            self.requests.append(request)
            self.asked.set()
            self._fail(context)
            if self.holds:
                assert self.resume.wait(WAIT_S)
            if request.observations:
                forecast = stock_forecast().forecasts[0]
                forecast.last_value = request.observations[-1].values[-1]
                yield forecasting.ForecastStreamResponse(id=request.id, forecast=forecast)
            else:
                yield forecasting.ForecastStreamResponse(id=request.id, error=Status(code=3, message="observations: found none"))
        self._complete(context)

    def List(self, request: models.ListModelsRequest, context: grpc.ServicerContext) -> models.ListModelsResponse:
        return self._answer(request, context, self.models)

    def Get(self, request: models.GetModelRequest, context: grpc.ServicerContext) -> models.Model:
        return self._answer(request, context, next(model for model in self.models.models if model.name == request.model))

    def Load(self, request: models.LoadModelRequest, context: grpc.ServicerContext) -> models.Model:
        raise NotImplementedError

    def Unload(self, request: models.UnloadModelRequest, context: grpc.ServicerContext) -> models.UnloadModelResponse:
        raise NotImplementedError

    def _answer(self, request: Message, context: grpc.ServicerContext, answer: Answer) -> Answer:
        self.requests.append(request)
        self._fail(context)
        return answer

    def _fail(self, context: grpc.ServicerContext) -> None:
        if self.failure is not None:
            context.abort_with_status(rpc_status.to_status(self.failure))

    def _complete(self, context: grpc.ServicerContext) -> None:
        """The requests have ended: well, unless the call turns out to be over; to grpc a cancelled one looks well for a moment."""
        self.completed = not self.ended.wait(GRACE_S) and context.is_active()

    def _watch(self, context: grpc.ServicerContext) -> None:
        context.add_callback(self.resume.set)
        context.add_callback(self.ended.set)


def classified(text: str) -> classification.Classification:
    """Positive with 0.75, whatever the text."""
    return classification.Classification(
        label="positive",
        probability=0.75,
        probabilities=[
            classification.LabelProbability(label="positive", probability=0.75),
            classification.LabelProbability(label="negative", probability=0.25),
        ],
        token_count=len(text.split()),
    )


def text_pieces() -> list[generation.GenerateResponse]:
    """A text in three messages, the last one empty."""
    return [
        generation.GenerateResponse(text="To be", token_count=5, seed=7, logprobs=[-0.5] * 5),
        generation.GenerateResponse(text=" or", token_count=3, seed=7, logprobs=[-0.25] * 3),
        generation.GenerateResponse(seed=7, finish_reason=generation.FINISH_REASON_STOP, usage=generation.Usage(prompt_tokens=2, generated_tokens=9)),
    ]


def stock_forecast() -> forecasting.ForecastResponse:
    """Two steps ahead of 100, with quantiles 0.1, 0.5 and 0.9."""
    return forecasting.ForecastResponse(
        forecasts=[
            forecasting.Forecast(
                last_value=100.0,
                steps=[
                    forecasting.ForecastStep(
                        value=value,
                        quantiles=[
                            forecasting.Quantile(level=level, value=value + offset) for level, offset in ((0.1, -4.0), (0.5, 0.0), (0.9, 4.0))
                        ],
                    )
                    for value in (101.0, 102.0)
                ],
            )
        ]
    )
