"""The reference of the errors, from service/errors.py, its gRPC status and the Python client's exceptions."""

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Final, TypeVar

from google.rpc.status_pb2 import Status

import seqserve.errors
import service.errors
from seqserve.errors import SeqserveError, from_status
from service.api.errors import code_of
from service.errors import InvalidArgument, Overloaded, ServiceError
from tools.site.text import cell, table

PATH: Final = "reference/errors.md"
Kind = TypeVar("Kind", bound=Exception)
_ANY_OTHER: Final = "Any other failure. The text is fixed; the server's log has the trace."

_HEAD: Final = """# Errors
A request that fails ends with a gRPC status: a code, a sentence, and details of `google.rpc`. Each failure has a constant *reason* in
`google.rpc.ErrorInfo` (domain `seqserve`), whose metadata has the call's `request_id`. Programs decide by code and reason; the sentence is for
people, and may change. What to do about a symptom is in [troubleshooting.md](../troubleshooting.md), what happens under load in
[resilience.md](../resilience.md).

## By reason
`BadRequest` names the invalid field, what was expected and what was found; `RetryInfo` has the time after which to try again."""  # noqa: E501

_PYTHON: Final = """## In Python
The client raises one of these; `code`, `reason` and `metadata` are those of the status. Calls that failed on the way, and overloads with a retry delay,
are tried again first ([Retry](python.md#seqserve.Retry))."""  # noqa: E501


def page() -> str:
    """Return the page: every error of the server, and every exception of the Python client."""
    errors = table(("reason", "gRPC code", "beside ErrorInfo", "in Python", "when"), _errors())
    exceptions = table(("exception", "gRPC code", "when"), _exceptions())
    return "\n\n".join([_HEAD, errors, _PYTHON, exceptions]) + "\n"


def declared(module: ModuleType, base: type[Kind]) -> list[type[Kind]]:
    """Return a base class and those of a module that derive from it, in the order of their declarations."""
    return [one for one in vars(module).values() if inspect.isclass(one) and issubclass(one, base)]


def _errors() -> Iterator[tuple[str, ...]]:
    for kind in sorted(declared(service.errors, ServiceError), key=lambda kind: str(kind.reason)):
        code = code_of(kind.__new__(kind))  # the code depends on the class alone, and constructors differ
        raised = type(from_status(Status(code=code.value[0]))).__name__
        link = f"[`{raised}`](python.md#seqserve.{raised})"
        when = _ANY_OTHER if kind is ServiceError else _when(kind)
        yield f"`{kind.reason}`", code.name, _details(kind), link, when


def _details(kind: type[ServiceError]) -> str:
    if issubclass(kind, InvalidArgument):
        return "`BadRequest`"
    return "`RetryInfo`" if issubclass(kind, Overloaded) else ""


def _exceptions() -> Iterator[tuple[str, ...]]:
    for kind in declared(seqserve.errors, SeqserveError):
        code = "" if kind is SeqserveError else _code(kind)
        yield f"[`{kind.__name__}`](python.md#seqserve.{kind.__name__})", code, _when(kind)


def _code(kind: type[SeqserveError]) -> str:
    """Return the code that a status has for this exception; "" where the client alone raises it."""
    return kind.kind.name if "kind" in vars(kind) else ""


def _when(kind: type[Exception]) -> str:
    """Return the first paragraph of a class's docstring as a cell."""
    return cell((inspect.getdoc(kind) or "").partition("\n\n")[0])
