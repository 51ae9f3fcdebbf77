"""Parameters of the protocol's sequence extension: the sequence of a request, its start and its end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from seqserve.inference import grpc_service_pb2 as pb
from service.api.open_inference.parameters import Parameters, whole_of
from service.errors import InvalidArgument
from service.tasks.limits import MAX_ID_LENGTH, check_count

SEQUENCE_ID: Final = "sequence_id"
_START, _END = "sequence_start", "sequence_end"
SEQUENCE_PARAMETERS: Final = (SEQUENCE_ID, _START, _END)


@dataclass(frozen=True, slots=True)
class SequenceMark:
    """Place of a request in its sequence.

    Attributes:
        id: id of the sequence; a number and the text of its digits are the same id.
        is_start: whether the sequence begins, or begins anew, with the request.
        is_end: whether it is forgotten after the answer.
    """

    id: str
    is_start: bool
    is_end: bool


def mark_of(given: Mapping[str, pb.InferParameter]) -> SequenceMark | None:
    """Return the place of a request in its sequence; None where it belongs to none.

    An id of 0 in any form, or of no characters, stands for none.

    Args:
        given: all parameters of the request, whatever their names.

    Raises:
        InvalidArgument: a value is not what its parameter takes, or a start or an end has no id.
    """
    own = {name: given[name] for name in SEQUENCE_PARAMETERS if name in given} if given else None
    if not own:
        return None
    parameters = Parameters(own, SEQUENCE_PARAMETERS)
    name = _id_of(parameters)
    is_start, is_end = parameters.truth(_START) or False, parameters.truth(_END) or False
    if name:
        return SequenceMark(name, is_start, is_end)
    if is_start or is_end:
        raise InvalidArgument(SEQUENCE_ID, "expected the id of the sequence that starts or ends, found none")
    return None


def _id_of(parameters: Parameters) -> str:
    """Return the id, or "" for none."""
    found = parameters.value(SEQUENCE_ID)
    if found is None:
        return ""
    if isinstance(found, str):
        check_count(SEQUENCE_ID, "characters", len(found), MAX_ID_LENGTH, minimum=0)
        name = found
    else:
        name = str(whole_of(SEQUENCE_ID, found, 64))
    return "" if name == "0" else name
