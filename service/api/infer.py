"""What the Open Inference Protocol asks of a model, by task: the tensors that it takes and gives, and how
they become a request of the task.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.api.parameters import Parameters
from service.api.tensors import Form, Tensor
from service.contract import spec
from service.engine.sequence import Caller
from service.errors import InvalidArgument
from service.models.loading import Served
from service.tasks.classification import ClassificationTask
from service.tasks.forecasting import ForecastingTask
from service.tasks.generation import Finish, GenerationOptions, GenerationTask

_FINISH: Final = {Finish.LENGTH: "LENGTH", Finish.STOP: "STOP"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer to a request, or one of several.

    Attributes:
        tensors: outputs by name.
        parameters: of the answer.
        is_last: none comes after it.
    """

    tensors: dict[str, Tensor]
    parameters: dict[str, int | str] = field(default_factory=dict)
    is_last: bool = True


class Interface(ABC):
    """One model as the protocol sees it.

    Args:
        served: the version that answers.

    Attributes:
        inputs, outputs: its tensors.
        optional: inputs that a request may do without.
        is_decoupled: whether a stream may answer a request with several messages.
        parameters: names of a request's options.
        properties: what the numbers mean.
    """

    inputs: Sequence[Form]
    outputs: Sequence[Form]
    optional: Collection[str] = ("lengths",)
    is_decoupled = False
    parameters: Sequence[str] = ()
    properties: Mapping[str, object]

    @abstractmethod
    async def infer(self, tensors: Mapping[str, Tensor], parameters: Parameters, caller: Caller) -> Outcome:
        """The whole answer.

        Args:
            tensors: that came, each of the form that it has in `inputs`.
            parameters: of the request.
            caller: who asks.

        Raises:
            InvalidArgument: a tensor is missing, or is not what the task takes.
            Overloaded, DeadlineExceeded, ModelFailure: from the engine.
        """

    async def stream(
        self, tensors: Mapping[str, Tensor], parameters: Parameters, caller: Caller
    ) -> AsyncGenerator[Outcome, None]:
        """The answer in pieces, as they come; in one, unless the task has smaller ones. Arguments and errors
        are those of `infer`.
        """
        yield await self.infer(tensors, parameters, caller)


class ClassificationInterface(Interface):
    """Texts, or token ids, to labels and probabilities."""

    optional = ("text", "input", "lengths")

    def __init__(self, served: Served) -> None:
        assert isinstance(served.task, ClassificationTask)
        assert served.spec.classification is not None
        self._task = served.task
        self._labels = served.spec.classification.labels
        self.inputs = (
            Form("text", "BYTES", ("n",)),
            Form("input", "INT64", ("n", "time")),
            Form("lengths", "INT32", ("n",)),
        )
        self.outputs = (
            Form("label", "BYTES", ("n",)),
            Form("probabilities", "FP32", ("n", len(self._labels))),
        )
        self.properties = {"labels": self._labels}

    async def infer(self, tensors: Mapping[str, Tensor], parameters: Parameters, caller: Caller) -> Outcome:
        """Classify."""
        if ("text" in tensors) == ("input" in tensors):
            raise InvalidArgument(
                "inputs", f"expected either text or input, found {'both' if 'text' in tensors else 'neither'}"
            )
        if "text" in tensors:
            if "lengths" in tensors:
                raise InvalidArgument("lengths", "expected it beside input alone, found it beside text")
            with _named():
                results = await self._task.classify(_texts("text", tensors["text"]), caller)
        else:
            results = await self._task.classify_tokens(_rows(tensors), caller)
        probabilities = [dict(one.ranked) for one in results]
        return Outcome(
            {
                "label": [one.ranked[0][0].encode() for one in results],
                "probabilities": np.array(
                    [[one[label] for label in self._labels] for one in probabilities], np.float32
                ),
            }
        )


