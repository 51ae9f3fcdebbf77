"""The lecture's models behind a real server: networks without a head among them, their hidden state being the
logits.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import torch

from seqserve.v1 import models_pb2 as models
from tests.integration.calls import Calls
from tests.integration.process import ServerProcess
from tests.lecture import CELLS, charseq, contest, hihello, market, words
from training.data.series import features_of
from training.export.export import export
from training.lecture import dynamic, longseq, stock
from training.networks.network import Cell

every_cell = pytest.mark.parametrize("cell", CELLS)
# A cell's models are versions of one name.
VERSION = {cell: number for number, cell in enumerate(CELLS, 1)}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def lecture(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Calls]:
    """A server of every lesson's model, of every cell."""
    repository = tmp_path_factory.mktemp("lecture")
    for cell in CELLS:
        for one in (hihello(cell), charseq(cell), contest(cell), words(cell), market(cell)):
            folder = export(one.package(), repository)
            assert folder.name == str(VERSION[cell])
    async with (
        ServerProcess(repository, {"VERSIONS": str(len(CELLS))}) as server,
        server.channel() as channel,
    ):
        yield Calls(channel)


async def test_every_model_is_admitted(lecture: Calls) -> None:
    found = {(one.name, one.version): one for one in await lecture.list_models()}
    assert {one.status for one in found.values()} == {models.MODEL_STATUS_READY}
    assert set(found) == {
        (name, number)
        for name in ("hihello", "charseq", "longseq", "dynamic", "stock")
        for number in VERSION.values()
    }
    assert {(one.cell, one.hidden) for (name, _), one in found.items() if name == "hihello"} == {
        (cell, 5) for cell in CELLS
    }


@every_cell
async def test_a_headless_model_says_its_text_after_the_first_letter(lecture: Calls, cell: Cell) -> None:
    for recital in (hihello(cell), charseq(cell)):
        said = await lecture.generate(
            recital.name,
            version=VERSION[cell],
            prompt=recital.text[0],
            temperature=0,
            max_tokens=len(recital.text) - 1,
            logprobs=True,
        )
        assert recital.text[0] + said.text == recital.text
        # Logits between -1 and 1 leave every letter a probability.
        assert all(-3 < value < 0 for value in said.logprobs)


@every_cell
async def test_the_sentence_comes_back_window_by_window(lecture: Calls, cell: Cell) -> None:
    """The first ten letters are given; each next one is asked for with the ten before it."""

    async def next_letter(start: int) -> str:
        window = longseq.SENTENCE[start : start + longseq.WINDOW]
        return (
            await lecture.generate(
                "longseq", version=VERSION[cell], prompt=window, temperature=0, max_tokens=1
            )
        ).text

    letters = await asyncio.gather(*(next_letter(start) for start in range(170)))
    assert longseq.SENTENCE[: longseq.WINDOW] + "".join(letters) == longseq.SENTENCE


@every_cell
async def test_reading_on_by_itself_is_what_pytorch_reads(lecture: Calls, cell: Cell) -> None:
    said = await lecture.generate(
        "longseq",
        version=VERSION[cell],
        prompt=longseq.SENTENCE[: longseq.WINDOW],
        temperature=0,
        max_tokens=len(longseq.SENTENCE) - longseq.WINDOW,
    )
    assert said.text == contest(cell).nets[-1].read_on()


@every_cell
async def test_a_words_first_letter_brings_the_rest_of_it(lecture: Calls, cell: Cell) -> None:
    said = await asyncio.gather(
        *(
            lecture.generate(
                "dynamic", version=VERSION[cell], prompt=word[0], temperature=0, stop=[dynamic.END]
            )
            for word in dynamic.WORDS
        )
    )
    assert [word[0] + one.text for word, one in zip(dynamic.WORDS, said, strict=True)] == list(dynamic.WORDS)


@every_cell
async def test_the_eighth_close_is_forecast_as_in_training(lecture: Calls, cell: Cell) -> None:
    taught = market(cell)
    days = taught.history.values[-stock.DAYS :]
    (found,) = await lecture.forecast([days.tolist()], "stock", version=VERSION[cell])
    network = taught.changes.network
    with torch.no_grad():
        hidden, _ = network(torch.from_numpy(features_of(days, stock.describe(taught.history)))[None])
        change = float(network.outputs_of(hidden[0, -1])) * taught.history.range_of_close
    assert len(found.steps) == 1
    assert found.last_value == days[-1, stock.CLOSE]
    assert found.steps[0].value == pytest.approx(days[-1, stock.CLOSE] + change, abs=0.01)
