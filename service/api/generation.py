"""seqserve.v1.TextGeneration."""

from contextlib import aclosing
from typing import Any, Final

from seqserve.v1 import text_generation_pb2 as pb
from seqserve.v1.text_generation_pb2_grpc import TextGenerationServicer
from service.api.caller import caller_of
from service.errors import Unsupported
from service.repository import Repository, Served
from service.tasks.generation import Finish, GenerationOptions, GenerationTask, TextPiece

TASK: Final = "text-generation"
_FINISH = {None: pb.FINISH_REASON_UNSPECIFIED, Finish.LENGTH: pb.FINISH_REASON_LENGTH, Finish.STOP: pb.FINISH_REASON_STOP}


class GenerationApi(TextGenerationServicer):
    """Generate and Score.

    Args:
        repository: where models are found.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> None:  # type: ignore[override]  # it writes by itself
        """Stream text as it comes."""
        served = self._repository.find(request.model, request.version, TASK)
        if request.state or request.return_state:
            raise Unsupported("sealed states (fields state and return_state) are not served yet")
        options = GenerationOptions(
            prompt=request.prompt,
            max_tokens=request.max_tokens,
            temperature=request.temperature if request.HasField("temperature") else None,
            top_k=request.top_k,
            top_p=request.top_p if request.HasField("top_p") else None,
            seed=request.seed if request.HasField("seed") else None,
            stops=tuple(request.stop),
            wants_logprobs=request.logprobs,
        )
        with served.uses:
            async with aclosing(_task(served).generate(options, caller_of(context))) as pieces:
                async for piece in pieces:
                    await context.write(_response(piece, served.spec.version))

    async def Score(self, request: pb.ScoreRequest, context: Any) -> pb.ScoreResponse:
        """Log-probabilities of texts."""
        served = self._repository.find(request.model, request.version, TASK)
        with served.uses:
            scores = await _task(served).score(request.texts, caller_of(context))
        return pb.ScoreResponse(
            scores=[pb.TextScore(token_logprobs=one.token_logprobs, total_logprob=one.total, perplexity=one.perplexity) for one in scores]
        )


def _task(served: Served) -> GenerationTask:
    assert isinstance(served.task, GenerationTask)
    return served.task


def _response(piece: TextPiece, version: int) -> pb.GenerateResponse:
    response = pb.GenerateResponse(text=piece.text, token_count=len(piece.text), logprobs=piece.logprobs, seed=piece.seed, version=version)
    if piece.finish is not None:
        response.finish_reason = _FINISH[piece.finish]
        response.usage.prompt_tokens = piece.prompt_tokens
        response.usage.generated_tokens = piece.generated_tokens
    return response
