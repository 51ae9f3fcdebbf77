"""Assembly and life cycle of the server: listen, load, serve, drain on SIGTERM.

Health and metrics answer from the start; a name becomes SERVING once its model is loaded and warmed up.
"""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2_grpc
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from seqserve.inference import grpc_service_pb2, grpc_service_pb2_grpc
from seqserve.v1 import (
    forecasting_pb2,
    forecasting_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    sequences_pb2,
    sequences_pb2_grpc,
    text_classification_pb2,
    text_classification_pb2_grpc,
    text_generation_pb2,
    text_generation_pb2_grpc,
)
from service import addresses, parts
from service.api.calls import Calls
from service.api.classification import ClassificationApi
from service.api.connections import Guard
from service.api.engine_watches import METHOD as WATCH_ENGINE_METHOD
from service.api.engine_watches import EngineWatches
from service.api.forecasting import ForecastingApi
from service.api.generation import GenerationApi
from service.api.health import NOT_SERVING, SERVING, WATCH_METHOD, HealthServicer
from service.api.listener import Listener
from service.api.models import ModelsApi
from service.api.open_inference.sequence_steps import SequenceSteps
from service.api.open_inference.sequence_store import SequenceStore
from service.api.open_inference.service import OpenInferenceApi
from service.api.reflection import add_reflection
from service.api.sequences import SequencesApi
from service.contract import spec
from service.drain import Drain, Stop
from service.http_door import HttpDoor
from service.memory import memory_limit, resident_bytes
from service.models.cards import Cards
from service.models.loading import Served
from service.models.memory import return_freed
from service.models.repository import Repository
from service.models.threads import run_in_thread
from service.models.trial import Trial
from service.models.watcher import FolderScanner, Watcher
from service.observability.metrics import Metrics
from service.parts import StartError
from service.settings import Settings
from service.signals import StopSignals

_log = structlog.get_logger(__name__)

SEQUENCES_SERVICE = sequences_pb2.DESCRIPTOR.services_by_name["Sequences"].full_name
# Each task's own service; those of models that answer for sequences as well are in `services_of`.
SERVICE_OF: dict[spec.Task, str] = {
    "text-generation": text_generation_pb2.DESCRIPTOR.services_by_name["TextGeneration"].full_name,
    "text-classification": text_classification_pb2.DESCRIPTOR.services_by_name[
        "TextClassification"
    ].full_name,
    "forecasting": forecasting_pb2.DESCRIPTOR.services_by_name["Forecasting"].full_name,
    "sequences": SEQUENCES_SERVICE,
}
# Interval of the periodic update of health, for the listener's state. Changes of models and failures of
# engines update health at once.
HEALTH_INTERVAL_S = 1.0
# Liveness fails when the event loop has been held for so long.
MAX_HELD_S = 30.0
# Pause before background work begins again that an error has ended.
AGAIN_S = 1.0

MODELS_SERVICE = models_pb2.DESCRIPTOR.services_by_name["Models"].full_name
OPEN_INFERENCE_SERVICE = grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
# Services that belong to no single task.
COMMON_SERVICES = (MODELS_SERVICE, OPEN_INFERENCE_SERVICE)


