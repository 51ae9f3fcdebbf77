"""Declares the options that all recipes share, once, and adds them to a command."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from seqserve.tables.rows import TAB
from training.data.tokenizing import Choice
from training.data.weights import NONE
from training.evaluate.scoring import evidence_of
from training.loop.precision import PrecisionChoice
from training.loop.tuning import PATIENCE, Tuning, seconds_of
from training.networks.network import Cell
from training.recipes.run import REPOSITORY, RunOptions

Encoding = Annotated[str, typer.Option(help="of your own file: utf-8, cp1252, utf-16, ...")]
Delimiter = Annotated[
    str,
    typer.Option(
        help=(
            f"between the cells of your file, or {TAB}: with it, "
            "quotation marks are text [default: found in the header line]"
        )
    ),
]
Csv = Annotated[
    Path | None,
    typer.Option(
        "--csv", metavar="FILE", help="your own CSV file with a header line, instead of the shipped data"
    ),
]
Table = Annotated[
    Path, typer.Argument(metavar="FILE", help="your CSV file with a header line", show_default=False)
]
TokenizerKind = Annotated[
    Choice,
    typer.Option(
        "--tokenizer",
        help="of texts: whole words, sub-words (bpe), single characters, bytes; auto: by the training part",
    ),
]
Vocabulary = Annotated[
    int | None, typer.Option(min=1, help="largest number of tokens [default: by the tokenizer and the text]")
]

# The options of every recipe, as fields of `RunOptions`; a command gives its own defaults to the first five.
_COMMON: dict[str, Any] = {
    "name": Annotated[str, typer.Option(help="name of the model, as requests will give it")],
    "cell": Annotated[Cell, typer.Option(help="recurrence")],
    "layers": Annotated[int, typer.Option(min=1, help="recurrent layers")],
    "hidden": Annotated[int, typer.Option(min=1, help="width of each layer's state")],
    "epochs": Annotated[int, typer.Option(min=1, help="passes over the training part")],
    "repository": Annotated[Path, typer.Option(help="folder of models to export to")],
    "seed": Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="of the split, weights, shuffling and dropout")
    ],
    "device": Annotated[str, typer.Option(help="cpu, or cuda where there is one")],
    "precision": Annotated[
        PrecisionChoice,
        typer.Option(help="of the numbers in training; auto: fp32 on a CPU, 16 bits on CUDA"),
    ],
    "resume": Annotated[bool, typer.Option("--resume", help="go on from the checkpoint in runs/<name>/")],
    "learning_rate": Annotated[
        float | None, typer.Option(help="peak of the learning rate [default: the recipe's own]")
    ],
    "batch": Annotated[int | None, typer.Option(help="rows a step [default: the recipe's own]")],
    "dropout": Annotated[
        float | None,
        typer.Option(help="share of the values dropped in training, from 0 [default: the recipe's own]"),
    ],
    "patience": Annotated[
        int,
        typer.Option(help="end after so many epochs without a better development loss; 0: never early"),
    ],
    "time_limit": Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="end training after it, the learning rate lowered in time: 90s, 10m, 1h30m [default: none]",
        ),
    ],
    "require_better": Annotated[
        bool,
        typer.Option(
            "--require-better", help="export nothing that does not beat its baselines: exit status 1"
        ),
    ],
    "int8": Annotated[
        bool,
        typer.Option(
            "--int8/--no-int8", help="export int8 weights, too, if they pass their gate; lstm alone has them"
        ),
    ],
}
_NAME_OF_FILE = Annotated[
    str,
    typer.Option(help="name of the model, as requests will give it [default: that of the file]"),
]
_TUNING = ("learning_rate", "batch", "dropout", "patience", "class_weights")
# Of a recipe that chooses them by its data.
_CHOSEN: dict[str, Any] = {
    name: Annotated[
        int | None,
        typer.Option(
            min=1, help=_COMMON[name].__metadata__[0].help, show_default="by how much data there is"
        ),
    ]
    for name in ("layers", "hidden", "epochs")
}
_DEFAULTS: dict[str, Any] = {
    "repository": REPOSITORY,
    "seed": 0,
    "device": "cpu",
    "precision": "auto",
    "resume": False,
    "int8": True,
    "learning_rate": None,
    "batch": None,
    "dropout": None,
    "patience": PATIENCE,
    "time_limit": "",
    "require_better": False,
}
# Of tasks with classes: a command asks for it by `with_common(..., has_classes=True)`.
_CLASS_WEIGHTS = Annotated[
    str,
    typer.Option(
        metavar="none|balanced|LABEL=WEIGHT,...",
        help="how much each label counts in training; balanced: rare ones as much as frequent ones",
    ),
]


class Defaults(NamedTuple):
    """The defaults that a recipe gives to the common options.

    Attributes:
        name: of the model; "": the name of the file that is trained on, without its suffix.
        cell, layers, hidden: shape of the network.
        epochs: passes over the training part.

    Of layers, width and epochs None means that the recipe chooses; in `RunOptions` that is 0.
    """

    name: str
    cell: Cell
    layers: int | None
    hidden: int | None
    epochs: int | None


def with_common(
    defaults: Defaults, *, has_classes: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives the common options to a command, which gets them as `RunOptions`.

    The command's first parameter is `options`, and is not an option itself; the others follow as they are.

    Args:
        defaults: the recipe's own.
        has_classes: add --class-weights.
    """
    kinds = {
        **_COMMON,
        **({} if defaults.name else {"name": _NAME_OF_FILE}),
        **({"class_weights": _CLASS_WEIGHTS} if has_classes else {}),
    }
    values = {**defaults._asdict(), **_DEFAULTS, "class_weights": NONE}
    kinds |= {name: kind for name, kind in _CHOSEN.items() if values[name] is None}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [one for one in inspect.signature(command).parameters.values() if one.name != "options"]
        common = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=values[name], annotation=kind)
            for name, kind in kinds.items()
        ]

        def run(**given: Any) -> None:
            chosen = {name: given.pop(name) for name in kinds}
            chosen |= {name: 0 for name in _CHOSEN if chosen[name] is None}
            tuning = Tuning(
                **{name: chosen.pop(name) for name in _TUNING if name in chosen},
                time_limit_s=seconds_of(chosen.pop("time_limit")),
            )
            command(RunOptions(**chosen, evidence=evidence_of, tuning=tuning), **given)

        run.__doc__ = command.__doc__
        keyword_only = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
        signature = inspect.Signature([*keyword_only, *common])
        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {name: one.annotation for name, one in signature.parameters.items()}
        return run

    return decorate
