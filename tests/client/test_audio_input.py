"""Audio from the application: the types that every entry point accepts, and long pieces."""

from __future__ import annotations

import array
import json
from collections.abc import Callable
from typing import Any

import anyio
import numpy as np
import pytest

from speko_anyio import Playback, RealtimeSession, open_session
from speko_anyio.audio import TurnDetector, downmix, gain, mix, pcm_to_numpy, peak_dbfs, rms_dbfs
from speko_anyio.audio.resample import Resampler, resample
from speko_anyio.audio.wav import format_wav
from speko_anyio.client import _session as session_module
from speko_anyio.client._resampled import ResampledCore
from speko_anyio.protocol import AudioIn, LocalProtocolError
from speko_anyio.protocol._connection import ClientConnection, ServerConnection
from speko_anyio.protocol._pcm import MAX_AUDIO_MESSAGE
from speko_anyio.protocol._session import ClientDialect, ClientProtocol, ServerProtocol
from speko_anyio.protocol._state import State
from speko_anyio.protocol.mint import SessionConfig
from speko_anyio.providers._connection import ProviderConnection
from speko_anyio.providers.google import GoogleDialect, google_endpoint
from speko_anyio.providers.openai import OpenAIDialect, openai_endpoint
from speko_anyio.providers.xai import XAIDialect, xai_endpoint
from speko_anyio.telephony import TwilioStream
from speko_anyio.telephony.g711 import pcm_to_alaw, pcm_to_ulaw
from speko_anyio.testing.server import FakeServer, grant

OPENAI = SessionConfig(provider="openai", model="gpt-realtime-2.1")
XAI = SessionConfig(provider="xai", model="grok-voice-beta")
GOOGLE = SessionConfig(provider="google", model="gemini-3.8-live")


def resampled() -> ResampledCore:
    core = ProviderConnection(
        openai_endpoint("sk-test", "gpt-realtime-2.1"), OpenAIDialect(OPENAI, state=State.CONNECTING)
    )
    return ResampledCore(core, input_sample_rate=16_000, output_sample_rate=16_000)


def started_twilio() -> Callable[[Any], object]:
    stream = TwilioStream()
    start = {"event": "start", "streamSid": "MZ1", "start": {"streamSid": "MZ1", "callSid": "CA1"}}
    stream.receive_message(json.dumps(start))
    return stream.audio


DOORS: dict[str, Callable[[], Callable[[Any], object]]] = {
    "ClientProtocol": lambda: ClientProtocol().send_audio,
    "ServerProtocol": lambda: ServerProtocol().send_audio,
    "ClientConnection": lambda: ClientConnection("ws://s.test/", "token").send_audio,
    "ServerConnection": lambda: ServerConnection().send_audio,
    "OpenAIDialect": lambda: OpenAIDialect(OPENAI).send_audio,
    "XAIDialect": lambda: XAIDialect(XAI).send_audio,
    "GoogleDialect": lambda: GoogleDialect(GOOGLE).send_audio,
    "XAIConnection": lambda: (
        ProviderConnection(xai_endpoint("x", "m"), XAIDialect(XAI, state=State.CONNECTING)).send_audio
    ),
    "GoogleConnection": lambda: (
        ProviderConnection(google_endpoint("x"), GoogleDialect(GOOGLE, state=State.CONNECTING)).send_audio
    ),
    "ResampledCore": lambda: resampled().send_audio,
    "Playback": lambda: Playback().write,
    "Resampler": lambda: Resampler(16_000, 16_000).push,
    "resample": lambda: lambda pcm: resample(pcm, 16_000, 16_000),
    "format_wav": lambda: lambda pcm: format_wav(pcm, 16_000),
    "TurnDetector": lambda: TurnDetector(16_000).push,
    "TwilioStream": started_twilio,
    "pcm_to_ulaw": lambda: pcm_to_ulaw,
    "pcm_to_alaw": lambda: pcm_to_alaw,
    "gain": lambda: lambda pcm: gain(pcm, -6),
    "mix": lambda: mix,
    "rms_dbfs": lambda: rms_dbfs,
    "peak_dbfs": lambda: peak_dbfs,
    "downmix": lambda: lambda pcm: downmix(pcm, 1),
    "pcm_to_numpy": lambda: pcm_to_numpy,
}


