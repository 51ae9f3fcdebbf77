"""Interface of sequences: models of any use, by what they take and give."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from service.api.answer_limits import check_answer
from service.api.caller import current_holding
from service.api.open_inference.interfaces.interface import (
    FLOAT_BYTES,
    OTHER_BYTES,
    Interface,
    Outcome,
    StatefulInterface,
    num_rows,
)
from service.api.open_inference.interfaces.sequence_errors import sequence_errors
from service.api.open_inference.interfaces.sequence_tensors import (
    NETWORK_OUTPUT,
    properties_for,
    sequences_of,
    specs_of_inputs,
    specs_of_outputs,
    tensor_names_of,
    tensors_of,
)
from service.api.open_inference.parameters import Parameters
from service.api.open_inference.tensors import Tensor, TensorSpec
from service.engine.request import Caller, Goal
from service.errors import InvalidArgument, shown
from service.models.loading import Served
from service.tasks.limits import Limits
from service.tasks.sequences import SequenceOutput, SequencesTask

_STEPS, _RAW = "output_steps", "raw"
_EVERY: Final = {"last": False, "every": True}
_FEWER: Final = "ask for fewer rows or steps per call, or for the output of the last step alone"


class SequencesInterface(Interface):
    """Maps texts, token ids or values to labels, probabilities, numbers or embeddings."""

    parameters = (_STEPS, _RAW)

    def __init__(self, served: Served) -> None:
        assert isinstance(served.task, SequencesTask)
        assert served.spec.sequences is not None
        self._task = task = served.task
        init = served.spec.network.init
        widths = {one.name: one.size for one in init.inputs} if init else {}
        self._initial = tensor_names_of(widths)
        self.inputs = specs_of_inputs(task, {self._initial[name]: size for name, size in widths.items()})
        # Later requests of a sequence leave out the inputs of the init graph.
        either = ("text", "input") if task.input == "text" else ()
        self.optional = (*either, "lengths", *self._initial.values())
        self.outputs = specs_of_outputs(task)
        limits = self.limits
        max_steps = limits.observations if task.input == "steps" else limits.text_length
        self.max_sizes = {"n": limits.items, "time": max_steps}
        self._section = served.spec.sequences

    @property
    def limits(self) -> Limits:
        """Sizes of requests and answers, those of the task."""
        return self._task.limits

    @property
    def properties(self) -> Mapping[str, object]:
        """Meaning of the tensors, for the metadata; a model may have thousands of columns."""
        return properties_for(self._section, self._task)

    def outputs_for(self, parameters: Parameters) -> Sequence[TensorSpec]:
        """Return the outputs, with the network's own where `raw` asks for them beside classes."""
        has_own = any(one.name == NETWORK_OUTPUT for one in self.outputs)
        return self.outputs if has_own or not _is_raw(parameters) else specs_of_outputs(self._task, raw=True)

    def answer_bytes(
        self, outputs: Collection[str], tensors: Mapping[str, Tensor], parameters: Parameters
    ) -> int:
        """Return the bytes of all outputs, each text being one step: those of texts are yet to be read."""
        time = self._time(tensors, 1) if self._wants_every(parameters) else 1
        return num_rows(tensors) * time * self._task.row_bytes(_is_raw(parameters))

    async def infer(self, tensors: Mapping[str, Tensor], parameters: Parameters, caller: Caller) -> Outcome:
        """Run the sequences side by side."""
        inputs, raw = sequences_of(tensors, self._task.input, self._initial), _is_raw(parameters)
        with sequence_errors(self._task.values, self._initial):
            prepared = await self._task.prepare(inputs, _every(parameters), raw, caller)
        time = self._time(tensors, max(one.rows.stop - one.rows.start for one in prepared.inputs))
        rows = len(inputs) * (time if prepared.goal is Goal.EVERY else 1)
        with self._holding(rows, raw):
            outputs = await self._task.run(prepared, caller)
            return await self._outcome(outputs, time if prepared.goal is Goal.EVERY else None)

    async def _outcome(self, outputs: Sequence[SequenceOutput], time: int | None) -> Outcome:
        return Outcome(await tensors_of(outputs, time, has_spans=self._task.input == "text"))

    def _holding(self, rows: int, raw: bool) -> AbstractContextManager[None]:
        """Return the context in which an answer of so many rows is made.

        Raises:
            AnswerTooLarge: it would be too large.
        """
        size = OTHER_BYTES + rows * self._task.row_bytes(raw)
        check_answer("inputs", size, self.limits.answer_bytes, _FEWER)
        return current_holding.get().of_answer(size)

    def _time(self, tensors: Mapping[str, Tensor], text_steps: int) -> int:
        """Return the time steps of the outputs: those of `input`, whatever the lengths, or of the texts."""
        given = tensors.get("input")
        return text_steps if given is None or isinstance(given, list) else int(given.shape[1])

    def _wants_every(self, parameters: Parameters) -> bool:
        every = _every(parameters)
        return self._task.every_by_default if every is None else every


class StepwiseInterface(SequencesInterface, StatefulInterface):
    """Maps sequences whose time steps may come in several requests."""

    def __init__(self, served: Served) -> None:
        super().__init__(served)
        self.state_bytes = FLOAT_BYTES * sum(state.size for state in served.spec.network.states)

    async def advance(
        self, state: Any, tensors: Mapping[str, Tensor], parameters: Parameters, caller: Caller
    ) -> tuple[Outcome, Any]:
        """Run further time steps of one sequence."""
        [one] = sequences_of(tensors, self._task.input, self._initial)
        raw = _is_raw(parameters)
        with sequence_errors(self._task.values, self._initial):
            prepared = await self._task.prepare_steps(state, one, _every(parameters), raw, caller)
        is_every = prepared.goal is Goal.EVERY
        time = self._time(tensors, prepared.input.rows.stop - prepared.input.rows.start)
        with self._holding(time if is_every else 1, raw):
            output, after = await self._task.run_steps(prepared, caller)
            return await self._outcome([output], time if is_every else None), after


def interface_for_sequences(served: Served) -> SequencesInterface:
    """Return the interface of a version for sequences: stepwise where its steps can be given as they come."""
    assert isinstance(served.task, SequencesTask)
    return (StepwiseInterface if served.task.is_streamable else SequencesInterface)(served)


def _every(parameters: Parameters) -> bool | None:
    """Return whether the output of every time step is asked for; None: as the model was made for.

    Raises:
        InvalidArgument: the parameter is another text than last and every.
    """
    steps = parameters.text(_STEPS)
    if steps is None:
        return None
    if steps not in _EVERY:
        raise InvalidArgument(_STEPS, f"expected last or every, found the text {shown(steps)}")
    return _EVERY[steps]


def _is_raw(parameters: Parameters) -> bool:
    return parameters.truth(_RAW) or False
