"""Which certificates are trusted: the same ones by minting, by telemetry and by sessions."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
import trustme
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener

from speko_anyio import APIConnectionError, AuthenticationError, HandshakeError, Speko, open_session
from speko_anyio._net import trust
from speko_anyio._net.contexts import never_swallows
from speko_anyio._net.trust import default_ssl_context
from speko_anyio.client._telemetry import Telemetry
from speko_anyio.protocol.mint import Credential, ProviderGrant, TelemetryTarget
from speko_anyio.testing.server import grant
from tests.support.proxy import HTTPProxy, SOCKSProxy, running_proxy


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in trust.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    trust._made.clear()


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    return authority


@never_swallows
async def tls_service(authority: trustme.CA) -> AsyncGenerator[tuple[int, list[bytes]], None]:
    """A server with a certificate of `authority` that answers 401: its port, and its requests."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    asked: list[bytes] = []

    async def serve(stream: ByteStream) -> None:
        async with stream:
            asked.append(await stream.receive())
            await stream.send(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    tcp = await anyio.create_tcp_listener(local_host="127.0.0.1")
    with anyio.fail_after(10):
        async with TLSListener(tcp, context, standard_compatible=False) as listener:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listener.serve, serve)
                yield tcp.extra(SocketAttribute.local_port), asked
                tasks.cancel_scope.cancel()


async def mint(port: int) -> None:
    async with Speko("sk", f"https://localhost:{port}", max_retries=0) as speko:
        await speko.realtime.create_session(provider="openai", model="m")


async def report(port: int) -> None:
    target = TelemetryTarget(endpoint=f"https://localhost:{port}/events", token="t", flush_interval_ms=5000)
    granted = ProviderGrant(
        transport="provider_direct",
        session_id="s1",
        provider="openai",
        model="m",
        adapter="openai.realtime.v1",
        provider_transport="websocket",
        endpoint="wss://p.test",
        credential=Credential(kind="bearer", value="ek", expires_at=""),
    )
    await Telemetry(granted, target).finish()


async def open_websocket(port: int) -> None:
    async with open_session(grant(f"wss://localhost:{port}/s")):
        pass


@pytest.mark.anyio
@pytest.mark.parametrize("where", ["SSL_CERT_FILE", "the system's store"])
async def test_all_connections_trust_the_same(
    where: str, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tls_service(authority) as (port, asked):
        with pytest.raises(APIConnectionError, match="check its certificate and the system's trust store"):
            await mint(port)
        with pytest.raises(APIConnectionError, match="check its certificate and the system's trust store"):
            await open_websocket(port)
        await report(port)
        assert asked == []
        if where == "SSL_CERT_FILE":
            monkeypatch.setenv(where, str(tmp_path / "authority.pem"))
        else:
            monkeypatch.setattr(
                ssl.SSLContext,
                "load_default_certs",
                lambda context, purpose: authority.configure_trust(context),
            )
            trust._made.clear()
        with pytest.raises(AuthenticationError):
            await mint(port)
        with pytest.raises(HandshakeError):
            await open_websocket(port)
        await report(port)
        assert [request.partition(b" ")[0] for request in asked] == [b"POST", b"GET", b"POST"]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [HTTPProxy, SOCKSProxy])
async def test_all_connections_go_through_the_proxy_of_the_environment(
    kind: type[HTTPProxy | SOCKSProxy],
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    async with tls_service(authority) as (port, asked), running_proxy(kind({"localhost": port})) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url())
        monkeypatch.setenv("NO_PROXY", "::1/128,[::1]:8080,10.0.0.0/8")
        with pytest.raises(AuthenticationError):
            await mint(port)
        await report(port)
        with pytest.raises(HandshakeError):
            await open_websocket(port)
        assert proxy.targets == [("localhost", port)] * 3
        monkeypatch.setenv("NO_PROXY", "localhost")
        with pytest.raises(AuthenticationError):
            await mint(port)
        await report(port)
        with pytest.raises(HandshakeError):
            await open_websocket(port)
        assert len(proxy.targets) == 3
        assert len(asked) == 6


@pytest.mark.anyio
async def test_an_error_names_the_variable_that_decides_what_is_trusted(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    async with tls_service(authority) as (port, _):
        for connect in (mint, open_websocket):
            with pytest.raises(
                APIConnectionError, match=r"failed.*check its certificate and SSL_CERT_FILE, or"
            ):
                await connect(port)


@pytest.mark.anyio
async def test_the_context_is_made_once_for_each_environment(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await default_ssl_context()
    assert await default_ssl_context() is first
    assert first.verify_mode is ssl.CERT_REQUIRED
    assert first.check_hostname
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    assert await default_ssl_context() is not first


@pytest.mark.anyio
@pytest.mark.parametrize("variable", trust.VARIABLES)
async def test_a_variable_that_names_nothing_is_logged(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "none"))
    for _ in range(2):
        await default_ssl_context()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"{variable} names a path that doesn't exist" in record.message


@pytest.mark.anyio
async def test_a_machine_without_certificates_has_those_of_certifi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda context, purpose: None)
    for folder in (None, str(tmp_path), str(tmp_path / "none")):
        monkeypatch.setattr(
            ssl, "get_default_verify_paths", lambda folder=folder: SimpleNamespace(capath=folder)
        )
        trust._made.clear()
        assert (await default_ssl_context()).get_ca_certs()
    # But not beside what the user named, nor beside a folder that OpenSSL reads when it needs to.
    (tmp_path / "abc.0").touch()
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: SimpleNamespace(capath=str(tmp_path)))
    trust._made.clear()
    assert not (await default_ssl_context()).get_ca_certs()
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert not (await default_ssl_context()).get_ca_certs()


@pytest.mark.anyio
async def test_a_machine_with_no_certificates_at_all_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda context, purpose: None)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: SimpleNamespace(capath=None))
    monkeypatch.setitem(__import__("sys").modules, "certifi", None)
    await default_ssl_context()
    assert "set SSL_CERT_FILE to a file that has them" in caplog.text
