"""Continuous batching of generated text with bare onnxruntime and numpy: rows join at every step, and leave
when they have their tokens. Knows nothing of Triton.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines.graph import Bound, Graph
from benchmarks.models import Model, empty_state
from service.engine.sampling import Options, key_of, options_of, pick

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Job:
    """A text to generate.

    Attributes:
        prompt: token ids, at least one.
        max_tokens: how many to generate, at least 1.
        temperature: 0 is greedy.
        seed: of the random numbers.
        send: takes the text generated since the last call, and whether it was the last.
    """

    prompt: NDArray[np.int64]
    max_tokens: int
    temperature: float
    seed: int
    send: Callable[[str, bool], None]


class Slots:
    """The rows that generate side by side, the first `count` of fixed arrays.

    A row reads its prompt a token a step, beside rows that generate, and its state goes to and fro between
    two sets of arrays. Text is sent when a row has its first token, at every flush, and at its end.

    Args:
        model: a character model.
        rows: the most side by side.
    """

    def __init__(self, model: Model, rows: int) -> None:
        section = model.spec.generation
        assert section is not None, "expected a model that generates text"
        assert section.text.kind == "characters", "expected a model of characters"
        self.rows, self.count = rows, 0
        self._characters = np.array(list(section.text.vocabulary))
        self._graph, self._bound = Graph(model), dict[tuple[int, int], Bound]()
        self._sides, self._side = (empty_state(model, rows), empty_state(model, rows)), 0
        self._tokens = np.zeros((rows, 1), np.int64)
        self._logits = np.empty((rows, model.spec.outputs), np.float32)
        self._ones, self._every_row = np.ones(rows, np.int32), np.arange(rows)
        self._keys, self._temperatures = np.zeros(rows, np.uint64), np.ones(rows)
        self._positions = np.zeros(rows, np.uint64)  # tokens before the one sampled next
        self._jobs: list[Job] = []
        self._read: list[int] = []  # tokens of the prompt that each row has read
        self._has_new = False  # whether a row has no token of its own yet
        self._pieces: list[list[str]] = []
        self._ends = np.zeros(rows, np.uint64)  # positions at which rows end
        self._options: Options | None = None

    @property
    def can_admit(self) -> bool:
        """Whether a row is free."""
        return self.count < self.rows

    def admit(self, job: Job) -> None:
        """Let a row begin with the next step."""
        row = self.count
        for tensor in self._sides[self._side]:
            tensor[row] = 0
        self._tokens[row] = job.prompt[0]
        self._keys[row], self._temperatures[row] = key_of(job.seed), job.temperature
        self._positions[row] = len(job.prompt)
        self._ends[row] = len(job.prompt) + job.max_tokens
        self._jobs.append(job)
        self._read.append(1)
        self._pieces.append([])
        self.count += 1
        self._changed()

    def step(self) -> None:
        """Advance every row by one token, and end those that have all of theirs."""
        count, options = self.count, self._options
        if options is None:
            options = self._options = self._options_now()
        self._bound_now().run()
        self._side ^= 1
        sampled = pick(self._logits[:count], options, self._keys[:count], self._positions[:count])
        self._tokens[:count, 0] = sampled
        texts = self._characters[sampled].tolist()
        if self._has_new:
            self._advance_new(texts)
        else:
            self._positions[:count] += np.uint64(1)
            for pieces, text in zip(self._pieces, texts, strict=True):
                pieces.append(text)
        for row in np.flatnonzero(self._positions[:count] == self._ends[:count])[::-1]:
            self._end(int(row))

    def flush(self) -> None:
        """Send what every row has generated since the last time."""
        for job, pieces in zip(self._jobs, self._pieces, strict=True):
            if pieces:
                job.send("".join(pieces), False)
                pieces.clear()

    def _advance_new(self, texts: list[str]) -> None:
        """Keep the texts of rows; one that still reads its prompt takes the next token of that instead."""
        for row, job in enumerate(self._jobs):
            if self._read[row] < len(job.prompt):
                self._tokens[row] = job.prompt[self._read[row]]
                self._read[row] += 1
                continue
            self._positions[row] += np.uint64(1)
            if self._positions[row] == len(job.prompt) + 1 and job.max_tokens > 1:
                job.send(texts[row], False)  # the first token is sent at once
            else:
                self._pieces[row].append(texts[row])
        self._look_for_new()

    def _look_for_new(self) -> None:
        self._has_new = any(self._positions[row] == len(job.prompt) for row, job in enumerate(self._jobs))

    def _options_now(self) -> Options:
        zeros, ones = np.zeros(self.count, np.int64), np.ones(self.count)
        return options_of(self._temperatures[: self.count], zeros, ones, self._logits.shape[1])

    def _bound_now(self) -> Bound:
        """Return the run for this number of rows and this side of the state, bound when first needed."""
        key = (self.count, self._side)
        if key not in self._bound:
            count, before, after = self.count, self._sides[self._side], self._sides[self._side ^ 1]
            self._bound[key] = self._graph.bind(
                self._tokens[:count],
                self._ones[:count],
                [tensor[:count] for tensor in before],
                self._every_row[:count],
                self._logits[:count],
                [tensor[:count] for tensor in after],
            )
        return self._bound[key]

    def _end(self, row: int) -> None:
        """Send the rest of a row's text, and move the last row into its place."""
        self._jobs[row].send("".join(self._pieces[row]), True)
        last = self.count - 1
        for array in (*self._sides[self._side], self._tokens, self._keys, self._temperatures):
            array[row] = array[last]
        self._positions[row], self._ends[row] = self._positions[last], self._ends[last]
        _replace_by_last(self._jobs, row)
        _replace_by_last(self._read, row)
        _replace_by_last(self._pieces, row)
        self.count = last
        self._changed()

    def _changed(self) -> None:
        self._options = None
        self._look_for_new()


def _replace_by_last(items: list[Item], index: int) -> None:
    """Move the last of some items into the place of another, which goes."""
    items[index] = items[-1]
    items.pop()
