"""What any bytes must do to the two receive paths, and bytes to begin with; see `fuzz_receive`."""

from __future__ import annotations

from collections.abc import Iterator

from speko_anyio.protocol import Limits
from tests.machines import driver
from tests.machines.strategies import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    MALFORMED_TEXTS,
    PING,
    PONG,
    TEXT,
    chunks,
    close_payload,
    frame,
    pattern,
)

LIMITS = Limits(max_message_size=2000, max_text_size=1000, max_fragments=8, max_control_frames=16)
MEMORY = 120_000
"""Bytes that a connection may hold with these limits and nothing left to take from it."""

_CLIENT, _OPEN, _BYTEWISE, _EOF = 1, 2, 4, 8


def receive(data: bytes) -> None:
    """One fuzz input: a byte of options, a byte that says how to cut, and what the peer sends.

    AssertionError when the core breaks its word: for any bytes, cut anywhere, nothing but events comes out
    and, last, one of the documented errors, the same ever after; the memory held stays within bounds; and
    what the cuts were does not show.
    """
    options, cut, stream = data[:1] or b"\0", data[1:2] or b"\0", data[2:]
    client = bool(options[0] & _CLIENT)
    if options[0] & _OPEN:  # straight to the frames: no fuzzer guesses a handshake
        stream = driver.opening(client=client) + stream
    sizes = [1] if options[0] & _BYTEWISE else [cut[0] + 1, 7, cut[0] * 3 + 1]
    eof = bool(options[0] & _EOF)
    cut_up = _run(client=client, eof=eof, pieces=chunks(stream, sizes), bounded=True)
    assert cut_up == _run(client=client, eof=eof, pieces=chunks(stream, None), bounded=False)


def _run(*, client: bool, eof: bool, pieces: Iterator[bytes], bounded: bool) -> tuple[object, object, bytes]:
    connection = driver.make(client=client, limits=LIMITS)
    events, error, out = driver.drive(connection, pieces, eof=eof)
    if bounded:
        assert driver.deep_size(connection) < MEMORY
    driver.check_end(connection, events, error)
    return events, driver.comparable_error(error), out


def seeds() -> Iterator[bytes]:
    """Inputs to begin with: both roles, the handshake and every kind of frame, good and bad."""
    for client in (True, False):
        role = _CLIENT if client else 0
        opening = driver.opening(client=client)
        yield bytes((role, 255)) + opening
        yield bytes((role | _BYTEWISE | _EOF, 0)) + opening
        refusal = b'HTTP/1.1 401 Unauthorized\r\nContent-Length: 14\r\n\r\n{"error":"no"}'
        yield bytes((role | _EOF, 60)) + refusal
        yield bytes((role | _EOF, 60)) + b"HTTP/1.1 103 Early Hints\r\n\r\n" + opening
        for stream in _streams(masked=not client):
            yield bytes((role | _OPEN, 100)) + stream
            yield bytes((role | _OPEN | _BYTEWISE | _EOF, 0)) + stream


def _streams(*, masked: bool) -> Iterator[bytes]:
    yield b"".join(frame(FIN | BINARY, pattern(size, 3), masked=masked) for size in (0, 1, 125, 126, 961))
    yield frame(FIN | BINARY, pattern(2001, 0), masked=masked)
    texts = [
        b'{"t":"ready","inputSampleRate":16000,"outputSampleRate":24000}',
        b'{"t":"transcript","role":"user","text":"\xc3\xa9","final":true}',
        b'{"t":"tool_call","callId":"c","name":"f","arguments":"{}"}',
        b'{"t":"server_tool_call","id":"s","name":"n","status":"failed"}',
        b'{"t":"interruption","at":"user"}',
        b'{"t":"usage","inputAudioTokens":1,"outputAudioTokens":2}',
        b'{"t":"error","code":"X","message":"m"}',
        b'{"t":"end","reason":"done"}',
        b'{"t":"control","action":"commit"}',
        b'{"t":"interrupt"}',
        b'{"t":"tool_result","callId":"a","output":"1"}',
    ]
    yield b"".join(frame(FIN | TEXT, text, masked=masked) for text in texts)
    for text in (*texts[:4], *MALFORMED_TEXTS):
        yield frame(FIN | TEXT, text, masked=masked)
        yield (
            frame(TEXT, text[:9], masked=masked)
            + frame(FIN | PING, b"!", masked=masked)
            + frame(CONTINUATION, b"", masked=masked)
            + frame(FIN | CONTINUATION, text[9:], masked=masked)
        )
    yield frame(FIN | PONG, b"", masked=masked) + frame(
        FIN | CLOSE, close_payload(1000, "bye"), masked=masked
    )
    yield frame(FIN | CLOSE, b"\x03", masked=masked)
    yield frame(FIN | 3, b"", masked=masked)
    yield frame(FIN | 0x40 | BINARY, pattern(200, 0), masked=masked)
    yield frame(FIN | BINARY, pattern(200, 0), masked=not masked)
    yield frame(FIN | BINARY, b"1234", masked=masked, length="16")
    yield frame(FIN | BINARY, b"1234", masked=masked, length="64")
    yield bytes((FIN | BINARY, (0x80 if masked else 0) | 127)) + b"\xff" * 8
