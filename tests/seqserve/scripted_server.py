"""A server in this process that records what it is asked and answers by script."""

# ruff: noqa: N802 -- names are those of the generated servicers

import threading
from collections import deque
from collections.abc import Iterator
from concurrent import futures
from itertools import accumulate
from typing import TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from seqserve.v1 import forecasting_pb2 as forecasting
from seqserve.v1 import (
    forecasting_pb2_grpc,
    models_pb2_grpc,
    sequences_pb2_grpc,
    text_classification_pb2_grpc,
    text_generation_pb2_grpc,
)
from seqserve.v1 import models_pb2 as models
from seqserve.v1 import text_classification_pb2 as classification
from seqserve.v1 import text_generation_pb2 as generation
from tests.seqserve.scripted_sequences import ScriptedSequences

Answer = TypeVar("Answer", bound=Message)

WAIT_S = 20
SHIPPED = models.ListModelsResponse(
    models=[
        models.Model(name=name, version=1, status=models.MODEL_STATUS_READY, task=task)
        for name, task in (
            ("charlm", "text-generation"),
            ("sentiment", "text-classification"),
            ("stock", "forecasting"),
        )
    ]
)
GRACE_S = 0.1


class ScriptedServer(
    ScriptedSequences,
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
        metadata: of the newest call.
        failure: what unary calls fail with, streams after their script, and ForecastStream at its next
            request.
        breaks: how the next calls fail, one entry a call: after how many messages, and with what, if at all.
        pieces: the script of Generate; those that add up to the request's `generated` are left out.
        refusal: what Generate answers to `generated`; it then begins at the piece whose number `state` is.
        holds: Generate stops after its first piece, and ForecastStream before each answer, until `resume` is
            set.
        resume: see `holds`.
        asked: set when ForecastStream has had a request.
        answered: set when a unary call has had its answer, or its failure.
        ended: set when a stream has ended, however.
        completed: whether it ran to the end of its script.
    """

    def __init__(self) -> None:
        self.address = ""
        self.secure_address = ""
        self.requests: list[Message] = []
        self.metadata: dict[str, str | bytes] = {}
        self.failure: Status | None = None
        self.breaks: deque[tuple[int, Status | None]] = deque()
        self.pieces: list[generation.GenerateResponse] = []
        self.refusal: Status | None = None
        self.holds = False
        self.resume = threading.Event()
        self.asked = threading.Event()
        self.answered = threading.Event()
        self.ended = threading.Event()
        self.completed = False
        self.scores = generation.ScoreResponse()
        self.models = models.ListModelsResponse()
        self.forecasts = forecasting.ForecastResponse()

    @property
    def calls(self) -> list[Message]:
        """The requests, without those that list the models."""
        return [each for each in self.requests if not isinstance(each, models.ListModelsRequest)]

    def Generate(
        self, request: generation.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[generation.GenerateResponse]:
        self.requests.append(request)
        self._watch(context)
        if request.generated:
            self._fail(context, self.refusal)
        after, status = self.breaks.popleft() if self.breaks else (len(self.pieces), self.failure)
        ends = accumulate(len(piece.text) for piece in self.pieces)
        rest = [
            piece
            for piece, end in zip(self.pieces, ends, strict=True)
            if end > len(request.generated) or piece.finish_reason
        ]
        for index, piece in enumerate(rest[int(request.state or 0) if self.refusal else 0 :]):
            if index == after:
                break
            if index == 1 and self.holds:
                assert self.resume.wait(WAIT_S)
            yield piece
        self._fail(context, status)
        self.completed = context.is_active()

    def Score(
        self, request: generation.ScoreRequest, context: grpc.ServicerContext
    ) -> generation.ScoreResponse:
        return self._answer(request, context, self.scores)

    def Classify(
        self, request: classification.ClassifyRequest, context: grpc.ServicerContext
    ) -> classification.ClassifyResponse:
        return self._answer(
            request, context, classification.ClassifyResponse(results=map(classified, request.texts))
        )

    def ClassifyStream(
        self, request_iterator: Iterator[classification.ClassifyRequest], context: grpc.ServicerContext
    ) -> Iterator[classification.ClassifyResponse]:
        """Answers in pairs, the second first; a text without letters is refused. A break comes with the
        request after so many.
        """
        self._watch(context)
        after, status = self.breaks.popleft() if self.breaks else (0, None)
        held: classification.ClassifyResponse | None = None
        for index, request in enumerate(request_iterator):
            self.requests.append(request)
            self._fail(context, status if index == after else None)
            answer = classification.ClassifyResponse(id=request.id, results=map(classified, request.texts))
            if not all(text.strip() for text in request.texts):
                answer = classification.ClassifyResponse(
                    id=request.id, error=Status(code=3, message="texts[0] has no token")
                )
            if held is None:
                held = answer
            else:
                yield answer
                yield held
                held = None
        if held is not None:
            yield held
        self._fail(context, self.failure)
        self._complete(context)

    def Forecast(
        self, request: forecasting.ForecastRequest, context: grpc.ServicerContext
    ) -> forecasting.ForecastResponse:
        return self._answer(request, context, self.forecasts)

    def ForecastStream(
        self, request_iterator: Iterator[forecasting.ForecastStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[forecasting.ForecastStreamResponse]:
        """Answers with `stock_forecast`, its last value that of the request, and states that list these;
        refuses a request without an observation.
        """
        self._watch(context)
        after, status = self.breaks.popleft() if self.breaks else (0, None)
        states: dict[str, bytes] = {}
        for index, request in enumerate(request_iterator):
            self.requests.append(request)
            self.asked.set()
            self._fail(context, status if index == after else self.failure)
            if self.holds:
                assert self.resume.wait(WAIT_S)
            if request.observations:
                forecast = stock_forecast().forecasts[0]
                forecast.last_value = request.observations[-1].values[-1]
                states[request.id] = (
                    states.get(request.id, request.state) + f"{forecast.last_value:g};".encode()
                )
                state = states[request.id] if request.return_state else b""
                yield forecasting.ForecastStreamResponse(
                    id=request.id, forecast=forecast, state=state, version=4
                )
            else:
                yield forecasting.ForecastStreamResponse(
                    id=request.id, error=Status(code=3, message="observations: found none")
                )
        self._complete(context)

    def List(
        self, request: models.ListModelsRequest, context: grpc.ServicerContext
    ) -> models.ListModelsResponse:
        """Answers with `models`, or with the models that ship if it has none."""
        return self._answer(request, context, self.models if self.models.models else SHIPPED)

    def Get(self, request: models.GetModelRequest, context: grpc.ServicerContext) -> models.Model:
        return self._answer(
            request, context, next(model for model in self.models.models if model.name == request.model)
        )

    def Load(self, request: models.LoadModelRequest, context: grpc.ServicerContext) -> models.Model:
        return self._answer(
            request,
            context,
            models.Model(name=request.model, version=request.version or 9, status=models.MODEL_STATUS_READY),
        )

    def Unload(
        self, request: models.UnloadModelRequest, context: grpc.ServicerContext
    ) -> models.UnloadModelResponse:
        return self._answer(request, context, models.UnloadModelResponse())

    def GetCard(
        self, request: models.GetCardRequest, context: grpc.ServicerContext
    ) -> models.GetCardResponse:
        return self._answer(request, context, models.GetCardResponse())

    def WatchEngine(
        self, request: models.WatchEngineRequest, context: grpc.ServicerContext
    ) -> Iterator[models.WatchEngineResponse]:
        yield self._answer(request, context, models.WatchEngineResponse())

    def _answer(self, request: Message, context: grpc.ServicerContext, answer: Answer) -> Answer:
        self.requests.append(request)
        self._note_metadata(context)
        context.add_callback(self.answered.set)
        self._fail(context, self.breaks.popleft()[1] if self.breaks else self.failure)
        return answer

    def _fail(self, context: grpc.ServicerContext, status: Status | None) -> None:
        if status is not None:
            context.abort_with_status(rpc_status.to_status(status))

    def _complete(self, context: grpc.ServicerContext) -> None:
        """The requests have ended: well, unless the call turns out to be over; to grpc a cancelled one looks
        well for a moment.
        """
        self.completed = not self.ended.wait(GRACE_S) and context.is_active()

    def _note_metadata(self, context: grpc.ServicerContext) -> None:
        self.metadata = dict(context.invocation_metadata())

    def _watch(self, context: grpc.ServicerContext) -> None:
        self._note_metadata(context)
        context.add_callback(self.resume.set)
        context.add_callback(self.ended.set)


def started(servicer: ScriptedServer, address: str = "127.0.0.1:0") -> grpc.Server:
    """A server of `servicer`, listening; its addresses are noted there."""
    running = grpc.server(futures.ThreadPoolExecutor(4))
    text_generation_pb2_grpc.add_TextGenerationServicer_to_server(servicer, running)
    text_classification_pb2_grpc.add_TextClassificationServicer_to_server(servicer, running)
    forecasting_pb2_grpc.add_ForecastingServicer_to_server(servicer, running)
    models_pb2_grpc.add_ModelsServicer_to_server(servicer, running)
    sequences_pb2_grpc.add_SequencesServicer_to_server(servicer, running)
    servicer.address = f"127.0.0.1:{running.add_insecure_port(address)}"
    servicer.secure_address = (
        f"127.0.0.1:{running.add_secure_port('127.0.0.1:0', grpc.local_server_credentials())}"
    )
    running.start()
    return running


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
        generation.GenerateResponse(text="To be", token_count=5, seed=7, version=3, logprobs=[-0.5] * 5),
        generation.GenerateResponse(text=" or", token_count=3, seed=7, version=3, logprobs=[-0.25] * 3),
        generation.GenerateResponse(
            seed=7,
            version=3,
            finish_reason=generation.FINISH_REASON_STOP,
            usage=generation.Usage(prompt_tokens=2, generated_tokens=9),
        ),
    ]


def spelled(text: str) -> list[generation.GenerateResponse]:
    """A text letter by letter from seed 7 and version 3, each with a log-probability of its own, and an empty
    last message with a state.
    """
    letters = [
        generation.GenerateResponse(text=letter, token_count=1, seed=7, version=3, logprobs=[-float(index)])
        for index, letter in enumerate(text)
    ]
    usage = generation.Usage(prompt_tokens=2, generated_tokens=len(text))
    return [
        *letters,
        generation.GenerateResponse(
            seed=7, version=3, finish_reason=generation.FINISH_REASON_LENGTH, usage=usage, state=b"end"
        ),
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
                            forecasting.Quantile(level=level, value=value + offset)
                            for level, offset in ((0.1, -4.0), (0.5, 0.0), (0.9, 4.0))
                        ],
                    )
                    for value in (101.0, 102.0)
                ],
            )
        ]
    )
