"""Reads labelled texts from the user's table."""

from collections import Counter
from dataclasses import dataclass

from training.data.files import iter_table
from training.data.sources import Source
from training.errors import TrainingError

FEWEST_TEXTS = 20
# With fewer texts than these, a label is learnt badly and measured hardly at all, which is said.
FEW_OF_LABEL = 10
MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Labelled:
    """Texts and their labels.

    Attributes:
        label_of: each text once, with its label.
        notes: what the user should know, a line each.
    """

    label_of: dict[str, str]
    notes: tuple[str, ...]


def read_labels(source: Source, text_column: str, label_column: str) -> Labelled:
    """Read texts and labels; a repeated text counts once, with its first label.

    Raises:
        TrainingError: the file or its columns are wrong, texts are too few, of one label, or each of another.
    """
    path = source.path
    label_of: dict[str, str] = {}
    contradicted = first = 0
    for row in iter_table(path, (text_column, label_column), source.delimiter, source.encoding):
        text, label = row.cells
        if label_of.setdefault(text, label) != label:
            contradicted += 1
            first = first or row.line
    counts = Counter(label_of.values())
    if len(counts) < 2:
        raise TrainingError(
            f"{path}: column {label_column}: expected two or more different labels, found {sorted(counts)}"
        )
    if len(label_of) < FEWEST_TEXTS:
        raise TrainingError(
            f"{path}: expected at least {FEWEST_TEXTS} different texts "
            f"to train and hold out from, found {len(label_of)}"
        )
    if 2 * len(counts) > len(label_of):
        raise TrainingError(
            f"{path}: column {label_column}: expected labels of two or more texts each, "
            f"found {len(counts):,} labels of {len(label_of):,} texts"
        )
    shown = [f"{label} {count:,}" for label, count in counts.most_common(MOST_SHOWN)]
    more = f" and {len(counts) - MOST_SHOWN} more" if len(counts) > MOST_SHOWN else ""
    notes = [f"{path.name}: {len(label_of):,} different texts: {', '.join(shown)}{more}"]
    if contradicted:
        notes.append(
            f"{path.name}: {contradicted:,} texts come again with another label, "
            f"the first in line {first}: the first label counts"
        )
    if few := [label for label, count in sorted(counts.items()) if count < FEW_OF_LABEL]:
        notes.append(
            f"{path.name}: fewer than {FEW_OF_LABEL} texts "
            f"of {', '.join(few[:MOST_SHOWN])}: expect little of them"
        )
    return Labelled(label_of, tuple(notes))
