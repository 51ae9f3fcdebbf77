"""Tensor of the source that the encoder of a text-generation reads: its spec, conversion and errors."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from service.api.open_inference.interfaces.values import require, texts_of
from service.api.open_inference.tensors import Tensor, TensorSpec
from service.errors import InvalidArgument
from service.tasks.sequence_inputs import SequenceInput
from service.tasks.source import SourceReader

SOURCE_TENSOR: Final = "source"
# source, source.text, source.tokens.ids[3], source.steps.values[17].
_PATH: Final = re.compile(r"source(?:\.(\w+)(?:\.\w+)?(?:\[(\d+)\])?)?")


def spec_of_source(source: SourceReader) -> TensorSpec:
    """Return the spec of the tensor: one text, or the time steps of one sequence."""
    if source.kind == "text":
        return TensorSpec(SOURCE_TENSOR, "BYTES", (1,))
    if source.kind == "tokens":
        return TensorSpec(SOURCE_TENSOR, "INT64", (1, "time"))
    return TensorSpec(SOURCE_TENSOR, "FP32", (1, "time", source.values))


def source_of(tensors: Mapping[str, Tensor], source: SourceReader) -> SequenceInput:
    """Return the source of a request.

    Raises:
        InvalidArgument: there is none, or a text is not UTF-8.
    """
    require(SOURCE_TENSOR, tensors)
    tensor = tensors[SOURCE_TENSOR]
    if isinstance(tensor, list):
        return SequenceInput(texts_of(SOURCE_TENSOR, tensor)[0], None, None, {})
    is_rows = source.kind == "steps"
    return SequenceInput(None, None if is_rows else tensor[0], tensor[0] if is_rows else None, {})


@contextmanager
def source_errors(width: int) -> Iterator[None]:
    """Rename the field in the task's InvalidArgument for a source to the place in its tensor.

    Args:
        width: values of a time step; 0: the encoder takes none.
    """
    try:
        yield
    except InvalidArgument as error:
        [violation] = error.violations
        found = _PATH.fullmatch(violation.field)
        if found is None:
            raise
        places = [] if found[1] is None else ["0"]
        if found[2] is not None:
            place = int(found[2])
            places += map(str, divmod(place, width)) if found[1] == "steps" else [str(place)]
        field = f"{SOURCE_TENSOR}[{', '.join(places)}]" if places else SOURCE_TENSOR
        raise InvalidArgument(field, violation.description) from None
