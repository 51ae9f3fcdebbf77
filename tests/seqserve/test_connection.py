"""Credentials, tokens and the rights that they give."""

from pathlib import Path

import grpc
import pytest

from seqserve import AsyncClient, Client, tls
from seqserve.bench.target import Target
from seqserve.cli.session import GlobalOptions, UsageError
from seqserve.v1 import models_pb2 as models
from tests.seqserve.scripted_server import ScriptedServer, text_pieces


def test_token_comes_with_every_call(server: ScriptedServer) -> None:
    server.pieces = text_pieces()
    with Client(server.address, token="s3cret") as client:
        for call in (
            client.models,
            lambda: client.generate().read(),
            lambda: list(client.classify_stream([("a", "good")])),
            lambda: client.load_model("charlm"),
        ):
            server.metadata = {}
            call()
            assert server.metadata["authorization"] == "Bearer s3cret"
        server.metadata = {}
        with client.forecast_stream() as stream:
            stream.push([[1.0]])
            assert server.metadata["authorization"] == "Bearer s3cret"
        assert "s3cret" not in repr(client)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("token", ["s3cret\n", "s3\u00e9cret", "\x00s3cret"])
async def test_token_that_cannot_be_sent_is_refused_and_not_shown(
    kind: type[Client | AsyncClient], token: str
) -> None:
    expected = "token: expected printable ASCII characters"
    with pytest.raises(ValueError, match=expected) as refusal:
        kind("127.0.0.1:1", token=token)
    assert "cret" not in str(refusal.value)


def test_target_of_a_load_shows_no_token() -> None:
    assert "s3cret" not in repr(Target("127.0.0.1:1", token="s3cret"))


def test_token_file_that_is_not_ascii_is_refused_without_its_bytes(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"s3cret\xc3\xa9")
    options = GlobalOptions(None, None, False, False, None, None, None, file)
    with pytest.raises(UsageError) as refusal:
        options.token()
    assert str(refusal.value) == "--token-file: expected ASCII text, found another byte at position 6"
    assert refusal.value.__cause__ is None


async def test_token_comes_with_every_call_of_the_asyncio_client(server: ScriptedServer) -> None:
    server.pieces = text_pieces()
    async with AsyncClient(
        server.secure_address, credentials=grpc.local_channel_credentials(), token="s3cret"
    ) as client:
        await client.models()
        assert server.metadata["authorization"] == "Bearer s3cret"
        server.metadata = {}
        await client.generate().read()
        assert server.metadata["authorization"] == "Bearer s3cret"
        server.metadata = {}
        async with client.forecast_stream() as stream:
            await stream.push([[1.0]])
            assert server.metadata["authorization"] == "Bearer s3cret"


def test_without_a_token_none_is_sent(server: ScriptedServer, client: Client) -> None:
    client.models()
    assert "authorization" not in server.metadata


def test_certificate_and_key_come_together(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one without the other"):
        tls(certificate=tmp_path)
    assert isinstance(tls(), grpc.ChannelCredentials)


def test_models_are_loaded_and_unloaded(server: ScriptedServer, client: Client) -> None:
    assert client.load_model("charlm").version == 9
    client.load_model("charlm", 3, allow_interface_change=True)
    client.unload_model("charlm", 3)
    assert server.requests == [
        models.LoadModelRequest(model="charlm"),
        models.LoadModelRequest(model="charlm", version=3, allow_interface_change=True),
        models.UnloadModelRequest(model="charlm", version=3),
    ]


async def test_models_are_loaded_and_unloaded_by_the_asyncio_client(server: ScriptedServer) -> None:
    async with AsyncClient(server.address) as client:
        assert (await client.load_model("charlm", 2)).version == 2
        await client.load_model("charlm", allow_interface_change=True)
        await client.unload_model("charlm")
    assert server.requests == [
        models.LoadModelRequest(model="charlm", version=2),
        models.LoadModelRequest(model="charlm", allow_interface_change=True),
        models.UnloadModelRequest(model="charlm"),
    ]
