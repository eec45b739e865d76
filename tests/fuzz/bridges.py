"""A bridge between any provider and any client keeps within bounds, and raises nothing."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from speko_anyio.audio.resample import Resampler
from speko_anyio.protocol._commands import AudioIn, Clear, Command, Commit, EndTurn, Interrupt, ToolResult
from speko_anyio.protocol.frames import Close
from speko_anyio.protocol.mint import SessionConfig
from speko_anyio.providers._provider import ProviderDialect
from speko_anyio.providers.bridge import Bridge
from speko_anyio.providers.google import GoogleDialect, GoogleOptions
from speko_anyio.providers.openai import OpenAIDialect
from speko_anyio.providers.xai import XAIDialect

from . import mutation
from .mutation import bounded
from .parsers import GOOGLE_MESSAGES, REALTIME_MESSAGES

_CONFIG: Final = SessionConfig(provider="p", model="m")
_RATES: Final = (0, 1, 2, 7, 999, 7_999, 8_000, 8_001, 11_025, 24_000, 191_999, 192_000, 192_001, 999_999)


def _google_audio(dice: random.Random) -> dict[str, Any]:
    data = base64.b64encode(bytes(dice.choice((1, 2, 3, 960, 2_000, 20_000)))).decode()
    mime = f"audio/pcm;rate={dice.choice(_RATES)}"
    parts = [{"inlineData": {"data": data, "mimeType": mime}}] * dice.choice((1, 1, 2, 40))
    return {"serverContent": {"modelTurn": {"parts": parts}}}


def _realtime_audio(dice: random.Random) -> dict[str, Any]:
    rates = {side: {"format": {"rate": dice.choice(_RATES)}} for side in ("input", "output")}
    if dice.random() < 0.2:
        return {"type": "session.updated", "session": {"audio": rates}}
    data = base64.b64encode(bytes(dice.choice((1, 2, 3, 960, 2_000, 20_000)))).decode()
    return {"type": "response.output_audio.delta", "response_id": "r", "item_id": "i", "delta": data}


def _command(dice: random.Random) -> Command:
    match dice.randrange(9):
        case 0 | 1 | 2 | 3:
            return AudioIn(bytes(2 * dice.choice((1, 480, 10_000))), 24_000)
        case 4:
            return Commit()
        case 5:
            return EndTurn()
        case 6:
            return Interrupt()
        case 7:
            return ToolResult(dice.choice(("1", "c", "d", "call-1")), dice.choice(("{}", "x", "[1]")))
        case _:
            return Close(1000, "", "remote") if dice.random() < 0.05 else Clear()


def _bridged(
    make: Callable[[random.Random], ProviderDialect],
    messages: Sequence[dict[str, Any]],
    audio: Callable[[random.Random], dict[str, Any]],
    opening: Sequence[dict[str, Any]],
) -> Callable[[random.Random], None]:
    def target(dice: random.Random) -> None:
        said: list[object] = []
        with bounded(said):
            bridge = Bridge(resampling=Resampler, output_sample_rate=dice.choice((16_000, 24_000)))
            reads = dice.choice((0.0, 0.3, 1.0))
            now = 0.0
            for _ in range(dice.randrange(10, 80)):
                now += dice.choice((0.0, 0.02, 1.0, 30.0)) if dice.random() < 0.3 else 0.0
                bridge.handle_timeout(now)
                if bridge.wanted is not None:
                    bridge.attach(make(dice), now)
                    _receive(bridge, now, *map(json.dumps, opening))
                if dice.random() < 0.3:
                    bridge.receive_command(_command(dice), now)
                elif not bridge.provider_must_wait:
                    said.append(
                        mutation.text(dice, audio(dice) if dice.random() < 0.5 else dice.choice(messages))
                    )
                    _receive(bridge, now, str(said[-1]))
                if dice.random() < 0.02 and bridge.provider is not None:
                    with bridge.at(now):
                        bridge.provider.receive_close(dice.choice((1000, 1006, 1008, 1011)), "deadline")
                while dice.random() < reads and bridge.next_frame() is not None:
                    pass
                if bridge.provider is not None:
                    bridge.provider.messages_to_send()

    return target


def _receive(bridge: Bridge, now: float, *messages: str) -> None:
    for message in messages:
        if bridge.provider is not None:
            with bridge.at(now):
                bridge.provider.receive_message(message)


def _google(dice: random.Random) -> ProviderDialect:
    return GoogleDialect(_CONFIG, options=GoogleOptions(turns=dice.choice(("auto", "manual"))))


TARGETS: Final[tuple[tuple[str, Callable[[random.Random], None]], ...]] = (
    ("bridge to Google", _bridged(_google, GOOGLE_MESSAGES, _google_audio, GOOGLE_MESSAGES[:1])),
    (
        "bridge to OpenAI",
        _bridged(lambda _: OpenAIDialect(_CONFIG), REALTIME_MESSAGES, _realtime_audio, REALTIME_MESSAGES[:2]),
    ),
    (
        "bridge to xAI",
        _bridged(lambda _: XAIDialect(_CONFIG), REALTIME_MESSAGES, _realtime_audio, REALTIME_MESSAGES[:2]),
    ),
)
