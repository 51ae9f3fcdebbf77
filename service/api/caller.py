"""The engine's view of a gRPC call: deadline, fairness key and trace."""

import time
from contextvars import ContextVar
from typing import Any

from service.api.held_bytes import Holding
from service.engine.request import Caller
from service.observability.traced import Trace

# All five are set by `service.api.method` in the call's own task.
# Name of the call's principal; "" without tokens.
subject: ContextVar[str] = ContextVar("subject", default="")
# True where the principal may load and unload models.
may_administer: ContextVar[bool] = ContextVar("may_administer", default=False)
# Id of the call's request, for the details of errors; "" outside of a call.
current_request_id: ContextVar[str] = ContextVar("current_request_id", default="")
# Trace that the call's rows are added to; None: the call is not traced.
trace: ContextVar[Trace | None] = ContextVar("trace", default=None)
# Bytes that the call holds.
current_holding: ContextVar[Holding] = ContextVar("current_holding")

# Later deadlines are cut to this: clients may send thousands of years, which overflows clocks and timers.
MAX_DEADLINE_S = 30 * 24 * 3600.0


def caller_of(context: Any) -> Caller:
    """Return the deadline of a call on the engine's clock, its fairness key, its trace and its cache scope.

    The cache scope is the principal's name. Without tokens it is the peer's address without the port:
    connections of one host share cached prompts.
    """
    remaining = context.time_remaining()
    deadline = None if remaining is None else time.monotonic() + min(remaining, MAX_DEADLINE_S)
    client = client_of(context)
    return Caller(deadline, client, trace.get(), subject.get() or client.rpartition(":")[0])


def with_timeout(caller: Caller, timeout_s: float) -> Caller:
    """Return the caller with the earlier deadline: its own, or one after so many seconds from now."""
    deadline = time.monotonic() + min(timeout_s, MAX_DEADLINE_S)
    return caller._replace(deadline=deadline if caller.deadline is None else min(caller.deadline, deadline))


def client_of(context: Any) -> str:
    """Return the fairness key of a call: the principal's name, or the peer's address without tokens."""
    return subject.get() or context.peer()
