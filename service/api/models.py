"""seqserve.v1.Models."""

from typing import Any

from seqserve.v1 import models_pb2 as pb
from seqserve.v1.models_pb2_grpc import ModelsServicer
from service.api.caller import may_administer
from service.errors import PermissionDenied
from service.models.repository import Entry, Repository, Status

_STATUS = {
    Status.LOADING: pb.MODEL_STATUS_LOADING,
    Status.READY: pb.MODEL_STATUS_READY,
    Status.DRAINING: pb.MODEL_STATUS_DRAINING,
    Status.FAILED: pb.MODEL_STATUS_FAILED,
}


class ModelsApi(ModelsServicer):
    """List, Get, Load and Unload.

    Args:
        repository: where models are found.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def List(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        """Every version known."""
        return pb.ListModelsResponse(models=map(_model, self._repository.entries()))

    async def Get(self, request: pb.GetModelRequest, context: Any) -> pb.Model:
        """One version."""
        return _model(self._repository.get(request.model, request.version))

    async def Load(self, request: pb.LoadModelRequest, context: Any) -> pb.Model:
        """Admit and serve a version; answered when it serves."""
        _require_admin()
        return _model(await self._repository.load(request.model, request.version))

    async def Unload(self, request: pb.UnloadModelRequest, context: Any) -> pb.UnloadModelResponse:
        """Let a version take no more requests; answered when those in flight have finished."""
        _require_admin()
        await self._repository.unload(request.model, request.version)
        return pb.UnloadModelResponse()


def _require_admin() -> None:
    if not may_administer.get():
        raise PermissionDenied(
            "Models.Load and Models.Unload need the right admin; this server has no admin tokens (SEQSERVE_TOKENS)"
        )


def _model(entry: Entry) -> pb.Model:
    model = pb.Model(
        name=entry.name, version=entry.version, status=_STATUS[entry.status], message=entry.message
    )
    if (served := entry.served) is not None:
        spec = served.spec
        model.task, model.cell, model.layers, model.hidden = spec.task, spec.cell, spec.layers, spec.hidden
        model.variant, model.provider = served.variant, served.provider
        model.batch_invariant = served.batch_invariant
        model.golden_max_error = served.golden_max_error
        model.metrics.update(spec.metrics)
        model.spec_json = served.spec_text
        tuning = served.tuning
        model.slots, model.chunk_steps, model.chunk_rows = (
            served.engine.slots,
            tuning.chunk,
            tuning.chunk_rows,
        )
        model.steps_per_second = tuning.steps_per_second
    return model
