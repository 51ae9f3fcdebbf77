"""The scripted server's answers of seqserve.v1.Sequences.

Each time step is a word of a text, a token or a row. Its output is its number: the length of the word, the
token, or the row's first value. Its label is "big" above 5, with a probability of 0.75, and else "small".
"""

# ruff: noqa: N802 -- names are those of the generated servicers

import re
from collections import deque
from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from seqserve.v1 import sequences_pb2 as sequences
from seqserve.v1 import sequences_pb2_grpc

LABELS = ("big", "small")
VERSION = 4
_WORD = re.compile(r"\S+")


class ScriptedSequences(sequences_pb2_grpc.SequencesServicer):
    """Answers as this module says; a model named "numbers" has no labels, and gives numbers.

    A sequence without a time step is refused. States are the numbers of all steps so far.
    """

    requests: list[Message]
    breaks: deque[tuple[int, Status | None]]
    failure: Status | None

    def Infer(self, request: sequences.InferRequest, context: grpc.ServicerContext) -> Any:
        empty = [index for index, each in enumerate(request.inputs) if not numbers(each)]
        if empty:
            self.requests.append(request)
            fields = [f"inputs[{index}]" for index in empty]
            self._fail(context, refused(dict.fromkeys(fields, "expected a step, found none")))
        outputs = [output(each, request.model, request.output_steps, request.raw) for each in request.inputs]
        return self._answer(request, context, sequences.InferResponse(outputs=outputs, version=VERSION))

    def InferStream(
        self, request_iterator: Iterator[sequences.InferStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[sequences.InferStreamResponse]:
        """A break comes with the request after so many."""
        self._watch(context)
        after, status = self.breaks.popleft() if self.breaks else (0, None)
        firsts: dict[str, sequences.InferStreamRequest] = {}
        states: dict[str, bytes] = {}
        for index, request in enumerate(request_iterator):
            copy = sequences.InferStreamRequest()
            copy.CopyFrom(request)
            self.requests.append(copy)
            self._fail(context, status if index == after else self.failure)
            answer = self._stepped(request, firsts, states)
            if request.end:
                firsts.pop(request.id, None)
                states.pop(request.id, None)
            yield answer

    @staticmethod
    def _stepped(
        request: sequences.InferStreamRequest,
        firsts: dict[str, sequences.InferStreamRequest],
        states: dict[str, bytes],
    ) -> sequences.InferStreamResponse:
        found = numbers(request.input)
        if not found and not request.end:
            return sequences.InferStreamResponse(
                id=request.id, error=refused({"input": "expected a step, found none"})
            )
        if request.id not in firsts:
            assert request.model, "the first message of a sequence names its model"
            firsts[request.id] = request
        first = firsts[request.id]
        state = states.get(request.id, first.state) + "".join(f"{each:g};" for each in found).encode()
        states[request.id] = state
        return sequences.InferStreamResponse(
            id=request.id,
            output=output(request.input, first.model, first.output_steps, first.raw) if found else None,
            state=state if request.return_state else b"",
            position=state.count(b";"),
            version=VERSION,
        )

    def _answer(self, request: Any, context: grpc.ServicerContext, answer: Any) -> Any:
        raise NotImplementedError

    def _fail(self, context: grpc.ServicerContext, status: Status | None) -> None:
        raise NotImplementedError

    def _watch(self, context: grpc.ServicerContext) -> None:
        raise NotImplementedError


def numbers(given: sequences.SequenceInput) -> list[float]:
    """The number of each time step."""
    if given.HasField("text"):
        return [float(len(word)) for word in given.text.split()]
    if given.HasField("tokens"):
        return list(map(float, given.tokens.ids))
    return list(given.steps.values[:: given.steps.features or 1])


def output(given: sequences.SequenceInput, model: str, steps: int, is_raw: bool) -> sequences.SequenceOutput:
    is_every = steps == sequences.OUTPUT_STEPS_EVERY
    found = numbers(given)[0 if is_every else -1 :]
    is_labelled = model != "numbers"
    words = [sequences.TextSpan(start=word.start(), end=word.end()) for word in _WORD.finditer(given.text)]
    whole = [sequences.TextSpan(start=0, end=len(given.text))] if given.text else []
    return sequences.SequenceOutput(
        steps=len(found),
        width=1 if is_raw or not is_labelled else 0,
        values=found if is_raw or not is_labelled else [],
        labels=[LABELS[number <= 5] for number in found] if is_labelled else [],
        probabilities=[share for number in found for share in ((0.75, 0.25) if number > 5 else (0.25, 0.75))]
        if is_labelled
        else [],
        spans=words if is_every else whole,
    )


def refused(fields: dict[str, str]) -> Status:
    packed = Packed()
    packed.Pack(
        BadRequest(
            field_violations=[
                BadRequest.FieldViolation(field=field, description=description)
                for field, description in fields.items()
            ]
        )
    )
    text = "; ".join(f"{field}: {description}" for field, description in fields.items())
    return Status(code=grpc.StatusCode.INVALID_ARGUMENT.value[0], message=text, details=[packed])
