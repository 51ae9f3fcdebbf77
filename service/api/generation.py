"""seqserve.v1.TextGeneration."""

from contextlib import aclosing
from typing import Any, Final

from seqserve.v1 import text_generation_pb2 as pb
from seqserve.v1.text_generation_pb2_grpc import TextGenerationServicer
from service.api.caller import caller_of
from service.models.loading import Served
from service.models.repository import Repository
from service.security.state_tokens import Keys, bound_to, open_text, seal_text
from service.tasks.generation import Finish, GenerationOptions, GenerationTask, TextPiece

TASK: Final = "text-generation"
_FINISH = {
    None: pb.FINISH_REASON_UNSPECIFIED,
    Finish.LENGTH: pb.FINISH_REASON_LENGTH,
    Finish.STOP: pb.FINISH_REASON_STOP,
}


class GenerationApi(TextGenerationServicer):
    """Generate and Score.

    Args:
        repository: where models are found.
        keys: seal states and open them.
    """

    def __init__(self, repository: Repository, keys: Keys) -> None:
        self._repository = repository
        self._keys = keys

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> None:  # type: ignore[override]  # it writes by itself
        """Stream text as it comes."""
        served = self._repository.find(request.model, request.version, TASK)
        bound = bound_to(served.spec, served.spec_text, served.variant)
        options = GenerationOptions(
            prompt=request.prompt,
            max_tokens=request.max_tokens,
            temperature=request.temperature if request.HasField("temperature") else None,
            top_k=request.top_k,
            top_p=request.top_p if request.HasField("top_p") else None,
            seed=request.seed if request.HasField("seed") else None,
            stops=tuple(request.stop),
            wants_logprobs=request.logprobs,
            state=open_text(self._keys, bound, request.state) if request.state else None,
            wants_state=request.return_state,
            generated=request.generated,
        )
        with served.uses:
            async with aclosing(_task(served).generate(options, caller_of(context))) as pieces:
                async for piece in pieces:
                    response = _response(piece, served.spec.version)
                    if piece.state is not None:
                        response.state = seal_text(self._keys, bound, piece.state)
                    await context.write(response)

    async def Score(self, request: pb.ScoreRequest, context: Any) -> pb.ScoreResponse:
        """Log-probabilities of texts."""
        served = self._repository.find(request.model, request.version, TASK)
        with served.uses:
            scores = await _task(served).score(request.texts, caller_of(context))
        return pb.ScoreResponse(
            scores=[
                pb.TextScore(
                    token_logprobs=one.token_logprobs, total_logprob=one.total, perplexity=one.perplexity
                )
                for one in scores
            ]
        )


def _task(served: Served) -> GenerationTask:
    assert isinstance(served.task, GenerationTask)
    return served.task


def _response(piece: TextPiece, version: int) -> pb.GenerateResponse:
    response = pb.GenerateResponse(
        text=piece.text,
        token_count=len(piece.text),
        logprobs=piece.logprobs,
        seed=piece.seed,
        version=version,
    )
    if piece.finish is not None:
        response.finish_reason = _FINISH[piece.finish]
        response.usage.prompt_tokens = piece.prompt_tokens
        response.usage.generated_tokens = piece.generated_tokens
    return response