@pytest.mark.parametrize("door", DOORS)
def test_no_way_in_takes_an_array_of_other_samples(door: str) -> None:
    send = DOORS[door]()
    with pytest.raises(TypeError, match=r"floating-point numbers; with numpy, pass speko_anyio\.audio\."):
        send(array.array("f", [0.25] * 480))
    with pytest.raises(TypeError, match=r"shape \(240, 2\); pass one channel"):
        send(np.zeros((240, 2), "int16"))
    with pytest.raises(TypeError, match="big-endian"):
        send(np.zeros(240, ">i2"))


@pytest.mark.anyio
async def test_a_session_takes_int16_and_refuses_float32() -> None:
    server = FakeServer()
    async with open_session(grant(), stream=server.stream) as session:
        with pytest.raises(TypeError, match="floating-point"):
            await session.send_audio(array.array("f", [0.25] * 480))  # type: ignore[arg-type]
        await session.send_audio(array.array("h", [1, 2]))  # type: ignore[arg-type]
        await session.send_audio(bytearray(b"abcd"))
        assert session.stats().audio_bytes_sent == 8
        await anyio.wait_all_tasks_blocked()
        assert [command.pcm for command in server.commands if isinstance(command, AudioIn)] == [
            b"\1\0\2\0",
            b"abcd",
        ]


@pytest.mark.anyio
@pytest.mark.parametrize("seconds", [0.01, 10])
async def test_a_session_refuses_a_wav_file_and_takes_what_resembles_one(seconds: float) -> None:
    server = FakeServer()
    content = format_wav(bytes(int(24_000 * seconds) * 2), 24_000)
    async with open_session(grant(), stream=server.stream) as session:
        pieces: list[Any] = [content, bytearray(content), content[:961]]
        for piece in pieces:
            with pytest.raises(TypeError, match=r"a WAV file; pass speko_anyio\.audio\.wav\.parse_wav"):
                await session.send_audio(piece)
        assert session.stats().audio_bytes_sent == 0
        await session.send_audio(b"")
        await session.send_audio(b"R\0")
        await session.send_audio(b"RIFF\0\0")
        assert session.stats().audio_bytes_sent == 8
    with pytest.raises(TypeError, match="the header of a WAV file"):
        Playback().write(content)


def test_the_sizes_in_the_docstrings_are_the_limits() -> None:
    for method in (RealtimeSession.send_audio, ClientDialect.send_audio):
        told = " ".join((method.__doc__ or "").split())
        assert f"split into messages of at most {MAX_AUDIO_MESSAGE // 1024} KiB" in told
    told = " ".join((RealtimeSession.send_audio.__doc__ or "").split())
    assert f"More than {session_module._MAX_PART // 1024} KiB is sent in parts" in told


@pytest.mark.anyio
async def test_a_long_piece_goes_out_part_by_part_at_the_pace_of_the_transport() -> None:
    server = FakeServer()
    pcm = bytes(range(256)) * 80_000  # 20 MB: more than the outbox holds
    with anyio.fail_after(20):
        async with open_session(grant(), stream=server.stream) as session:
            await session.send_audio(pcm)
            assert session.stats().audio_bytes_sent == len(pcm)
            await anyio.wait_all_tasks_blocked()
            taken = [command.pcm for command in server.commands if isinstance(command, AudioIn)]
            assert b"".join(taken) == pcm
            assert max(map(len, taken)) == 32 * 1024
            with pytest.raises(LocalProtocolError, match="keep the odd byte"):
                await session.send_audio(pcm + b"?")
            assert session.stats().audio_bytes_sent == len(pcm)
