"""Peers that ask, do not read the answers, and break off: a normal end of a call, of which no log tells more
than one line, and never what the peer said.
"""

import asyncio
from pathlib import Path

from google.protobuf.message import Message
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings

from seqserve.v1.models_pb2 import ListModelsRequest
from seqserve.v1.text_classification_pb2 import ClassifyRequest
from seqserve.v1.text_generation_pb2 import GenerateRequest, ScoreRequest
from tests.integration.process import ServerProcess
from tests.integration.test_lifecycle import get

PATIENCE_S = 30
WORD, SAID = "key-of-the-shop", "gewgaw"
TEXTS = [f"good {SAID}"] * 50
CALLS: dict[str, list[Message]] = {
    "seqserve.v1.Models/List": [ListModelsRequest()],
    "seqserve.v1.TextClassification/Classify": [ClassifyRequest(model="moods", texts=TEXTS)],
    "seqserve.v1.TextClassification/ClassifyStream": [ClassifyRequest(model="moods", texts=TEXTS)] * 10,
    "seqserve.v1.TextGeneration/Generate": [
        GenerateRequest(model="letters", prompt="abcdefgh", max_tokens=2000)
    ],
    "seqserve.v1.TextGeneration/Score": [ScoreRequest(model="letters", texts=["abcdefgh" * 20] * 50)],
}
NUM_CONNECTIONS, NUM_CALLS = 5, 4


async def ask_and_leave(port: int, path: str, messages: list[Message], *, resets: bool) -> None:
    """Make calls on one connection, wait for the server's first bytes, and break off without reading on."""
    http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    http.local_settings = Settings(client=True, initial_values={SettingCodes.INITIAL_WINDOW_SIZE: 100})
    http.initiate_connection()
    streams = []
    for _ in range(NUM_CALLS):
        streams.append(stream := http.get_next_available_stream_id())
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", f"/{path}"),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("authorization", f"Bearer {WORD}"),
        ]
        http.send_headers(stream, headers)
        for data in (message.SerializeToString() for message in messages):
            http.send_data(stream, b"\0" + len(data).to_bytes(4, "big") + data)
        http.end_stream(stream)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(http.data_to_send())
    await reader.read(1 << 16)
    for stream in streams if resets else ():
        http.reset_stream(stream)
    writer.write(http.data_to_send())
    await writer.drain()
    writer.transport.abort()


async def test_peers_who_leave_cause_no_error_and_their_words_are_not_logged(
    tiny_repository: Path, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"predict shop {WORD}\n")
    settings = {"TOKENS": str(tokens), "LOG_CALLS": "true"}
    async with asyncio.timeout(PATIENCE_S), ServerProcess(tiny_repository, settings) as server:
        for path, messages in CALLS.items():
            for resets in (False, True):
                for _ in range(NUM_CONNECTIONS):
                    await ask_and_leave(server.grpc_port, path, messages, resets=resets)
        _, metrics = await get(f"{server.http}/metrics")
        assert await server.stop() == 0
    told = str(server.events) + "".join(server.other_output)
    assert [event for event in server.events if event["level"] == "error"] == []
    assert 'code="INTERNAL"' not in metrics
    assert 'code="UNKNOWN"' not in metrics
    assert "Traceback" not in told
    assert WORD not in told
    assert SAID not in told
    assert "abcdefgh" not in told
    assert len(server.events) + len(server.other_output) < len(CALLS) * 2 * NUM_CONNECTIONS * NUM_CALLS + 20
