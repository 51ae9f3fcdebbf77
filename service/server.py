"""Assembly and life cycle: listen, load, say SERVING, drain on SIGTERM.

Health and metrics answer from the first moment; a name turns SERVING only when its model is admitted and
warmed up.
"""

import asyncio
import os
import signal
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

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
    text_classification_pb2,
    text_classification_pb2_grpc,
    text_generation_pb2,
    text_generation_pb2_grpc,
)
from service.api.calls import Calls
from service.api.classification import ClassificationApi
from service.api.forecasting import ForecastingApi
from service.api.generation import GenerationApi
from service.api.health import NOT_SERVING, SERVING, WATCH_METHOD, HealthServicer
from service.api.listener import Listener
from service.api.models import ModelsApi
from service.api.open_inference import OpenInferenceApi
from service.api.reflection import add_reflection
from service.contract import spec
from service.engine.delivery import deliver
from service.engine.sequence import Result
from service.http.door import HttpServer
from service.models.repository import Repository
from service.models.watcher import Folder, Watcher
from service.observability.metrics import Metrics
from service.security import access, tls
from service.security.state_tokens import Keys, KeysRefused, draw_keys, read_keys
from service.settings import Settings

if TYPE_CHECKING:
    from service.observability.tracing import Tracing

_log = structlog.get_logger(__name__)

SERVICE_OF: dict[spec.Task, str] = {
    "text-generation": text_generation_pb2.DESCRIPTOR.services_by_name["TextGeneration"].full_name,
    "text-classification": text_classification_pb2.DESCRIPTOR.services_by_name[
        "TextClassification"
    ].full_name,
    "forecasting": forecasting_pb2.DESCRIPTOR.services_by_name["Forecasting"].full_name,
}
# What a call withdrawn at the end of the drain has to get its status out.
HAND_OVER_S = 1.0
# Seconds from one check of the engines for health to the next.
ENGINES_EVERY_S = 1.0
# A ping that comes sooner after the one before is one too many; several of them close the connection.
PING_EVERY_MS = 10_000
METADATA_BYTES = 16 << 10

MODELS_SERVICE = models_pb2.DESCRIPTOR.services_by_name["Models"].full_name
OPEN_INFERENCE_SERVICE = grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
# Of no task of its own.
COMMON_SERVICES = (MODELS_SERVICE, OPEN_INFERENCE_SERVICE)


class StartError(Exception):
    """The server cannot start: an address cannot be had, or no model could be served."""


