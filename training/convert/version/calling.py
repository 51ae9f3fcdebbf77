"""Says how a converted model is served and called, with commands that work as they are."""

import json
import shlex
from pathlib import Path
from typing import Any

from service.contract import spec
from training.convert.meaning.golden import Goldens
from training.recipes.run import REPOSITORY

EXAMPLES_FILE = "examples.jsonl"
INITIAL_FILE = "initial.json"
SOURCE_FILE = "source.json"
# Of the examples that a caller can send; more would make the file as large as model.json.
_MOST = 8
_COMMANDS = {"text-classification": "classify", "forecasting": "forecast"}


def call_files(model: spec.ModelSpec, goldens: Goldens) -> dict[str, bytes]:
    """Return the files of inputs that `calling` names, by their names."""
    files = {EXAMPLES_FILE: example_lines(model, goldens).encode()}
    if model.task == "text-generation":
        first = _generated(model)
        if first.initial:
            files[INITIAL_FILE] = json.dumps(first.initial).encode()
        if first.source is not None and first.source.text is None:
            files[SOURCE_FILE] = json.dumps(first.source.tokens or first.source.features).encode()
    return files


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
    if model.task == "text-generation":
        first = _generated(model)
        words = [
            "seqserve",
            "generate",
            "--model",
            model.name,
            *_first_state(first, folder),
            first.text or "",
        ]
        return shlex.join(words)
    text = next((golden.text for golden in model.golden if golden.text), None)
    if model.task in _COMMANDS:
        asked = shlex.quote(text or "a text") if model.task == "text-classification" else "--file rows.csv"
        return f"seqserve {_COMMANDS[model.task]} --model {model.name} {asked}"
    return f"seqserve infer {model.name} --file {shlex.quote(str(folder / EXAMPLES_FILE))}"


def _generated(model: spec.ModelSpec) -> spec.Golden:
    """Return the golden example that the command generates from: one with a text where there is one."""
    return next((golden for golden in model.golden if golden.text), model.golden[0])


def _first_state(golden: spec.Golden, folder: Path) -> list[str]:
    """Return the options with what a golden example's first state is computed from, if it is."""
    words = []
    if golden.initial:
        words += ["--initial", str(folder / INITIAL_FILE)]
    if golden.source is not None and golden.source.text is not None:
        words += ["--source", golden.source.text]
    elif golden.source is not None:
        words += ["--source-file", str(folder / SOURCE_FILE)]
    return words
