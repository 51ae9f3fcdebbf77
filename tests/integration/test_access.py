"""TLS, mutual TLS, tokens and the limits of connections, as a caller of the real server meets them."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from seqserve.v1 import models_pb2 as models
from tests.integration.calls import Calls, refusal, refusal_of
from tests.integration.process import SERVING, ServerProcess
from tests.integration.test_lifecycle import LONG, get, rest_of

PATIENCE_S = 20
ALONE = [("grpc.use_local_subchannel_pool", 1)]
TOKENS = "predict shop secret-shop\nadmin keeper secret-keeper\n"


@asynccontextmanager
async def serving(repository: Path, **settings: str) -> AsyncIterator[ServerProcess]:
    """A server that is ready; asked over HTTP, as not every one of these lets itself be asked in the
    clear.
    """
    server = ServerProcess(repository, settings)
    await server.start()
    try:
        await server.wait_for_event("serving")
        yield server
    finally:
        await server.stop()


# TLS.


@dataclass(frozen=True)
class Files:
    """A certificate's files as the server reads them."""

    certificate: Path
    key: Path

    def write(self, issued: trustme.LeafCert) -> None:
        """Replace both, as tools do that rotate certificates."""
        for path, data in (
            (self.certificate, b"".join(one.bytes() for one in issued.cert_chain_pems)),
            (self.key, issued.private_key_pem.bytes()),
        ):
            new = path.with_suffix(".new")
            new.write_bytes(data)
            os.replace(new, path)

    @property
    def settings(self) -> dict[str, str]:
        return {"TLS_CERTIFICATE": str(self.certificate), "TLS_KEY": str(self.key)}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> Files:
    found = Files(tmp_path / "certificate.pem", tmp_path / "key.pem")
    found.write(authority.issue_cert("localhost"))
    return found


def secure(server: ServerProcess, authority: trustme.CA, own: trustme.LeafCert | None = None) -> aio.Channel:
    chain = None if own is None else b"".join(one.bytes() for one in own.cert_chain_pems)
    credentials = grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(), None if own is None else own.private_key_pem.bytes(), chain
    )
    return aio.secure_channel(
        f"127.0.0.1:{server.grpc_port}",
        credentials,
        options=[*ALONE, ("grpc.ssl_target_name_override", "localhost")],
    )


