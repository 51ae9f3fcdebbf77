"""Runs a recipe: its name and folders are checked before, and an interruption says how to go on."""

import json
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import typer
from pydantic import TypeAdapter, ValidationError

from seqserve.tables.files import UTF8
from seqserve.tables.rows import TAB, UNFIT_DELIMITERS
from service.contract import spec
from training.data.sources import Source, own_data
from training.errors import TrainingError
from training.export.version_folder import next_version
from training.interrupts import INTERRUPTED
from training.loop import parallel
from training.loop.checkpoint import CHECKPOINT_FILE
from training.loop.environment import deterministic
from training.loop.run_lock import locked
from training.recipes.run import RunOptions, say
from training.writing import WriteError, check_writable


def run(options: RunOptions, recipe: Callable[[], object]) -> None:
    """Run a recipe.

    Raises:
        TrainingError: the name is none, or the recipe fails.
        WriteError: a folder cannot be written.
        Exit: the run was interrupted.
    """
    try:
        TypeAdapter(spec.Name).validate_python(options.name)
    except ValidationError as error:
        raise TrainingError(
            "--name: expected up to 64 letters, digits and ._-, "
            f"a letter or digit first, found {options.name!r}"
        ) from error
    for folder in (options.folder, options.repository):
        check_writable(folder)
    has_begun = False
    try:
        with deterministic(options.device), parallel.joined(), locked(options.folder) as note:
            has_begun = True
            if note:
                say(note)
            recipe()
    except WriteError as error:
        if not has_begun or not _has_checkpoint(options):
            raise
        hint = "its checkpoint is whole; once there is room, nothing is trained again that it holds"
        raise WriteError(f"{error}; {hint}: {_again(options)}") from error
    except KeyboardInterrupt:
        kept = _has_checkpoint(options)
        hint = f"go on with: {_again(options)}" if kept else "no epoch was finished, so nothing was saved"
        print(f"interrupted; {hint}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def _has_checkpoint(options: RunOptions) -> bool:
    return (options.folder / CHECKPOINT_FILE).exists()


def _again(options: RunOptions) -> str:
    """Return the command that goes on with the run."""
    return shlex.join(["python", "-m", "training", *sys.argv[1:], *([] if options.resume else ["--resume"])])


def named_after(options: RunOptions, file: Path) -> RunOptions:
    """Return the options with the name of the file, without its suffix, where no name was given.

    Raises:
        TrainingError: the repository has a model of that name that was made of something else.
    """
    if options.name:
        return options
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).lstrip("._-")[:64] or "model"
    newest = next_version(options.repository / name) - 1
    if newest and not _made_of(options.repository / name / str(newest), file):
        raise TrainingError(
            f"--name: expected one, since {options.repository / name} was made of other data than {file.name}"
        )
    return replace(options, name=name)


def _made_of(version: Path, file: Path) -> bool:
    """Return whether a version's model.json says that it was made of a file of that name."""
    try:
        described = json.loads((version / spec.SPEC_FILE).read_bytes())
        data = str(described["provenance"]["data"])
    except (OSError, ValueError, KeyError, TypeError):
        return False  # nobody can tell, so the user has to
    return data.startswith((f"{file.name}, given by the user", f"{file.name} and "))


def own_table(csv: Path, encoding: str, delimiter: str) -> Source:
    """Return a table of the user's own.

    Raises:
        TrainingError: it cannot be read, or the delimiter is none.
    """
    delimiter = "\t" if delimiter == TAB else delimiter
    if len(delimiter) > 1 or delimiter in UNFIT_DELIMITERS:
        raise TrainingError(f"--delimiter: expected one character or {TAB}, found {delimiter!r}")
    return own_data(csv, encoding=encoding, delimiter=delimiter)


def table_or(shipped: Source, csv: Path | None, encoding: str, delimiter: str) -> Source:
    """Return a table of the user's own, or the shipped one where none is given.

    Raises:
        TrainingError: it cannot be read, or options of a file are given without one.
    """
    if csv:
        return own_table(csv, encoding, delimiter)
    if encoding != UTF8 or delimiter:
        raise TrainingError(
            "--encoding and --delimiter: expected with --csv alone; the shipped data have their own"
        )
    return shipped


def names(listed: str) -> list[str]:
    """Split a list of names with commas between them."""
    return [name.strip() for name in listed.split(",")]
