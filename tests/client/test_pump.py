"""The pump without any event loop: bytes in, frames out, whoever drives it."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio import Audio, Close, ConnectionClosed, Frame, Interruption, Ready, RemoteProtocolError
from speko_anyio.client._pump import Pump
from speko_anyio.protocol import ClientConnection, LocalProtocolError, ToolCall
from speko_anyio.testing.server import FakeServer

PCM = bytes(range(256)) * 4

pytestmark = pytest.mark.anyio


class Driven:
    """A pump in an open session, and what it told."""

    def __init__(self, server: FakeServer, max_buffer: int = 1_000_000) -> None:
        self.server = server
        self.calls: list[ToolCall] = []
        self.space = 0
        self.core = ClientConnection("ws://speko.test/s", "token", ping_interval=None)
        self.interruptions = 0
        self.pump = Pump(
            self.core,
            max_buffer=max_buffer,
            on_frame=self.on_frame,
        )
        self.pump.watch_space(self.on_space)
        self.exchange()

    def on_frame(self, frame: Frame) -> None:
        assert not isinstance(frame, Audio), "audio is told to nobody"
        if isinstance(frame, ToolCall):
            self.calls.append(frame)
        self.interruptions += isinstance(frame, Interruption)

    def on_space(self) -> None:
        self.space += 1

    def exchange(self) -> None:
        """Move everything that either side has to say."""
        if self.pump.has_output and self.server.from_client.sink is not None:
            self.server.from_client.sink(self.core.data_to_send())
        data = bytes(self.server.to_client.data)
        self.server.to_client.data.clear()
        if data:
            self.pump.receive_data(data)

    def frames(self) -> list[Frame]:
        return list(self.pump.inbox.snapshot())


async def test_it_opens_delivers_and_tells_of_calls_and_interruptions() -> None:
    driven = Driven(FakeServer())
    driven.server.core.send_interruption()
    driven.server.core.send_audio(PCM)
    driven.server.core.send_tool_call("c1", "f", "{}")
    driven.server.flush()
    driven.exchange()
    call = ToolCall("c1", "f", "{}")
    assert driven.frames() == [Ready(24_000, 24_000), Interruption(), Audio(PCM, 24_000), call]
    assert (driven.calls, driven.interruptions) == ([call], 1)
    assert not driven.pump.done


async def test_a_violation_is_owed_to_the_peer() -> None:
    driven = Driven(FakeServer())
    driven.pump.receive_data(b"\xff\xff")
    assert driven.pump.done
    assert isinstance(driven.pump.error, RemoteProtocolError)
    assert driven.pump.has_output
    assert isinstance(driven.frames()[-1], Close)


async def test_an_abort_ends_it_without_a_word_and_only_once() -> None:
    driven = Driven(FakeServer())
    driven.pump.abort("cancelled")
    driven.pump.abort("again")
    assert driven.pump.done
    assert not driven.pump.has_output
    assert driven.frames()[1:] == [Close(1006, "cancelled", "local")]


async def test_leaving_lets_every_buffer_drop_what_does_not_fit() -> None:
    driven = Driven(FakeServer(), max_buffer=2_000)
    driven.pump.claim()
    for _ in range(4):
        driven.server.core.send_audio(PCM)
    driven.server.flush()
    driven.exchange()
    before = driven.pump.full
    driven.pump.close(1000, "bye")
    assert (before, driven.pump.full) == (True, False)
    driven.exchange()
    driven.exchange()
    assert driven.pump.done
    assert driven.frames()[-1] == Close(1000, "bye", "local")


async def test_an_unusable_close_code_changes_nothing() -> None:
    driven = Driven(FakeServer())
    with pytest.raises(LocalProtocolError):
        driven.pump.close(1006, "")
    assert not driven.pump.done
    assert not driven.pump.has_output


@given(
    chunks=st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from([b"\x82\x02\0\0", b"\x81\x02{}", b"\x88\x00", b"\x89\x00"]),
        ),
        max_size=8,
    )
)
def test_whatever_the_peer_sends_there_is_one_close_and_it_is_last(chunks: list[bytes]) -> None:
    async def run() -> None:
        driven = Driven(FakeServer())
        for chunk in chunks:
            driven.pump.receive_data(chunk)
            driven.core.data_to_send()
        driven.pump.receive_eof()
        assert driven.pump.done
        assert isinstance(driven.pump.error, RemoteProtocolError | ConnectionClosed)
        frames = driven.frames()
        assert [frame for frame in frames if isinstance(frame, Close)] == frames[-1:]

    anyio.run(run)
