"""Hypothesis strategies: the traffic of both roles as WebSocket bytes, valid, mutated and hostile, and cuts.

Everything here is about the bytes that one side *receives*; `client` says which side that is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

from speko_anyio.protocol import Limits

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN = 0x80
CONTROL_OPCODES = (CLOSE, PING, PONG)

LIMITS = (
    Limits(),
    Limits(
        max_message_size=300,
        max_text_size=200,
        max_fragments=4,
        max_control_frames=3,
        max_json_depth=4,
        max_open_calls=2,
        max_image_size=100,
    ),
)


# Frames by hand, so that nothing of the code under test is used to test it


def unmask(data: bytes, key: bytes) -> bytes:
    """`data` exclusive-or `key`, written for the eye."""
    return bytes(byte ^ key[i % 4] for i, byte in enumerate(data))


def frame(
    first: int, payload: bytes, *, masked: bool, key: bytes = b"\x37\xfa\x21\x3d", length: str = "shortest"
) -> bytes:
    """A frame with this first byte; `length` also gives the forms that RFC 6455 forbids."""
    size = len(payload)
    if length == "shortest":
        length = "7" if size < 126 else "16" if size < 65_536 else "64"
    mask_bit = 0x80 if masked else 0
    if length == "7":
        head = bytes((first, mask_bit | size))
    elif length == "16":
        head = bytes((first, mask_bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, mask_bit | 127)) + size.to_bytes(8, "big")
    return head + (key + unmask(payload, key) if masked else payload)


def close_payload(code: int, reason: str = "") -> bytes:
    """What a close frame carries."""
    return code.to_bytes(2, "big") + reason.encode()


def pattern(size: int, seed: int) -> bytes:
    """Bytes of which no two neighbours are alike, at the cost of two drawn numbers."""
    return bytes((seed + i * 37) & 0xFF for i in range(size))


# What is said


_words = st.text(max_size=12)
_ids = st.sampled_from(["a", "b", "c", ""])


def _message(tag: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A message with any of its fields, and perhaps one that this version does not know."""
    return st.fixed_dictionaries({"t": st.just(tag)}, optional=fields | {"future": st.integers() | _words})


_extensions = st.lists(st.sampled_from(["usage", "usage", "say", "text", "new", 7, None])) | st.sampled_from(
    ["usage", {"usage": True}, None, -1]
)
_capabilities = st.sampled_from(
    [{}, {"say": "verbatim", "new": 1}, {"text": 1, "update": ["voice"]}, None, 7]
)
_texts = _words | st.sampled_from(["x" * 130, "x" * 180, "x" * 250]) | st.integers(0, 1)


def server_messages() -> st.SearchStrategy[dict[str, Any]]:
    """Well-formed JSON of a server; missing fields and unknown ones included."""
    rates = st.sampled_from([0, 16_000, 24_000])
    return st.one_of(
        _message(
            "ready",
            inputSampleRate=rates,
            outputSampleRate=rates,
            extensions=_extensions,
            capabilities=_capabilities,
        ),
        _message(
            "transcript",
            role=st.sampled_from(["user", "assistant", "narrator"]),
            text=_words,
            final=st.booleans(),
        ),
        _message("tool_call", callId=_ids, name=_words, arguments=_words),
        _message(
            "server_tool_call", id=_ids, name=_words, status=st.sampled_from(["started", "failed", "paused"])
        ),
        _message("interruption", at=st.sampled_from(["user", "assistant", "nobody"])),
        _message("response", status=st.sampled_from(["done", "interrupted", "new", 1]), reason=_words),
        _message("usage", inputAudioTokens=st.integers(-1, 2**70), outputAudioTokens=st.just(1.5)),
        _message("error", code=_words, message=_words),
        _message("end", reason=_words),
        _message("from_the_future"),
    )


def client_messages() -> st.SearchStrategy[dict[str, Any]]:
    """Well-formed JSON of a client."""
    return st.one_of(
        _message("control", action=st.sampled_from(["commit", "clear", "end_turn", "dance"])),
        _message("interrupt"),
        _message("tool_result", callId=_ids, output=_words),
        _message("extensions", use=_extensions),
        _message(
            "text",
            text=_texts,
            role=st.sampled_from(["user", "system", "nobody"]),
            respond=st.booleans() | st.none(),
        ),
        _message(
            "image",
            mimeType=st.sampled_from(["image/png", "text/html"]),
            data=st.sampled_from(["", "AAAA", "@", "AAAA" * 33, "AAAA" * 34, "AAAA" * 50]),
        ),
        _message("respond", instructions=_texts),
        _message("say", text=_texts),
        _message("update", voice=_texts, turns=st.sampled_from(["auto", "manual", "never"])),
        _message("from_the_future"),
    )


