"""Says in a sentence what a model takes and answers with, and which command tries it."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from seqserve.cli.choosing import CLASSIFICATION, FORECASTING, GENERATION
from seqserve.cli.source import source_section
from seqserve.results import FeatureInfo, ModelInfo

_SHOWN = 6
_SOURCE_STEPS = 4096  # of a source whose model.json does not say more or less
_SHOWN_ENDS = 2
# What servers answer that do not say it yet: input, output, output_steps.
_BY_TASK = {
    GENERATION: ("text", "text", ""),
    CLASSIFICATION: ("text", "label", "last"),
    FORECASTING: ("steps", "forecast", ""),
}


def sentence(model: ModelInfo) -> str:
    """Return what to send and what comes back; "" for a version of which neither is known."""
    about = completed(model)
    if not about.input or not about.output:
        return ""
    needs = " It needs whole sequences." if about.kind == "whole" else ""
    if source := _source(about):
        needs += f" Its encoder reads {source} first, given as source."
    if first := _initial(about):
        needs += f" It begins from {' and '.join(first)}, given by name as initial."
    return f"Takes {_taken(about)} and answers with {_answer(about)}{_for_what(about)}.{needs}"


def command(model: ModelInfo) -> str:
    """Return a command that tries the model; "" for a version whose input is not known."""
    about = completed(model)
    if not about.input:
        return ""
    name = shlex.quote(about.name)
    verb = "label" if about.output == "label" and about.output_steps == "every" else "infer"
    by_input = {
        "text": f'seqserve {verb} {name} "A moving, funny film."',
        "tokens": f"echo 1 2 3 | seqserve infer {name}",
    }
    first = " --initial FILE.json" if _initial(about) else ""
    if section := source_section(about):
        own = "--source TEXT" if section.get("text") is not None else "--source-file FILE.json"
        return f"seqserve generate --model {name} {own}{first}"
    if first and about.task not in _BY_TASK:
        return f"seqserve infer {name} --file FILE.jsonl"
    by_task = {
        GENERATION: f'seqserve generate --model {name}{first} "Once upon a time"',
        CLASSIFICATION: f'seqserve classify --model {name} "A moving, funny film."',
        FORECASTING: f"seqserve forecast --model {name} --file FILE.csv",
    }
    return by_task.get(about.task) or by_input.get(about.input, f"seqserve infer {name} --file FILE.csv")


def completed(model: ModelInfo) -> ModelInfo:
    """Return a model with its input and output, by its task where the server does not say them."""
    taken, output, steps = _BY_TASK.get(model.task, ("", "", ""))
    return replace(
        model,
        input=model.input or taken,
        output=model.output or output,
        output_steps=model.output_steps or steps,
    )


def _initial(model: ModelInfo) -> list[str]:
    """Return the inputs of the model's init graph with their widths, as far as model.json is known."""
    init = model.spec.get("init")
    inputs = init.get("inputs") if isinstance(init, dict) else None
    return [
        f"{one['name']} ({one['size']} numbers)" if one["size"] != 1 else f"{one['name']} (1 number)"
        for one in (inputs if isinstance(inputs, list) else ())
        if isinstance(one, dict) and "name" in one and "size" in one
    ]


def _source(model: ModelInfo) -> str:
    """Return what the model's encoder reads, as far as model.json is known; "" where it has none."""
    section = source_section(model)
    if not section:
        return ""
    given = section.get("input")
    kind, size = (given.get("kind"), given.get("size")) if isinstance(given, dict) else ("", "")
    columns = section.get("columns")
    names = [str(one["name"]) for one in (columns or ()) if isinstance(one, dict) and "name" in one]
    if section.get("text") is not None:
        taken = "a text"
    elif kind == "tokens":
        taken = "token ids"
    else:
        taken = f"rows of {size} numbers a time step" + (f" ({_listed(names)})" if names else "")
    return f"{taken} of at most {section.get('max_steps', _SOURCE_STEPS)} steps"


def _taken(model: ModelInfo) -> str:
    if model.input != "steps":
        return {"tokens": "token ids"}.get(model.input, model.input)
    count = len(model.features)
    if not count:
        return "a row of numbers for every time step"
    names = f" ({_features(model.features)})" if all(each.name for each in model.features) else ""
    return f"one number a time step{names}" if count == 1 else f"rows of {count} numbers a time step{names}"


def _features(features: Sequence[FeatureInfo]) -> str:
    """List features with their units, each unit once for those that follow one another."""
    if len(features) > _SHOWN and len({each.unit for each in features}) > _SHOWN_ENDS:
        return _listed([each.name for each in features])
    groups = [
        (unit, [each.name for each in group]) for unit, group in groupby(features, lambda one: one.unit)
    ]
    return "; ".join(_listed(names) + (f" in {unit}" if unit else "") for unit, names in groups)


def _answer(model: ModelInfo) -> str:
    count = len(model.labels)
    labels = f" ({_listed(model.labels)})" if count else ""
    by_output = {
        "label": f"one of {count} labels{labels}" if count else "one of its labels",
        "probabilities": f"the probability of each of {count or model.outputs} labels{labels}",
        "embedding": f"an embedding of {model.outputs} numbers",
        "numbers": "one number" if model.outputs == 1 else f"{model.outputs} numbers",
        "forecast": "a forecast of the next values, with quantiles",
        "text": "the text that follows",
    }
    may_be_several = model.output == "label" and count and not _is_exclusive(model)
    return by_output.get("probabilities" if may_be_several else model.output, model.output)


def _is_exclusive(model: ModelInfo) -> bool:
    """Return whether exactly one label holds at a time; model.json says it where it is known."""
    section = model.spec.get("sequences")
    output = section.get("output") if isinstance(section, dict) else None
    return not isinstance(output, dict) or output.get("exclusive") is not False


def _for_what(model: ModelInfo) -> str:
    if model.output in ("forecast", "text"):
        return ""
    if model.output_steps == "every":
        return " for every time step" if model.input == "steps" else " for every token"
    return " for the whole text" if model.input == "text" else " for the whole sequence"


def _listed(names: Sequence[str]) -> str:
    if len(names) <= _SHOWN:
        return ", ".join(names)
    return ", ".join([*names[:_SHOWN_ENDS], "...", names[-1]])
