"""The commands `generate` and `charlm`: a model that continues text."""

from pathlib import Path
from typing import Annotated

import typer

from seqserve.tables.files import UTF8
from training.commands.options import Defaults, Encoding, TokenizerKind, Vocabulary, with_common
from training.commands.running import named_after, run
from training.data.sources import PLAYS, own_data
from training.data.tokenizing import Tokenizing
from training.errors import TrainingError
from training.recipes import charlm, tokenlm
from training.recipes.run import RunOptions

More = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="text to train on beside your own; nothing of it is held out"),
]
Mix = Annotated[
    bool,
    typer.Option(
        "--mix/--no-mix", help="mix the network with an n-gram, if that helps on a text of its size"
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    app.command("generate", help="your text -> a model that continues and scores text")(train_generate)
    app.command("charlm", help="the shipped model of the plays of Shakespeare: generates and scores text")(
        train_charlm
    )


@with_common(Defaults(name="", cell="lstm", layers=None, hidden=None, epochs=None))
def train_generate(
    options: RunOptions,
    text: Annotated[Path, typer.Argument(metavar="FILE", help="your text", show_default=False)],
    more: More = None,
    encoding: Encoding = UTF8,
    tokenizer: TokenizerKind = "characters",
    vocabulary: Vocabulary = None,
    mix: Mix = True,
) -> None:
    """Train a language model on a text of the user's own."""
    options = named_after(options, text)
    source, wanted = own_data(text, more, encoding), Tokenizing(tokenizer, vocabulary)
    run(options, lambda: tokenlm.train(options, source, wanted, mix))


@with_common(Defaults(name="charlm", cell="lstm", layers=None, hidden=None, epochs=None))
def train_charlm(
    options: RunOptions,
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="your own text, instead of the plays of Shakespeare"),
    ] = None,
    more: More = None,
    encoding: Encoding = UTF8,
    mix: Mix = True,
) -> None:
    """Train the shipped character language model."""
    if more and not text:
        raise TrainingError("--more: expected with --text alone; the shipped plays have more of their own")
    if encoding != UTF8 and not text:
        raise TrainingError("--encoding: expected with --text alone; the shipped plays have their own")
    source = own_data(text, more, encoding) if text else PLAYS
    run(options, lambda: charlm.train(options, source, mix))