class ForecastingInterface(Interface):
    """Series to values and quantiles ahead."""

    parameters = ("horizon",)

    def __init__(self, served: Served) -> None:
        assert isinstance(served.task, ForecastingTask)
        assert served.spec.forecasting is not None
        self._task = served.task
        details = served.spec.forecasting
        self.inputs = (
            Form("input", "FP32", ("n", "time", len(details.columns))),
            Form("lengths", "INT32", ("n",)),
        )
        self.outputs = (
            Form("value", "FP32", ("n", "horizon")),
            Form("quantiles", "FP32", ("n", "horizon", len(details.quantiles))),
        )
        self.properties = {
            "columns": [column.name for column in details.columns],
            "target": details.target,
            "horizon": details.horizon,
            "quantiles": details.quantiles,
            "least_observations": details.least_observations,
        }

    async def infer(self, tensors: Mapping[str, Tensor], parameters: Parameters, caller: Caller) -> Outcome:
        """Forecast."""
        _require("input", tensors)
        horizon = parameters.whole("horizon", 32) or 0
        with _named():
            forecasts = await self._task.forecast(
                [rows.tolist() for rows in _rows(tensors)], horizon, (), caller
            )
        steps = forecasts[0].wanted.steps
        with np.errstate(over="ignore"):
            numbers = (
                np.array([one.numbers for one in forecasts])
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
    """A prompt to text."""

    is_decoupled = True
    parameters = ("max_tokens", "temperature", "top_k", "top_p", "seed", "stop")

    def __init__(self, served: Served) -> None:
        assert isinstance(served.task, GenerationTask)
        self._task = served.task
        self.inputs = (Form("prompt", "BYTES", (1,)),)
        self.outputs = (Form("text", "BYTES", (1,)),)
        self.properties = {}

    async def infer(self, tensors: Mapping[str, Tensor], parameters: Parameters, caller: Caller) -> Outcome:
        """Generate to the end."""
        outcome = Outcome({})
        texts: list[bytes] = []
        async with aclosing(self.stream(tensors, parameters, caller)) as pieces:
            async for outcome in pieces:
                texts.extend(outcome.tensors["text"])
        return Outcome({"text": [b"".join(texts)]}, outcome.parameters)

    async def stream(
        self, tensors: Mapping[str, Tensor], parameters: Parameters, caller: Caller
    ) -> AsyncGenerator[Outcome, None]:
        """Generate, a piece of text at a time."""
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
        with _named():
            async with aclosing(self._task.generate(options, caller)) as pieces:
                async for piece in pieces:
                    told: dict[str, int | str] = {"seed": piece.seed}
                    if piece.finish is not None:
                        told["finish_reason"] = _FINISH[piece.finish]
                    yield Outcome({"text": [piece.text.encode()]}, told, piece.finish is not None)


_INTERFACES: Final[Mapping[spec.Task, type[Any]]] = {
    "text-generation": GenerationInterface,
    "text-classification": ClassificationInterface,
    "forecasting": ForecastingInterface,
}


def interface_of(served: Served) -> Interface:
    """A version as the protocol sees it."""
    interface: Interface = _INTERFACES[served.spec.task](served)
    return interface


def properties_of(interface: Interface, task: str) -> dict[str, str]:
    """The properties in metadata: plain text as it is, all else as JSON."""
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
    """Each row of `input` without its padding.

    Raises:
        InvalidArgument: a length is not one of 1 to the row's.
    """
    rows, lengths = tensors["input"], tensors.get("lengths")
    assert not isinstance(rows, list)
    if lengths is None:
        return list(rows)
    most = rows.shape[1]
    for index, length in enumerate(lengths):
        if not 1 <= length <= most:
            raise InvalidArgument(
                f"lengths[{index}]", f"expected 1..{most}, the time steps of input, found {length}"
            )
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]


@contextmanager
def _named() -> Iterator[None]:
    """What a task refuses by the names of the typed services, refused by those of tensors."""
    try:
        yield
    except InvalidArgument as error:
        [violation] = error.violations
        raise InvalidArgument(_tensor_field(violation.field), violation.description) from None


def _tensor_field(name: str) -> str:
    """texts[1] as text[1], series[1].observations[6].values[3] as input[1, 6, 3], stop[0] as stop."""
    head, _, rest = name.partition("[")
    place = ", ".join(re.findall(r"\d+", rest))
    tensor = {"texts": "text", "series": "input"}.get(head, head)
    return f"{tensor}[{place}]" if place and head != "stop" else tensor
