"""Servicer of seqserve.v1.TextGeneration."""

from contextlib import aclosing
from functools import cache
from typing import Any

from seqserve.v1 import text_generation_pb2 as pb
from seqserve.v1.text_generation_pb2_grpc import TextGenerationServicer
from service.api.answer_limits import check_last_piece, check_scores, size_of_alternatives
from service.api.caller import caller_of
from service.api.packed import packed
from service.api.sequence_messages import initial_of, read_one
from service.api.versions import TaskVersions
from service.models.table import VersionTable
from service.security.state_tokens import Keys, StateBinding, binding_of, open_text, seal_text
from service.tasks.generation import GenerationOptions, GenerationTask, TextScore
from service.tasks.initial import Start
from service.tasks.limits import check_count
from service.tasks.pacing import Pace
from service.tasks.pieces import Finish, TextPiece

_LOGPROBS = pb.TextScore.DESCRIPTOR.fields_by_name["token_logprobs"].number
# Of each position, so that an answer is not many times its request.
MAX_ALTERNATIVES = 20
_FINISH = {
    None: pb.FINISH_REASON_UNSPECIFIED,
    Finish.LENGTH: pb.FINISH_REASON_LENGTH,
    Finish.STOP: pb.FINISH_REASON_STOP,
    Finish.END_TOKEN: pb.FINISH_REASON_END_TOKEN,
}


class GenerationApi(TextGenerationServicer):
    """Serves Generate and Score.

    Args:
        table: versions by name and number.
        keys: seal and open states.
    """

    def __init__(self, table: VersionTable, keys: Keys) -> None:
        self._versions = TaskVersions(table, "text-generation", GenerationTask)
        self._keys = keys

    # The generated class declares a generator; this writes the responses itself.
    async def Generate(self, request: pb.GenerateRequest, context: Any) -> None:  # type: ignore[override]
        """Stream text as it is generated."""
        with self._versions.lease(request.model, request.version) as (served, task):
            check_count("stop", "stop strings", len(request.stop), task.limits.stop_strings, minimum=0)
            binding = binding_of(served.spec, served.spec_text, served.variant)
            if request.return_state:
                check_last_piece(binding.size, task.limits)
            options = await self._options_of(request, binding, task)
            async with aclosing(task.generate(options, caller_of(context))) as pieces:
                async for piece in pieces:
                    response = _response(piece, served.spec.version)
                    if piece.state is not None:
                        response.state = seal_text(self._keys, binding, piece.state)
                    await context.write(response)

    async def Score(self, request: pb.ScoreRequest, context: Any) -> pb.ScoreResponse:
        """Return the log-probabilities of texts."""
        with self._versions.lease(request.model, request.version) as (served, task):
            caller, wanted = caller_of(context), request.alternatives
            check_count("alternatives", "tokens", wanted, MAX_ALTERNATIVES, minimum=0)
            encoded = await task.encode_texts(request.texts, caller)
            each = size_of_alternatives(wanted, task.max_token_bytes)
            check_scores([len(tokens) for tokens in encoded], task.limits, each)
            scores = await task.score(encoded, caller, wanted)
        response, pace = pb.ScoreResponse(version=served.spec.version), Pace()
        for one in scores:
            score = response.scores.add()
            score.MergeFromString(packed(_LOGPROBS, one.token_logprobs))
            score.total_logprob = one.total
            score.perplexity = one.perplexity
            if one.alternatives is not None:
                await _add_alternatives(score, one, task, pace)
            await pace.rest()
        return response

    async def _options_of(
        self, request: pb.GenerateRequest, binding: StateBinding, task: GenerationTask
    ) -> GenerationOptions:
        has_source = request.HasField("source")
        source = await read_one(request.source, task.source, "source", Pace()) if has_source else None
        return GenerationOptions(
            prompt=request.prompt,
            max_tokens=request.max_tokens,
            temperature=request.temperature if request.HasField("temperature") else None,
            top_k=request.top_k,
            top_p=request.top_p if request.HasField("top_p") else None,
            seed=request.seed if request.HasField("seed") else None,
            stops=tuple(request.stop),
            wants_logprobs=request.logprobs,
            state=open_text(self._keys, binding, request.state) if request.state else None,
            wants_state=request.return_state,
            generated=request.generated,
            start=Start(initial_of(request.initial, "initial") if request.initial else {}, source),
        )


async def _add_alternatives(score: pb.TextScore, one: TextScore, task: GenerationTask, pace: Pace) -> None:
    """Add the most likely tokens at each place of a text."""
    assert one.alternatives is not None
    assert one.alternative_logprobs is not None
    text_of = cache(task.text_of)
    for ids, logprobs in zip(one.alternatives.tolist(), one.alternative_logprobs.tolist(), strict=True):
        score.alternatives.add(
            tokens=[
                pb.TokenAlternative(text=text_of(token), logprob=logprob)
                for token, logprob in zip(ids, logprobs, strict=True)
            ]
        )
        await pace.rest()


def _response(piece: TextPiece, version: int) -> pb.GenerateResponse:
    response = pb.GenerateResponse(
        text=piece.text,
        token_count=len(piece.ends),
        logprobs=piece.logprobs,
        seed=piece.seed,
        version=version,
    )
    if piece.finish is not None:
        response.finish_reason = _FINISH[piece.finish]
        response.usage.prompt_tokens = piece.prompt_tokens
        response.usage.generated_tokens = piece.generated_tokens
    return response
