"""Chooses size and schedule of a language model by how much text there is to train on.

A network learns by updates, and a short text has few in a pass: six passes over 300 kB in 32 streams are 768.
There one layer of 256 with 3,000 updates of 16 streams learns more in less time (docs/quality.md).
"""

import math
from dataclasses import dataclass, replace

from training.recipes.run import RunOptions

# Tokens of the training part from which on a network of the large size is trained.
SMALL_TEXT = 600_000
# Tokens from which on a network cannot learn the text by heart.
LONG_TEXT = 2_000_000
# Steps of a piece between two updates.
STEPS = 64
# Streams side by side, and those of a short text.
ROWS, SMALL_ROWS = 32, 16
UPDATES = 3000
EPOCHS, MOST_EPOCHS = 6, 40
# From this width on a network needs smaller steps.
WIDE = 512
# Of the network of a short text, before its head and behind its embedding.
SMALL_DROPOUT = (0.3, 0.1)


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the amount of text decides.

    Attributes:
        layers, hidden, epochs: where the user gives none.
        rows: streams side by side.
        embedding: width.
        learning_rate: peak.
        dropout, input_dropout: of the network.
    """

    layers: int
    hidden: int
    epochs: int
    rows: int
    embedding: int
    learning_rate: float
    dropout: float
    input_dropout: float

    def completed(self, options: RunOptions) -> RunOptions:
        """Return options with these sizes where they have none."""
        return replace(
            options,
            layers=options.layers or self.layers,
            hidden=options.hidden or self.hidden,
            epochs=options.epochs or self.epochs,
        )


def sizes_for(length: int, hidden: int = 0) -> Sizes:
    """Return the sizes for a training part.

    Args:
        length: of the training part, tokens.
        hidden: width that the user has chosen; 0: none.
    """
    if length >= SMALL_TEXT:
        dropout = 0.1 if length >= LONG_TEXT else 0.4
        return Sizes(2, WIDE, _epochs(length, ROWS), ROWS, 128, 2e-3, dropout, 0.0)
    rate = 2e-3 if hidden >= WIDE else 5e-3
    return Sizes(1, 256, _epochs(length, SMALL_ROWS), SMALL_ROWS, 64, rate, *SMALL_DROPOUT)


def _epochs(length: int, rows: int) -> int:
    """Return how many passes make about `UPDATES` updates."""
    updates = max(1, length // (rows * STEPS))
    return min(MOST_EPOCHS, max(EPOCHS, math.ceil(UPDATES / updates)))
