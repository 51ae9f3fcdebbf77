"""Sequences of any use: text, token ids or values in, labels, probabilities, numbers or embeddings out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.contract.spec import ModelSpec, OutputSpec, SequencesSpec
from service.engine.request import Caller, Final, Goal, Request
from service.engine.streaming import Submitter, run_all, run_one
from service.errors import AnswerTooLarge, InvalidArgument, shown
from service.tasks.feature_columns import FeatureColumns
from service.tasks.initial import FirstState, Init
from service.tasks.limits import Limits, check_count
from service.tasks.sequence_inputs import InputKind, InputReader, NetworkInput, SequenceInput
from service.tasks.sequence_outputs import OutputKind, OutputReader, SequenceOutput
from service.tasks.states import StateRow, StepState
from service.tasks.text_reader import TextReader
from service.tasks.text_work import TextWork
from service.tasks.windows import WindowFit

__all__ = ["PreparedSequences", "PreparedSteps", "SequenceInput", "SequenceOutput", "SequencesTask"]

# Most bytes of one output's fields beside its rows, and of the answer's own.
_OUTPUT_BYTES, _ANSWER_BYTES = 48, 64
_FEWER = "ask for fewer sequences or steps per call, or for the output of the last step alone"


class PreparedSequences(NamedTuple):
    """Sequences that have been checked and can be run.

    Attributes:
        inputs: what the network gets of each.
        states: state before the first step of each; None: the model's constant start.
        goal: which steps' outputs are wanted.
        raw: whether the network's own outputs are wanted.
        answer_bytes: the most bytes that the answer takes.
    """

    inputs: list[NetworkInput]
    states: list[StateRow | None]
    goal: Goal
    raw: bool
    answer_bytes: int


class PreparedSteps(NamedTuple):
    """Further time steps of a sequence, checked.

    Attributes:
        input: what the network gets.
        position: time steps of the sequence before them.
        state: state before them; None: the model's constant start.
        goal: which steps' outputs are wanted.
        raw: whether the network's own outputs are wanted.
        answer_bytes: the most bytes that the answer takes.
    """

    input: NetworkInput
    position: int
    state: StateRow | None
    goal: Goal
    raw: bool
    answer_bytes: int


class SequencesTask:
    """Runs sequences with one model.

    Args:
        model: spec of a model for sequences or text-classification.
        tokenizer: turns text into ids; None where the model has no tokenizer file.
        init: graph of the first states; None where the model has none.
        engine: runs the model.
        limits: sizes of requests.
        text_work: decides where texts are read.

    Attributes:
        limits: sizes of requests.
        values: number of values of a time step, F; 0: the model takes none.
        width: number of the network's outputs, of one row.
        every_by_default: whether a request that does not say gets the output of every time step.
        is_streamable: whether steps can be given as they come.
    """

    def __init__(
        self,
        model: ModelSpec,
        tokenizer: Tokenizer | None,
        init: Init | None,
        engine: Submitter,
        limits: Limits,
        text_work: TextWork,
    ) -> None:
        section = section_of(model)
        takes_tokens = model.input.kind == "tokens"
        self._name = model.name
        self._engine = engine
        self._inputs = InputReader(
            None if takes_tokens else FeatureColumns(section.columns, model.input.size),
            model.input.size if takes_tokens else 0,
            TextReader(model.name, section.text, tokenizer) if section.text is not None else None,
            WindowFit.of(model.network),
            limits,
            text_work,
        )
        self._outputs = OutputReader(section.output, model.outputs)
        self._first = FirstState(model.network, init, text_work.workers)
        self._is_pooled = model.network.is_pooled
        self.limits = limits
        self.values = 0 if takes_tokens else model.input.size
        self.width = model.outputs
        self.every_by_default = section.output.steps == "every"
        self.is_streamable = model.network.is_streamable

    @property
    def labels(self) -> list[str]:
        """Names of the classes, in order; none without labels."""
        return self._outputs.labels

    @property
    def input(self) -> InputKind:
        """Kind of input that callers send: text (tokens are taken as well), tokens or steps."""
        return self._inputs.kind

    @property
    def output(self) -> OutputKind:
        """Kind of output that callers get: labels, probabilities, numbers or an embedding."""
        return self._outputs.kind

    async def infer(
        self, inputs: Sequence[SequenceInput], every: bool | None, raw: bool, caller: Caller
    ) -> list[SequenceOutput]:
        """Run whole sequences side by side.

        Args:
            inputs: the sequences.
            every: whether the outputs of every time step are wanted; None: as the model was made for.
            raw: whether the network's own outputs are wanted.
            caller: who asks.

        Raises:
            InvalidArgument: a sequence is not what the model takes, or the answer would be too large.
            Overloaded, DeadlineExceeded, ModelFailure: from the engine.
        """
        return await self.run(await self.prepare(inputs, every, raw, caller), caller)

    async def prepare(
        self, inputs: Sequence[SequenceInput], every: bool | None, raw: bool, caller: Caller
    ) -> PreparedSequences:
        """Check whole sequences, and bound their answer before anything is run; `infer` has the arguments.

        Raises:
            InvalidArgument: a sequence is not what the model takes, or the answer would be too large.
        """
        check_count("inputs", "sequences", len(inputs), self.limits.items)
        goal = self._goal(every)
        fields = [f"inputs[{index}]" for index in range(len(inputs))]
        read = await self._inputs.read(inputs, fields, goal is Goal.EVERY, caller)
        size = _ANSWER_BYTES + sum(self._bytes_of(one, goal, raw) for one in read)
        self._check_answer("inputs", size)
        states = [
            await self._first.row(one.initial, f"{field}.initial", caller)
            for one, field in zip(inputs, fields, strict=True)
        ]
        return PreparedSequences(read, states, goal, raw, size)

    async def run(self, prepared: PreparedSequences, caller: Caller) -> list[SequenceOutput]:
        """Run prepared sequences.

        Raises:
            InvalidArgument: the network gives no probabilities for a sequence.
            Overloaded, DeadlineExceeded, ModelFailure: from the engine.
        """
        requests = [
            Request(one.inputs, prepared.goal, state=state)
            for one, state in zip(prepared.inputs, prepared.states, strict=True)
        ]
        outputs = await run_all(self._engine, requests, caller)
        return [
            await self._output(output, one, prepared, f"inputs[{index}]")
            for index, (output, one) in enumerate(zip(outputs, prepared.inputs, strict=True))
        ]

    async def advance(
        self, state: StepState | None, one: SequenceInput, every: bool | None, raw: bool, caller: Caller
    ) -> tuple[SequenceOutput, StepState]:
        """Run further time steps of a sequence.

        Args:
            state: state after the earlier steps; None: the start of a sequence.
            one: the time steps, at least one.
            every: whether the outputs of every time step are wanted; None: as the model was made for.
            raw: whether the network's own outputs are wanted.
            caller: who asks.

        Returns:
            The output of these steps, and the state after them.

        Raises:
            InvalidArgument: the steps are not what the model takes, or the answer would be too large.
            Overloaded, DeadlineExceeded, ModelFailure: from the engine.
        """
        return await self.run_steps(await self.prepare_steps(state, one, every, raw, caller), caller)

    async def prepare_steps(
        self,
        state: StepState | None,
        one: SequenceInput,
        every: bool | None,
        raw: bool,
        caller: Caller,
        other_bytes: int = 0,
    ) -> PreparedSteps:
        """Check further time steps of a sequence, and bound their answer before they are run.

        Args:
            state: see `advance`.
            one: see `advance`.
            every: see `advance`.
            raw: see `advance`.
            caller: who asks.
            other_bytes: bytes of the answer beside the output.

        Raises:
            InvalidArgument: the steps are not what the model takes, or the answer would be too large.
        """
        goal = self._goal(every)
        [read] = await self._inputs.read([one], ["input"], goal is Goal.EVERY, caller)
        size = other_bytes + self._bytes_of(read, goal, raw)
        self._check_answer("input", size)
        position, rows = await self._before(state, one, caller)
        return PreparedSteps(read, position, rows, goal, raw, size)

    async def run_steps(self, prepared: PreparedSteps, caller: Caller) -> tuple[SequenceOutput, StepState]:
        """Run prepared time steps; return their output and the state after them.

        Raises:
            InvalidArgument: the network gives no probabilities for them.
            Overloaded, DeadlineExceeded, ModelFailure: from the engine.
        """
        read = prepared.input
        request = Request(read.inputs, prepared.goal, state=prepared.state, keeps_state=True)
        final: Final = await run_one(self._engine, request, caller)
        output = await self._output(final.output, read, prepared, "input")
        return output, StepState(prepared.position + read.length, final.state)

    def check_streamable(self) -> None:
        """Raise InvalidArgument for a model that needs whole sequences."""
        if not self.is_streamable:
            raise InvalidArgument(
                "model",
                f"expected a model that takes steps as they come, found {self._name}, which needs whole "
                "sequences: send them to Infer",
            )

    async def _before(
        self, state: StepState | None, one: SequenceInput, caller: Caller
    ) -> tuple[int, StateRow | None]:
        """Return the position and the state before the steps of a message."""
        if state is None:
            return 0, await self._first.row(one.initial, "input.initial", caller)
        if one.initial:
            raise InvalidArgument(
                "input.initial",
                "expected the inputs of the init graph in the first message of a sequence alone, and not "
                f"beside a state, found {', '.join(map(shown, list(one.initial)[:20]))}",
            )
        return state.position, state.rows

    def row_bytes(self, raw: bool) -> int:
        """Return the most bytes that one row of an output takes in an answer, of whichever protocol."""
        return self._outputs.row_bytes(raw)

    def _goal(self, every: bool | None) -> Goal:
        wants_every = self.every_by_default if every is None else every
        if wants_every and self._is_pooled:
            raise InvalidArgument(
                "output_steps",
                f"expected the last step for {self._name}, which has one output a sequence, found every step",
            )
        return Goal.EVERY if wants_every else Goal.LAST

    def _bytes_of(self, one: NetworkInput, goal: Goal, raw: bool) -> int:
        rows = one.rows.stop - one.rows.start if goal is Goal.EVERY else 1
        return _OUTPUT_BYTES + rows * self._outputs.row_bytes(raw)

    def _check_answer(self, field: str, size: int) -> None:
        if size > self.limits.answer_bytes:
            raise AnswerTooLarge(field, size, self.limits.answer_bytes, _FEWER)

    async def _output(
        self,
        output: NDArray[np.float32],
        one: NetworkInput,
        asked: PreparedSequences | PreparedSteps,
        field: str,
    ) -> SequenceOutput:
        rows: NDArray[Any] = output[one.rows] if asked.goal is Goal.EVERY else output[None]
        return await self._outputs.read(rows, asked.raw, one.spans, field)


def section_of(model: ModelSpec) -> SequencesSpec:
    """Return a model's section for sequences; of a text-classification model one that says the same.

    The classes of such a model are not required to differ, so that its section is not validated.
    """
    if model.sequences is not None:
        return model.sequences
    classes = model.classification
    assert classes is not None, "sequences are run by these two tasks alone"
    output = OutputSpec.model_construct(
        kind="logits", labels=classes.labels, exclusive=True, columns=None, steps="last"
    )
    return SequencesSpec.model_construct(text=classes.text, columns=None, output=output)
