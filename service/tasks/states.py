"""States between calls: what a generation, a series or a sequence goes on from."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.engine.request import StateRow

__all__ = ["NEW_TEXT", "SeriesState", "StateRow", "StepState", "TextContext", "TextProgress", "TextState"]


@dataclass(frozen=True, slots=True)
class TextContext:
    """State of the text before the next token, where tokens are not characters.

    Attributes:
        has_begun: there are tokens before it.
        between: what comes before its own text, a space or nothing.
        held: the first bytes of a character that is not whole, at most 3.
    """

    has_begun: bool = False
    between: str = ""
    held: bytes = b""


NEW_TEXT = TextContext()


@dataclass(frozen=True, slots=True)
class TextProgress:
    """Progress of the text of a generation, where tokens are not characters.

    Attributes:
        context: what the text of the next token depends on.
        prompt_tokens: of the call that has not ended with this state; 0 after a call's last token.
        generated_tokens: the same.
    """

    context: TextContext
    prompt_tokens: int = 0
    generated_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TextState:
    """Resumable state of a generation.

    Attributes:
        position: number of tokens of the sequence so far, including the pending one.
        seed: sampling seed.
        pending: last token, not yet fed to the network.
        rows: recurrent state before the pending token, one float32 (H,) a state tensor.
        progress: of a model whose tokens are not characters; None: each token is one.
    """

    position: int
    seed: int
    pending: int
    rows: StateRow
    progress: TextProgress | None = None


@dataclass(frozen=True, slots=True)
class SeriesState:
    """Resumable state of a forecast series.

    Attributes:
        position: number of observations so far.
        levels: level of each column after the last observation.
        rows: recurrent state after the last observation, one float32 (H,) a state tensor.
    """

    position: int
    levels: Sequence[float]
    rows: StateRow


@dataclass(frozen=True, slots=True)
class StepState:
    """Resumable state of a sequence whose steps come one after the other.

    Attributes:
        position: number of time steps so far.
        rows: recurrent state after the last step, one float32 (H,) a state tensor.
    """

    position: int
    rows: StateRow
