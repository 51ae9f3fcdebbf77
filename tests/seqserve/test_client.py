"""Streams of the client: text as it comes, cancellation, answers matched by id."""

import threading
from collections.abc import Iterator

import grpc
import pytest

from seqserve import Client, InvalidArgument, Overloaded, TextPiece, Usage
from tests.seqserve.scripted_server import WAIT_S, ScriptedServer, text_pieces


def test_pieces_come_before_the_text_is_whole(client: Client, server: ScriptedServer) -> None:
    server.pieces, server.holds = text_pieces(), True
    with client.generate() as stream:
        pieces = iter(stream)
        assert next(pieces) == TextPiece("To be", 5, (-0.5,) * 5, 7)
        assert (stream.text, stream.seed, stream.finish_reason, stream.usage) == ("To be", 7, None, None)
        server.resume.set()
        assert [piece.text for piece in pieces] == [" or", ""]
    assert (stream.text, stream.finish_reason, stream.usage) == ("To be or", "stop", Usage(2, 9))
    assert server.ended.wait(WAIT_S)
    assert server.completed


def _assert_cancelled(server: ScriptedServer) -> None:
    assert server.ended.wait(WAIT_S)
    assert not server.completed


def test_leaving_the_loop_cancels_the_call(client: Client, server: ScriptedServer) -> None:
    server.pieces, server.holds = text_pieces(), True
    stream = client.generate()
    for _ in stream:
        break
    _assert_cancelled(server)
    assert list(stream) == []


def test_leaving_the_with_block_cancels_the_call(client: Client, server: ScriptedServer) -> None:
    server.pieces, server.holds = text_pieces(), True
    with client.generate() as stream:
        pieces = iter(stream)
        next(pieces)
    _assert_cancelled(server)
    assert list(pieces) == []


def test_closing_from_another_thread_ends_the_loop_quietly(client: Client, server: ScriptedServer) -> None:
    server.pieces, server.holds = text_pieces(), True
    stream = client.generate()
    texts = []
    for piece in stream:
        texts.append(piece.text)
        threading.Thread(target=stream.close).start()
    assert texts == ["To be"]
    _assert_cancelled(server)


def test_a_closed_stream_has_no_whole_text(client: Client, server: ScriptedServer) -> None:
    server.pieces, server.holds = text_pieces(), True
    stream = client.generate()
    for _ in stream:
        break
    with pytest.raises(RuntimeError, match="closed before"):
        stream.read()


def test_closing_after_the_end_changes_nothing(client: Client, server: ScriptedServer) -> None:
    server.pieces = text_pieces()
    stream = client.generate()
    whole = stream.read()
    stream.close()
    assert stream.read() == whole


def test_answers_are_matched_by_id_in_order_of_completion(client: Client, server: ScriptedServer) -> None:
    answers = list(client.classify_stream([("a", "good"), ("b", ["bad", "so so"]), ("c", "fine")]))
    assert [answer.id for answer in answers] == ["b", "a", "c"]
    assert [[result.token_count for result in answer.results] for answer in answers] == [[1, 2], [1], [1]]


def test_a_wrong_request_fails_alone(client: Client, server: ScriptedServer) -> None:
    answers = {
        answer.id: answer for answer in client.classify_stream([("a", "good"), ("b", " "), ("c", "fine")])
    }
    assert isinstance(answers["b"].error, InvalidArgument)
    assert str(answers["b"].error) == "texts[0] has no token"
    assert answers["b"].results == ()
    assert [answers[each].error for each in "ac"] == [None, None]


def test_what_the_requests_raise_reaches_the_reader_after_the_answers(
    client: Client, server: ScriptedServer
) -> None:
    def requests() -> Iterator[tuple[str, str]]:
        yield "a", "good"
        raise LookupError("no more")

    answers = iter(client.classify_stream(requests()))
    assert next(answers).id == "a"
    with pytest.raises(LookupError, match="no more"):
        next(answers)


def test_leaving_the_answers_cancels_the_call(client: Client, server: ScriptedServer) -> None:
    asked = threading.Event()

    def requests() -> Iterator[tuple[str, str]]:
        yield from [("a", "good"), ("b", "bad")]
        asked.wait(WAIT_S)

    for _ in client.classify_stream(requests()):
        break
    _assert_cancelled(server)
    asked.set()


def test_credentials_and_options_reach_the_channel(server: ScriptedServer) -> None:
    with Client(
        server.secure_address,
        credentials=grpc.local_channel_credentials(),
        options=[("grpc.max_receive_message_length", 100)],
    ) as client:
        assert len(client.classify("so good")) == 1
        with pytest.raises(Overloaded, match="larger than max"):
            client.classify(["so good"] * 50)
