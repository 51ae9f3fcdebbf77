"""Servicer of seqserve.v1.Models."""

from typing import Any

from seqserve.v1 import models_pb2 as pb
from seqserve.v1.models_pb2_grpc import ModelsServicer
from service.api.caller import may_administer
from service.errors import PermissionDenied
from service.models.repository import Repository
from service.models.table import Entry, Status

_STATUS = {
    Status.LOADING: pb.MODEL_STATUS_LOADING,
    Status.READY: pb.MODEL_STATUS_READY,
    Status.DRAINING: pb.MODEL_STATUS_DRAINING,
    Status.FAILED: pb.MODEL_STATUS_FAILED,
}


class ModelsApi(ModelsServicer):
    """Serves List, Get, Load and Unload.

    Args:
        repository: loads and unloads versions.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def List(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        """Return every known version."""
        return pb.ListModelsResponse(models=map(_model, self._repository.table.entries()))

    async def Get(self, request: pb.GetModelRequest, context: Any) -> pb.Model:
        """Return one version."""
        return _model(self._repository.table.get(request.model, request.version))

    async def Load(self, request: pb.LoadModelRequest, context: Any) -> pb.Model:
        """Load a version and return it once it serves."""
        _require_admin()
        return _model(await self._repository.load(request.model, request.version))

    async def Unload(self, request: pb.UnloadModelRequest, context: Any) -> pb.UnloadModelResponse:
        """Take no more requests for a version, and return once those in flight have finished."""
        _require_admin()
        await self._repository.unload(request.model, request.version)
        return pb.UnloadModelResponse()


def _require_admin() -> None:
    if not may_administer.get():
        raise PermissionDenied(
            "Models.Load and Models.Unload need the right admin; "
            "this server has no admin tokens (SEQSERVE_TOKENS)"
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
        model.slots, model.chunk_steps = served.engine.slots, tuning.chunk
        model.chunk_rows = tuning.chunk_rows
        model.steps_per_second = tuning.steps_per_second
        model.driver = served.drivers[0].kind
    return model
