"""Streams of text that must come out as if nothing had happened."""

import asyncio
import time
from dataclasses import dataclass

from seqserve.aio import AsyncClient

PROMPTS = ("", "ROMEO:\n", "JULIET:\nWhat", "The king ", "\n\nFirst")


@dataclass(frozen=True, slots=True)
class Wish:
    """One text asked for; sampled, with a seed of its own."""

    model: str
    prompt: str
    max_tokens: int
    seed: int


@dataclass(slots=True)
class Told:
    """A text as it came.

    Attributes:
        text: whole.
        longest_gap_s: between two of its pieces, or before the first.
        generated_tokens: as the server counts them.
    """

    text: str = ""
    longest_gap_s: float = 0.0
    generated_tokens: int = 0


def wishes(model: str, count: int, max_tokens: int, alphabet: str = "") -> list[Wish]:
    """So many, with prompts of several lengths."""
    prompts = PROMPTS if not alphabet else ("", alphabet[:1], alphabet[1:4], alphabet)
    return [Wish(model, prompts[seed % len(prompts)], max_tokens, seed) for seed in range(count)]


async def tell(client: AsyncClient, wish: Wish) -> Told:
    """Read one text to its end."""
    told = Told()
    last = time.monotonic()
    stream = client.generate(
        wish.prompt, model=wish.model, max_tokens=wish.max_tokens, seed=wish.seed, timeout_s=None
    )
    async for piece in stream:
        now = time.monotonic()
        told.longest_gap_s = max(told.longest_gap_s, now - last)
        last = now
        told.text += piece.text
    told.generated_tokens = stream.usage.generated_tokens if stream.usage else 0
    return told


async def tell_all(client: AsyncClient, asked: list[Wish]) -> list[Told | BaseException]:
    """Read all of them side by side."""
    return await asyncio.gather(*(tell(client, wish) for wish in asked), return_exceptions=True)


def losses(asked: list[Wish], right: list[Told], found: list[Told | BaseException]) -> list[str]:
    """A line for each text that failed or differs from the undisturbed one."""
    lost = []
    for wish, expected, one in zip(asked, right, found, strict=True):
        if isinstance(one, BaseException):
            lost.append(f"seed {wish.seed}: {type(one).__name__}: {one}")
        elif one.text != expected.text:
            same = next(
                (i for i, (a, b) in enumerate(zip(one.text, expected.text, strict=False)) if a != b),
                min(len(one.text), len(expected.text)),
            )
            lost.append(
                f"seed {wish.seed}: differs from character {same}: "
                f"{one.text[same : same + 20]!r}, not {expected.text[same : same + 20]!r}"
            )
        elif one.generated_tokens != expected.generated_tokens:
            lost.append(
                f"seed {wish.seed}: {one.generated_tokens} tokens counted, not {expected.generated_tokens}"
            )
    return lost
