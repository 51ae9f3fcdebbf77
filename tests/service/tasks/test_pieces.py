"""service.tasks.pieces over the tokens of a tokenizer: which state goes with which piece."""

import numpy as np
import pytest

from service.contract.normalizing import Normalizer
from service.engine.request import Goal, Request, TokenBatch
from service.tasks.codecs import TokenizerCodec
from service.tasks.detokenizer import Detokenizer, token_texts
from service.tasks.pieces import STATE_TOKENS, Finish, Pieces, Wanted
from tests.tokenizers_of_kinds import tokenizer_of

TOKENIZER = tokenizer_of("byte-level")
CODEC = TokenizerCodec("bytes", TOKENIZER, Normalizer(None))
IDS = TOKENIZER.get_vocab()
A, B, FIRST, SECOND, THIRD = (IDS[name] for name in ("a", "b", "\u00e4", "\u00b8", "\u0138"))  # E4 B8 96
ROWS = (np.ones(2, np.float32),)
REQUEST = Request(np.array([A], np.int64), Goal.GENERATE, keeps_state=True, keeps_states=True)


def pieces_of(*stops: str) -> Pieces:
    return Pieces(CODEC, Wanted(stops, wants_state=True), REQUEST, np.array([A], np.int32))


def batch(*ids: int, is_last: bool = False) -> TokenBatch:
    return TokenBatch(list(ids), [], is_last, ROWS)


def test_state_comes_with_a_piece_after_which_nothing_is_held_back() -> None:
    piece = pieces_of("ab").add(batch(*[B] * STATE_TOKENS))
    assert piece.state is not None
    assert piece.state.progress is not None
    assert (piece.state.pending, piece.state.position) == (B, 1 + STATE_TOKENS)
    assert (piece.state.progress.prompt_tokens, piece.state.progress.generated_tokens) == (1, STATE_TOKENS)


@pytest.mark.parametrize("last", [A, FIRST], ids=["start of a stop string", "part of a character"])
def test_no_state_comes_while_something_is_held_back(last: int) -> None:
    pieces = pieces_of("ac")
    piece = pieces.add(batch(*[B] * STATE_TOKENS, last))
    assert (piece.text, piece.state) == ("b" * STATE_TOKENS, None)
    later = pieces.add(batch(SECOND, THIRD, B) if last == FIRST else batch(B))
    assert later.state is not None
    assert len(later.ends) == (4 if last == FIRST else 2)


def test_state_comes_after_so_many_tokens() -> None:
    pieces = pieces_of()
    found = [pieces.add(batch(B)).state is not None for _ in range(3 * STATE_TOKENS)]
    assert [index + 1 for index, one in enumerate(found) if one] == [16, 32, 48]


def test_state_at_a_stop_is_that_after_the_token_that_has_its_end() -> None:
    """The tokens after it were in the same batch: they are neither counted nor part of the text before it."""
    pieces = pieces_of("b")
    piece = pieces.add(batch(A, B, A, FIRST, SECOND))
    assert (piece.text, piece.finish, piece.generated_tokens) == ("a", Finish.STOP, 2)
    progress = pieces.state(ROWS).progress
    right = Detokenizer(token_texts(TOKENIZER, ()))
    right.push([A, B])
    assert progress is not None
    assert progress.context == right.context
    assert progress.context.held == b""


def test_last_state_of_a_paused_text_keeps_the_begun_character() -> None:
    pieces = pieces_of()
    piece = pieces.add(batch(A, FIRST, SECOND, is_last=True))
    assert (piece.text, len(piece.ends), piece.finish) == ("a", 3, Finish.LENGTH)
    progress = pieces.state(ROWS).progress
    assert progress is not None
    assert progress.context.held == b"\xe4\xb8"
    rest = Pieces(CODEC, Wanted(), REQUEST, np.zeros(0, np.int32), progress.context)
    assert rest.add(batch(THIRD, B)).text == "\u4e16b"