class Server:
    """Whole service in one event loop.

    Args:
        settings: addresses, limits, folders.
        trial: tries versions; None: one of its own.

    Raises:
        StartError: the HTTP address cannot be bound, or a file of the settings is wrong.
    """

    def __init__(self, settings: Settings, trial: Trial | None = None) -> None:
        self._settings = settings
        self._has_loaded = False
        self._beat: float | None = None  # when the event loop has last shown that it runs; None: not followed
        self._stop = Stop()
        self._background: list[asyncio.Task[None]] = []
        self._model_names: set[str] = set()
        registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self._metrics = Metrics(registry)
        self._loop = asyncio.get_running_loop()
        self._repository = self._make_repository(trial)
        self._health = HealthServicer()
        self._tracing = parts.tracing(settings)
        self._calls = self._make_calls()
        self._sequences = self._make_sequences()
        self._engine_watches = EngineWatches(self._repository.table, settings.watch_engine)
        self._add_services()
        self._listener = Listener(
            settings.grpc_address,
            parts.credentials(settings),
            parts.channel_options(settings),
            self._calls.register,
            self._metrics.listener_restarts,
        )
        self._http = HttpDoor(
            settings, registry, self._is_alive, self._is_ready, self._calls, self._open_inference
        )

    def _make_repository(self, trial: Trial | None) -> Repository:
        with parts.repository_errors(self._settings):
            return Repository(self._settings, self._metrics, self._loop, trial)

    def _make_calls(self) -> Calls:
        settings, memory = self._settings, memory_limit()
        limits = parts.call_limits(settings, memory)
        calls = Calls(
            self._metrics,
            {WATCH_METHOD, WATCH_ENGINE_METHOD},
            parts.access(settings),
            self._tracing,
            settings.log_calls,
            limits,
            partial(_is_short_of, int(parts.SHORT_OF_MEMORY * memory)),
        )
        self._metrics.max_held_bytes.set(limits.held_bytes)
        self._metrics.held_bytes.set_function(lambda: calls.held.total + calls.held.cached)
        return calls

    def _make_sequences(self) -> SequenceSteps:
        settings, metrics = self._settings, self._metrics
        store = SequenceStore(settings.max_sequences, settings.sequence_idle_seconds, self._calls.held)
        metrics.open_sequences.set_function(store.__len__)
        return SequenceSteps(store, self._repository.table, metrics.sequences_forgotten)

    async def run(self, signals: StopSignals) -> None:
        """Serve until a signal to stop comes, then drain.

        Args:
            signals: signals to stop, which the event loop takes over.

        Raises:
            StartError: an address cannot be bound, or no model can be served.
        """
        signals.hand_to(self._loop, self._stop.ask)
        self._update_health()
        port = self._listen()
        await self._listener.start()
        self._http.start()
        self._run_in_background("following the engines", self._refresh_health)
        self._run_in_background("watching slow messages", self._calls.receiving.watch)
        self._run_in_background("guarding the connections", self._guard_connections)
        self._run_in_background("forgetting idle sequences", self._sequences.watch)
        _log.info(
            "listening",
            grpc=self._settings.grpc_address,
            grpc_port=port,
            http=self._settings.http_address,
            http_port=self._http.port,
        )
        try:
            await self._load_unless_stopped()
            await self._stop.is_asked.wait()
        finally:
            await self._drain()

    def _is_alive(self) -> bool:
        """Return, in any thread, whether the process works; False: it should be restarted."""
        is_held = self._beat is not None and time.monotonic() - self._beat > MAX_HELD_S
        return self._repository.is_alive() and self._listener.is_alive() and not is_held

    def _add_services(self) -> None:
        calls: Any = self._calls  # generated code expects a grpc server
        table, in_flight = self._repository.table, self._settings.stream_in_flight
        keys = parts.state_keys(self._settings)
        text_generation_pb2_grpc.add_TextGenerationServicer_to_server(GenerationApi(table, keys), calls)
        text_classification_pb2_grpc.add_TextClassificationServicer_to_server(
            ClassificationApi(table, in_flight), calls
        )
        forecasting_pb2_grpc.add_ForecastingServicer_to_server(
            ForecastingApi(table, in_flight, self._settings.max_series, keys), calls
        )
        sequences_pb2_grpc.add_SequencesServicer_to_server(
            SequencesApi(table, in_flight, self._settings.max_series, keys), calls
        )
        models_pb2_grpc.add_ModelsServicer_to_server(
            ModelsApi(
                self._repository,
                Cards(self._settings.repository),
                self._settings.max_answer_bytes,
                self._engine_watches,
            ),
            calls,
        )
        self._open_inference = OpenInferenceApi(
            table,
            in_flight,
            self._is_ready,
            self._stop.is_asked.is_set,
            self._sequences,
            self._settings.sequence_idle_seconds,
        )
        grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self._open_inference, calls)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, calls)
        add_reflection(self._calls, [*SERVICE_OF.values(), *COMMON_SERVICES, health.SERVICE_NAME])

    def _listen(self) -> int:
        address = self._settings.grpc_address
        try:
            if (why := addresses.taken(address)) is not None:
                raise parts.address_error("SEQSERVE_GRPC_ADDRESS", address, why)
            return self._listener.bind()
        except (OSError, RuntimeError, grpc.RpcError) as error:
            why = addresses.reason(address, error)
            raise parts.address_error("SEQSERVE_GRPC_ADDRESS", address, why) from error

    async def _guard_connections(self) -> None:
        running, shut = self._calls.running, self._metrics.connections_shut
        listener, most = self._listener, self._settings.max_connections
        guard = Guard(listener.address, most, running.peers, shut, listener.socket_names)
        self._calls.receiving.cut_off = guard.cut_off
        await guard.run()

    async def _load_unless_stopped(self) -> None:
        """Load, and wait for it until the server is to stop; the drain ends what is being loaded then."""
        loading = asyncio.create_task(self._load())
        stopping = asyncio.create_task(self._stop.is_asked.wait())
        await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if loading.done():
            await loading
        else:
            loading.cancel()

    async def _load(self) -> None:
        """Load models in a thread, so that health and metrics answer meanwhile; then watch the folder.

        Raises:
            StartError: no model can be served.
        """
        with parts.repository_errors(self._settings):
            folder = await asyncio.to_thread(self._folder)
            await asyncio.to_thread(self._repository.load_all, self._update_health_soon)
        if self._stop.is_asked.is_set():
            return
        serving = [entry for entry in self._repository.table.entries() if entry.served is not None]
        if not serving:
            raise StartError(
                f"no model could be served from {self._settings.repository}: "
                f"{self._repository.why_nothing_serves()}"
            )
        self._has_loaded = True
        self._update_health()
        if folder is not None:
            watcher = Watcher(self._repository, folder, self._settings.watch_seconds)
            self._run_in_background("watching the repository", watcher.run)
        _log.info("serving", models=[f"{entry.name} {entry.version}" for entry in serving])

    def _folder(self) -> FolderScanner | None:
        """Scan the folder before the load, so that changes during the load are noticed after it."""
        return FolderScanner(self._settings.repository) if self._settings.watch_seconds > 0 else None

    def _run_in_background(self, what: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run endless work until the drain; begin it again a moment after an error has ended it."""
        self._background.append(asyncio.create_task(_keep_running(what, work)))

    async def _refresh_health(self) -> None:
        """Update health periodically, as the listener does not report that it was lost or is back.

        The size of the prompt caches, which engines report as they report everything, is looked at as well.
        """
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(HEALTH_INTERVAL_S)
            self._update_health()
            self._calls.held.set_cached(self._metrics.prompt_cache_bytes())

    def _is_ready(self) -> bool:
        """Return, in any thread, whether calls are accepted and a version can answer."""
        return (
            self._has_loaded
            and self._listener.is_accepting()
            and any(entry.can_answer for entry in self._repository.table.entries())
        )

    def _update_health_soon(self) -> None:
        """Schedule `_update_health` in the event loop, from any thread."""
        self._loop.call_soon_threadsafe(self._update_health)

    def _update_health(self) -> None:
        """Set the health of every name from the versions that can answer now; does not block.

        A model is SERVING while a version of it can answer, a task's service while a model of that task can,
        and every other name while the server is ready. A model's name stays known after its last version is
        unloaded.
        """
        good: set[str] = set()
        entries = self._repository.table.entries()
        for entry in entries:
            if entry.served is not None and entry.can_answer:
                good |= {f"model/{entry.name}", *services_of(entry.served)}
        self._model_names |= {f"model/{entry.name}" for entry in entries}
        if self._is_ready():
            good |= {"", *COMMON_SERVICES}
        for name in (*self._model_names, *SERVICE_OF.values(), "", *COMMON_SERVICES):
            self._health.set(name, SERVING if name in good else NOT_SERVING)

    async def _drain(self) -> None:
        """End the calls, then the engines, metrics and traces."""
        has_served, self._has_loaded = self._has_loaded, False
        watches = self._health, self._engine_watches
        await Drain(self._settings, self._stop, self._calls, self._listener, *watches).run(has_served)
        self._beat = None
        for task in self._background:
            task.cancel()
        await run_in_thread(self._repository.stop)
        await run_in_thread(self._http.stop)
        if self._tracing is not None and not self._stop.is_hurried.is_set():
            await run_in_thread(self._tracing.stop)
        _log.info("stopped", process=os.getpid())


def services_of(served: Served) -> set[str]:
    """Return the services that a version answers for."""
    others = {SEQUENCES_SERVICE} if served.sequences is not None else set()
    return {SERVICE_OF[served.spec.task], *others}


async def _is_short_of(max_bytes: int) -> bool:
    """Return whether the process uses more memory, what it has freed and not given back left out."""
    if resident_bytes() <= max_bytes:
        return False
    await asyncio.to_thread(return_freed)
    return resident_bytes() > max_bytes


async def _keep_running(what: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    while True:
        try:
            await work()
        except Exception as error:
            _log.error(f"{what} has ended, and begins again", exc_info=error)
        else:
            return
        await asyncio.sleep(AGAIN_S)
