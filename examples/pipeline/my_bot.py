"""A voice bot made of speech to text, a language model and text to speech, served by a gateway.

Its engines need no account (the extras cli, gateway and local). Serve it from this directory with

    speko-anyio serve --handler my-bot=my_bot:bot

or with ``python my_bot.py [PORT]``, which shows how to do it in your own program. Paste the printed
``export`` line into another shell, and run ``speko-anyio say --say "Hello!" --provider my-bot`` there. To use
other services, write your own engines in place of `offline.py`. docs/handlers.md explains the bot step by
step.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Self

import anyio
from conversation import Conversation
from offline import offline_engines

from speko_anyio.audio import EndOfTurn, IsSpeech, Timing, webrtc_vad
from speko_anyio.gateway import Gateway, ServerSession, running_gateway
from speko_anyio.gateway.engines import Engines
from speko_anyio.protocol import Capabilities


class MyBot(anyio.AsyncContextManagerMixin):
    """The handler. The gateway enters it at startup, so all sessions share the engines.

    `make_vad` gets the sample rate of a session and makes its voice activity detector.
    """

    capabilities = Capabilities(
        text=True,
        respond=True,
        say="verbatim",
        update=("system_prompt", "tools"),
        history=True,
        interrupt=True,
    )

    def __init__(
        self,
        open_engines: Callable[[], AbstractAsyncContextManager[Engines]],
        *,
        make_vad: Callable[[int], IsSpeech] | None = None,
        timing: Timing | None = None,
        end_of_turn: EndOfTurn | None = None,
    ) -> None:
        self._open_engines = open_engines
        self._engines: Engines
        self._make_vad = make_vad
        self._timing = timing
        self._end_of_turn = end_of_turn

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncIterator[Self]:
        async with self._open_engines() as self._engines:
            yield self

    async def __call__(self, session: ServerSession) -> None:
        is_speech = self._make_vad(session.input_sample_rate) if self._make_vad else None
        await Conversation(
            session,
            self._engines,
            is_speech=is_speech,
            timing=self._timing,
            end_of_turn=self._end_of_turn,
        ).run()


bot = MyBot(offline_engines, make_vad=webrtc_vad)


async def main(port: int) -> None:
    key = os.environ.get("SPEKO_API_KEY") or f"sk_{secrets.token_urlsafe(24)}"
    gateway = Gateway(handlers={"my-bot": bot}, api_keys=[key])
    async with running_gateway(gateway, port=port) as url:
        print(f"export SPEKO_BASE_URL={url} SPEKO_API_KEY={key}")
        print('speko-anyio say --say "Hello!" --provider my-bot', flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
