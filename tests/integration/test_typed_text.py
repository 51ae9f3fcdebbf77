"""Texts as people type them, sent to the models that ship: the answers are those of the plain texts."""

from typing import Any

import pytest

from tests.integration.calls import Calls, refusal

PLAIN = "I can't say it's good... it isn't"
TYPED = {
    "curved apostrophes": PLAIN.replace("'", "\u2019"),
    "an ellipsis": PLAIN.replace("...", "\u2026"),
    "spaces that do not break": PLAIN.replace(" ", "\u00a0"),
    "invisible marks": "\ufeff" + PLAIN.replace("o", "o\u00ad\u200b"),
    "full width": "".join(chr(ord(one) + 0xFEE0) if "!" <= one <= "~" else one for one in PLAIN),
}


@pytest.mark.parametrize("typed", TYPED.values(), ids=TYPED)
async def test_a_classification_is_that_of_the_plain_text(shipped: Calls, typed: str) -> None:
    plain, found = await shipped.classify([PLAIN, typed], model="sentiment")
    assert found == plain


async def test_a_score_is_that_of_the_plain_text(shipped: Calls) -> None:
    plain, *typed = await shipped.score([PLAIN, *TYPED.values()], model="charlm")
    assert all(found == plain for found in typed)


async def test_an_unknown_character_is_named_by_its_place_in_the_callers_text(shipped: Calls) -> None:
    found = await refusal(shipped.generate(model="charlm", prompt="\u2014\u00ad\u2026caf\u00e9"))
    expected = "character 'é' (U+00E9) at position 6 is not among the 64 of model charlm"
    assert found.violations == {"prompt": expected}


@pytest.mark.parametrize("typed", TYPED.values(), ids=TYPED)
async def test_a_generation_and_its_continuation_are_those_of_the_plain_prompt(
    shipped: Calls, typed: str
) -> None:
    options: dict[str, Any] = {"model": "charlm", "seed": 7, "max_tokens": 30}
    plain = await shipped.generate(prompt=PLAIN, **options)
    found = await shipped.generate(prompt=typed, **options)
    assert (found.text, found.last.usage) == (plain.text, plain.last.usage)
    rest = await shipped.generate(
        prompt=typed, generated=plain.text[:11], version=plain.last.version, **options
    )
    assert plain.text[:11] + rest.text == plain.text
