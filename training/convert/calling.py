"""Says how a converted model is served and called, with commands that work as they are."""

import json
import shlex
from pathlib import Path
from typing import Any

from service.contract import spec
from training.convert.golden import Goldens
from training.run import REPOSITORY

EXAMPLES_FILE = "examples.jsonl"
# Of the examples that a caller can send; more would make the file as large as model.json.
_MOST = 8
_COMMANDS = {"text-classification": "classify", "forecasting": "forecast"}


def example_lines(model: spec.ModelSpec, goldens: Goldens) -> str:
    """Return inputs of golden examples as callers send them, an object of JSON a line."""
    lines = []
    for index, one in enumerate(goldens.examples[:_MOST]):
        found: dict[str, Any] = {"id": str(index)}
        if "text" in one:
            found["text"] = one["text"]
        elif "tokens" in one:
            if model.text is not None:
                continue
            found["tokens"] = one["tokens"]
        else:
            if "values" not in one and model.sequences is not None and model.sequences.columns:
                continue
            found["steps"] = one.get("values", one["features"])
        if "initial" in one:
            found["initial"] = one["initial"]
        lines.append(json.dumps(found, ensure_ascii=False) + "\n")
    return "".join(lines)


def serving(repository: Path) -> str:
    """Return the command that serves a repository."""
    if repository == REPOSITORY:
        return "make serve"
    return f"SEQSERVE_REPOSITORY={shlex.quote(str(repository))} make serve"


def calling(model: spec.ModelSpec, folder: Path) -> str:
    """Return the command that asks a server of the model, with the version's own examples."""
    text = next((golden.text for golden in model.golden if golden.text), None)
    if model.task == "text-generation":
        return f"seqserve generate --model {model.name}{_source(model)} {shlex.quote(text or '')}".rstrip()
    if model.task in _COMMANDS:
        asked = shlex.quote(text or "a text") if model.task == "text-classification" else "--file rows.csv"
        return f"seqserve {_COMMANDS[model.task]} --model {model.name} {asked}"
    return f"seqserve infer {model.name} --file {shlex.quote(str(folder / EXAMPLES_FILE))}"


def _source(model: spec.ModelSpec) -> str:
    """Return the option with the source of a golden example, where an encoder reads one."""
    sources = [golden.source for golden in model.golden if golden.source is not None]
    if not sources:
        return ""
    text = next((one.text for one in sources if one.text), "a text")
    return f" --source {shlex.quote(text)}"
