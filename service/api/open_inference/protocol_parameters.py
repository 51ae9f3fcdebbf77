"""Request parameters that the protocol and its extensions give a meaning to, whatever the model.

`timeout` is honoured. The others are accepted where they ask for what the server does anyway, and refused by
name where they ask for more.
"""

from typing import Final

from service.api.caller import with_timeout
from service.api.open_inference.parameters import Parameters, text_of, whole_of
from service.engine.request import Caller
from service.errors import InvalidArgument, shown

_TIMEOUT: Final = "timeout"
_PRIORITY: Final = "priority"
_SEQUENCE_ID: Final = "sequence_id"
_SEQUENCE_MARKS: Final = ("sequence_start", "sequence_end")
_EMPTY_FINAL: Final = "triton_enable_empty_final_response"
_BINARY_OUTPUT: Final = "binary_data_output"
PROTOCOL_PARAMETERS: Final = (
    _TIMEOUT,
    _PRIORITY,
    _SEQUENCE_ID,
    *_SEQUENCE_MARKS,
    _EMPTY_FINAL,
    _BINARY_OUTPUT,
)
_NO_SEQUENCES: Final = "since no state is kept between requests"


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
    _check_sequence(parameters)
    # Both values have the same effect: the last message of a request is always marked.
    parameters.truth(_EMPTY_FINAL)
    if parameters.truth(_BINARY_OUTPUT) is False:
        raise InvalidArgument(_BINARY_OUTPUT, "expected true, since answers are always raw, found false")
    timeout_us = parameters.whole(_TIMEOUT, 64)
    return with_timeout(caller, timeout_us / 1e6) if timeout_us else caller


def _check_priority(parameters: Parameters) -> None:
    """Refuse every priority but 0, which stands for the default."""
    if priority := parameters.whole(_PRIORITY, 64):
        raise InvalidArgument(
            _PRIORITY, f"expected 0, since all requests have the same priority, found {priority}"
        )


def _check_sequence(parameters: Parameters) -> None:
    """Refuse a request that belongs to a sequence; 0 in every form and the empty text stand for none."""
    found = parameters.value(_SEQUENCE_ID)
    if found is not None:
        read = text_of(_SEQUENCE_ID, found) if isinstance(found, str) else whole_of(_SEQUENCE_ID, found, 64)
        if read not in (0, "", "0"):
            raise InvalidArgument(_SEQUENCE_ID, f"expected none or 0, {_NO_SEQUENCES}, found {shown(found)}")
    for name in _SEQUENCE_MARKS:
        if parameters.truth(name):
            raise InvalidArgument(name, f"expected false, {_NO_SEQUENCES}, found true")
