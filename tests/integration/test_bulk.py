"""service.bulk gives what the Python client gets of a server, bit for bit, and errors in their places."""

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from seqserve.aio import AsyncClient
from service.bulk import Bulk, BulkError
from service.contract.spec import SpecError
from service.errors import InvalidArgument
from service.settings import SettingsRefused
from tests.integration.process import ServerProcess
from tests.integration.test_tasks import prices

WORDS: Final = ("good", "bad", "not", "a", "the", "film")
# More than one request holds.
NUM_TEXTS: Final = 300


@pytest.fixture(scope="module")
def moods(tiny_repository: Path) -> Iterator[Bulk]:
    with Bulk(tiny_repository / "moods" / "1", "--max-items", "64") as found:
        yield found


def texts_of(count: int, seed: int = 1) -> list[str]:
    drawn = random.Random(seed)
    return [" ".join(drawn.choices(WORDS, k=drawn.randint(1, 30))) for _ in range(count)]


async def test_classifications_are_those_of_the_client(moods: Bulk, tiny_server: ServerProcess) -> None:
    texts = texts_of(NUM_TEXTS)
    async with AsyncClient(tiny_server.address) as client:
        expected = [
            one
            for first in range(0, NUM_TEXTS, 100)
            for one in await client.classify(texts[first : first + 100], model="moods")
        ]
    assert moods.is_batch_invariant
    found = moods.classify(texts)
    assert found == expected
    assert {one.version for one in found if not isinstance(one, InvalidArgument)} == {1}


async def test_forecasts_are_those_of_the_client(tiny_repository: Path, tiny_server: ServerProcess) -> None:
    series = [prices(days, seed=days) for days in range(7, 47)]
    async with AsyncClient(tiny_server.address) as client:
        everything = await client.forecast(series, model="prices")
        some = await client.forecast(series, model="prices", horizon=2, quantiles=[0.9])
    with Bulk(tiny_repository / "prices" / "1") as model:
        assert model.forecast(series) == everything
        assert model.forecast(series, 2, [0.9]) == some
        with pytest.raises(InvalidArgument, match="quantiles"):
            model.forecast(series, 2, [0.123])


def test_wrong_texts_have_their_errors_in_their_places(moods: Bulk) -> None:
    texts = texts_of(130)
    expected = moods.classify(texts)
    given = [*texts[:70], "", *texts[70:]]
    found = moods.classify(given)
    assert isinstance(found[70], InvalidArgument)
    assert [*found[:70], *found[71:]] == expected


def test_no_text_has_no_answer(moods: Bulk) -> None:
    assert moods.classify([]) == []


def test_threads_call_one_model_side_by_side(moods: Bulk) -> None:
    sets = [texts_of(150, seed) for seed in range(4)]
    expected = [moods.classify(texts) for texts in sets]
    found: dict[int, object] = {}

    def run(number: int) -> None:
        found[number] = moods.classify(sets[number])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert [found[number] for number in range(4)] == expected


def test_model_for_another_task_is_refused(moods: Bulk) -> None:
    with pytest.raises(BulkError, match="expected a model for another task, found moods"):
        moods.forecast([prices(7)])


def test_closed_model_is_refused(tiny_repository: Path) -> None:
    model = Bulk(tiny_repository / "moods" / "1")
    model.close()
    model.close()
    with pytest.raises(BulkError, match="closed"):
        model.classify(["good"])


def test_calls_of_other_threads_end_when_the_model_is_closed(tiny_repository: Path) -> None:
    model = Bulk(tiny_repository / "moods" / "1")
    begun, raised = threading.Event(), []

    def call() -> None:
        try:
            while True:
                begun.set()
                model.classify(texts_of(1000))
        except BulkError as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    begun.wait()
    model.close()
    thread.join(20)
    assert len(raised) == 1


def test_wrong_flag_and_wrong_folder_are_refused(tiny_repository: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsRefused, match="--thread"):
        Bulk(tiny_repository / "moods" / "1", "--thread", "1")
    with pytest.raises(SpecError, match=r"model\.json"):
        Bulk(tmp_path / "moods" / "1")
