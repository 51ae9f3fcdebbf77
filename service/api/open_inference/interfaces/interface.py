"""Description of a version of a model in the Open Inference Protocol: tensors, parameters, answers."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from service.api.answer_limits import check_answer
from service.api.open_inference.parameters import Parameters
from service.api.open_inference.tensors import Encoded, Tensor, TensorSpec
from service.engine.request import Caller
from service.tasks.limits import MAX_ID_LENGTH, Limits

# Bytes of an FP32, of the length before an element of BYTES, and at most of a character in UTF-8.
FLOAT_BYTES, LENGTH_BYTES, MAX_CHARACTER_BYTES = 4, 4, 4
# The most bytes of all else in a response: its id, names, shapes and parameters.
OTHER_BYTES: Final = 4 * MAX_ID_LENGTH + 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """Response to a request, or one of several responses.

    Attributes:
        tensors: outputs by name.
        parameters: parameters of the response; see `set_value` for the form of each.
        is_last: whether no other response follows.
    """

    tensors: Mapping[str, Tensor | Encoded]
    parameters: dict[str, int | str] = field(default_factory=dict)
    is_last: bool = True


class Interface(ABC):
    """Version of a model as the protocol describes it.

    Args:
        served: version that answers.

    Attributes:
        inputs, outputs: specs of the tensors.
        max_sizes: maximum of each size that a request chooses, by its name in `inputs`.
        optional: names of inputs that a request may omit.
        is_decoupled: whether a stream may answer a request with several messages.
        parameters: names of the request's options.
    """

    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    max_sizes: Mapping[str, int] = {}
    optional: Collection[str] = ("lengths",)
    is_decoupled = False
    parameters: Sequence[str] = ()

    @property
    @abstractmethod
    def limits(self) -> Limits:
        """Sizes of requests and answers."""

    @property
    @abstractmethod
    def properties(self) -> Mapping[str, object]:
        """Meaning of the tensors, for the metadata."""

    def check_answer(
        self, outputs: Sequence[TensorSpec], tensors: Mapping[str, Tensor], parameters: Parameters
    ) -> None:
        """Raise AnswerTooLarge where the outputs that a request asks for would be too large an answer."""
        size = OTHER_BYTES + self.answer_bytes([output.name for output in outputs], tensors, parameters)
        check_answer("inputs", size, self.limits.answer_bytes, "ask for fewer rows or outputs per call")

    def outputs_for(self, parameters: Parameters) -> Sequence[TensorSpec]:
        """Return the outputs that a request with these parameters may ask for, and gets by default."""
        return self.outputs

    @abstractmethod
    def answer_bytes(
        self, outputs: Collection[str], tensors: Mapping[str, Tensor], parameters: Parameters
    ) -> int:
        """Return the most bytes that the outputs of one response have.

        Args:
            outputs: names of the outputs.
            tensors: tensors of the request.
            parameters: parameters of the request.
        """

    @abstractmethod
    async def infer(self, tensors: Mapping[str, Tensor], parameters: Parameters, caller: Caller) -> Outcome:
        """Answer a request with one response.

        Args:
            tensors: tensors of the request, each valid for its spec in `inputs`.
            parameters: parameters of the request.
            caller: caller of the request.

        Raises:
            InvalidArgument: a tensor is missing, or the task refuses its values.
            Overloaded, DeadlineExceeded, ModelFailure: the engine cannot answer.
        """

    async def stream(
        self, tensors: Mapping[str, Tensor], parameters: Parameters, caller: Caller
    ) -> AsyncGenerator[Outcome, None]:
        """Answer a request with one or more responses; arguments and errors are those of `infer`."""
        yield await self.infer(tensors, parameters, caller)


def num_rows(tensors: Mapping[str, Tensor]) -> int:
    """Return the rows of a request's tensors; all have as many, as their specs say."""
    return max(map(len, tensors.values()), default=0)


class StatefulInterface(Interface):
    """Version of a model whose sequences can be sent in several requests, with the state kept between them.

    Attributes:
        state_bytes: bytes of the recurrent state of a sequence, whatever its length.
    """

    state_bytes: int

    @abstractmethod
    async def advance(
        self, state: Any, tensors: Mapping[str, Tensor], parameters: Parameters, caller: Caller
    ) -> tuple[Outcome, Any]:
        """Answer the next request of one sequence.

        Args:
            state: state that the request before it returned; None: the sequence begins.
            tensors: tensors of the request, of one row each.
            parameters: parameters of the request.
            caller: caller of the request.

        Returns:
            The response, and the state after it.

        Raises:
            InvalidArgument: a tensor is missing, or the task refuses its values.
            Overloaded, DeadlineExceeded, ModelFailure: the engine cannot answer.
        """
