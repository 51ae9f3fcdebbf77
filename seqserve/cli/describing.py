"""Says in a sentence what a model takes and answers with, and which command tries it."""

import shlex
from collections.abc import Sequence
from itertools import groupby

from seqserve.cli.choosing import CLASSIFICATION, FORECASTING, GENERATION
from seqserve.results import FeatureInfo, ModelInfo

_SHOWN = 6
_SHOWN_ENDS = 2
# What servers answer that do not say it yet: input, output, output_steps.
_BY_TASK = {
    GENERATION: ("text", "text", ""),
    CLASSIFICATION: ("text", "label", "last"),
    FORECASTING: ("steps", "forecast", ""),
}


def sentence(model: ModelInfo) -> str:
    """Return what to send and what comes back; "" for a version of which neither is known."""
    taken, output, steps = _interface(model)
    if not taken or not output:
        return ""
    answer = f"{_answer(model, output)}{_for_what(taken, output, steps)}"
    needs = " It needs whole sequences." if model.kind == "whole" else ""
    return f"Takes {_taken(model, taken)} and answers with {answer}.{needs}"


def command(model: ModelInfo) -> str:
    """Return a command that tries the model; "" for a version whose input is not known."""
    taken, output, steps = _interface(model)
    if not taken:
        return ""
    name = shlex.quote(model.name)
    verb = "label" if output == "label" and steps == "every" else "infer"
    by_input = {
        "text": f'seqserve {verb} {name} "A moving, funny film."',
        "tokens": f"echo 1 2 3 | seqserve infer {name}",
    }
    by_task = {
        GENERATION: f'seqserve generate --model {name} "Once upon a time"',
        CLASSIFICATION: f'seqserve classify --model {name} "A moving, funny film."',
        FORECASTING: f"seqserve forecast --model {name} --file FILE.csv",
    }
    return by_task.get(model.task) or by_input.get(taken, f"seqserve infer {name} --file FILE.csv")


def _interface(model: ModelInfo) -> tuple[str, str, str]:
    """Return input, output and output steps, by the task where the server does not say them."""
    by_task = _BY_TASK.get(model.task, ("", "", ""))
    return model.input or by_task[0], model.output or by_task[1], model.output_steps or by_task[2]


def _taken(model: ModelInfo, taken: str) -> str:
    if taken != "steps":
        return {"tokens": "token ids"}.get(taken, taken)
    if not model.features:
        return "a row of numbers for every time step"
    names = f" ({_features(model.features)})"
    count = len(model.features)
    return f"one number a time step{names}" if count == 1 else f"rows of {count} numbers a time step{names}"


def _features(features: Sequence[FeatureInfo]) -> str:
    """List features with their units, each unit once for those that follow one another."""
    if len(features) > _SHOWN and len({each.unit for each in features}) > _SHOWN_ENDS:
        return _listed([each.name for each in features])
    groups = [
        (unit, [each.name for each in group]) for unit, group in groupby(features, lambda one: one.unit)
    ]
    return "; ".join(_listed(names) + (f" in {unit}" if unit else "") for unit, names in groups)


def _answer(model: ModelInfo, output: str) -> str:
    count = len(model.labels)
    labels = f" ({_listed(model.labels)})" if count else ""
    if output == "label":
        return f"one of {count} labels{labels}" if count else "one of its labels"
    if output == "probabilities":
        return f"the probability of each of {count or model.outputs} labels{labels}"
    if output == "embedding":
        return f"an embedding of {model.outputs} numbers"
    if output == "numbers":
        return "one number" if model.outputs == 1 else f"{model.outputs} numbers"
    return {"forecast": "a forecast of the next values, with quantiles", "text": "the text that follows"}.get(
        output, output
    )


def _for_what(taken: str, output: str, steps: str) -> str:
    if output in ("forecast", "text"):
        return ""
    if steps == "every":
        return " for every time step" if taken == "steps" else " for every token"
    return " for the whole text" if taken == "text" else " for the whole sequence"


def _listed(names: Sequence[str]) -> str:
    if len(names) <= _SHOWN:
        return ", ".join(names)
    return ", ".join([*names[:_SHOWN_ENDS], "...", names[-1]])
