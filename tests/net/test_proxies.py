"""Going through proxies: real ones on the loopback, right, wrong, slow and rude."""

from __future__ import annotations

import re
import socket
import ssl
import sys

import anyio
import pytest
import trustme
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSStream

from speko_anyio import APIConnectionError, ConfigurationError, ProxyError, open_session
from speko_anyio._extras import install_extra
from speko_anyio._net import proxies
from speko_anyio._net.proxies import Proxy, connect_through, find_http_proxy, find_proxy
from speko_anyio.protocol.url import parse_url
from speko_anyio.testing.server import grant
from tests.support.proxy import FakeProxy, HTTPProxy, SOCKSProxy, running_proxy

from .test_transport import serving, talk

SECRET = "hunter2"
KINDS = [HTTPProxy, SOCKSProxy]


# Which proxy


@pytest.mark.parametrize(
    ("environment", "url", "expected"),
    [
        ({}, "wss://speko.test/", None),
        ({"HTTPS_PROXY": "http://a:1"}, "wss://speko.test/", "a:1"),
        ({"https_proxy": "http://a:1"}, "wss://speko.test/", "a:1"),
        ({"HTTPS_PROXY": "http://a:1"}, "ws://speko.test/", None),
        ({"HTTP_PROXY": "http://a:1"}, "ws://speko.test/", "a:1"),
        ({"HTTP_PROXY": "http://a:1"}, "wss://speko.test/", None),
        ({"ALL_PROXY": "socks5://a:1", "HTTPS_PROXY": "http://b:2"}, "ws://speko.test/", "a:1"),
        ({"ALL_PROXY": "socks5://a:1", "HTTPS_PROXY": "http://b:2"}, "wss://speko.test/", "b:2"),
        ({"WSS_PROXY": "http://c:3", "HTTPS_PROXY": "http://b:2"}, "wss://speko.test/", "c:3"),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "speko.test"}, "wss://speko.test/", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": ".test"}, "wss://speko.test/", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "*"}, "wss://speko.test/", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "other.test,speko.test:99"}, "wss://speko.test/", "a:1"),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "speko.test:99"}, "wss://speko.test:99/", None),
        ({"ALL_PROXY": "http://a:1", "NO_PROXY": "::1"}, "ws://[::1]:99/", None),
        ({"ALL_PROXY": "http://a:1", "NO_PROXY": "[::1]"}, "ws://[::1]:99/", None),
    ],
)
def test_the_environment_names_the_proxy(
    environment: dict[str, str], url: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = find_proxy(parse_url(url), True)
    assert (found and str(found)) == expected
    assert find_proxy(parse_url(url), None) is None
    assert str(find_proxy(parse_url(url), "http://mine:5")) == "mine:5"


NO_PROXY = [
    # Separators and blanks.
    ("*", "speko.test", 443, True),
    ("other.test,speko.test", "speko.test", 443, True),
    (" other.test , speko.test ", "speko.test", 443, True),
    ("other.test;speko.test", "speko.test", 443, True),
    ("other.test speko.test", "speko.test", 443, True),
    ("other.test|speko.test", "speko.test", 443, True),
    (",,;", "speko.test", 443, False),
    # Names.
    ("SPEKO.TEST", "speko.test", 443, True),
    ("speko.test", "SPEKO.test.", 443, True),
    ("speko.test", "api.speko.test", 443, True),
    (".speko.test", "api.speko.test", 443, True),
    ("*.speko.test", "api.speko.test", 443, True),
    ("*.local", "printer.local", 80, True),
    ("*.local", "printer.local.test", 80, False),
    ("speko.test", "notspeko.test", 443, False),
    ("speko.test:443", "speko.test", 443, True),
    ("speko.test:443", "speko.test", 8443, False),
    ("*:443", "speko.test", 443, True),
    ("https://speko.test/", "speko.test", 443, True),
    ("bücher.test", "xn--bcher-kva.test", 443, True),
    ("my_host.test", "my_host.test", 443, True),
    # Addresses and networks.
    ("127.0.0.1", "127.0.0.1", 80, True),
    ("10.0.0.0/8", "10.1.2.3", 80, True),
    ("10.0.0.7/8", "10.1.2.3", 80, True),
    ("10.0.0.0/8", "11.1.2.3", 80, False),
    ("10.0.0.0/8", "10.speko.test", 80, False),
    ("10.*", "10.1.2.3", 80, True),
    ("10.0.0.0/8:80", "10.1.2.3", 8080, False),
    ("::1", "::1", 80, True),
    ("[::1]", "::1", 80, True),
    ("0:0:0:0:0:0:0:1", "::1", 80, True),
    ("[::1]:8080", "::1", 8080, True),
    ("[::1]:8080", "::1", 80, False),
    ("::1/128", "::1", 80, True),
    ("fd07:b51a:cc66::/64", "fd07:b51a:cc66::9", 80, True),
    ("fd07:b51a:cc66::/64", "fd07:b51a:cc67::9", 80, False),
    ("[fd07::]/16", "fd07::9", 80, True),
    ("[fd07::/16]", "fd07::9", 80, True),
    ("[fd07::/16]:80", "fd07::9", 81, False),
    ("[fd00::]/8:443", "fd12::9", 443, True),
    ("[fd00::]/8:443", "fd12::9", 80, False),
    ("[fd00::]/8:443", "fe12::9", 443, False),
    ("fd00::/8:443", "fd12::9", 443, True),
    ("fd00::/8:443", "fd12::9", 80, False),
    ("https://[fd00::]/8:443/", "fd12::9", 443, True),
    ("::ffff:10.0.0.0/104", "10.1.2.3", 80, True),
    ("::ffff:10.0.0.0/104", "::ffff:10.1.2.3", 80, True),
    ("::ffff:10.0.0.0/104", "11.1.2.3", 80, False),
    ("[::ffff:a00:0]/104:80", "10.1.2.3", 80, True),
    ("::ffff:10.1.2.3", "10.1.2.3", 80, True),
    ("::ffff:0:0/96", "10.1.2.3", 80, True),
    ("::/0", "10.1.2.3", 80, False),
    ("::/0", "::ffff:10.1.2.3", 80, True),
    ("10.0.0.0/8", "::ffff:10.1.2.3", 80, True),
]


@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
@pytest.mark.parametrize(("value", "host", "port", "direct"), NO_PROXY)
def test_the_hosts_without_a_proxy(
    value: str, host: str, port: int, direct: bool, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://a:1")
    monkeypatch.setenv(variable, value)
    shown = f"[{host}]" if ":" in host else host
    for found in (
        find_proxy(parse_url(f"ws://{shown}:{port}/"), True),
        find_proxy(parse_url(f"wss://{shown}:{port}/"), True),
        find_http_proxy(f"http://{shown}:{port}/v1"),
        find_http_proxy(f"https://{shown}:{port}/v1"),
    ):
        assert (found is None) == direct


@pytest.mark.parametrize(
    "entry",
    [
        "[::1",
        "[::1]x",
        "a:port",
        "a:0",
        "a:99999",
        "<local>",
        "a/b",
        "[::1]/129",
        "[::1]/64:x",
        "::1/64:0",
        ":",
        ".",
        "a..b",
        f"me:{SECRET}@a:b",
    ],
)
def test_an_entry_that_is_no_host_is_ignored_and_logged_once(
    entry: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    proxies._parse_exemptions.cache_clear()
    monkeypatch.setenv("ALL_PROXY", "http://a:1")
    monkeypatch.setenv("NO_PROXY", f"{entry},direct.test")
    for _ in range(2):
        assert find_proxy(parse_url("ws://direct.test/"), True) is None
        assert str(find_http_proxy("http://speko.test")) == "a:1"
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.message.startswith("NO_PROXY: the entry ")
    assert SECRET not in record.message


@pytest.mark.parametrize(
    ("environment", "url", "expected"),
    [
        # Lower case takes precedence, also to switch a variable off.
        ({"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:2"}, "https://speko.test", "a:1"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://b:2"}, "https://speko.test", None),
        ({"HTTPS_PROXY": " ", "ALL_PROXY": "http://b:2"}, "https://speko.test", "b:2"),
        ({"ALL_PROXY": "http://a:1", "no_proxy": "", "NO_PROXY": "*"}, "https://speko.test", "a:1"),
        # In a CGI program a client's header "Proxy" is HTTP_PROXY.
        ({"HTTP_PROXY": "http://a:1", "REQUEST_METHOD": "GET"}, "http://speko.test", None),
        ({"http_proxy": "http://a:1", "REQUEST_METHOD": "GET"}, "http://speko.test", "a:1"),
        # A variable that is not for this host is not looked at.
        ({"HTTP_PROXY": "gopher://a:1", "HTTPS_PROXY": "http://b:2"}, "https://speko.test", "b:2"),
        ({"HTTPS_PROXY": "gopher://a:1", "NO_PROXY": "speko.test"}, "https://speko.test", None),
        ({"HTTPS_PROXY": "http://a:1"}, "https://b\u00fccher.test", "a:1"),
    ],
)
def test_http_and_the_websocket_read_the_environment_alike(
    environment: dict[str, str], url: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for found in (find_http_proxy(url), find_proxy(parse_url(url.replace("http", "ws", 1)), True)):
        assert (found and str(found)) == expected


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_http_ignores_the_variables_for_websockets(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WS_PROXY", "http://a:1")
    monkeypatch.setenv("WSS_PROXY", "http://a:1")
    assert find_http_proxy(f"{scheme}://speko.test") is None
    monkeypatch.setenv("ALL_PROXY", "http://b:2")
    assert str(find_http_proxy(f"{scheme}://speko.test")) == "b:2"
    assert str(find_proxy(parse_url(f"{scheme.replace('http', 'ws')}://speko.test"), True)) == "a:1"


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_an_error_names_the_variable_at_fault(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://fine:1")
    monkeypatch.setenv(variable, "gopher://a")
    with pytest.raises(ConfigurationError, match=f"the environment variable {variable} is not"):
        find_http_proxy("https://x")
    with pytest.raises(ConfigurationError, match=f"the environment variable {variable} is not"):
        find_proxy(parse_url("wss://x/"), True)


def test_a_system_with_settings_of_its_own_is_asked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxies, "_ONLY_ENVIRONMENT", False)
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": "http://system:1"})
    assert str(find_proxy(parse_url("wss://speko.test/"), True)) == "system:1"
    assert str(find_http_proxy("https://speko.test/")) == "system:1"
    assert find_http_proxy("http://speko.test/") is None
    monkeypatch.setenv("NO_PROXY", "speko.test")
    assert find_http_proxy("https://speko.test/") is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://a", Proxy("http", "a", 80, "", "")),
        ("https://a", Proxy("https", "a", 443, "", "")),
        ("socks5://a", Proxy("socks5", "a", 1080, "", "")),
        ("socks5h://a", Proxy("socks5h", "a", 1080, "", "")),
        (" a:3128 ", Proxy("http", "a", 3128, "", "")),
        ("http://[::1]:3128/", Proxy("http", "::1", 3128, "", "")),
        ("http://bücher.test", Proxy("http", "xn--bcher-kva.test", 80, "", "")),
        ("http://me:p%40ss%3A@a:1", Proxy("http", "a", 1, "me", "p@ss:")),
    ],
)
def test_the_url_of_a_proxy(url: str, expected: Proxy) -> None:
    assert find_proxy(parse_url("ws://speko.test/"), url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "socks4://a:1",
        "ftp://a",
        "http://",
        f"http://me:{SECRET}@:80",
        f"http://me:{SECRET}@a:port",
        f"http://me:{SECRET}@[::1",
        f"http://me:{SECRET}@a..b",
        f"socks5://me:{SECRET * 40}@a",
    ],
)
def test_what_is_no_url_of_a_proxy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="the option proxy is not the URL of a proxy") as caught:
        find_proxy(parse_url("ws://speko.test/"), url)
    assert SECRET not in repr(caught.value)
    assert caught.value.__suppress_context__
    if url:
        monkeypatch.setenv("all_proxy", url)
        # As it was spelt: both spellings may be set.
        with pytest.raises(ConfigurationError, match="the environment variable all_proxy is not the URL"):
            find_proxy(parse_url("ws://speko.test/"), True)


def test_a_proxy_does_not_show_its_password() -> None:
    proxy = find_proxy(parse_url("ws://speko.test/"), f"http://me:{SECRET}@a:1")
    assert SECRET not in f"{proxy!r} {proxy} {[proxy]}"


# Through it


async def tunnel(
    url: str, target: str, *, context: ssl.SSLContext | None = None, connect_timeout: float = 5.0
) -> ByteStream:
    to = parse_url(target)
    proxy = find_proxy(to, url)
    assert proxy is not None
    return await connect_through(proxy, to, connect_timeout=connect_timeout, ssl_context=context)


async def refused(url: str, target: str = "ws://speko.test:8443/s") -> APIConnectionError:
    with pytest.raises(APIConnectionError) as caught:
        await tunnel(url, target)
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in f"{error} {error!r}"
        error = error.__cause__
    return caught.value


def contexts(*names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context for `names`, and a client's that trusts it."""
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert(*names).configure_cert(server)
    authority.configure_trust(client)
    return server, client


@pytest.mark.anyio
@pytest.mark.parametrize("login", [None, ("me", "p@ss:wörd")])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_session_through_a_proxy_that_looks_up_the_name(
    kind: type[FakeProxy], login: tuple[str, str] | None
) -> None:
    async with (
        serving() as port,
        running_proxy(kind({"speko.test": port}, login=login, in_pieces=True)) as proxy,
    ):
        said = "me:p%40ss%3Aw%C3%B6rd@" if login else ""
        stream = await tunnel(proxy.url(said), f"ws://speko.test:{port}/s")
        async with open_session(grant(f"ws://speko.test:{port}/s"), stream=stream) as session:
            await talk(session)
        assert proxy.targets == [("speko.test", port)]
        assert proxy.logins == ([login] if login else [])


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_addresses_go_as_they_are(kind: type[FakeProxy], host: str) -> None:
    async with serving() as port, running_proxy(kind({host.strip("[]"): port})) as proxy:
        async with await tunnel(proxy.url(), f"ws://{host}:99/s"):
            assert proxy.targets == [(host.strip("[]"), 99)]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
async def test_tls_goes_through_the_tunnel(kind: type[FakeProxy]) -> None:
    server, client = contexts("speko.test")
    async with serving(server) as port, running_proxy(kind({"speko.test": port})) as proxy:
        url = f"wss://speko.test:{port}/s"
        stream = await tunnel(proxy.url(), url, context=client)
        async with open_session(grant(url), stream=stream) as session:
            await talk(session)
        error = await refused(proxy.url(), url)
        assert type(error) is APIConnectionError
        assert f"TLS with speko.test:{port} behind the proxy localhost:{proxy.port} failed" in str(error)


@pytest.mark.anyio
async def test_tls_within_tls_to_the_proxy() -> None:
    server, client = contexts("speko.test", "localhost")

    class TLSProxy(HTTPProxy):
        scheme = "https"

    async with serving(server) as port, running_proxy(TLSProxy({"speko.test": port}), server) as proxy:
        url = f"wss://speko.test:{port}/s"
        stream = await tunnel(proxy.url(), url, context=client)
        assert isinstance(stream, TLSStream)
        assert isinstance(stream.transport_stream, TLSStream)
        async with open_session(grant(url), stream=stream) as session:
            await talk(session)
        error = await refused(proxy.url(), url)
        assert type(error) is ProxyError
        assert f"TLS with the proxy localhost:{proxy.port} failed" in str(error)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
async def test_nagles_algorithm_is_off_towards_the_proxy(kind: type[FakeProxy]) -> None:
    async with serving() as port, running_proxy(kind({"speko.test": port})) as proxy:
        async with await tunnel(proxy.url(), "ws://speko.test/") as stream:
            raw = stream.extra(SocketAttribute.raw_socket)
            assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
async def test_a_session_takes_the_proxy_of_the_environment_or_the_one_it_is_given(
    kind: type[FakeProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving() as port, running_proxy(kind({"speko.test": port, "127.0.0.1": port})) as proxy:
        url = f"ws://speko.test:{port}/s"
        async with open_session(grant(url), proxy=proxy.url()) as session:
            await talk(session)
        monkeypatch.setenv("ALL_PROXY", proxy.url())
        async with open_session(grant(url)) as session:
            await talk(session)
        assert len(proxy.targets) == 2
        local = grant(f"ws://127.0.0.1:{port}/s")
        async with open_session(local, proxy=None) as session:
            await talk(session)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        async with open_session(local) as session:
            await talk(session)
        assert len(proxy.targets) == 2


# What goes wrong


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        (HTTPProxy(login=("me", "other")), "(HTTP 407); give the proxy's URL the right user:password@"),
        (HTTPProxy(), "(HTTP 502); ask its operator"),
        (HTTPProxy(answer=b"HTTP/1.1 403 \x1b[31mno\r\n\r\n"), "(HTTP 403); ask its operator"),
        (HTTPProxy(answer=b"SSH-2.0-OpenSSH\r\n\r\n"), "is not an HTTP proxy; check the proxy's address"),
        (HTTPProxy(answer=b"HTTP/1.1 200 OK\r\nX: " + bytes(100_000)), "is not an HTTP proxy"),
        (HTTPProxy(answer=b"HTTP/1.1 200 OK\r\n\r\nwelcome"), "sent data of its own into the tunnel"),
        (SOCKSProxy(login=("me", "other")), "(user or password is wrong); give the proxy's URL the right"),
        (SOCKSProxy(), "(host unreachable); ask its operator"),
        (SOCKSProxy(answer=b"HTTP/1.1 400 Bad Request\r\n\r\n"), "is not a SOCKS 5 proxy; check the proxy's"),
        (SOCKSProxy(answer=b"\x05\xff"), "(no login that we have); give the proxy's URL the right"),
        (SOCKSProxy(answer=b"\x05\x01"), "(no login that we have); give the proxy's URL the right"),
    ],
    ids=lambda value: "" if isinstance(value, FakeProxy) else value,
)
async def test_what_the_proxy_does_wrong_is_said_of_the_proxy(proxy: FakeProxy, words: str) -> None:
    async with running_proxy(proxy):
        error = await refused(proxy.url(f"me:{SECRET}@"))
    assert type(error) is ProxyError
    assert f"localhost:{proxy.port}" in str(error)
    assert words in str(error)


class Silent(FakeProxy):
    """Says `answer` and no more, until it hangs up: when the client has said something, or never."""

    def __init__(self, answer: bytes = b"", *, hangs_up: bool = False) -> None:
        super().__init__(answer=answer)
        self.hangs_up = hangs_up
        self.asked = anyio.Event()
        self.left = anyio.Event()

    async def greet(self, client: ByteStream) -> bool:
        await client.receive()
        self.asked.set()
        assert self.answer is not None
        if self.answer:
            await client.send(self.answer)
        if not self.hangs_up:
            try:
                await client.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                self.left.set()
        return False


SCHEMES = ["http", "socks5"]


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("answer", [b"", b"\x05"])
async def test_a_proxy_that_hangs_up(scheme: str, answer: bytes) -> None:
    async with running_proxy(Silent(answer, hangs_up=True)) as proxy:
        error = await refused(f"{scheme}://localhost:{proxy.port}")
    assert type(error) is ProxyError
    assert f"the proxy localhost:{proxy.port}" in str(error) or "is not an HTTP proxy" in str(error)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        (HTTPProxy(login=("me", "other")), "give the proxy's URL in ALL_PROXY the right user:password@"),
        (HTTPProxy(answer=b"SSH-2.0-OpenSSH\r\n\r\n"), "check the proxy's address and scheme in ALL_PROXY"),
        (SOCKSProxy(answer=b"HTTP/1.1 400 Bad Request\r\n"), "address and scheme in ALL_PROXY"),
    ],
    ids=str,
)
async def test_an_error_of_the_proxy_names_its_variable(
    proxy: FakeProxy, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_proxy(proxy):
        monkeypatch.setenv("ALL_PROXY", proxy.url(f"me:{SECRET}@"))
        with pytest.raises(ProxyError) as caught:
            async with open_session(grant("ws://speko.test/s")):
                pass
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.anyio
async def test_interim_responses_of_the_proxy_are_skipped() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 3
    async with running_proxy(HTTPProxy(answer=interim + b"HTTP/1.1 403 No\r\n\r\n")) as proxy:
        error = await refused(proxy.url())
    assert "(HTTP 403)" in str(error)


@pytest.mark.anyio
async def test_a_proxy_where_nobody_listens() -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    await listener.aclose()
    with anyio.fail_after(10):
        error = await refused(f"http://me:{SECRET}@127.0.0.1:{port}")
    assert type(error) is ProxyError
    assert f"the proxy 127.0.0.1:{port} can't be reached" in str(error)
    assert isinstance(error.__cause__, ConnectionRefusedError)


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_cancelled_it_leaves_nothing_open(scheme: str) -> None:
    proxy = Silent()
    async with running_proxy(proxy), anyio.create_task_group() as tasks:
        tasks.start_soon(tunnel, f"{scheme}://127.0.0.1:{proxy.port}", "ws://speko.test/")
        await proxy.asked.wait()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True), anyio.fail_after(5):
            await proxy.left.wait()


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_a_proxy_that_takes_too_long(
    scheme: str, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Silent(answer if scheme == "http" else answer and b"\x05")
    async with running_proxy(proxy):
        with pytest.raises(ProxyError, match=r"did not connect to speko.test:80 within 0.05 s") as caught:
            await tunnel(f"{scheme}://127.0.0.1:{proxy.port}", "ws://speko.test/", connect_timeout=0.05)
        await proxy.left.wait()
    assert isinstance(caught.value.__cause__, TimeoutError)


@pytest.mark.anyio
async def test_a_name_too_long_for_socks() -> None:
    async with running_proxy(SOCKSProxy()) as proxy:
        error = await refused(proxy.url(), f"ws://{'a' * 60 + '.'}{('b' * 60 + '.') * 4}test/")
    assert "its name is too long for SOCKS" in str(error)


@pytest.mark.anyio
async def test_without_the_library_for_socks_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    async with running_proxy(SOCKSProxy()) as proxy:
        with pytest.raises(ConfigurationError, match=re.escape(install_extra("socks"))):
            await tunnel(proxy.url(), "ws://speko.test/")