class Server:
    """The whole service in one event loop.

    Args:
        settings: all of it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._has_loaded = False
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []
        self._model_names: set[str] = set()
        registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self._metrics = Metrics(registry)
        self._loop = asyncio.get_running_loop()
        self._repository = Repository(settings, self._metrics, self._post)
        self._health = HealthServicer()
        self._tracing = _tracing(settings)
        self._calls = Calls(
            self._metrics, {WATCH_METHOD}, _access(settings), self._tracing, settings.log_calls
        )
        self._add_services()
        self._listener = Listener(
            settings.grpc_address,
            _credentials(settings),
            _options(settings),
            self._calls.register,
            self._metrics.listener_restarts,
        )
        host, _, port = settings.http_address.rpartition(":")
        try:
            self._http = HttpServer(host.strip("[]"), int(port), registry, self._is_alive, self._is_ready)
        except OSError as error:
            raise StartError(
                f"SEQSERVE_HTTP_ADDRESS: expected an address that can be listened on, found {settings.http_address}: {error}"
            ) from error

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain.

        Raises:
            StartError: an address cannot be had, or no model could be served.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop)
        self._show_health()
        port = self._listen()
        await self._listener.start()
        self._http.start()
        self._run_beside("following the engines", self._follow_engines())
        _log.info(
            "listening",
            grpc=self._settings.grpc_address,
            grpc_port=port,
            http=self._settings.http_address,
            http_port=self._http.port,
        )
        try:
            await self._load()
            await self._stopping.wait()
        finally:
            await self._drain()

    def _stop(self) -> None:
        """Begin to stop; told a second time, do without the grace."""
        if self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()

    def _is_alive(self) -> bool:
        """Whether the process should go on living."""
        return self._repository.is_alive() and self._listener.is_alive()

    def _post(self, results: list[Result]) -> None:
        """Take a tick's results from an engine's thread into the event loop, in one call."""
        self._loop.call_soon_threadsafe(deliver, results)

    def _add_services(self) -> None:
        calls: Any = self._calls  # in place of the server, which generated code asks for
        in_flight, keys = self._settings.stream_in_flight, _state_keys(self._settings)
        text_generation_pb2_grpc.add_TextGenerationServicer_to_server(
            GenerationApi(self._repository, keys), calls
        )
        text_classification_pb2_grpc.add_TextClassificationServicer_to_server(
            ClassificationApi(self._repository, in_flight), calls
        )
        forecasting_pb2_grpc.add_ForecastingServicer_to_server(
            ForecastingApi(self._repository, in_flight, self._settings.max_series, keys), calls
        )
        models_pb2_grpc.add_ModelsServicer_to_server(ModelsApi(self._repository), calls)
        open_inference = OpenInferenceApi(self._repository, in_flight, self._is_ready, self._stopping.is_set)
        grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(open_inference, calls)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, calls)
        add_reflection(self._calls, [*SERVICE_OF.values(), *COMMON_SERVICES, health.SERVICE_NAME])

    def _listen(self) -> int:
        try:
            return self._listener.bind()
        except (RuntimeError, grpc.RpcError) as error:
            address = self._settings.grpc_address
            raise StartError(
                f"SEQSERVE_GRPC_ADDRESS: expected an address that can be listened on, found {address}: {error}"
            ) from error

    async def _load(self) -> None:
        """Admit models in a thread, so that health and metrics answer meanwhile.

        Raises:
            StartError: none could be served.
        """
        folder = await asyncio.to_thread(self._folder)
        await asyncio.to_thread(self._repository.load_all, lambda _: self._show_health_soon())
        serving = [entry for entry in self._repository.entries() if entry.served is not None]
        if not serving:
            reasons = "; ".join(
                f"{entry.name} {entry.version}: {entry.message}" for entry in self._repository.entries()
            )
            raise StartError(
                f"no model could be served from {self._settings.repository}: {reasons or 'no model was found there'}"
            )
        self._has_loaded = True
        self._show_health()
        if folder is not None:
            watcher = Watcher(self._repository, folder, self._settings.watch_seconds)
            self._run_beside("watching the repository", watcher.run())
        _log.info("serving", models=[f"{entry.name} {entry.version}" for entry in serving])

    def _folder(self) -> Folder | None:
        """The folder as it is before anything is loaded, so that what changes during the load is seen
        later.
        """
        is_watched = self._settings.watch_seconds > 0 and self._settings.repository.is_dir()
        return Folder(self._settings.repository) if is_watched else None

    def _run_beside(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        """Run a task in the background until the drain; an error that ends it is logged."""
        task = asyncio.create_task(work)
        task.add_done_callback(partial(_tell_end, what))
        self._background.append(task)

    async def _follow_engines(self) -> None:
        """Show health periodically, because the failure of an engine does not change an entry."""
        while True:
            await asyncio.sleep(ENGINES_EVERY_S)
            self._show_health()

    def _is_ready(self) -> bool:
        """Tell, in any thread, whether models are loaded, a version can answer and the server is not
        stopping.
        """
        return (
            self._has_loaded
            and self._listener.is_accepting()
            and any(entry.can_answer for entry in self._repository.entries())
        )

    def _show_health_soon(self) -> None:
        """Have the event loop show health soon. Any thread may call this."""
        self._loop.call_soon_threadsafe(self._show_health)

    def _show_health(self) -> None:
        """Set the health of every name from the versions that can answer now. This never waits.

        A model is SERVING while a version of it can answer, a task's service while a model of that task can,
        and every other name while the server is ready. The name of a model stays known after the model has
        gone.
        """
        good: set[str] = set()
        entries = self._repository.entries()
        for entry in entries:
            if entry.served is not None and entry.can_answer:
                good |= {f"model/{entry.name}", SERVICE_OF[entry.served.spec.task]}
        self._model_names |= {f"model/{entry.name}" for entry in entries}
        if self._is_ready():
            good |= {"", *COMMON_SERVICES}
        for name in (*self._model_names, *SERVICE_OF.values(), "", *COMMON_SERVICES):
            self._health.set(name, SERVING if name in good else NOT_SERVING)

    async def _end_watches(self, stopped: "asyncio.Task[None]") -> None:
        """End the watches of health and wait until the server has stopped.

        A watch whose peer does not read cannot end by itself: after `HAND_OVER_S` what is left is cancelled.
        """
        self._health.end_watches()
        await asyncio.wait({stopped}, timeout=HAND_OVER_S)
        if not stopped.done() and (watches := self._health.num_watches):
            _log.warning("watchers of health do not read and are cut off", watches=watches)
            await self._listener.stop(0.0)
        await stopped

    async def _drain(self) -> None:
        """Health first, so that nobody is sent here any more; the grace, until all have heard it; then no new
        calls; running ones get their time.
        """
        self._has_loaded = False
        settings = self._settings
        _log.info("draining", grace_seconds=settings.grace_seconds, seconds=settings.drain_seconds)
        self._health.enter_graceful_shutdown()
        if self._stopping.is_set():
            await asyncio.wait({asyncio.ensure_future(self._hurrying.wait())}, timeout=settings.grace_seconds)
            self._hurrying.set()
        stopped = asyncio.create_task(self._listener.stop(settings.drain_seconds + HAND_OVER_S))
        idle = asyncio.ensure_future(self._calls.idle())
        done, _ = await asyncio.wait(
            {stopped, idle}, timeout=settings.drain_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            self._calls.withdraw()
            await asyncio.wait({stopped, idle}, return_when=asyncio.FIRST_COMPLETED)
        await self._end_watches(stopped)
        idle.cancel()
        for task in self._background:
            task.cancel()
        await asyncio.to_thread(self._repository.stop)
        await asyncio.to_thread(self._http.stop)
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.stop)
        _log.info("stopped", process=os.getpid())


def _tell_end(what: str, task: "asyncio.Task[None]") -> None:
    """Log the error that has ended a background task. It is a bug, and the server goes on serving."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error(f"{what} has ended", exc_info=error)


