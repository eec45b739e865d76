from __future__ import annotations

import pytest

from speko_anyio.protocol import ClientConnection, LocalProtocolError
from speko_anyio.protocol.url import WebSocketURL, parse_url

GOOD = {
    "ws://h": (WebSocketURL(False, "h", 80, "/"), "h"),
    "wss://h": (WebSocketURL(True, "h", 443, "/"), "h"),
    "WSS://Example.COM/Path?Q=1": (WebSocketURL(True, "example.com", 443, "/Path?Q=1"), "example.com"),
    "ws://h:80/": (WebSocketURL(False, "h", 80, "/"), "h"),
    "ws://h:443/": (WebSocketURL(False, "h", 443, "/"), "h:443"),
    "wss://h:443/": (WebSocketURL(True, "h", 443, "/"), "h"),
    "wss://h:8443/": (WebSocketURL(True, "h", 8443, "/"), "h:8443"),
    "ws://h:/x": (WebSocketURL(False, "h", 80, "/x"), "h"),
    "ws://h?token=no": (WebSocketURL(False, "h", 80, "/?token=no"), "h"),
    "ws://h/a?": (WebSocketURL(False, "h", 80, "/a"), "h"),
    "ws://127.0.0.1:9000/s": (WebSocketURL(False, "127.0.0.1", 9000, "/s"), "127.0.0.1:9000"),
    "ws://[::1]:9000/s": (WebSocketURL(False, "::1", 9000, "/s"), "[::1]:9000"),
    "wss://[2001:DB8::1]/": (WebSocketURL(True, "2001:db8::1", 443, "/"), "[2001:db8::1]"),
    "ws://b\u00fccher.example/": (WebSocketURL(False, "b\u00fccher.example", 80, "/"), "b\u00fccher.example"),
    "ws://h/%C3%A9": (WebSocketURL(False, "h", 80, "/%C3%A9"), "h"),
}

BAD = [
    "",
    "h",
    "//h/",
    "http://h/",
    "https://h/",
    "ws:h",
    "ws://",
    "ws:///path",
    "ws://:80/",
    "ws://user@h/",
    "ws://user:password@h/",
    "ws://@h/",
    "ws://h/#fragment",
    "ws://h/\u00e9",
    "ws://h/?\u00e9",
    "ws://h:port/",
    "ws://h:65536/",
    "ws://h:-1/",
    "ws://[::1/",
    "ws://[not an address]/",
    "ws://a..b/",
    "ws://" + "a" * 64 + "/",
]


@pytest.mark.parametrize(("url", "expected"), GOOD.items())
def test_good(url: str, expected: tuple[WebSocketURL, str]) -> None:
    parsed, host_header = expected
    assert parse_url(url) == parsed
    assert parse_url(url).host_header == host_header


@pytest.mark.parametrize("url", BAD)
def test_bad(url: str) -> None:
    with pytest.raises(LocalProtocolError, match=r"not a WebSocket URL: .*wsUrl unchanged"):
        parse_url(url)


@pytest.mark.xfail(reason="characters that can't stand in a request line or a host name pass", strict=True)
@pytest.mark.parametrize("url", ["ws://h/a b", "ws://h/\x01", "ws://h/?\x7f", "ws://ho st/", "ws://h\x7f/"])
def test_characters_that_http_cannot_carry_are_refused(url: str) -> None:
    with pytest.raises(LocalProtocolError):
        parse_url(url)


@pytest.mark.xfail(reason="wsproto encodes host and port as one IDNA label", strict=True)
def test_a_label_of_the_longest_kind_goes_with_a_port() -> None:
    connection = ClientConnection("ws://" + "a" * 63 + ":8080/", "token")
    assert f"\r\nHost: {'a' * 63}:8080\r\n".encode() in connection.data_to_send()


def test_a_name_beyond_ascii_travels_as_idna() -> None:
    connection = ClientConnection("wss://b\u00fccher.example:8443/", "token")
    assert b"\r\nHost: xn--bcher-kva.example:8443\r\n" in connection.data_to_send()


def test_the_error_does_not_show_the_url() -> None:
    with pytest.raises(LocalProtocolError) as caught:
        parse_url("ws://h/?token=s3cret#x")
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__
