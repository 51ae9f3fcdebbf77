"""Unary calls of the asyncio client, with retries."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import grpc
from google.protobuf.message import Message

from seqserve import messages
from seqserve.connection import USE_CLIENT_TIMEOUT, Timeout, timeout_or
from seqserve.errors import ClientClosed
from seqserve.frames import ModelColumns, model_columns
from seqserve.link import AsyncLink
from seqserve.retry import Attempts, Retry
from seqserve.streams import Response
from seqserve.waiting import is_task_cancelled, wait_until_set

if TYPE_CHECKING:  # an alias of the stub's types alone
    from seqserve.v1.models_pb2_grpc import ModelsAsyncStub


class AsyncUnaryCalls:
    """Base class of the client: calls with retries, and the columns of models that were looked up."""

    _link: AsyncLink
    _retry: Retry | None
    _timeout_s: float | None
    _closed: asyncio.Event
    _columns: dict[tuple[str, int], ModelColumns]
    _models: "ModelsAsyncStub"

    def _attempts(self, timeout_s: Timeout, *, is_retried: bool = True) -> Attempts:
        return Attempts(self._retry if is_retried else None, timeout_or(timeout_s, self._timeout_s))

    async def _find_columns(self, model: str, version: int, attempts: Attempts | None = None) -> ModelColumns:
        """Look up the columns of a model's version; 0 is looked up each time, since the newest may change."""
        if (model, version) not in self._columns:
            request = messages.model_request(model, version)
            call = attempts or self._attempts(USE_CLIENT_TIMEOUT)
            found = model_columns(messages.model_info(await self._call(self._models.Get, request, call)))
            call.record_progress()
            if not version:
                return found
            self._columns[model, version] = found
        return self._columns[model, version]

    async def _call(
        self, method: Callable[..., Awaitable[Response]], request: Message, attempts: Attempts
    ) -> Response:
        """Call a unary method with retries; raise the SeqserveError of the last failure."""
        while True:
            try:
                return await self._link.call(method, request, timeout=attempts.remaining_s())
            except grpc.RpcError as error:
                failure = self._link.failure(error)
                delay_s = attempts.next_delay_s(failure)
                if delay_s is None:
                    raise failure from error
            except asyncio.CancelledError as error:
                if is_task_cancelled():
                    raise
                raise ClientClosed("the client was closed before the answer") from error
            if await wait_until_set(self._closed, delay_s):
                raise ClientClosed("the client was closed before the answer")
