"""Request parameters that the protocol and its extensions give a meaning to, whatever the model.

`timeout` is honoured, and those of sequences are read elsewhere. The others are accepted where they ask for
what the server does anyway, and refused by name where they ask for more.
"""

from collections.abc import Mapping
from typing import Final

from seqserve.inference import grpc_service_pb2 as pb
from service.api.caller import with_timeout
from service.api.open_inference.parameters import Parameters
from service.api.open_inference.sequence_parameters import SEQUENCE_PARAMETERS
from service.engine.request import Caller
from service.errors import InvalidArgument

_TIMEOUT: Final = "timeout"
_PRIORITY: Final = "priority"
_EMPTY_FINAL: Final = "triton_enable_empty_final_response"
_BINARY_OUTPUT: Final = "binary_data_output"
PROTOCOL_PARAMETERS: Final = (
    _TIMEOUT,
    _PRIORITY,
    *SEQUENCE_PARAMETERS,
    _EMPTY_FINAL,
    _BINARY_OUTPUT,
)


def apply_protocol_parameters(parameters: Parameters, caller: Caller) -> Caller:
    """Return the caller with the request's own deadline, after checking the other parameters.

    Args:
        parameters: parameters of the request, with `PROTOCOL_PARAMETERS` among the known names.
        caller: caller of the call that the request came with.

    Raises:
        InvalidArgument: a parameter asks for what the server does not do.
    """
    if not parameters:
        return caller
    _check_priority(parameters)
    # Both values have the same effect: the last message of a request is always marked.
    parameters.truth(_EMPTY_FINAL)
    if parameters.truth(_BINARY_OUTPUT) is False:
        raise InvalidArgument(_BINARY_OUTPUT, "expected true, since answers are always raw, found false")
    return _with_timeout(parameters, caller)


def apply_timeout(given: Mapping[str, pb.InferParameter], caller: Caller) -> Caller:
    """Return the caller with the request's own deadline, whatever else the request has.

    Raises:
        InvalidArgument: the timeout is not what the parameter takes.
    """
    own = {_TIMEOUT: given[_TIMEOUT]} if _TIMEOUT in given else {}
    return _with_timeout(Parameters(own, (_TIMEOUT,)), caller)


def _with_timeout(parameters: Parameters, caller: Caller) -> Caller:
    timeout_us = parameters.whole(_TIMEOUT, 64)
    return with_timeout(caller, timeout_us / 1e6) if timeout_us else caller


def _check_priority(parameters: Parameters) -> None:
    """Refuse every priority but 0, which stands for the default."""
    if priority := parameters.whole(_PRIORITY, 64):
        raise InvalidArgument(
            _PRIORITY, f"expected 0, since all requests have the same priority, found {priority}"
        )
