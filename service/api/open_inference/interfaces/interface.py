"""Interfaces of the tasks in the Open Inference Protocol: their tensors, and the mapping to requests."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.api.answer_limits import check_answer
from service.api.open_inference.parameters import Parameters
from service.api.open_inference.tensors import Tensor, TensorSpec
from service.contract import spec
from service.engine.request import Caller
from service.errors import InvalidArgument
from service.models.loading import Served
from service.tasks.classification import ClassificationTask
from service.tasks.forecasting import MAX_LISTED_OBSERVATIONS, ForecastingTask, Observations
from service.tasks.generation import Finish, GenerationOptions, GenerationTask
from service.tasks.limits import MAX_ID_LENGTH, Limits

# Bytes of an FP32, of the length before an element of BYTES, and at most of a character in UTF-8.
FLOAT_BYTES, LENGTH_BYTES, MAX_CHARACTER_BYTES = 4, 4, 4
# The most bytes of all else in a response: its id, names, shapes and parameters.
OTHER_BYTES: Final = 4 * MAX_ID_LENGTH + 1024
_FINISH: Final = {Finish.LENGTH: "LENGTH", Finish.STOP: "STOP"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Response to a request, or one of several responses.

    Attributes:
        tensors: outputs by name.
        parameters: parameters of the response; see `set_value` for the form of each.
        is_last: whether no other response follows.
    """

    tensors: dict[str, Tensor]
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
        properties: meaning of the tensors, for the metadata.
        limits: sizes of requests and answers.
    """

    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    max_sizes: Mapping[str, int] = {}
    optional: Collection[str] = ("lengths",)
    is_decoupled = False
    parameters: Sequence[str] = ()
    properties: Mapping[str, object]
    limits: Limits

    def check_answer(
        self, outputs: Sequence[TensorSpec], tensors: Mapping[str, Tensor], parameters: Parameters
    ) -> None:
        """Raise AnswerTooLarge where the outputs that a request asks for would be too large an answer."""
        rows = max(map(len, tensors.values()), default=0)
        size = OTHER_BYTES + sum(self.answer_bytes(output.name, rows, parameters) for output in outputs)
        check_answer("inputs", size, self.limits.answer_bytes, "ask for fewer rows or outputs per call")

    @abstractmethod
    def answer_bytes(self, output: str, rows: int, parameters: Parameters) -> int:
        """Return the most bytes that an output of one response has.

        Args:
            output: name of the output.
            rows: rows of the request's tensors.
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


class ClassificationInterface(Interface):
    """Maps texts or token ids to labels and probabilities."""

    optional = ("text", "input", "lengths")

    def __init__(self, served: Served) -> None:
        assert isinstance(served.task, ClassificationTask)
        assert served.spec.classification is not None
        self._task = served.task
        self._labels = served.spec.classification.labels
        self.inputs = (
            TensorSpec("text", "BYTES", ("n",)),
            TensorSpec("input", "INT64", ("n", "time")),
            TensorSpec("lengths", "INT32", ("n",)),
        )
        self.outputs = (
            TensorSpec("label", "BYTES", ("n",)),
            TensorSpec("probabilities", "FP32", ("n", len(self._labels))),
        )
        self.limits = limits = self._task.limits
        self.max_sizes = {"n": limits.items, "time": limits.text_length}
        self.properties = {"labels": self._labels}

    def answer_bytes(self, output: str, rows: int, parameters: Parameters) -> int:
        """Return the bytes of the longest labels, or of all probabilities."""
        label_bytes = LENGTH_BYTES + self._task.max_label_bytes
        return rows * (label_bytes if output == "label" else FLOAT_BYTES * self._task.num_labels)

    async def infer(self, tensors: Mapping[str, Tensor], parameters: Parameters, caller: Caller) -> Outcome:
        """Classify the texts or the rows of token ids."""
        if ("text" in tensors) == ("input" in tensors):
            raise InvalidArgument(
                "inputs", f"expected either text or input, found {'both' if 'text' in tensors else 'neither'}"
            )
        if "text" in tensors:
            if "lengths" in tensors:
                raise InvalidArgument("lengths", "expected it beside input alone, found it beside text")
            with _tensor_errors():
                results = await self._task.classify(_texts("text", tensors["text"]), caller)
        else:
            results = await self._task.classify_tokens(_rows(tensors), caller)
        probabilities = [dict(result.ranked) for result in results]
        return Outcome(
            {
                "label": [result.ranked[0][0].encode() for result in results],
                "probabilities": np.array(
                    [[row[label] for label in self._labels] for row in probabilities], np.float32
                ),
            }
        )


