"""A small load for the page Engine: sequences of mixed lengths and a few streams, for a model of any task.

Lengths, contents and times are the same each time, so that two pictures can be compared.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine, Iterator
from itertools import chain, count, cycle, islice
from typing import Any, Final

from seqserve.aio import AsyncClient
from seqserve.results import ModelInfo

NUM_SEQUENCES: Final = 20
NUM_STREAMS: Final = 3
PUSHES: Final = 12
# Seconds over which the sequences arrive, and between two pushes of a stream.
ARRIVE_S: Final = 1.5
PUSH_S: Final = 0.1
MIN_LENGTH: Final = 8
MAX_LENGTH: Final = 400
_WORDS: Final = ("a", "gripping", "and", "tender", "film", "that", "never", "quite", "ends")
_SEED: Final = 18

Call = Coroutine[Any, Any, object]


async def send_load(client: AsyncClient, model: ModelInfo) -> None:
    """Send sequences of mixed lengths and some streams, and return when all are answered.

    Args:
        client: Sends them.
        model: Model that runs them, with its spec.

    Raises:
        SeqserveError: One of the calls failed; the others are cancelled.
    """
    tasks = [asyncio.ensure_future(call) for call in _calls(client, model)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def lengths() -> list[int]:
    """Return the lengths of the sequences, in time steps or tokens: as many short as long ones."""
    draw = random.Random(_SEED)  # noqa: S311 - nothing secret
    share = (MAX_LENGTH / MIN_LENGTH) ** (1 / (NUM_SEQUENCES - 1))
    found = [round(MIN_LENGTH * share**number) for number in range(NUM_SEQUENCES)]
    draw.shuffle(found)
    return found


def text_of(length: int, alphabet: str = "") -> str:
    """Return a text of so many characters, of an alphabet's letters if it is given."""
    text = "".join(islice(chain.from_iterable(f"{word} " for word in cycle(_WORDS)), length))
    if not alphabet:
        return text
    known = [letter for letter in alphabet if letter.isprintable()] or list(alphabet)
    return "".join(letter if letter in alphabet else known[ord(letter) % len(known)] for letter in text)


def rows_of(length: int, width: int) -> list[list[float]]:
    """Return so many time steps of `width` positive values that change a little from step to step."""
    draw = random.Random(_SEED)  # noqa: S311 - nothing secret
    level = 100.0
    rows = []
    for _ in range(length):
        level *= 1 + draw.uniform(-0.01, 0.01)
        rows.append([level] * width)
    return rows


def _calls(client: AsyncClient, model: ModelInfo) -> Iterator[Call]:
    """Yield the calls, each of which waits until it is its time."""
    pause_s = ARRIVE_S / NUM_SEQUENCES
    for number, length in enumerate(lengths()):
        yield _later(number * pause_s, _sequence(client, model, length, number))
    if model.task != "text-generation" and model.kind != "whole":
        for number in range(NUM_STREAMS):
            yield _later(number * pause_s, _stream(client, model))


async def _later(delay_s: float, call: Call) -> None:
    try:
        await asyncio.sleep(delay_s)
        await call
    finally:
        call.close()  # one that was cancelled before its time has not begun


async def _sequence(client: AsyncClient, model: ModelInfo, length: int, number: int) -> None:
    name, version = model.name, model.version
    if model.task == "text-generation":
        # Long prompts generate little and short ones much: prefill and decode share the ticks.
        prompt = text_of(length, _alphabet(model))
        tokens = min(MAX_LENGTH - length + MIN_LENGTH, MAX_LENGTH)
        await client.generate(prompt, model=name, version=version, max_tokens=tokens, seed=number).read()
    elif model.task == "text-classification":
        await client.classify([text_of(length)], model=name, version=version)
    elif model.task == "forecasting":
        await client.forecast(
            [rows_of(max(length, _least(model)), _width(model))], model=name, version=version
        )
    else:
        await client.infer([_input_of(model, length)], model=name, version=version)


async def _stream(client: AsyncClient, model: ModelInfo) -> None:
    """Keep one sequence open, and push a little now and then."""
    if model.task == "forecasting":
        history, width = max(MIN_LENGTH, _least(model)), _width(model)
        async with client.forecast_stream(model=model.name, version=model.version) as forecasts:
            async for number in _pauses():
                await forecasts.push(rows_of(1 if number else history, width))
        return
    async with client.infer_stream(model=model.name, version=model.version) as answers:
        async for _ in _pauses():
            await answers.push(_input_of(model, MIN_LENGTH))


async def _pauses() -> AsyncIterator[int]:
    for number in islice(count(), PUSHES):
        yield number
        await asyncio.sleep(PUSH_S)


def _input_of(model: ModelInfo, length: int) -> Any:
    if model.input == "text":
        return text_of(length)
    if model.input == "tokens":
        return [1] * length
    return rows_of(length, len(model.features) or 1)


def _section(model: ModelInfo, name: str) -> dict[str, Any]:
    section = model.spec.get(name)
    return section if isinstance(section, dict) else {}


def _alphabet(model: ModelInfo) -> str:
    """Return the characters that a model of characters knows, or "" for one with a tokenizer."""
    text = _section(model, "generation").get("text")
    vocabulary = text.get("vocabulary") if isinstance(text, dict) else None
    return vocabulary if isinstance(vocabulary, str) else ""


def _least(model: ModelInfo) -> int:
    """Return the observations that a series needs at least."""
    least = _section(model, "forecasting").get("least_observations")
    return least if isinstance(least, int) else MIN_LENGTH


def _width(model: ModelInfo) -> int:
    columns = _section(model, "forecasting").get("columns")
    return len(columns) if isinstance(columns, list) and columns else len(model.features) or 1
