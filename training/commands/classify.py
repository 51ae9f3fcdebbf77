"""The commands `classify` and `sentiment`: a model that labels texts."""

from typing import Annotated

import typer

from seqserve.tables.files import UTF8
from training.commands.options import (
    Csv,
    Defaults,
    Delimiter,
    Encoding,
    Table,
    TokenizerKind,
    Vocabulary,
    with_common,
)
from training.commands.running import named_after, own_table, run, table_or
from training.data.sources import REVIEWS
from training.data.tokenizing import Tokenizing
from training.errors import TrainingError
from training.recipes import sentiment
from training.recipes.run import RunOptions

TextColumn = Annotated[str, typer.Option(help="column of the texts")]
LabelColumn = Annotated[str, typer.Option(help="column of their labels, two or more different ones")]
Members = Annotated[
    int, typer.Option(min=1, help="networks of that width, trained one after the other and served as one")
]


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    app.command("classify", help="your labelled texts -> a model that labels texts")(train_classify)
    app.command("sentiment", help="the shipped model of movie reviews: labels texts")(train_sentiment)


@with_common(Defaults(name="", cell="lstm", layers=1, hidden=128, epochs=6), has_classes=True)
def train_classify(
    options: RunOptions,
    table: Table,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    encoding: Encoding = UTF8,
    delimiter: Delimiter = "",
    members: Members = 1,
    tokenizer: TokenizerKind = "auto",
    vocabulary: Vocabulary = None,
) -> None:
    """Train a text classifier on a table of the user's own."""
    options = named_after(options, table)
    source = own_table(table, encoding, delimiter)
    labelled = sentiment.Table(source, text_column, label_column)
    wanted = Tokenizing(tokenizer, vocabulary)
    run(options, lambda: sentiment.train(options, labelled, members, wanted))


@with_common(Defaults(name="sentiment", cell="lstm", layers=1, hidden=128, epochs=6), has_classes=True)
def train_sentiment(
    options: RunOptions,
    csv: Csv = None,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    encoding: Encoding = UTF8,
    delimiter: Delimiter = "",
    members: Members = 1,
) -> None:
    """Train the shipped text classifier."""
    if not csv and (text_column, label_column) != ("text", "label"):
        raise TrainingError(
            "--text-column and --label-column: expected with --csv alone; "
            "the shipped reviews have columns of their own"
        )
    source = table_or(REVIEWS, csv, encoding, delimiter)
    table = sentiment.Table(source, text_column, label_column) if csv else None
    run(options, lambda: sentiment.train(options, table, members))
