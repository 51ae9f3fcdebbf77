"""Servicer of seqserve.v1.Models."""

from collections.abc import AsyncIterator
from typing import Any, Literal

from seqserve.v1 import models_pb2 as pb
from seqserve.v1.models_pb2_grpc import ModelsServicer
from service.api.answer_limits import check_answer, fitted
from service.api.caller import may_administer
from service.api.engine_watches import EngineWatches
from service.api.model_info import describe
from service.errors import PermissionDenied
from service.models.cards import MAX_PICTURES, Cards
from service.models.repository import Repository
from service.models.table import Entry, Status
from service.tasks.limits import MAX_ANSWER_BYTES

_STATUS = {
    Status.LOADING: pb.MODEL_STATUS_LOADING,
    Status.READY: pb.MODEL_STATUS_READY,
    Status.DRAINING: pb.MODEL_STATUS_DRAINING,
    Status.FAILED: pb.MODEL_STATUS_FAILED,
}
# Characters of a message in a list that would be too large with whole ones.
_MAX_LISTED_MESSAGE = 200
# Fields of a model whose size is the network's.
_LISTS: tuple[Literal["labels", "features", "layer_info"], ...] = ("labels", "features", "layer_info")
# Bytes of an answer beside a card's text and pictures: names, tags and lengths.
_CARD_HEADERS = MAX_PICTURES * 128 + 64
_WITHOUT_SPEC = "leave it out, and ask Get for the model.json of one version"
_LARGER = "raise the limits of server and client"
_ONE_BY_ONE = "ask Get for one version, or raise the limits of server and client"


class ModelsApi(ModelsServicer):
    """Serves List, Get, GetCard, Load, Unload and WatchEngine.

    Args:
        repository: loads and unloads versions.
        cards: reads model cards.
        max_answer_bytes: largest answer.
        watches: serves watches of engines; None: ones of its own.
    """

    def __init__(
        self,
        repository: Repository,
        cards: Cards,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        watches: EngineWatches | None = None,
    ) -> None:
        self._repository = repository
        self._cards = cards
        self._max_answer_bytes = max_answer_bytes
        self._watches = watches or EngineWatches(repository.table)

    async def List(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        """Return every known version, with less of each where whole ones are too large an answer."""
        entries, limit = self._repository.table.entries(), self._max_answer_bytes
        if request.include_spec:
            specs = sum(len(entry.served.spec_text) for entry in entries if entry.served is not None)
            check_answer("include_spec", specs, limit, _WITHOUT_SPEC)
        models = (_model(entry, request.include_spec) for entry in entries)
        response = pb.ListModelsResponse(models=models)
        if not fitted(response, limit, _drop_lists, _cut_messages, _drop_metrics):
            field, advice = (
                ("include_spec", _WITHOUT_SPEC) if request.include_spec else ("request", _ONE_BY_ONE)
            )
            check_answer(field, response.ByteSize(), limit, advice)
        return response

    async def Get(self, request: pb.GetModelRequest, context: Any) -> pb.Model:
        """Return one version; what stands in its model.json, too, is left out of too large an answer."""
        model = _model(self._repository.table.get(request.model, request.version))
        fitted(model, self._max_answer_bytes, _drop_model_lists)
        return model

    async def GetCard(self, request: pb.GetCardRequest, context: Any) -> pb.GetCardResponse:
        """Return a version's card, and the pictures that fit into the answer beside it."""
        entry = self._repository.table.get(request.model, request.version)
        limit = self._max_answer_bytes
        card = await self._cards.read(entry.name, entry.version, limit - _CARD_HEADERS)
        check_answer("model", len(card.markdown.encode()) + _CARD_HEADERS, limit, _LARGER)
        pictures = [pb.CardPicture(name=name, png=data) for name, data in card.pictures.items()]
        return pb.GetCardResponse(markdown=card.markdown, pictures=pictures, version=entry.version)

    async def Load(self, request: pb.LoadModelRequest, context: Any) -> pb.Model:
        """Load a version and return it once it serves."""
        _require_admin()
        loading = self._repository.load(
            request.model, request.version, allow_interface_change=request.allow_interface_change
        )
        model = _model(await loading)
        # It is loaded, whatever its texts: the answer has to arrive.
        fitted(model, self._max_answer_bytes, _drop_spec, _drop_model_lists, _drop_model_metrics)
        return model

    async def Unload(self, request: pb.UnloadModelRequest, context: Any) -> pb.UnloadModelResponse:
        """Take no more requests for a version, and return once those in flight have finished."""
        _require_admin()
        await self._repository.unload(request.model, request.version)
        return pb.UnloadModelResponse()

    def WatchEngine(
        self, request: pb.WatchEngineRequest, context: Any
    ) -> AsyncIterator[pb.WatchEngineResponse]:
        """Yield what the engines of a version run, until it ceases to serve."""
        return self._watches.watch(request, context)


def _require_admin() -> None:
    if not may_administer.get():
        raise PermissionDenied(
            "Models.Load and Models.Unload need the right admin; "
            "this server has no admin tokens (SEQSERVE_TOKENS)"
        )


def _drop_lists(response: pb.ListModelsResponse) -> None:
    for model in response.models:
        _drop_model_lists(model)


def _drop_model_lists(model: pb.Model) -> None:
    for field in _LISTS:
        model.ClearField(field)


def _cut_messages(response: pb.ListModelsResponse) -> None:
    for model in response.models:
        if len(model.message) > _MAX_LISTED_MESSAGE:
            model.message = model.message[: _MAX_LISTED_MESSAGE - 3] + "..."


def _drop_metrics(response: pb.ListModelsResponse) -> None:
    for model in response.models:
        _drop_model_metrics(model)


def _drop_model_metrics(model: pb.Model) -> None:
    model.metrics.clear()


def _drop_spec(model: pb.Model) -> None:
    model.spec_json = ""


def _model(entry: Entry, with_spec: bool = True) -> pb.Model:
    model = pb.Model(
        name=entry.name, version=entry.version, status=_STATUS[entry.status], message=entry.message
    )
    if (served := entry.served) is not None:
        describe(served.spec, model)
        model.variant, model.provider = served.variant, served.provider
        model.batch_invariant = served.batch_invariant
        model.golden_max_error = served.golden_max_error
        if with_spec:
            model.spec_json = served.spec_text
        tuning = served.tuning
        model.slots, model.chunk_steps = served.engine.slots, tuning.chunk
        model.chunk_rows = tuning.chunk_rows
        model.steps_per_second = tuning.steps_per_second
        model.driver = served.drivers[0].kind
    return model
