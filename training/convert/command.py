"""The command `python -m training convert`: options, progress, report, exit status."""

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from pydantic import ValidationError
from rich.console import Console

from seqserve.cli.output import escape_controls
from service.contract import spec
from service.contract.sentences import sentences
from training.convert.api import Conversion, Options, convert
from training.convert.command_options import (
    AsJson,
    Characters,
    Checkpoint,
    Data,
    DataInput,
    DryRun,
    Encoder,
    EndTokens,
    Every,
    Examples,
    Features,
    Fixed,
    Labels,
    LengthsInput,
    Licence,
    Longer,
    MaxTokens,
    Name,
    Network,
    Output,
    OutputName,
    Overlap,
    Pad,
    PadValue,
    PrependStart,
    Repository,
    Several,
    SourceCharacters,
    SourceTokenizer,
    StartToken,
    State,
    TargetFeatures,
    Task,
    TimeFirst,
    Tokenizer,
    Width,
    Window,
)
from training.convert.foreign import Refused
from training.convert.graph.bounds import bounded_memory
from training.convert.meaning.meaning import MAX_TOKENS
from training.convert.report import as_json, print_report, refusal_as_json
from training.errors import TrainingError
from training.export.export import without_folders
from training.failures import FAILED, WRONG_INPUT
from training.interrupts import exit_at_termination
from training.recipes.run import REPOSITORY
from training.writing import WriteError

_FIXED = re.compile(r"([^=]+)=([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)")


def convert_network(
    network: Network,
    name: Name = "",
    repository: Repository = REPOSITORY,
    checkpoint: Checkpoint = None,
    examples: Examples = None,
    task: Task = None,
    labels: Labels = None,
    output: Output = None,
    several: Several = None,
    every: Every = None,
    features: Features = None,
    target_features: TargetFeatures = None,
    tokenizer: Tokenizer = None,
    characters: Characters = None,
    source_tokenizer: SourceTokenizer = None,
    source_characters: SourceCharacters = None,
    start_token: StartToken = None,
    prepend_start: PrependStart = None,
    end_tokens: EndTokens = None,
    max_tokens: MaxTokens = MAX_TOKENS,
    window: Window = None,
    pad: Pad = "left",
    pad_value: PadValue = 0.0,
    longer: Longer = "refuse",
    state: State = None,
    data_input: DataInput = None,
    output_name: OutputName = None,
    lengths_input: LengthsInput = None,
    time_first: TimeFirst = None,
    width: Width = None,
    overlap: Overlap = 0,
    fixed: Fixed = None,
    encoder: Encoder = None,
    licence: Licence = "",
    data: Data = "",
    dry_run: DryRun = False,
    is_json: AsJson = False,
) -> None:
    """Convert a network of anyone, prove it against the original, and write it as a version."""
    options: Options = {
        "task": task,
        "labels": labels,
        "output": output,
        "exclusive": None if several is None else not several,
        "steps": None if every is None else "every" if every else "last",
        "features": features,
        "target_features": target_features,
        "tokenizer": tokenizer,
        "characters": characters,
        "source_tokenizer": source_tokenizer,
        "source_characters": source_characters,
        "start_token": start_token,
        "prepend_start": prepend_start,
        "end_tokens": None if end_tokens is None else [one for one in end_tokens.split(",") if one],
        "max_tokens": max_tokens,
        "data": data_input,
        "output_name": output_name,
        "lengths": lengths_input,
        "time_first": time_first,
        "width": width,
        "overlap": overlap,
        "encoder": encoder,
    }

    def run(say: Callable[[str], None]) -> Conversion:
        options["window"] = _window(window, pad, pad_value, longer)
        options["state"] = tuple(map(pair_of, state or ()))
        options["fixed"] = dict(map(number_of, fixed or ()))
        return convert(
            network,
            name=name or name_of(network),
            repository=repository,
            checkpoint=checkpoint,
            pairs=examples,
            trained_on=data,
            licence=licence,
            recipe=shlex.join(["python", "-m", "training", *map(without_folders, sys.argv[1:])]),
            dry_run=dry_run,
            say=say,
            **options,
        )

    _report(run, is_json=is_json)


def _report(run: Callable[[Callable[[str], None]], Conversion], *, is_json: bool) -> None:
    """Run a conversion and print what became of it; with --json a failure is an object, too."""
    try:
        with exit_at_termination(), bounded_memory(), _progress() as say:
            made = run(say)
    except Refused as error:
        if is_json:
            print(json.dumps(refusal_as_json(error), indent=1))
        else:
            print(f"refused: {escape_controls(str(error))}", file=sys.stderr)
        raise typer.Exit(FAILED) from None
    except (TrainingError, WriteError) as error:
        if not is_json:
            raise
        print(json.dumps({"error": str(error), "advice": ""}, indent=1))
        raise typer.Exit(WRONG_INPUT if isinstance(error, TrainingError) else FAILED) from None
    if is_json:
        print(json.dumps(as_json(made), indent=1))
    else:
        print_report(made, Console())


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Give a function that shows what is being done, on standard error where that is a terminal."""
    # Where standard error is no terminal the status shows nothing.
    with Console(stderr=True).status("") as status:
        yield lambda line: status.update(f"{line} ...")


def name_of(network: str) -> str:
    """Return a model's name made of that of a file or function."""
    stem = network.rpartition(":")[2] if ":" in network else Path(network).stem
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("._-")[:64]
    return name or "model"


def _window(to: int | None, side: str, value: float, longer: str) -> spec.Window | None:
    if to is None:
        return None
    described = {"to": to, "side": side, "value": value, "longer": longer}
    try:
        return spec.Window.model_validate(described)
    except ValidationError as error:
        found = "; ".join(sentences(error, json.dumps(described), list(described)))
        raise TrainingError(f"--window: {found}") from error


def pair_of(said: str) -> tuple[str, str]:
    """Return the names of --state INPUT:OUTPUT."""
    before, colon, after = said.partition(":")
    if not (before and colon and after):
        raise TrainingError(f"--state: expected INPUT:OUTPUT, found {said!r}")
    return before, after


def number_of(said: str) -> tuple[str, float | int]:
    """Return the name and the number of --set NAME=NUMBER."""
    found = _FIXED.fullmatch(said)
    try:
        number = float(found[2]) if found else None
    except ValueError:
        number = None
    if found is None or number is None:
        raise TrainingError(f"--set: expected NAME=NUMBER, found {said!r}")
    return found[1], int(number) if found[2].lstrip("+-").isdecimal() else number
