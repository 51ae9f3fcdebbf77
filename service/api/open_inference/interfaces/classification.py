"""Interface of text-classification."""

from collections.abc import Collection, Mapping

import numpy as np

from service.api.open_inference.interfaces.interface import (
    FLOAT_BYTES,
    LENGTH_BYTES,
    Interface,
    Outcome,
    num_rows,
)
from service.api.open_inference.interfaces.values import (
    require_text_or_input,
    rows_of,
    tensor_errors,
    texts_of,
)
from service.api.open_inference.parameters import Parameters
from service.api.open_inference.tensors import Tensor, TensorSpec
from service.engine.request import Caller
from service.models.loading import Served
from service.tasks.classification import ClassificationTask
from service.tasks.limits import Limits


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
        limits = self.limits
        self.max_sizes = {"n": limits.items, "time": limits.text_length}

    @property
    def limits(self) -> Limits:
        """Sizes of requests and answers, those of the task."""
        return self._task.limits

    @property
    def properties(self) -> Mapping[str, object]:
        """Meaning of the tensors, for the metadata."""
        return {"labels": self._labels}

    def answer_bytes(
        self, outputs: Collection[str], tensors: Mapping[str, Tensor], parameters: Parameters
    ) -> int:
        """Return the bytes of the longest labels, and of all probabilities."""
        row = {
            "label": LENGTH_BYTES + self._task.max_label_bytes,
            "probabilities": FLOAT_BYTES * self._task.num_labels,
        }
        return num_rows(tensors) * sum(row[name] for name in outputs)

    async def infer(self, tensors: Mapping[str, Tensor], parameters: Parameters, caller: Caller) -> Outcome:
        """Classify the texts or the rows of token ids."""
        require_text_or_input(tensors)
        if "text" in tensors:
            with tensor_errors():
                results = await self._task.classify(texts_of("text", tensors["text"]), caller)
        else:
            results = await self._task.classify_tokens(rows_of(tensors), caller)
        probabilities = [dict(result.ranked) for result in results]
        return Outcome(
            {
                "label": [result.ranked[0][0].encode() for result in results],
                "probabilities": np.array(
                    [[row[label] for label in self._labels] for row in probabilities], np.float32
                ),
            }
        )
