"""Odd and repeated `authorization` fields: only one known token in its one form is served."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.process import ServerProcess
from tests.integration.wire import CLASSIFY, Answer, call, classify_message, fields_of, framed, wire

OK, INTERNAL, UNAUTHENTICATED = 0, 13, 16
SHOP, KEEPER = b"shop-4f1de5c9a07b63e8", b"keeper-90ac2b71ffe3d586"
ANY = b"authorization"
STREAM = b"/seqserve.v1.TextClassification/ClassifyStream"
LOAD = b"/seqserve.v1.Models/Load"
INFER = b"/inference.GRPCInferenceService/ModelInfer"
REFLECTION = b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"

Fields = tuple[tuple[bytes, bytes], ...]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(
    tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerProcess]:
    """A server with two tokens, which logs each call."""
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text(f"predict shop {SHOP.decode()}\nadmin keeper {KEEPER.decode()}\n")
    settings = {"TOKENS": str(path), "LOG_CALLS": "true", "SLOTS": "16", "CHUNK": "8", "CHUNK_ROWS": "8"}
    async with ServerProcess(tiny_repository, settings) as server:
        yield server


async def ask(server: ServerProcess, fields: Fields, path: bytes = CLASSIFY) -> Answer:
    return await call(server.grpc_port, fields_of(path, *fields), framed(classify_message()))


def one(value: bytes, key: bytes = ANY) -> Fields:
    return ((key, value),)


def many(*values: bytes) -> Fields:
    return tuple((ANY, value) for value in values)


GOOD = [b"Bearer " + SHOP, b"bearer " + SHOP, b"BEARER " + SHOP, b"Bearer  " + SHOP, b"Bearer " + SHOP + b" "]
BAD: dict[str, Fields] = {
    "no field": (),
    "empty": one(b""),
    "scheme alone": one(b"Bearer"),
    "scheme and a space": one(b"Bearer "),
    "scheme and spaces": one(b"Bearer" + b" " * 1000),
    "token alone": one(SHOP),
    "another scheme": one(b"Basic " + SHOP),
    "no space": one(b"Bearer" + SHOP),
    "scheme twice": one(b"Bearer Bearer " + SHOP),
    "tab for a space": one(b"Bearer\t" + SHOP),
    "colon": one(b"Bearer: " + SHOP),
    "space before": one(b" Bearer " + SHOP),
    "token in upper case": one(b"Bearer " + SHOP.upper()),
    "token cut short": one(b"Bearer " + SHOP[:-1]),
    "token and more": one(b"Bearer " + SHOP + b"a"),
    "two tokens in one": one(b"Bearer " + SHOP + b" " + KEEPER),
    "two tokens with a comma": one(b"Bearer " + SHOP + b", Bearer " + KEEPER),
    "quoted": one(b'Bearer "' + SHOP + b'"'),
    "NUL behind": one(b"Bearer " + SHOP + b"\0"),
    "NUL before": one(b"Bearer \0" + SHOP),
    "not ASCII": one("Bearer shöp".encode()),
    "not UTF-8": one(b"Bearer \xff\xfe" + SHOP),
    "8 KiB": one(b"Bearer " + b"a" * 8192),
    "8 KiB behind a token": one(b"Bearer " + SHOP + b"a" * 8192),
    "the same twice": many(b"Bearer " + SHOP, b"Bearer " + SHOP),
    "two known ones": many(b"Bearer " + SHOP, b"Bearer " + KEEPER),
    "known, then unknown": many(b"Bearer " + SHOP, b"Bearer other"),
    "unknown, then known": many(b"Bearer other", b"Bearer " + SHOP),
    "known, then empty": many(b"Bearer " + SHOP, b""),
    "empty, then known": many(b"", b"Bearer " + SHOP),
    "a hundred": many(*[b"Bearer " + SHOP] * 100),
    "key in upper case": one(b"Bearer " + SHOP, b"Authorization"),
    "binary key": one(b"Bearer " + SHOP, b"authorization-bin"),
    "key of a proxy": one(b"Bearer " + SHOP, b"proxy-authorization"),
    "name for token": one(b"Bearer shop"),
    "line of the file": one(b"Bearer predict shop " + SHOP),
}


@pytest.mark.parametrize("value", GOOD, ids=repr)
async def test_one_known_token_is_served(guarded: ServerProcess, value: bytes) -> None:
    assert (await ask(guarded, one(value))).code == OK


@pytest.mark.parametrize("path", [CLASSIFY, STREAM, LOAD, INFER, REFLECTION], ids=bytes.decode)
async def test_nobody_else_is_served_and_no_token_is_told(guarded: ServerProcess, path: bytes) -> None:
    """INTERNAL is gRPC's own refusal of a field that it cannot read; no handler has run then."""
    found = {name: await ask(guarded, fields, path) for name, fields in BAD.items()}
    assert {name: got for name, got in found.items() if got.code not in (UNAUTHENTICATED, INTERNAL)} == {}
    assert {name for name, got in found.items() if got.code == INTERNAL} <= {
        "key in upper case",
        "binary key",
    }
    assert not any(got.data for got in found.values())
    told = repr(found) + repr(guarded.events) + repr(guarded.other_output)
    assert not any(token.decode() in told for token in (SHOP, KEEPER))


async def test_token_of_one_call_serves_no_other_on_its_connection(guarded: ServerProcess) -> None:
    """The compression of fields repeats them cheaply; a call counts with its own alone."""
    good, message = fields_of(CLASSIFY, *one(b"Bearer " + SHOP)), framed(classify_message())
    async with wire(guarded.grpc_port) as connection:
        for _ in range(10):
            assert (await connection.call(good, message)).code == OK
            assert (await connection.call(fields_of(), message)).code == UNAUTHENTICATED


async def test_refused_tokens_are_no_errors_in_the_log(guarded: ServerProcess) -> None:
    for fields in BAD.values():
        await ask(guarded, fields)
    assert (await ask(guarded, one(GOOD[0]))).code == OK
    assert [event for event in guarded.events if event["level"] in ("error", "critical")] == []