async def served_certificate(server: ServerProcess, authority: trustme.CA) -> bytes | None:
    """The certificate that a new handshake meets."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection(
        "127.0.0.1", server.grpc_port, ssl=context, server_hostname="localhost"
    )
    found: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return found


def der_of(issued: trustme.LeafCert) -> bytes:
    return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())


async def test_tls_serves_those_who_trust_it_and_nobody_in_the_clear(
    tiny_repository: Path, files: Files, authority: trustme.CA
) -> None:
    async with serving(tiny_repository, **files.settings) as server:
        async with secure(server, authority) as channel:
            assert (await Calls(channel).classify(["good"]))[0].label
        async with secure(server, trustme.CA()) as stranger:
            assert await code_of(Calls(stranger).classify(["good"])) is grpc.StatusCode.UNAVAILABLE
        async with server.channel() as clear:
            assert await code_of(Calls(clear).classify(["good"])) is grpc.StatusCode.UNAVAILABLE


async def test_replaced_certificate_is_served_without_a_restart(
    tiny_repository: Path, files: Files, authority: trustme.CA
) -> None:
    async with serving(tiny_repository, **files.settings) as server, secure(server, authority) as standing:
        running = Calls(standing).generation.Generate(LONG)
        await running.read()
        files.key.write_text("broken")
        old = await served_certificate(server, authority)
        issued = authority.issue_cert("localhost")
        files.write(issued)
        async with asyncio.timeout(PATIENCE_S):
            while await served_certificate(server, authority) != der_of(issued):  # noqa: ASYNC110 - the server tells of it in handshakes alone
                await asyncio.sleep(0.2)
        assert old != der_of(issued)
        assert (await running.read()).text  # a connection that stands is not disturbed


async def test_broken_certificate_leaves_the_old_one_and_is_logged_once(
    tiny_repository: Path, files: Files, authority: trustme.CA
) -> None:
    async with serving(tiny_repository, **files.settings) as server:
        old = await served_certificate(server, authority)
        files.key.write_text("broken")
        async with asyncio.timeout(PATIENCE_S):
            while not refused(server):
                assert await served_certificate(server, authority) == old
        for _ in range(3):
            assert await served_certificate(server, authority) == old
        assert len(refused(server)) == 1


def refused(server: ServerProcess) -> list[dict[str, Any]]:
    return [event for event in server.events if event["event"].startswith("new file refused")]


async def test_mutual_tls_wants_a_certificate_of_its_authority(
    tiny_repository: Path, files: Files, authority: trustme.CA, tmp_path: Path
) -> None:
    callers = trustme.CA()
    signers = tmp_path / "callers.pem"
    callers.cert_pem.write_to_path(str(signers))
    async with serving(tiny_repository, **files.settings, TLS_CLIENT_CA=str(signers)) as server:
        async with secure(server, authority, callers.issue_cert("shop.example")) as channel:
            assert (await Calls(channel).classify(["good"]))[0].label
        for own in (None, authority.issue_cert("shop.example")):
            async with secure(server, authority, own) as channel:
                assert await code_of(Calls(channel).classify(["good"])) is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("damage", ["no certificate", "no key", "garbage", "another key", "no signers"])
async def test_wrong_tls_files_stop_the_start_by_name(
    tiny_repository: Path, files: Files, authority: trustme.CA, tmp_path: Path, damage: str
) -> None:
    settings = files.settings
    match damage:
        case "no certificate":
            files.certificate.unlink()
        case "no key":
            files.key.unlink()
        case "garbage":
            files.certificate.write_text("garbage")
        case "another key":
            authority.issue_cert("localhost").private_key_pem.write_to_path(str(files.key))
        case _:
            (tmp_path / "signers").write_text("nobody")
            settings |= {"TLS_CLIENT_CA": str(tmp_path / "signers")}
    server = ServerProcess(tiny_repository, settings)
    assert await server.run_to_end() == 1
    assert "SEQSERVE_TLS_CERTIFICATE" in "".join(server.other_output)
    assert "Traceback" not in "".join(server.other_output)


async def test_plaintext_for_everybody_stops_the_start(tiny_repository: Path) -> None:
    server = ServerProcess(tiny_repository, {"GRPC_ADDRESS": "0.0.0.0:0"})
    assert await server.run_to_end() == 2
    assert "SEQSERVE_ALLOW_PLAINTEXT" in "".join(server.other_output)


# Tokens.


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    return caught.value.code()


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


async def reflected(channel: aio.Channel, token: str | None) -> Any:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")]),
        metadata=None if token is None else bearer(token),
    )
    return await call.read()


async def test_tokens_carry_rights_and_stay_secret(tiny_repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(TOKENS)
    async with serving(tiny_repository, TOKENS=str(path)) as server, server.channel() as channel:
        calls, probe = Calls(channel), health_pb2_grpc.HealthStub(channel)
        assert (await probe.Check(health_pb2.HealthCheckRequest())).status == SERVING
        assert (await probe.Watch(health_pb2.HealthCheckRequest()).read()).status == SERVING
        for metadata in (None, bearer("secret-other"), (("authorization", "secret-shop"),)):
            found = await refusal(calls.models.List(models.ListModelsRequest(), metadata=metadata))
            assert (found.code, found.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
            assert "secret" not in found.text
        for token in ("secret-shop", "secret-keeper"):
            assert (await calls.models.List(models.ListModelsRequest(), metadata=bearer(token))).models
            assert (await reflected(channel, token)).list_services_response.service
        stream = calls.generation.Generate(LONG)
        with pytest.raises(aio.AioRpcError) as caught:
            await rest_of(stream)
        assert refusal_of(caught.value).code is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(aio.AioRpcError):
            await reflected(channel, None)
        found = await refusal(
            calls.models.Load(models.LoadModelRequest(model="letters"), metadata=bearer("secret-shop"))
        )
        assert (found.code, found.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
        allowed = await code_of(
            calls.models.Load(models.LoadModelRequest(model="nobody"), metadata=bearer("secret-keeper"))
        )
        assert allowed not in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)
        _, metrics = await get(f"{server.http}/metrics")
    assert "secret" not in metrics
    assert "secret" not in repr(server.events) + repr(server.other_output)


async def test_replaced_tokens_are_in_force_without_a_restart(tiny_repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(TOKENS)
    async with serving(tiny_repository, TOKENS=str(path)) as server, server.channel() as channel:
        calls = Calls(channel)

        async def is_known(token: str) -> bool:
            try:
                await calls.models.List(models.ListModelsRequest(), metadata=bearer(token))
            except aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
                    raise
                return False
            return True

        assert await is_known("secret-shop")
        path.write_text("predict shop")
        async with asyncio.timeout(PATIENCE_S):
            while not refused(server):
                assert await is_known("secret-shop")
        path.write_text("predict shop secret-new\n")
        async with asyncio.timeout(PATIENCE_S):
            while not await is_known("secret-new"):  # noqa: ASYNC110 - another process has no event to await
                await asyncio.sleep(0.1)
        assert not await is_known("secret-shop")
        assert len(refused(server)) == 1


async def test_without_tokens_all_but_administration_is_open(tiny_server: ServerProcess) -> None:
    async with tiny_server.channel() as channel:
        calls = Calls(channel)
        assert await calls.list_models()
        for call in (
            calls.models.Load(models.LoadModelRequest(model="letters")),
            calls.models.Unload(models.UnloadModelRequest(model="letters")),
        ):
            found = await refusal(call)
            assert found.code is grpc.StatusCode.PERMISSION_DENIED
            assert "off unless admin access is set up" in found.text


@pytest.mark.parametrize("text", [None, "", "predict shop", "write shop secret-shop"])
async def test_wrong_tokens_stop_the_start_by_name(
    tiny_repository: Path, tmp_path: Path, text: str | None
) -> None:
    path = tmp_path / "tokens"
    if text is not None:
        path.write_text(text)
    server = ServerProcess(tiny_repository, {"TOKENS": str(path)})
    assert await server.run_to_end() == 1
    output = "".join(server.other_output)
    assert "SEQSERVE_TOKENS" in output
    assert "secret" not in output


# Limits of connections.


async def test_newcomer_over_the_limit_takes_the_place_of_an_idle_connection(tiny_repository: Path) -> None:
    async with (
        asyncio.timeout(PATIENCE_S),
        serving(tiny_repository, MAX_CONNECTIONS="2") as server,
        AsyncExitStack() as stack,
    ):
        for _ in range(4):
            channel = await stack.enter_async_context(server.channel(use_local_subchannel_pool=1))
            await Calls(channel).models.List(models.ListModelsRequest(), wait_for_ready=True)


async def test_call_over_the_limit_of_streams_waits_for_another_to_end(tiny_repository: Path) -> None:
    async with serving(tiny_repository, MAX_STREAMS="2") as server, server.channel() as channel:
        calls = Calls(channel)
        await calls.list_models()
        held = [calls.classification.ClassifyStream() for _ in range(2)]
        for one in held:
            await one.wait_for_connection()
        waiting = asyncio.ensure_future(calls.list_models())
        done, _ = await asyncio.wait({waiting}, timeout=0.5)
        assert not done
        held[0].cancel()
        async with asyncio.timeout(PATIENCE_S):
            assert await waiting
        held[1].cancel()


async def test_connection_of_an_age_is_closed_and_the_next_call_makes_another(tiny_repository: Path) -> None:
    async with serving(
        tiny_repository, CONNECTION_AGE_SECONDS="0.5", CONNECTION_GRACE_SECONDS="0.5"
    ) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.grpc_port)
        writer.write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
        )  # the preface and empty SETTINGS
        async with asyncio.timeout(PATIENCE_S):
            while await reader.read(1 << 16):
                pass
        writer.close()
        async with server.channel() as channel:
            calls = Calls(channel)
            for _ in range(3):
                assert await calls.list_models()
                await asyncio.sleep(0.4)
            running = calls.classification.ClassifyStream()
            async with asyncio.timeout(PATIENCE_S):
                with pytest.raises(aio.AioRpcError) as caught:
                    await rest_of(running)  # outlives age and grace
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_metadata_over_the_limit_are_refused(tiny_server: ServerProcess) -> None:
    async with tiny_server.channel() as channel:
        calls = Calls(channel)
        large = (("x-large", "a" * 20_000),)
        assert (
            await code_of(calls.models.List(models.ListModelsRequest(), metadata=large))
            is grpc.StatusCode.RESOURCE_EXHAUSTED
        )
        assert (
            await calls.models.List(models.ListModelsRequest(), metadata=(("x-small", "a" * 4000),))
        ).models
