"""Measures what each part of the sentiment recipe brings, on several splits.

    python -m training.evaluate.ablate                                # all rows, seeds 0, 1 and 2
    python -m training.evaluate.ablate --rows movies,more --seeds 0   # some of them
    python -m training.evaluate.ablate --mr shared/data/mr            # and MR (Pang & Lee 2005), two files
    python -m training.evaluate.ablate --table                        # the table alone

What is done is kept in runs/ablations/; a run that was stopped goes on from its last epoch. A seed decides
the split, the weights and the shuffling.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated

from service.contract.extras import require

require("python -m training.evaluate.ablate", "train")

import numpy as np
import typer
from tokenizers import Tokenizer
from torch import Tensor

from seqserve.cli.output import standard_streams
from training.data.files import read_utf8
from training.data.label_tokenizers import word_tokenizer
from training.data.sources import REVIEWS
from training.errors import TrainingError
from training.failures import exit_status
from training.loop.checkpoint import CHECKPOINT_FILE, read_history
from training.networks.network import Cell, RecurrentNetwork
from training.recipes.run import REPOSITORY, RUNS, RunOptions, use_one_thread
from training.recipes.sentiment import (
    MORE_KINDS,
    RATING_LABELS,
    Texts,
    all_logits,
    encode,
    learn,
    log_loss,
    member_folder,
    read_more_reviews,
    read_reviews,
    split,
)
from training.writing import check_writable, disk_errors

FOLDER = RUNS / "ablations"
FOUND_FILE = "sentiment.jsonl"
SENTENCES = ("amazon", "nyt", "tweet")
MR_FILES = {"negative": "rt-polarity.neg", "positive": "rt-polarity.pos"}


@dataclass(frozen=True, slots=True)
class Row:
    """A recipe.

    Attributes:
        title: for people.
        kinds: of `more_reviews.tsv`, trained on beside the first texts.
        hidden: width of the state.
        members: networks side by side.
        cell: recurrence.
        trained: name of the row that it shares its trained networks with; "": has its own.
        is_counting: units that count words stand beside the networks.
        is_mr: texts and labels are those of MR, not the movie reviews that ship.
    """

    title: str
    kinds: tuple[str, ...] = MORE_KINDS
    hidden: int = 64
    members: int = 1
    cell: Cell = "lstm"
    trained: str = ""
    is_counting: bool = False
    is_mr: bool = False


ROWS = {
    "movies": Row("movie reviews alone", kinds=()),
    "sentences": Row("and sentences of other domains", kinds=SENTENCES),
    "words": Row("and words of the lexicon", kinds=("word",)),
    "more": Row("and both"),
    "wide": Row("both, state of 128", hidden=128),
    "counts": Row("both, and units that count words", trained="more", is_counting=True),
    "side-by-side": Row("both, 2 side by side", members=2),
    "side-by-side-counts": Row(
        "both, 2 side by side, and units that count words",
        members=2,
        trained="side-by-side",
        is_counting=True,
    ),
    "gru": Row("both, GRU", cell="gru"),
    "mr": Row("MR alone", kinds=(), is_mr=True),
    "mr-counts": Row(
        "MR alone, and units that count words", kinds=(), trained="mr", is_counting=True, is_mr=True
    ),
    "mr-more": Row("MR and both", is_mr=True),
    "mr-more-counts": Row(
        "MR and both, and units that count words", trained="mr-more", is_counting=True, is_mr=True
    ),
    "mr-side-by-side": Row("MR and both, 2 side by side", members=2, is_mr=True),
}


@dataclass(frozen=True, slots=True)
class Found:
    """Results of one row on one split.

    Attributes:
        row, seed: which.
        develop, held_out: accuracy, per cent.
        loss: cross-entropy on the held-out part, nats.
        cpu_seconds: processor time of training.
    """

    row: str
    seed: int
    develop: float
    held_out: float
    loss: float
    cpu_seconds: float


def read_mr(folder: Path) -> Texts:
    """Read MR, each text once and with its first label.

    Raises:
        TrainingError: a file cannot be read.
    """
    label_of: dict[str, int] = {}
    for label, name in enumerate(MR_FILES.values()):
        try:
            lines = read_utf8(folder / name).splitlines()
        except TrainingError as error:
            raise TrainingError(
                f"--mr: expected {' and '.join(MR_FILES.values())} in {folder}: {error}"
            ) from error
        for line in lines:
            label_of.setdefault(line.strip(), label)
    return Texts(
        RATING_LABELS, list(label_of), np.eye(len(MR_FILES), dtype=np.float32)[list(label_of.values())]
    )


def measure(name: str, row: Row, texts: Texts, epochs: int, seed: int) -> Found:
    """Train a row on one split and measure it."""
    parts = split(texts, seed)
    learnt = parts._replace(train=parts.train.with_more(read_more_reviews(row.kinds))) if row.kinds else parts
    tokenizer = word_tokenizer(learnt.train.texts)
    # A run's folder lies below runs/ by its name.
    trained = row.trained or name
    options = RunOptions(
        f"{FOLDER.name}/{trained}-{seed}",
        REPOSITORY,
        row.cell,
        1,
        row.hidden,
        epochs,
        seed,
        "cpu",
        resume=True,
        int8=False,
    )
    data = {"row": trained} if row.is_mr else {"sha256": REVIEWS.sha256, "columns": "shipped"}
    network = learn(options, learnt, tokenizer, data, row.members, parts.train if row.is_counting else None)
    histories = [
        read_history(member_folder(options, member) / CHECKPOINT_FILE) for member in range(row.members)
    ]
    spent = sum(epoch.cpu_seconds for history in histories for epoch in history)
    develop, held_out = (_logits(network, tokenizer, part) for part in (parts.develop, parts.held_out))
    loss = log_loss(held_out.double().softmax(dim=1).numpy(), parts.held_out.classes)
    return Found(
        name, seed, _accuracy(develop, parts.develop), _accuracy(held_out, parts.held_out), loss, spent
    )


def _logits(network: RecurrentNetwork, tokenizer: Tokenizer, part: Texts) -> Tensor:
    return all_logits(network, encode(tokenizer, part.texts), "cpu")


def _accuracy(logits: Tensor, part: Texts) -> float:
    return 100 * float((logits.argmax(dim=1).numpy() == part.classes).mean())


def read_found(file: Path) -> list[Found]:
    """Return what was measured before; nothing where there is no file."""
    return [Found(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def table(everything: Sequence[Found]) -> str:
    """Return a Markdown table with a line a row.

    It has every split's accuracy, the mean, the spread of the splits, the mean loss, and processor time.
    """
    lines = [
        "| recipe | seeds | held out, % | mean | deviation | development, % | log loss, nats | CPU s a run |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in ROWS.items():
        found = sorted((one for one in everything if one.row == name), key=lambda one: one.seed)
        if found:
            accuracies = [one.held_out for one in found]
            spread = f"{stdev(accuracies):.1f}" if len(found) > 1 else ""
            develop, loss, spent = (
                fmean(getattr(one, name) for one in found) for name in ("develop", "loss", "cpu_seconds")
            )
            shown = (
                row.title,
                ", ".join(str(one.seed) for one in found),
                ", ".join(f"{one:.1f}" for one in accuracies),
                f"{fmean(accuracies):.1f}",
            )
            lines.append(f"| {' | '.join(shown)} | {spread} | {develop:.1f} | {loss:.3f} | {spent:.0f} |")
    return "\n".join(lines)


def main(
    rows: Annotated[
        str, typer.Option(help="which, with commas [default: all; those on MR with --mr alone]")
    ] = "",
    seeds: Annotated[str, typer.Option(help="of the runs, with commas")] = "0,1,2",
    epochs: Annotated[int, typer.Option(min=1, help="passes over the training part")] = 4,
    mr: Annotated[Path | None, typer.Option(metavar="FOLDER", help="of MR's two files, for its rows")] = None,
    only_table: Annotated[
        bool, typer.Option("--table", help="train nothing, print the table of what was found before")
    ] = False,
) -> None:
    """Train what is not yet done, then print the table."""
    use_one_thread()
    file = FOLDER / FOUND_FILE
    if not only_table:
        check_writable(FOLDER)
        FOLDER.mkdir(parents=True, exist_ok=True)
    done = {(one.row, one.seed) for one in read_found(file)}
    chosen = rows.split(",") if rows else [name for name, row in ROWS.items() if mr or not row.is_mr]
    if unknown := [name for name in chosen if name not in ROWS]:
        raise typer.BadParameter(
            f"expected names among {', '.join(ROWS)}, found {', '.join(unknown)}", param_hint="--rows"
        )
    for name, seed in ((name, int(seed)) for name in chosen for seed in seeds.split(",") if not only_table):
        row = ROWS[name]
        if (name, seed) not in done:
            if row.is_mr and mr is None:
                raise TrainingError(f"--rows {name}: expected --mr, the folder of MR")
            found = measure(name, row, read_mr(mr) if row.is_mr and mr else read_reviews(), epochs, seed)
            with disk_errors(file), file.open("a") as lines:
                lines.write(json.dumps(asdict(found)) + "\n")
    print(table(read_found(file)))


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command()(main)

if __name__ == "__main__":
    with standard_streams():
        sys.exit(exit_status(lambda: app(standalone_mode=False)))
