"""service.tasks.ledgers: each token is counted once, whichever call's text its last character is in."""

from service.tasks.detokenizer import BROKEN, Detokenized
from service.tasks.ledgers import Sent, TokenLedger


def test_token_that_the_end_of_the_text_cuts_is_counted() -> None:
    ledger = TokenLedger()
    ledger.add(Detokenized("abc", [3], [3]), [-1.0])
    assert ledger.send(2, is_last=True) == Sent([2], [-1.0])


def test_character_that_an_earlier_call_has_begun_is_no_token_of_this_one() -> None:
    """A call went on in the middle of a character, and its only token is the end, which shows nothing."""
    ledger = TokenLedger()
    ledger.add(Detokenized("", [], []), [])
    ledger.add(Detokenized(BROKEN, [], []), [])
    assert ledger.send(1, is_last=True) == Sent([], [])
