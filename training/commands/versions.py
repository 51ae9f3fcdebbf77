"""Declares the commands that train nothing: convert, card, check, compare, normalize, promote."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from training.convert.checking import check_version
from training.convert.command import convert_network
from training.data.files import check_regular, read_utf8
from training.errors import TrainingError
from training.evaluate.compare import compare
from training.evaluate.promote import Decision, Incomparable, decide, facts_of, promote
from training.evaluate.scorer import Own
from training.evaluate.scoring import evidence, has_picture, held_out, source_of
from training.evaluate.typed import normalized_version
from training.evaluate.version import Version, find_version
from training.export.card import CardFacts, together
from training.export.sequences.card import card_files_of
from training.loop.checkpoint import Epoch, read_history
from training.recipes.run import REPOSITORY, say
from training.writing import write_whole

WHERE = "a version's folder, or name@version in --repository"
Where = Annotated[str, typer.Argument(metavar="VERSION", help=WHERE, show_default=False)]
Repository = Annotated[Path, typer.Option(help="folder of models in which name@version is looked up")]
Text = Annotated[
    Path | None,
    typer.Option("--text", metavar="FILE", help="the text or tagged words of your own, as trained on"),
]
More = Annotated[Path | None, typer.Option("--more", metavar="FILE", help="the text trained on beside it")]
Csv = Annotated[
    Path | None,
    typer.Option("--csv", metavar="FILE", help="the table or rows of your own that it was trained on"),
]


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    app.command(
        "convert", help="serve a network that was trained elsewhere: ONNX, Keras, PyTorch (docs/convert.md)"
    )(convert_network)
    app.command("card", help="write a version's model card and its pictures again")(write_card)
    app.command(
        "check", help="every check that a server makes before it serves a version, and what to do about one"
    )(check_version)
    app.command(
        "compare", help="two versions side by side: losses on the same held-out part, speed, size, data"
    )(compare_versions)
    app.command(
        "normalize",
        help="write the next version of a text model: the same weights, typographic characters read as plain",
    )(normalize_version)
    app.command(
        "promote", help="make a candidate the next version, unless it is worse than the newest beyond chance"
    )(promote_version)


def normalize_version(
    version: Where, repository: Repository = REPOSITORY, text: Text = None, more: More = None, csv: Csv = None
) -> None:
    """Write the next version of a text model with a normalization."""
    found, own = find_version(version, repository), Own(text, csv, more)
    folder = normalized_version(found, held_out(found, own), source_of(found, own))
    say(f"written to {folder}")


def write_card(
    version: Where,
    repository: Repository = REPOSITORY,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="of its run: takes the training curve from it; repeatable where members have one each",
        ),
    ] = None,
    ablations: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a Markdown table for the section on ablations")
    ] = None,
    text: Text = None,
    more: More = None,
    csv: Csv = None,
) -> None:
    """Write the card of a version from its model.json and card.json.

    The facts of a version without card.json are gathered anew.
    """
    found = find_version(version, repository)
    facts = facts_of(found.folder)
    if checkpoint:
        facts = replace(facts, history=together([_history(found, path) for path in checkpoint]))
    if ablations:
        facts = replace(facts, ablations=_read(ablations))
    if facts.evidence is None and has_picture(found):
        facts = _with_evidence(found, facts, Own(text, csv, more))
    changed = _write_changed(found.folder, card_files_of(found.model, facts))
    say(f"{found.folder}: {', '.join(changed) if changed else 'nothing changed'}")


def _history(version: Version, checkpoint: Path) -> list[Epoch]:
    if checkpoint.exists():
        check_regular(checkpoint)
    history = read_history(checkpoint)
    if not history:
        raise TrainingError(f"{checkpoint}: expected the checkpoint of {version.title}'s run, found none")
    return history


def _read(path: Path) -> str:
    return read_utf8(path).strip()


def _with_evidence(version: Version, facts: CardFacts, own: Own) -> CardFacts:
    try:
        part = held_out(version, own)
    except TrainingError as error:
        say(f"no picture of the held-out part: {error}")
        return facts
    return replace(facts, evidence=evidence(version, part))


def _write_changed(folder: Path, files: dict[str, bytes]) -> list[str]:
    """Write each file whole, and return the names of those that changed.

    Files that stay as they are are left alone, since a server that watches loads anew what was touched.
    """
    changed = []
    for name, data in files.items():
        path = folder / name
        if not path.exists() or path.read_bytes() != data:
            write_whole(path, data)
            changed.append(name)
    return changed


def compare_versions(
    first: Where,
    second: Where,
    repository: Repository = REPOSITORY,
    text: Text = None,
    more: More = None,
    csv: Csv = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object instead of tables")] = False,
) -> None:
    """Compare two versions, and print tables or JSON."""
    found = compare(find_version(first, repository), find_version(second, repository), Own(text, csv, more))
    if as_json:
        print(json.dumps(found.as_json(), indent=1))
    else:
        Console().print(found.tables())


def promote_version(
    candidate: Where,
    to: Annotated[Path, typer.Option(help="folder of models to add it to")] = REPOSITORY,
    repository: Repository = REPOSITORY,
    text: Text = None,
    more: More = None,
    csv: Csv = None,
    force: Annotated[
        str, typer.Option(metavar="REASON", help="promote all the same; the reason goes into the model card")
    ] = "",
) -> None:
    """Promote a candidate.

    Exit status 0: promoted; 1: refused, since it is worse; 2: it cannot be compared.
    """
    version = find_version(candidate, repository)
    decision = _decide(version, to, Own(text, csv, more), force)
    for line in decision.differences:
        say(str(line))
    if decision.objections and not force:
        for objection in decision.objections:
            say(f"refused: {objection}")
        raise typer.Exit(1)
    folder = promote(version, decision, to, force)
    beside = f"beside {decision.current.title}" if decision.current else "the first of its name"
    say(f"promoted {version.title} to {folder}, {beside}")


def _decide(version: Version, to: Path, own: Own, force: str) -> Decision:
    try:
        return decide(version, to, own)
    except Incomparable as error:
        if not force:
            raise
        return Decision(error.current, (), (str(error),))