MALFORMED_TEXTS = (
    b"",
    b"{",
    b"nonsense",
    b"[]",
    b'"t"',
    b"{}",
    b'{"t":1}',
    b'{"t":null}',
    b'{"t":"transcript","final":1}',
    b'{"t":"transcript","text":null}',
    b'{"t":"tool_call","callId":7}',
    b'{"t":"tool_result","output":{}}',
    b'{"t":"control","action":[]}',
    b'{"t":"ready","inputSampleRate":-1}',
    b'{"t":"ready","inputSampleRate":1e9}',
    b'{"t":"usage","inputAudioTokens":1e999}',
    b'{"t":"usage","inputAudioTokens":"1"}',
    b'{"t":"error","t":"interrupt"}',
    b'{"t":"error","message":"\\ud800"}',
    b'{"t":"error","message":"\\ud83d\\ude00"}',
    b'\xef\xbb\xbf{"t":"interrupt"}',
    b'{"t":"error","x":' + b"[" * 40 + b"]" * 40 + b"}",
    b'{"t":"error","x":' + b"[" * 400 + b"]" * 400 + b"}",
    b'{"t":"error","x":' + b"9" * 400 + b"}",
    b"\xff",
    b'{"t":"error","message":"\xc3"}',
    b'{"t":"error","message":"\xed\xa0\x80"}',
    b'{"t":"error","message":"\xf0\x9f\x98',
)


def text_payloads(*, client: bool) -> st.SearchStrategy[bytes]:
    """UTF-8 of a text message for this receiver."""
    messages = server_messages() if client else client_messages()
    return st.builds(
        lambda message, ascii_only: json.dumps(message, ensure_ascii=ascii_only).encode(),
        messages,
        st.booleans(),
    )


def audio_payloads() -> st.SearchStrategy[bytes]:
    """PCM of the sizes at which the code turns another way; half of them end within a sample."""
    sizes = st.integers(0, 12) | st.sampled_from([124, 125, 126, 127, 128, 299, 300, 301, 640, 960])
    return st.builds(pattern, sizes, st.integers(0, 255))


def long_audio_payloads() -> st.SearchStrategy[bytes]:
    """At the edges of the 16-bit length."""
    return st.builds(pattern, st.sampled_from([65_535, 65_536, 65_537]), st.integers(0, 255))


# Frames


def _keys() -> st.SearchStrategy[bytes]:
    return st.sampled_from([b"\x00\x00\x00\x00", b"\x01\x02\x03\x04", b"\xff\x80\x7f\x00"])


@st.composite
def whole_messages(draw: st.DrawFn, *, client: bool, long: bool = False) -> bytes:
    """One valid, unfragmented message."""
    key = draw(_keys())
    if draw(st.booleans()):
        payloads = long_audio_payloads() if long else audio_payloads()
        return frame(FIN | BINARY, draw(payloads), masked=not client, key=key)
    return frame(FIN | TEXT, draw(text_payloads(client=client)), masked=not client, key=key)


@st.composite
def control_frames(draw: st.DrawFn, *, client: bool) -> bytes:
    """A valid ping or pong."""
    opcode = draw(st.sampled_from([PING, PONG]))
    return frame(FIN | opcode, draw(st.binary(max_size=125)), masked=not client, key=draw(_keys()))


@st.composite
def fragmented_messages(draw: st.DrawFn, *, client: bool) -> bytes:
    """One valid message in pieces, cut also within a character, with control frames between them."""
    opcode = draw(st.sampled_from([TEXT, BINARY]))
    payload = draw(text_payloads(client=client) if opcode == TEXT else audio_payloads())
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=5)))
    pieces = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    out = bytearray()
    for i, piece in enumerate(pieces):
        fin = FIN if i == len(pieces) - 1 else 0
        out += frame(fin | (CONTINUATION if i else opcode), piece, masked=not client, key=draw(_keys()))
        if not fin and draw(st.integers(0, 3)) == 0:
            out += draw(control_frames(client=client))
    return bytes(out)


@st.composite
def close_frames(draw: st.DrawFn, *, client: bool) -> bytes:
    """A valid close, with a code or without."""
    code = draw(st.sampled_from([None, 1000, 1001, 1003, 1007, 1011, 1014, 3000, 4000, 4401, 4999]))
    payload = b"" if code is None else close_payload(code, draw(st.sampled_from(["", "bye", "é" * 61])))
    return frame(FIN | CLOSE, payload, masked=not client)


