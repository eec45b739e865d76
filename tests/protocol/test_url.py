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
    "wss://h:80/": (WebSocketURL(True, "h", 80, "/"), "h:80"),
    "ws://h:1/": (WebSocketURL(False, "h", 1, "/"), "h:1"),
    "ws://h:65535/": (WebSocketURL(False, "h", 65_535, "/"), "h:65535"),
    "ws://h-1.a_b.example/!~": (WebSocketURL(False, "h-1.a_b.example", 80, "/!~"), "h-1.a_b.example"),
    "ws://127.0.0.1:9000/s": (WebSocketURL(False, "127.0.0.1", 9000, "/s"), "127.0.0.1:9000"),
    "ws://[::1]:9000/s": (WebSocketURL(False, "::1", 9000, "/s"), "[::1]:9000"),
    "wss://[2001:DB8::1]/": (WebSocketURL(True, "2001:db8::1", 443, "/"), "[2001:db8::1]"),
    "ws://b\u00fccher.example/": (
        WebSocketURL(False, "xn--bcher-kva.example", 80, "/"),
        "xn--bcher-kva.example",
    ),
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
    "ws://h:0/",
    "ws://h: 80/",
    "ws://h:+80/",
    "ws://h:8_0/",
    "ws://h:\u0663/",
    "ws://\u00ad/",
    "ws://h%41/",
    "ws://[fe80::1%eth0]/",
]


@pytest.mark.parametrize(("url", "expected"), GOOD.items())
def test_good(url: str, expected: tuple[WebSocketURL, str]) -> None:
    parsed, host_header = expected
    assert parse_url(url) == parsed
    assert parse_url(url).host_header == host_header


@pytest.mark.parametrize("url", BAD)
def test_bad(url: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        parse_url(url)
    assert str(caught.value) == (
        "not a WebSocket URL: it must be ws:// or wss:// with a host, an ASCII path, and neither user name "
        "nor fragment; pass the mint's wsUrl unchanged"
    )


def test_spaces_and_control_characters_are_refused() -> None:
    # Also those that `urlsplit` would drop, of which it asks nobody.
    for code in (*range(0x21), 0x7F):
        for url in (
            "ws://h/a{}b",
            "ws://h/?{}b",
            "ws://h{}h/",
            "ws://{}h/",
            "ws://h/{}",
            "{}ws://h/",
            "w{}s://h",
        ):
            with pytest.raises(LocalProtocolError):
                parse_url(url.format(chr(code)))


def test_brackets_hold_an_address_and_no_name() -> None:
    with pytest.raises(LocalProtocolError):
        parse_url("ws://[v1.future]/")


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


def test_a_host_that_no_resolver_takes_is_refused_at_once() -> None:
    # IDNA is slow on long names.
    with pytest.raises(LocalProtocolError):
        parse_url("ws://" + "\u00e9" * 60_000)