def _options(settings: Settings) -> list[tuple[str, int]]:
    """The limits that grpc itself holds connections to."""
    options = [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.so_reuseport", 0),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.max_concurrent_streams", settings.max_streams),
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
        ("grpc.http2.min_ping_interval_without_data_ms", PING_EVERY_MS),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
    if settings.connection_age_seconds:
        options.append(("grpc.max_connection_age_ms", max(1, round(settings.connection_age_seconds * 1000))))
        options.append(("grpc.max_connection_age_grace_ms", round(settings.connection_grace_seconds * 1000)))
    return options


def _access(settings: Settings) -> access.Access:
    try:
        return access.Access(settings.tokens)
    except (OSError, ValueError) as error:
        raise StartError(
            f"{access.SETTING}: expected a file of lines RIGHT NAME TOKEN, found {settings.tokens}: {error}"
        ) from error


def _tracing(settings: Settings) -> "Tracing | None":
    if settings.traces_endpoint is None:
        return None
    try:
        from service.observability.tracing import tracing_to  # noqa: PLC0415 -- not importable without the extra
    except ModuleNotFoundError as error:
        message = f"SEQSERVE_TRACES_ENDPOINT: expected seqserve's extra 'traces' to be installed, found no module {error.name}"
        raise StartError(message) from error
    return tracing_to(settings.traces_endpoint, settings.traces_ratio)


def _credentials(settings: Settings) -> grpc.ServerCredentials | None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    try:
        return tls.server_credentials(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    except (OSError, ValueError) as error:
        raise StartError(f"{tls.SETTING}: expected PEM files, found {error}") from error


def _state_keys(settings: Settings) -> Keys:
    if settings.state_keys is None:
        _log.warning(
            "state tokens will not survive a restart nor open on another replica; set SEQSERVE_STATE_KEYS"
        )
        return draw_keys()
    try:
        return read_keys(settings.state_keys)
    except KeysRefused as error:
        raise StartError(f"SEQSERVE_STATE_KEYS: {error}") from None
