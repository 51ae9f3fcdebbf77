"""Who calls, as far as the engine has to know: until when he waits, and with whom he shares."""

import time
from contextvars import ContextVar
from typing import Any

from service.engine.sequence import Caller, Trace

# The name that came with the call's token; "" where callers have no names. Set by `service.api.calls` in the
# call's own task.
subject: ContextVar[str] = ContextVar("subject", default="")
# Whether the call's token carries the right to load and unload; set at the same place.
may_administer: ContextVar[bool] = ContextVar("may_administer", default=False)
# What is told of the call's sequences; set at the same place.
trace: ContextVar[Trace | None] = ContextVar("trace", default=None)


# A deadline further away is cut to this: a client's largest duration is thousands of years, which no clock or
# timer of the process takes.
MAX_DEADLINE_S = 30 * 24 * 3600.0


def caller_of(context: Any) -> Caller:
    """Return the caller of a call: its deadline on the engine's clock, and the name of its token or else its
    connection.
    """
    remaining = context.time_remaining()
    deadline = None if remaining is None else time.monotonic() + min(remaining, MAX_DEADLINE_S)
    return Caller(deadline, subject.get() or context.peer(), trace.get())
