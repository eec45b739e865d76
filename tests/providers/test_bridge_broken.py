"""A test of the machines: bridges that are broken on purpose, each of which one of them must find out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis.stateful import run_state_machine_as_test

from speko_anyio.protocol import Close, ErrorFrame, Outbox, ServerProtocol, SpekoError, Transcript
from speko_anyio.protocol._resampling import Converter
from speko_anyio.providers._held_input import HeldInput
from speko_anyio.providers.bridge import Bridge
from speko_anyio.providers.bridge._output import ClientOutput

from ..machines.test_broken_variants import thorough
from .bridge_machine import waiting
from .test_bridge_machine import GoogleBridgeMachine, RealtimeBridgeMachine

Patch = Callable[[pytest.MonkeyPatch], None]
MOST = 5000
"""Examples within which a mistake must have been found; most are found at once, the shyest takes some 150."""


def run(machine: type[Any], bridge: type[Bridge] = Bridge, examples: int = MOST) -> None:
    class Machine(machine):  # type: ignore[misc] # whichever it is
        bridge_class = bridge

    run_state_machine_as_test(Machine, settings=thorough(examples))


# Mistakes of the parts


def stale_speech_is_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Outbox, "drop_audio", lambda outbox: None)


def abandoned_calls_are_said(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ServerProtocol, "withdraw_calls", lambda server: None)


def frames_are_miscounted(patch: pytest.MonkeyPatch) -> None:
    take = ServerProtocol.next_message

    def forget(server: ServerProtocol) -> Any:
        size = server.outbox.size
        message = take(server)
        server.outbox.size = size
        return message

    patch.setattr(ServerProtocol, "next_message", forget)


def resampler_keeps_what_was_cut(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Converter, "reset", lambda converter: None)


def resampler_keeps_its_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Converter, "flush", lambda converter: b"")


def held_audio_is_unbounded(patch: pytest.MonkeyPatch) -> None:
    def add(held: HeldInput, pcm: bytes) -> None:
        held._pieces.append(pcm)
        held._size += len(pcm)

    patch.setattr(HeldInput, "add", add)


def held_audio_is_lost(patch: pytest.MonkeyPatch) -> None:
    take = HeldInput.take

    def lose(held: HeldInput) -> Any:
        take(held)
        return []

    patch.setattr(HeldInput, "take", lose)


def audio_is_dropped(patch: pytest.MonkeyPatch) -> None:
    tell = ClientOutput.emit_audio

    def drop(output: ClientOutput, pcm: bytes, source_rate: int | None = None) -> None:
        if len(waiting(output._client)) < 2:
            tell(output, pcm, source_rate)

    patch.setattr(ClientOutput, "emit_audio", drop)


def the_wrong_rate_is_said(patch: pytest.MonkeyPatch) -> None:
    tell = ClientOutput.emit_audio

    def unconverted(output: ClientOutput, pcm: bytes, source_rate: int | None = None) -> None:
        tell(output, pcm)

    patch.setattr(ClientOutput, "emit_audio", unconverted)


PARTS: list[Patch] = [
    stale_speech_is_kept,
    abandoned_calls_are_said,
    frames_are_miscounted,
    resampler_keeps_what_was_cut,
    resampler_keeps_its_end,
    held_audio_is_unbounded,
    held_audio_is_lost,
    audio_is_dropped,
    the_wrong_rate_is_said,
]

# Mistakes of the bridge


class SpeaksTooEarly(Bridge):
    """Tells the provider what it can't take yet."""

    @property
    def _listening(self) -> Any:
        return self._provider


class ClosesTwice(Bridge):
    def _end(self, error: ErrorFrame | None) -> None:
        self._output.emit(Close(1011, "provider_error", "local"))
        super()._end(error)


class NeverCloses(Bridge):
    def _end(self, error: ErrorFrame | None) -> None:
        self._leave()


class TalksOnAfterTheEnd(Bridge):
    def _leave(self) -> None:
        super()._leave()
        self._output.emit(Transcript("assistant", "And another thing", True))


class ForgetsTheProvider(Bridge):
    """Leaves it connected when the client is gone."""

    def _leave(self) -> None:
        provider, self._provider = self._provider, None
        super()._leave()
        self._provider = provider


class TimersOutliveTheEnd(Bridge):
    def next_deadline(self) -> float | None:
        return 1e9 if self.done else super().next_deadline()


class PassesCodesOn(Bridge):
    def _receive(self, provider: Any, frame: Any) -> None:
        if isinstance(frame, ErrorFrame):
            self._output.emit(frame)
        else:
            super()._receive(provider, frame)


class RepeatsAudio(Bridge):
    """Says again what it had held, as if the new connection had not had it."""

    def _receive_audio(self, pcm: bytes) -> None:
        super()._receive_audio(pcm)
        if self._attempts.count > 1:
            super()._receive_audio(pcm)


class WaitsForEver(Bridge):
    """Does not try again."""

    def _retry(self, seconds: float) -> None:
        """Does not."""


class LosesTurnsEnds(Bridge):
    def _end_turn(self, verb: Any) -> None:
        provider = self._listening
        if provider is not None:
            getattr(provider, verb)()


class EndsTwice(Bridge):
    def _answer_ends(self, end: Any) -> None:
        super()._answer_ends(end)
        super()._answer_ends(end)


class ForgetsTheEndsOfAnswers(Bridge):
    def _answer_ends(self, end: Any) -> None:
        """Says nothing."""


class ForgetsTheEndsOfLostAnswers(Bridge):
    def _disconnected(self, provider: Any, ending: Any, cut: Any = None) -> None:
        super()._disconnected(provider, ending)


BRIDGES: list[type[Bridge]] = [
    SpeaksTooEarly,
    ClosesTwice,
    NeverCloses,
    TalksOnAfterTheEnd,
    ForgetsTheProvider,
    TimersOutliveTheEnd,
    PassesCodesOn,
    WaitsForEver,
    LosesTurnsEnds,
    EndsTwice,
    ForgetsTheEndsOfAnswers,
]
RESUMED: list[type[Bridge]] = [RepeatsAudio, ForgetsTheEndsOfLostAnswers]


def found(machine: type[Any], bridge: type[Bridge] = Bridge) -> bool:
    try:
        run(machine, bridge)
    except (AssertionError, SpekoError):
        return True
    return False


def test_what_is_not_broken_passes() -> None:
    run(RealtimeBridgeMachine, examples=30)
    run(GoogleBridgeMachine, examples=30)


@pytest.mark.parametrize("mistake", PARTS)
def test_a_broken_part_is_found(mistake: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake(monkeypatch)
    assert found(RealtimeBridgeMachine)


@pytest.mark.parametrize("bridge", BRIDGES)
def test_a_broken_bridge_is_found(bridge: type[Bridge]) -> None:
    assert found(RealtimeBridgeMachine, bridge)


@pytest.mark.parametrize("bridge", RESUMED)
def test_a_bridge_that_is_broken_over_connections_is_found(bridge: type[Bridge]) -> None:
    assert found(GoogleBridgeMachine, bridge)
