"""seqserve.repeating: streams whose text is not enough to go on from are continued from a state or from the
start, and their user sees nothing of it; through both clients.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from hypothesis import given
from hypothesis import strategies as st

from seqserve import Client, Generation, InvalidArgument, ServerFailure, TextPiece
from seqserve.repeating import Received
from seqserve.v1 import text_generation_pb2 as generation
from tests.seqserve.scripted_server import WAIT_S, ScriptedServer
from tests.seqserve.test_client_errors import status
from tests.seqserve.test_continuation import LOST, QUICK, Write, write

__all__ = ["write"]

NEEDED = status(
    grpc.StatusCode.INVALID_ARGUMENT,
    "text is not enough",
    ErrorInfo(reason="STATE_NEEDED", domain="seqserve"),
)
WORDS = ("the", " cat", " sat", "", " on", " the mat", ".")
TEXT = "".join(WORDS)


def script(*stated: int, words: Sequence[str] = WORDS) -> list[generation.GenerateResponse]:
    """Return a message a word, of as many tokens as its length has remainder by 3, some of them with a state,
    whose number is that of the message after it.
    """
    found = []
    for index, word in enumerate(words):
        tokens = len(word) % 3 + 1
        state = str(index + 1).encode() if index in stated else b""
        logprobs = [-index - token / 8 for token in range(tokens)]
        found.append(
            generation.GenerateResponse(
                text=word, token_count=tokens, seed=7, version=3, logprobs=logprobs, state=state
            )
        )
    usage = generation.Usage(prompt_tokens=2, generated_tokens=sum(one.token_count for one in found))
    reason = generation.FINISH_REASON_END_TOKEN
    return [*found, generation.GenerateResponse(seed=7, version=3, finish_reason=reason, usage=usage)]


def facts(found: tuple[list[TextPiece], Generation]) -> tuple[Any, ...]:
    pieces, whole = found
    assert sum(piece.token_count for piece in pieces) == whole.usage.generated_tokens
    assert "".join(piece.text for piece in pieces) == whole.text
    return whole.text, whole.logprobs, whole.usage, whole.finish_reason


@pytest.mark.parametrize(
    ("stated", "breaks", "begun"),
    [
        ((), [3], [b"", b""]),
        ((), [3, 2, 5], [b"", b"", b"", b""]),
        ((1,), [4], [b"", b"2"]),
        ((1, 4), [3, 2, 4, 1], [b"", b"2", b"2", b"5", b"5"]),
        ((1, 4), [1, 4], [b"", b"", b"2"]),
    ],
    ids=[
        "from the start",
        "again and again",
        "from a state",
        "from the last state",
        "a state while repeating",
    ],
)
async def test_text_of_tokens_is_the_same_as_of_one_call(
    server: ScriptedServer, write: Write, stated: tuple[int, ...], breaks: list[int], begun: list[bytes]
) -> None:
    server.pieces, server.refusal = script(*stated), NEEDED
    undisturbed = facts(await write(prompt="Ho"))
    server.requests.clear()
    server.breaks.extend((after, LOST) for after in breaks)
    assert facts(await write(prompt="Ho", initial={"image": [1, 2]})) == undisturbed
    requests = [one for one in server.requests if isinstance(one, generation.GenerateRequest)]
    served = [one for one in requests if not one.generated]
    assert [one.state for one in served] == begun
    assert [one.prompt for one in served] == ["" if one else "Ho" for one in begun]
    assert [list(one.initial) for one in served] == [[] if one else ["image"] for one in begun]
    assert all((one.seed, one.version) == (7, 3) for one in requests[1:])
    assert len(requests) - len(served) == (not begun[1])  # the text alone is tried once, without a state


async def test_refusal_is_tried_around_once_and_not_for_ever(server: ScriptedServer, write: Write) -> None:
    """The server refuses the repeated call for the same reason, which it has no cause for."""
    server.pieces, server.refusal = script(), NEEDED
    server.breaks.extend([(2, LOST), (0, NEEDED)])
    with pytest.raises(InvalidArgument, match="text is not enough"):
        await write(prompt="Ho")
    assert len(server.requests) == 3


async def test_another_text_is_told(server: ScriptedServer, write: Write) -> None:

    server.pieces, server.refusal = script(), NEEDED
    server.breaks.extend([(3, LOST)])
    with Client(server.address, retry=QUICK, timeout_s=WAIT_S) as client:
        stream = client.generate("Ho")
        pieces = iter(stream)
        texts = [next(pieces).text for _ in range(2)]
        server.pieces = script(words=("the", " dog", " ran"))
        with pytest.raises(ServerFailure, match="the model is not batch-invariant"):
            texts += [piece.text for piece in pieces]


async def test_no_retry_means_no_repetition(server: ScriptedServer, write: Write) -> None:
    server.pieces, server.refusal = script(), NEEDED
    server.breaks.append((2, LOST))
    with pytest.raises(Exception, match="gone"):
        await write(retry=None)
    assert len(server.requests) == 1


# What is skipped, whatever the messages of the calls are.


def cut(places: list[int], states: list[bool]) -> list[generation.GenerateResponse]:
    """Cut 12 tokens of two characters into messages; some have a state, which is the number of tokens."""
    edges = sorted({0, 12, *places})
    found = []
    for index, (start, stop) in enumerate(pairwise(edges)):
        text = "".join(f"{token:x}{token:x}" for token in range(start, stop))
        state = bytes([stop]) if states[index % len(states)] else b""
        found.append(generation.GenerateResponse(text=text, token_count=stop - start, state=state))
    return found


calls = st.lists(
    st.tuples(
        st.lists(st.integers(1, 11), max_size=6),
        st.lists(st.booleans(), min_size=1, max_size=3),
        st.integers(0, 12),
    ),
    min_size=1,
    max_size=5,
)


@given(calls)
def test_each_token_comes_once_and_in_order(made: list[tuple[list[int], list[bool], int]]) -> None:
    received = Received()
    text, tokens = "", 0
    for number, (places, states, after) in enumerate([*made, ([], [False], 12)]):
        request = generation.GenerateRequest(prompt="Ho")
        if number:
            received.begin(request)
        done = request.state[0] if request.state else 0
        assert request.prompt == ("" if done else "Ho")
        for message in cut([*places, done], states)[:after]:
            if message.text[:1] and int(message.text[0], 16) < done:
                continue
            received.take(message)
            text, tokens = text + message.text, tokens + message.token_count
            assert len(text) == 2 * tokens
    assert tokens == 12
    assert text == "".join(f"{token:x}{token:x}" for token in range(12))