class ForecastingInterface(Interface):
    """Maps series to forecast values and quantiles."""

    parameters = ("horizon",)

    def __init__(self, served: Served) -> None:
        assert isinstance(served.task, ForecastingTask)
        assert served.spec.forecasting is not None
        self._task = served.task
        details = served.spec.forecasting
        self.inputs = (
            TensorSpec("input", "FP32", ("n", "time", len(details.columns))),
            TensorSpec("lengths", "INT32", ("n",)),
        )
        self.outputs = (
            TensorSpec("value", "FP32", ("n", "horizon")),
            TensorSpec("quantiles", "FP32", ("n", "horizon", len(details.quantiles))),
        )
        self.limits = limits = self._task.limits
        self.max_sizes = {"n": limits.items, "time": limits.observations}
        self.properties = {
            "columns": [column.name for column in details.columns],
            "target": details.target,
            "horizon": details.horizon,
            "quantiles": details.quantiles,
            "least_observations": details.least_observations,
        }

    def answer_bytes(self, output: str, rows: int, parameters: Parameters) -> int:
        """Return the bytes of the medians, or of all quantiles."""
        steps = min(parameters.whole("horizon", 32) or self._task.horizon, self._task.horizon)
        return FLOAT_BYTES * rows * steps * (1 if output == "value" else self._task.num_quantiles)

    async def infer(self, tensors: Mapping[str, Tensor], parameters: Parameters, caller: Caller) -> Outcome:
        """Forecast each row."""
        _require("input", tensors)
        horizon = parameters.whole("horizon", 32) or 0
        with _tensor_errors():
            forecasts = await self._task.forecast(_series(tensors), horizon, (), caller)
        steps = forecasts[0].selection.steps
        with np.errstate(over="ignore"):
            numbers = (
                np.array([forecast.numbers for forecast in forecasts])
                .reshape(len(forecasts), steps, -1)
                .astype(np.float32)
            )
        if len(wrong := np.argwhere(~np.isfinite(numbers))):
            index = wrong[0][0]
            raise InvalidArgument(
                f"input[{index}]",
                f"expected a last value whose forecast fits 32 bits, found {forecasts[index].last_value}",
            )
        return Outcome({"value": numbers[:, :, 0], "quantiles": numbers[:, :, 1:]})


class GenerationInterface(Interface):
    """Maps a prompt to text."""

    is_decoupled = True
    parameters = ("max_tokens", "temperature", "top_k", "top_p", "seed", "stop")

    def __init__(self, served: Served) -> None:
        assert isinstance(served.task, GenerationTask)
        self._task = served.task
        self.inputs = (TensorSpec("prompt", "BYTES", (1,)),)
        self.outputs = (TensorSpec("text", "BYTES", (1,)),)
        self.properties = {}
        self.limits = self._task.limits

    def answer_bytes(self, output: str, rows: int, parameters: Parameters) -> int:
        """Return the bytes of a piece of text, which is at most that long; `infer` checks whole texts."""
        return LENGTH_BYTES + MAX_CHARACTER_BYTES * self.limits.piece_tokens

    async def infer(self, tensors: Mapping[str, Tensor], parameters: Parameters, caller: Caller) -> Outcome:
        """Generate the whole text.

        Raises:
            AnswerTooLarge: the longest text that `max_tokens` allows would be too large an answer.
        """
        tokens = self._task.tokens_of(parameters.whole("max_tokens", 32) or 0)
        check_answer(
            "max_tokens",
            OTHER_BYTES + MAX_CHARACTER_BYTES * tokens,
            self.limits.answer_bytes,
            "ask for fewer tokens, or for a stream",
        )
        outcome = Outcome({})
        texts: list[bytes] = []
        async with aclosing(self.stream(tensors, parameters, caller)) as pieces:
            async for outcome in pieces:
                texts.extend(outcome.tensors["text"])
        return Outcome({"text": [b"".join(texts)]}, outcome.parameters)

    async def stream(
        self, tensors: Mapping[str, Tensor], parameters: Parameters, caller: Caller
    ) -> AsyncGenerator[Outcome, None]:
        """Generate the text in pieces."""
        _require("prompt", tensors)
        stop = parameters.text("stop")
        options = GenerationOptions(
            prompt=_texts("prompt", tensors["prompt"])[0],
            max_tokens=parameters.whole("max_tokens", 32) or 0,
            temperature=parameters.number("temperature"),
            top_k=parameters.whole("top_k", 32) or 0,
            top_p=parameters.number("top_p"),
            seed=parameters.whole("seed", 64),
            stops=() if stop is None else (stop,),
        )
        with _tensor_errors():
            async with aclosing(self._task.generate(options, caller)) as pieces:
                async for piece in pieces:
                    response_parameters: dict[str, int | str] = {"seed": piece.seed}
                    if piece.finish is not None:
                        response_parameters["finish_reason"] = _FINISH[piece.finish]
                    yield Outcome(
                        {"text": [piece.text.encode()]}, response_parameters, piece.finish is not None
                    )


