"""The answer belongs to the request: bit for bit the same alone, in a crowd of random others, and with any
chunk size (fp32 LSTM and GRU).
"""

import asyncio
import random
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from tests.integration.calls import Calls
from tests.integration.process import ROOT, ServerProcess
from tests.integration.test_tasks import prices
from tests.tiny import VOCABULARY, WORDS

SHIPPED_LETTERS = "abcdefghijklmnopqrstuvwxyz ,.\n"
# Chunk and slots of the servers that have to agree: the default, one step and one row at a time, odd sizes.
VARIANTS: tuple[dict[str, str], ...] = (
    {},
    {"CHUNK": "1", "SLOTS": "1"},
    {"CHUNK": "7", "SLOTS": "5"},
    {"CHUNK": "16", "SLOTS": "32", "THREADS": "1"},
)


def letters(chooser: random.Random, alphabet: str, most: int = 80) -> str:
    return "".join(chooser.choice(alphabet) for _ in range(chooser.randint(2, most)))


def words(chooser: random.Random, most: int = 60) -> str:
    return " ".join(chooser.choice(WORDS[1:]) for _ in range(chooser.randint(1, most)))


def random_calls(
    calls: Calls, count: int, seed: int, generators: Sequence[str], classifier: str, forecaster: str
) -> list[Awaitable[object]]:
    """A mix of every rpc with inputs of many lengths, the same for the same seed."""
    chooser = random.Random(seed)
    alphabet = VOCABULARY if generators[0].startswith("letters") else SHIPPED_LETTERS
    made: list[Awaitable[object]] = []
    for number in range(count):
        model = chooser.choice(generators)
        match number % 4:
            case 0:
                options = {
                    "temperature": chooser.choice([0.0, 0.7, 1.0]),
                    "top_k": chooser.choice([0, 5]),
                    "top_p": chooser.choice([1.0, 0.9]),
                }
                made.append(
                    text_of(calls, model, letters(chooser, alphabet), chooser.randint(1, 60), number, options)
                )
            case 1:
                made.append(
                    calls.score([letters(chooser, alphabet) for _ in range(chooser.randint(1, 4))], model)
                )
            case 2:
                made.append(
                    calls.classify([words(chooser) for _ in range(chooser.randint(1, 4))], classifier)
                )
            case _:
                made.append(calls.forecast([prices(chooser.randint(7, 40), seed=number)], forecaster))
    return made


async def text_of(
    calls: Calls, model: str, prompt: str, max_tokens: int, seed: int, options: dict[str, float | int]
) -> object:
    found = await calls.generate(
        model, prompt=prompt, max_tokens=max_tokens, seed=seed, logprobs=True, **options
    )
    return found.text, found.logprobs, found.last.finish_reason, found.last.usage.generated_tokens


async def one_by_one(made: list[Awaitable[object]]) -> list[object]:
    return [await one for one in made]


async def test_answers_are_bit_identical_alone_in_a_crowd_and_with_any_chunk_size(
    tiny_repository: Path,
) -> None:
    models = (["letters", "letters-gru"], "moods", "prices")
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(ServerProcess(tiny_repository, settings)) for settings in VARIANTS
        ]
        clients = [Calls(await stack.enter_async_context(server.channel())) for server in servers]
        alone = await one_by_one(random_calls(clients[0], 60, 1, *models))
        for calls in clients:
            crowd = [asyncio.ensure_future(one) for one in random_calls(calls, 80, 2, *models)]
            assert list(await asyncio.gather(*random_calls(calls, 60, 1, *models))) == alone
            await asyncio.gather(*crowd)


async def test_answers_of_the_shipped_models_are_bit_identical_alone_and_in_a_crowd(shipped: Calls) -> None:
    models = (["charlm"], "sentiment", "stock")
    alone = await one_by_one(random_calls(shipped, 24, 3, *models))
    crowd = [asyncio.ensure_future(one) for one in random_calls(shipped, 48, 4, *models)]
    assert list(await asyncio.gather(*random_calls(shipped, 24, 3, *models))) == alone
    await asyncio.gather(*crowd)


async def test_answers_are_bit_identical_before_and_after_a_restart(tiny_repository: Path) -> None:
    answers = []
    for _ in range(2):
        async with ServerProcess(tiny_repository) as server, server.channel() as channel:
            answers.append(
                await one_by_one(random_calls(Calls(channel), 20, 5, ["letters"], "moods", "prices"))
            )
    assert answers[0] == answers[1]


async def test_models_say_which_promise_they_keep(tiny: Calls, shipped: Calls) -> None:
    assert all(model.batch_invariant for model in [*await tiny.list_models(), *await shipped.list_models()])
    assert (ROOT / "exported" / "charlm").is_dir()
