"""Generate and Score over the wire."""

import asyncio
import random

import pytest
import torch

from seqserve.v1 import text_generation_pb2 as pb
from tests.integration.calls import Calls
from tests.tiny import VOCABULARY, generator_network
from training.networks.network import Cell, RecurrentNetwork

IDS = {character: index for index, character in enumerate(VOCABULARY)}
MODELS: list[tuple[str, Cell]] = [("letters", "lstm"), ("letters-gru", "gru")]


def torch_greedy(network: RecurrentNetwork, prompt: str, count: int) -> str:
    """The most likely continuation, one token at a time, by PyTorch."""
    ids = [IDS[character] for character in prompt]
    with torch.no_grad():
        for _ in range(count):
            hidden, _ = network(torch.tensor([ids]))
            ids.append(int(network.outputs_of(hidden)[0, -1].argmax()))
    return "".join(VOCABULARY[token] for token in ids[len(prompt) :])


@pytest.mark.parametrize(("model", "cell"), MODELS)
async def test_greedy_generation_equals_pytorchs(tiny: Calls, model: str, cell: Cell) -> None:
    network = generator_network(cell)
    for prompt in ("a", "abc", "hgfedcba abc\n" * 5):
        found = await tiny.generate(model, prompt=prompt, max_tokens=50, temperature=0.0)
        assert found.text == torch_greedy(network, prompt, 50)


@pytest.mark.parametrize(("model", "cell"), MODELS)
async def test_score_equals_pytorchs_loss(tiny: Calls, model: str, cell: Cell) -> None:
    network = generator_network(cell)
    texts = ["ab", "hgfedcba", "abc def\n" * 40]
    for text, score in zip(texts, await tiny.score(texts, model), strict=True):
        ids = torch.tensor([IDS[character] for character in text])
        with torch.no_grad():
            hidden, _ = network(ids[None, :-1])
            logprobs = torch.log_softmax(network.outputs_of(hidden)[0], dim=1).gather(1, ids[1:, None])[:, 0]
        assert torch.allclose(torch.tensor(list(score.token_logprobs)), logprobs, atol=1e-5)
        assert score.total_logprob == pytest.approx(float(logprobs.sum()), abs=1e-3)
        assert score.perplexity == pytest.approx(float((-logprobs.mean()).exp()), rel=1e-4)


async def test_logprobs_of_a_generation_are_those_that_score_gives(tiny: Calls) -> None:
    found = await tiny.generate(prompt="abc", max_tokens=40, seed=5, logprobs=True)
    (score,) = await tiny.score(["abc" + found.text])
    assert found.logprobs == tuple(score.token_logprobs[2:])


async def test_logprobs_are_absent_unless_asked_for(tiny: Calls) -> None:
    assert (await tiny.generate(prompt="abc", max_tokens=5)).logprobs == ()


async def test_same_seed_gives_the_same_text_and_another_seed_another(tiny: Calls) -> None:
    first, again, other = [await tiny.generate(prompt="abc", max_tokens=100, seed=seed) for seed in (1, 1, 2)]
    assert first.text == again.text != other.text


async def test_drawn_seed_is_returned_and_repeats_the_text(tiny: Calls) -> None:
    drawn = await tiny.generate(prompt="abc", max_tokens=60)
    assert (await tiny.generate(prompt="abc", max_tokens=60, seed=drawn.last.seed)).text == drawn.text


async def test_text_continues_exactly_from_prompt_and_text_so_far(tiny: Calls) -> None:
    whole = await tiny.generate(prompt="abc", max_tokens=200, seed=9)
    begun = await tiny.generate(prompt="abc", max_tokens=77, seed=9)
    rest = await tiny.generate(prompt="abc" + begun.text, max_tokens=123, seed=9)
    assert begun.text + rest.text == whole.text


async def test_empty_prompt_starts_with_the_start_token(tiny: Calls) -> None:
    start = VOCABULARY[0]
    empty, given = (
        await tiny.generate(max_tokens=30, seed=3),
        await tiny.generate(prompt=start, max_tokens=30, seed=3),
    )
    assert empty.text == given.text
    assert (empty.last.usage.prompt_tokens, given.last.usage.prompt_tokens) == (0, 1)


async def test_max_tokens_ends_with_length_and_is_counted(tiny: Calls) -> None:
    found = await tiny.generate(prompt="abc", max_tokens=17)
    assert len(found.text) == found.last.usage.generated_tokens == 17
    assert found.last.finish_reason == pb.FINISH_REASON_LENGTH
    assert found.last.usage.prompt_tokens == 3


async def test_max_tokens_unset_is_the_models_default(tiny: Calls) -> None:
    assert len((await tiny.generate(prompt="abc")).text) == 20


async def test_top_k_1_is_greedy(tiny: Calls) -> None:
    greedy = await tiny.generate(prompt="abc", max_tokens=50, temperature=0.0)
    assert (await tiny.generate(prompt="abc", max_tokens=50, top_k=1, seed=4)).text == greedy.text


async def test_tiny_top_p_is_greedy(tiny: Calls) -> None:
    greedy = await tiny.generate(prompt="abc", max_tokens=50, temperature=0.0)
    assert (await tiny.generate(prompt="abc", max_tokens=50, top_p=1e-9, seed=4)).text == greedy.text


async def test_stop_string_ends_before_its_first_occurrence(tiny: Calls) -> None:
    whole = (await tiny.generate(prompt="abc", max_tokens=300, seed=1)).text
    chooser = random.Random(0)
    for _ in range(30):
        length, start = chooser.randint(1, 6), chooser.randint(20, 280)
        stop = whole[start : start + length]
        found = await tiny.generate(prompt="abc", max_tokens=300, seed=1, stop=[stop], logprobs=True)
        assert found.text == whole[: whole.index(stop)]
        assert found.last.finish_reason == pb.FINISH_REASON_STOP
        assert found.last.usage.generated_tokens == whole.index(stop) + len(stop)
        assert len(found.logprobs) == len(found.text)


async def test_stop_string_that_never_comes_loses_nothing(tiny: Calls) -> None:
    whole = (await tiny.generate(prompt="abc", max_tokens=100, seed=1)).text
    # The last character is held back as the possible start of the stop string, until the end.
    found = await tiny.generate(prompt="abc", max_tokens=100, seed=1, stop=[whole[-1] + "\n" * 9])
    assert found.text == whole
    assert found.last.finish_reason == pb.FINISH_REASON_LENGTH


async def test_streams_side_by_side_each_get_their_own_text(tiny: Calls) -> None:
    alone = [(await tiny.generate(prompt="abc", max_tokens=40, seed=seed)).text for seed in range(20)]
    together = await asyncio.gather(
        *(tiny.generate(prompt="abc", max_tokens=40, seed=seed) for seed in range(20))
    )
    assert [one.text for one in together] == alone


async def test_first_message_of_a_long_generation_comes_before_the_last_token_is_made(tiny: Calls) -> None:
    call = tiny.generation.Generate(pb.GenerateRequest(model="letters", prompt="abc", max_tokens=100_000))
    first = await call.read()
    assert 1 <= len(first.text) < 100_000
    call.cancel()
