"""The command `label`: a model that gives each word of a text a tag."""

from pathlib import Path
from typing import Annotated

import typer

from seqserve.tables.files import UTF8
from training.commands.options import Defaults, Delimiter, Encoding, with_common
from training.commands.running import named_after, own_table, run
from training.data.tagged import TaggedChoice
from training.data.word_tokenizer import Case, Units
from training.recipes import label
from training.recipes.run import RunOptions

File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help='a token a line with its tag, blank lines between sentences; or JSON lines {"tokens", "tags"}',
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command("label", help="your tagged sentences -> a model that gives each word a tag")(train_label)


@with_common(Defaults(name="", cell="lstm", layers=1, hidden=100, epochs=20), has_classes=True)
def train_label(
    options: RunOptions,
    file: File,
    token_column: Annotated[int, typer.Option(min=1, help="column of the tokens, 1 being the first")] = 1,
    tag_column: Annotated[int, typer.Option(min=0, help="column of their tags; 0: the last")] = 0,
    units: Annotated[
        Units, typer.Option(help="words; or pieces: parts of words, too, where one is unknown")
    ] = "words",
    case: Annotated[Case, typer.Option(help="lower: capitals are read as small letters")] = "lower",
    direction: Annotated[
        label.Direction,
        typer.Option(help="both: whole sentences, better; forward: texts can be streamed"),
    ] = "both",
    encoding: Encoding = UTF8,
    delimiter: Delimiter = "",
) -> None:
    """Train on tagged sentences of the user's own."""
    options = named_after(options, file)
    tagged = TaggedChoice(own_table(file, encoding, delimiter), token_column, tag_column)
    run(options, lambda: label.train(options, label.LabelChoice(tagged, units, case, direction)))