_INTERFACES: Final[Mapping[spec.Task, type[Any]]] = {
    "text-generation": GenerationInterface,
    "text-classification": ClassificationInterface,
    "forecasting": ForecastingInterface,
}


def interface_of(served: Served) -> Interface:
    """Return the interface of a version's task."""
    interface: Interface = _INTERFACES[served.spec.task](served)
    return interface


def properties_of(interface: Interface, task: str) -> dict[str, str]:
    """Return the properties for the metadata: text as it is, other values as JSON."""
    properties: dict[str, object] = {"task": task, **interface.properties}
    return {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in properties.items()
    }


def _require(name: str, tensors: Mapping[str, Tensor]) -> None:
    if name not in tensors:
        raise InvalidArgument("inputs", f"expected the tensor {name}, found none of that name")


def _texts(name: str, elements: Tensor) -> list[str]:
    texts = []
    for index, element in enumerate(elements):
        try:
            texts.append(element.decode())
        except UnicodeDecodeError as error:
            raise InvalidArgument(
                f"{name}[{index}]", f"expected UTF-8 text, found another byte at position {error.start}"
            ) from None
    return texts


def _rows(tensors: Mapping[str, Tensor]) -> list[NDArray[Any]]:
    """Return the rows of `input` without their padding.

    Raises:
        InvalidArgument: a length is not within 1 to the time steps of `input`.
    """
    rows, lengths = tensors["input"], tensors.get("lengths")
    assert not isinstance(rows, list)
    if lengths is None:
        return list(rows)
    steps = rows.shape[1]
    for index, length in enumerate(lengths):
        if not 1 <= length <= steps:
            raise InvalidArgument(
                f"lengths[{index}]", f"expected 1..{steps}, the time steps of input, found {length}"
            )
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]


def _series(tensors: Mapping[str, Tensor]) -> list[Observations]:
    """Return the rows of `input` as the observations of series."""
    rows = _rows(tensors)
    if sum(map(len, rows)) <= MAX_LISTED_OBSERVATIONS:
        return [one.tolist() for one in rows]
    return [one.astype(np.float64) for one in rows]


@contextmanager
def _tensor_errors() -> Iterator[None]:
    """Rename the field in a task's InvalidArgument from that of the typed service to the tensor's."""
    try:
        yield
    except InvalidArgument as error:
        [violation] = error.violations
        raise InvalidArgument(_tensor_field(violation.field), violation.description) from None


def _tensor_field(name: str) -> str:
    """Map texts[1] to text[1], series[1].observations[6].values[3] to input[1, 6, 3], stop[0] to stop."""
    head, _, rest = name.partition("[")
    place = ", ".join(re.findall(r"\d+", rest))
    tensor = {"texts": "text", "series": "input"}.get(head, head)
    return f"{tensor}[{place}]" if place and head != "stop" else tensor