@st.composite
def hostile_frames(draw: st.DrawFn, *, client: bool) -> bytes:
    """A frame, or the beginning of one, that no honest peer sends."""
    masked = not client
    kind = draw(st.integers(0, 14))
    payload = draw(st.binary(max_size=10))
    if kind == 0:  # reserved opcodes
        opcode = draw(st.sampled_from([3, 4, 5, 6, 7, 11, 12, 13, 14, 15]))
        return frame(FIN | opcode, payload, masked=masked)
    if kind == 1:  # reserved bits, on whole messages and others
        first = draw(st.sampled_from([FIN | BINARY, FIN | TEXT, BINARY, FIN | PING, FIN | CLOSE]))
        return frame(first | draw(st.sampled_from([0x10, 0x20, 0x40, 0x70])), payload * 13, masked=masked)
    if kind == 2:  # masked by the server, or not masked by the client
        first = FIN | draw(st.sampled_from([BINARY, TEXT, PING, CLOSE, CONTINUATION]))
        return frame(first, payload * draw(st.sampled_from([1, 13])), masked=not masked)
    if kind == 3:  # a length in more bytes than it needs
        first = draw(st.sampled_from([FIN | BINARY, FIN | TEXT, BINARY]))
        size, length = draw(st.sampled_from([(0, "16"), (125, "16"), (0, "64"), (126, "64"), (65_535, "64")]))
        return frame(first, pattern(size, 0), masked=masked, length=length)
    if kind == 4:  # a length of 64 bits, the top one set; or huge; or one above a limit
        size = draw(st.sampled_from([1 << 63, (1 << 64) - 1, (1 << 63) - 1, 1 << 40, 1024 * 1024 + 1]))
        first = draw(st.sampled_from([FIN | BINARY, FIN | TEXT, BINARY, FIN | CONTINUATION, FIN | PING]))
        return bytes((first, (0x80 if masked else 0) | 127)) + size.to_bytes(8, "big") + payload
    if kind == 5:  # a control frame in pieces
        return frame(draw(st.sampled_from(CONTROL_OPCODES)), payload, masked=masked)
    if kind == 6:  # a control frame of more than 125 bytes
        opcode = draw(st.sampled_from(CONTROL_OPCODES))
        return frame(FIN | opcode, pattern(126, 1), masked=masked)
    if kind == 7:  # a continuation of nothing
        return frame(draw(st.sampled_from([0, FIN])), payload, masked=masked)
    if kind == 8:  # a second message inside the first
        inner = draw(st.sampled_from([FIN | TEXT, FIN | BINARY, TEXT, BINARY]))
        outer = frame(draw(st.sampled_from([TEXT, BINARY])), b"xy", masked=masked)
        return outer + frame(inner, payload, masked=masked)
    if kind == 9:  # a close with a payload that it may not have
        bad = [b"\x03", b"\x00\x00", close_payload(999), close_payload(1004), close_payload(1005)]
        bad += [close_payload(1006), close_payload(1015), close_payload(1016), close_payload(2999)]
        bad += [
            close_payload(5000),
            b"\xff\xff",
            close_payload(1000) + b"\xff",
            close_payload(1000) + b"\xc3",
        ]
        return frame(FIN | CLOSE, draw(st.sampled_from(bad)), masked=masked)
    if kind == 10:  # text that is no message
        return frame(FIN | TEXT, draw(st.sampled_from(MALFORMED_TEXTS)), masked=masked)
    if kind == 11:  # the same in pieces, cut anywhere
        text = draw(st.sampled_from(MALFORMED_TEXTS))
        cut = draw(st.integers(0, len(text)))
        return frame(TEXT, text[:cut], masked=masked) + frame(FIN, text[cut:], masked=masked)
    if kind == 12:  # many empty pieces
        piece = frame(CONTINUATION, b"", masked=masked)
        return frame(draw(st.sampled_from([TEXT, BINARY])), b"", masked=masked) + piece * 6
    if kind == 13:  # a message but for its UTF-8: truncated, overlong, a surrogate, beyond the last plane
        ill = draw(st.sampled_from([b"\xff", b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"]))
        return frame(FIN | TEXT, b'{"t":"error","message":"' + ill + b'"}', masked=masked)
    return frame(FIN | PING, payload, masked=masked) * 6  # a flood of pings, where the limit is low


def _frames(*, client: bool, hostile: bool, long: bool) -> st.SearchStrategy[bytes]:
    kinds = [
        whole_messages(client=client),
        whole_messages(client=client),
        fragmented_messages(client=client),
        control_frames(client=client),
    ]
    if long:
        kinds.append(whole_messages(client=client, long=True))
    if hostile:
        kinds += [hostile_frames(client=client), st.binary(max_size=20)]
    return st.one_of(kinds)


@st.composite
def mutations(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with a few bytes changed, dropped, added or said twice."""
    mutated = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(mutated)))
        upto = min(len(mutated), at + draw(st.integers(1, 8)))
        match draw(st.sampled_from(["flip", "set", "drop", "add", "repeat"])):
            case "flip" if at < len(mutated):
                mutated[at] ^= 1 << draw(st.integers(0, 7))
            case "set" if at < len(mutated):
                mutated[at] = draw(st.integers(0, 255))
            case "drop":
                del mutated[at:upto]
            case "add":
                mutated[at:at] = draw(st.binary(min_size=1, max_size=8))
            case _:
                mutated[at:at] = mutated[at:upto]
    return bytes(mutated)


@st.composite
def streams(draw: st.DrawFn, *, client: bool, kind: str = "any") -> bytes:
    """Frames one after the other; `kind`: "valid", "hostile" (some frames are), "mutated" or "any"."""
    if kind == "any":
        kind = draw(st.sampled_from(["valid", "valid", "hostile", "mutated"]))
    frames = _frames(client=client, hostile=kind == "hostile", long=draw(st.integers(0, 15)) == 0)
    data = b"".join(draw(st.lists(frames, max_size=8)))
    if draw(st.booleans()):
        data += draw(close_frames(client=client))
        if draw(st.booleans()):  # what comes after a close is nobody's business
            data += draw(frames)
    if kind == "mutated":
        data = draw(mutations(data))
    return data


# The handshake


@st.composite
def http_heads(draw: st.DrawFn, valid: bytes) -> bytes:
    """What a peer may say in place of its `valid` half of the handshake."""
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return draw(mutations(valid))
    if kind == 1:
        return draw(st.binary(max_size=60))
    if kind == 2:  # a header more, of any bytes
        name = draw(
            st.sampled_from([b"X-Any", b"Host", b"Connection", b"Upgrade", b"Sec-WebSocket-Extensions"])
        )
        extra = name + b": " + draw(st.binary(max_size=12)) + b"\r\n"
        return valid.replace(b"\r\n", b"\r\n" + extra, 1)
    if kind == 3:  # a response that refuses, with a body of any framing
        status = draw(st.sampled_from([200, 204, 301, 400, 401, 403, 503]))
        body = draw(
            st.sampled_from(
                [
                    b"",
                    b"no",
                    b'{"error":"bad token","code":"UNAUTHORIZED"}',
                    b"\xff\xfe",
                    b"x" * 5000,
                    b'{"error":"' + b"y" * 5000 + b'"}',
                ]
            )
        )
        head = b"HTTP/1.1 %d Refused\r\n" % status
        match draw(st.sampled_from(["length", "too long", "chunked", "until eof"])):
            case "length":
                head += b"Content-Length: %d\r\n" % len(body)
            case "too long":
                head += b"Content-Length: %d\r\n" % (len(body) + 10)
            case "chunked":
                head += b"Transfer-Encoding: chunked\r\n"
                body = (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
        return head + b"\r\n" + body
    if kind == 4:  # a head that never ends
        return valid[:-2] + b"X-Filler: " + b"z" * draw(st.sampled_from([100, 16_000, 17_000, 40_000]))
    interim = draw(st.sampled_from([b"100 Continue", b"103 Early Hints", b"199 Odd"]))
    return b"HTTP/1.1 " + interim + b"\r\n\r\n" + valid


# Cuts


def chunkings() -> st.SearchStrategy[Sequence[int] | None]:
    """How a stream is cut: None for not at all, else the sizes of the pieces, which repeat."""
    return (
        st.none()
        | st.just([1])
        | st.lists(st.integers(1, 40), min_size=1, max_size=12)
        | st.lists(st.integers(1, 3000), min_size=1, max_size=4)
    )


def chunks(data: bytes, sizes: Sequence[int] | None) -> Iterator[bytes]:
    """`data` in pieces of these sizes, over and over."""
    if sizes is None:
        if data:
            yield data
        return
    position = i = 0
    # One byte at a time through a long stream costs seconds and proves nothing more: later cuts widen.
    while position < len(data):
        size = sizes[i % len(sizes)] if position < 4096 else max(sizes[i % len(sizes)], 1021)
        yield data[position : position + size]
        position += size
        i += 1
