"""Carriers' messages and webhooks, mutated: they give events, or the documented error."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from speko_anyio.protocol.errors import LocalProtocolError, RemoteProtocolError
from speko_anyio.telephony import (
    CARRIERS,
    CallAudio,
    CallEnded,
    CallStarted,
    Digit,
    Marked,
    SignatureError,
    SignedRequest,
)
from tests.telephony import lines

from . import mutation
from .mutation import bounded

Target = Callable[[random.Random], None]


def _stream(name: str) -> Target:
    messages = lines.CALLS[name]()

    def target(dice: random.Random) -> None:
        stream = CARRIERS[name]()
        wire = [_mutated(dice, dice.choice(messages)) for _ in range(dice.randrange(1, 8))]
        if dice.random() < 0.7:
            wire[:0] = [lines.on_the_wire(message) for message in messages[:2] if isinstance(message, dict)]
        for message in wire:
            with bounded(message):
                try:
                    events = stream.receive_message(message)
                except RemoteProtocolError:
                    return
            for event in events:
                _check(event)

    return target


def _mutated(dice: random.Random, message: Any) -> str | bytes:
    if isinstance(message, bytes):
        return mutation.raw(dice, message)
    text = mutation.text(dice, message)
    return mutation.raw(dice, text.encode(errors="surrogatepass")) if dice.random() < 0.2 else text


def _check(event: object) -> None:
    """Whatever a carrier sends, its events are whole, and can be shown and stored."""
    repr(event).encode()
    match event:
        case CallStarted():
            texts = (event.call_id, event.stream_id, event.caller, event.called, *event.parameters.values())
            "".join((*texts, *event.parameters)).encode()
            assert event.sample_rate >= 8000
        case CallAudio(pcm=pcm):
            assert pcm
            assert len(pcm) % 2 == 0
        case Marked(name=name):
            assert name.encode()
        case _:
            assert isinstance(event, Digit | CallEnded), event


_KEY: Final = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
"""A public key of Ed25519."""

_HEADERS: Final = {
    "X-Twilio-Signature": "L/OH5YylLD5NRKLltdqwSvS0BnU=",
    "telnyx-signature-ed25519": "A" * 86 + "==",
    "telnyx-timestamp": "1800000000",
    "X-Plivo-Signature-V3": "ehV3IKhLysWBxC1sy8INm0qGoQYdYsHwuoKjsX7FsXc=,x",
    "X-Plivo-Signature-V3-Nonce": "12345",
    "Authorization": "Bearer eyJhbGciOiJIUzI1NiJ9.eyJpYXQiOjF9.AAAA",
}


def _webhook(dice: random.Random) -> None:
    def mutated(text: str) -> str:
        return mutation.raw(dice, text.encode()).decode("latin-1") if dice.random() < 0.5 else text

    request = SignedRequest(
        method="POST",
        url=mutated("https://voice.example.com:443/telephony/x?a=1&bodySHA256=00"),
        headers={name: mutated(value) for name, value in _HEADERS.items()},
        body=mutation.raw(dice, b"CallSid=CA1&From=%2B15550100001&To=%2B15550100002"),
    )
    for stream in CARRIERS.values():
        with bounded(request.url):
            try:
                stream.verify(request, _KEY, now=1_800_000_000.0)
            except (SignatureError, LocalProtocolError):
                continue
        raise AssertionError(f"{stream.name} took it")


TARGETS: Final[tuple[tuple[str, Target], ...]] = (
    *((name, _stream(name)) for name in CARRIERS),
    ("webhook", _webhook),
)
