"""One to one, one to many, many to one, many to many, and with delay: all five behind one real server."""

import asyncio
import math
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from seqserve.v1 import models_pb2 as models
from seqserve.v1 import text_generation_pb2 as generation
from tests.integration.calls import Calls
from tests.integration.process import ServerProcess
from tests.training.shapes.trained import PLAN, SEED, alphabet, dates, digits, majority, wave
from training.export.export import export
from training.shapes import delay, small, written


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shapes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Calls]:
    """A server of all five."""
    repository = tmp_path_factory.mktemp("shapes")
    for solved in (alphabet(), digits(), majority(), wave(), dates()):
        export(solved.package(), repository)
    async with ServerProcess(repository) as server, server.channel() as channel:
        yield Calls(channel)


async def test_all_five_are_admitted(shapes: Calls) -> None:
    found = await shapes.list_models()
    assert {one.name for one in found} == {"alphabet", "digits", "majority", "wave", "dates"}
    assert {one.status for one in found} == {models.MODEL_STATUS_READY}


async def test_one_to_one_a_letter_brings_the_next(shapes: Calls) -> None:
    said = await asyncio.gather(
        *(shapes.generate("alphabet", prompt=letter, temperature=0) for letter in "amz")
    )
    assert [one.text for one in said] == ["b", "n", "a"]


async def test_one_to_many_a_digit_brings_its_name(shapes: Calls) -> None:
    said = await asyncio.gather(
        *(
            shapes.generate("digits", prompt=str(digit), temperature=0, stop=[small.END])
            for digit in range(10)
        )
    )
    assert [one.text for one in said] == list(small.DIGITS)
    assert {one.last.finish_reason for one in said} == {generation.FINISH_REASON_STOP}


async def test_many_to_one_bits_bring_their_majority(shapes: Calls) -> None:
    strings = small.bit_strings(small.BIT_STRINGS, SEED)[: small.BIT_HELD_OUT][:64]
    found = await shapes.classify(strings, "majority")
    right = sum(one.label == small.majority(bits) for one, bits in zip(found, strings, strict=True))
    assert right >= 0.9 * len(strings)


async def test_many_to_many_every_step_has_its_answer(shapes: Calls) -> None:
    right, wrong = await shapes.score(["abcdcbabcdcb", "abcdcbabbdcb"], "wave")
    assert all(math.exp(value) > 0.5 for value in right.token_logprobs[1:])
    assert min(range(11), key=lambda step: wrong.token_logprobs[step]) == 7
    assert math.exp(wrong.token_logprobs[7]) < 0.1


async def test_many_to_many_with_delay_a_written_date_brings_the_day(shapes: Calls) -> None:
    """The service says what PyTorch says, of days never trained on, many at once; some come out right after
    so little training.
    """
    days = written.split(SEED, PLAN.first_year, PLAN.last_year).held_out[:100]
    asked = [written.question(form, day) for day in days for form in PLAN.forms]
    said = await asyncio.gather(
        *(shapes.generate("dates", prompt=one, temperature=0, stop=[written.END]) for one in asked)
    )
    assert [one.text + written.END for one in said] == delay.answers(dates().network, asked)
    expected = [day.isoformat() for day in days for _ in PLAN.forms]
    assert any(one.text == day for one, day in zip(said, expected, strict=True))
