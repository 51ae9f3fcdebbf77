"""The HTTP port, made of the settings: probes and metrics always, the REST form where it is asked for."""

import asyncio
from collections.abc import Callable

from prometheus_client import CollectorRegistry
from starlette.routing import BaseRoute

from service import addresses, parts
from service.api.calls import Calls
from service.api.open_inference.service import OpenInferenceApi
from service.http.app import application
from service.http.connection import ConnectionLimits
from service.http.probes import Probes
from service.http.server import HttpServer
from service.settings import Settings


class HttpDoor:
    """The HTTP port, from `start` to `stop`; made in the event loop of the calls.

    Args:
        settings: address and limits.
        registry: metrics for /metrics.
        is_alive: returns, in any thread, whether the process works.
        is_ready: returns, in any thread, whether the server takes requests.
        calls: handlers of the rpc methods.
        open_inference: the protocol's servicer.

    Attributes:
        port: port that is listened on.

    Raises:
        StartError: the address cannot be bound, or the certificate cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        registry: CollectorRegistry,
        is_alive: Callable[[], bool],
        is_ready: Callable[[], bool],
        calls: Calls,
        open_inference: OpenInferenceApi,
    ) -> None:
        self._settings = settings
        self._checks = is_alive, is_ready
        self._limits = ConnectionLimits(
            settings.http_max_connections, settings.http_head_seconds, settings.http_idle_seconds
        )
        routes = self._routes(calls, open_inference) if settings.http_api else []
        probes = Probes(registry, is_alive, is_ready)
        self._app = application(probes, routes, self._limits.max_head_bytes)
        self._server = self._listen()
        self.port = self._server.port

    def _listen(self) -> HttpServer:
        settings = self._settings
        host, _, port = settings.http_address.rpartition(":")
        tls = parts.http_tls(settings)
        try:
            return HttpServer(host.strip("[]"), int(port), self._limits, tls)
        except OSError as error:
            why = addresses.reason(settings.http_address, error)
            raise parts.address_error("SEQSERVE_HTTP_ADDRESS", settings.http_address, why) from error

    def start(self) -> None:
        """Start answering requests."""
        self._server.start(self._app)

    def _routes(self, calls: Calls, open_inference: OpenInferenceApi) -> list[BaseRoute]:
        from service.api.rest.handed_call import CallLoop  # noqa: PLC0415 -- only where it is asked for
        from service.api.rest.routes import RestApi  # noqa: PLC0415

        settings = self._settings
        loop = CallLoop(calls, asyncio.get_running_loop(), settings.http_request_seconds)
        sizes = settings.http_max_body_bytes, settings.max_message_bytes
        return [*RestApi(loop, open_inference.generation_inputs, *self._checks, *sizes).routes()]

    def stop(self) -> None:
        """Stop listening, let answers end for a moment, and wait for the thread to end."""
        self._server.stop()
