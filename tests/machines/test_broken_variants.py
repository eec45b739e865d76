"""A test of the tests: cores that are broken on purpose, each of which a proof must find out.

Each variant has one mistake that a core could well have. The machine and the differential test run on it
as they do on the real core; what neither of them noticed would be a hole in the proof.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from speko_anyio.protocol import (
    NEED_DATA,
    Capabilities,
    ClientConnection,
    Close,
    ConnectionClosed,
    ErrorFrame,
    Interruption,
    LocalProtocolError,
    Outbox,
    ServerConnection,
    ServerProtocol,
    SpekoError,
    State,
    Unknown,
)
from speko_anyio.protocol import _framing as framing
from speko_anyio.protocol._calls import Calls
from speko_anyio.protocol._codec import encode
from speko_anyio.protocol._extensions import COMMANDS
from speko_anyio.protocol._framing import AudioShape

from . import driver
from . import strategies as strat
from .session_machine import SessionMachine
from .strategies import BINARY, CLOSE, FIN, PONG, TEXT, frame, unmask
from .test_differential import check_against_wsproto, scripts

if TYPE_CHECKING:
    from speko_anyio.protocol import ServerConnection as Core
else:
    Core = object  # a mistake is mixed into either role

Pair = tuple[type[ClientConnection], type[ServerConnection]]
Patch = Callable[[pytest.MonkeyPatch], None]


def thorough(examples: int) -> settings:
    """Nearly the same examples each time, but Hypothesis draws on the constants of what is loaded. So there
    must be many more than one run needed. No shrinking: a failure is what we want, not a small one."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        verbosity=Verbosity.quiet,
    )


def run_machine(pair: Pair, examples: int) -> None:
    """The machine, with these classes."""

    class Machine(SessionMachine):
        client_class, server_class = pair

    run_state_machine_as_test(Machine, settings=thorough(examples))


def run_differential(pair: Pair, examples: int, *kinds: str) -> None:
    """The differential test, with these classes."""

    @thorough(examples)
    @given(
        data=st.data(),
        client=st.booleans(),
        kind=st.sampled_from(kinds or ("valid", "hostile", "mutated")),
        eof=st.booleans(),
    )
    def differ(data: st.DataObject, client: bool, kind: str, eof: bool) -> None:
        check_against_wsproto(
            client=client,
            limits=strat.LIMITS[1],
            script=data.draw(scripts(client=client, kind=kind)),
            eof=eof,
            coalesced=False,
            bytewise=False,
            rush=eof and data.draw(st.booleans()),
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "ClientConnection", pair[0])
        patch.setattr(driver, "ServerConnection", pair[1])
        differ()


def broken(mixin: type) -> Pair:
    """Both roles with the same mistake."""
    client: Any = type(f"Client{mixin.__name__}", (mixin, ClientConnection), {})
    server: Any = type(f"Server{mixin.__name__}", (mixin, ServerConnection), {})
    return client, server


# Mistakes in what is delivered


class LosesTheOddByte(Core):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        receive = self.dialect._receive_binary
        vars(self.dialect)["_receive_binary"] = lambda data: receive(data[: len(data) // 2 * 2])


class ErrorOvertakesEvents(Core):
    """Parses all there is before it delivers any, as cores do whose `receive_data` returns a list."""

    def next_event(self) -> Any:
        waiting = vars(self).setdefault("waiting", [])
        while True:
            event = super().next_event()
            if event is NEED_DATA:
                return waiting.pop(0) if waiting else NEED_DATA
            waiting.append(event)


class ClosesTwice(Core):
    def next_event(self) -> Any:
        try:
            return super().next_event()
        except ConnectionClosed:
            if vars(self).setdefault("again", True) and self.closed is not None:
                vars(self)["again"] = False
                return self.closed
            raise


class NeverSaysClose(Core):
    def next_event(self) -> Any:
        event = super().next_event()
        return super().next_event() if isinstance(event, Close) else event


class InterruptionComesTwice(Core):
    def next_event(self) -> Any:
        event = vars(self).pop("twice", None) or super().next_event()
        if isinstance(event, Interruption) and "said" not in vars(self):
            vars(self).update(twice=event, said=True)
        return event


class ErrorChanges(Core):
    def next_event(self) -> Any:
        try:
            return super().next_event()
        except ConnectionClosed as error:
            another: Any = ConnectionClosed
            raise another(**vars(error)) from None


class EndOfInputOvertakesFrames(Core):
    def receive_eof(self) -> None:
        self.receive_lost("gone")


class ForgetsTheTail(Core):
    """Loses what follows the last whole frame of a read."""

    def receive_data(self, data: Any) -> None:
        if self.state is State.OPEN:
            end = 0
            while (found := driver.shape(data[end:])) is not None and end + found.end <= len(data):
                end += found.end
            data = data[: end or len(data)]
        super().receive_data(data)


def translated(translate: Callable[[int, bytes, bytes], bytes]) -> type:
    """A core that hears whole frames as `translate(first, payload, frame)` has them."""

    class Translated(Core):
        def receive_data(self, data: Any) -> None:
            if self.state is not State.CONNECTING:
                data = b"".join(self.hear(data))
            super().receive_data(data)

        @staticmethod
        def hear(data: bytes) -> Iterator[bytes]:
            while (found := driver.shape(data)) is not None and found.end <= len(data):
                whole, data = data[: found.end], data[found.end :]
                payload = whole[found.end - found.size :]
                if whole[1] & 0x80:
                    payload = unmask(payload, whole[found.header : found.header + 4])
                yield translate(found.first, payload, whole)
            yield data

    return Translated


def _again(first: int, payload: bytes, whole: bytes) -> bytes:
    return frame(first, payload, masked=bool(whole[1] & 0x80))


def accept_any_length(first: int, payload: bytes, whole: bytes) -> bytes:
    shortest = first & 0x0F < CLOSE and first & 0x70 == 0 and len(payload) < 126
    return _again(first, payload, whole) if shortest else whole


def accept_reserved_bits(first: int, payload: bytes, whole: bytes) -> bytes:
    return _again(first & 0x8F, payload, whole) if first & 0x70 else whole


def accept_bad_utf8(first: int, payload: bytes, whole: bytes) -> bytes:
    if first != FIN | TEXT:
        return whole
    return _again(first, payload.decode(errors="replace").encode(), whole)


def accept_any_mask(first: int, payload: bytes, whole: bytes) -> bytes:
    """For the server only."""
    return whole if whole[1] & 0x80 else frame(first, payload, masked=True)


def ignore_close_codes(first: int, payload: bytes, whole: bytes) -> bytes:
    return _again(first, b"", whole) if first == FIN | CLOSE and len(payload) < 126 else whole


class IgnoresLimits(Core):
    def __init__(self, *args: Any, **options: Any) -> None:
        options.pop("limits")
        super().__init__(*args, **options)


# Mistakes in what is sent


def resent(rewrite: Callable[[list[bytes]], list[bytes]]) -> type:
    """A core that sends the frames that `rewrite` makes of what it should send."""

    class Resent(Core):
        def data_to_send(self) -> bytes:
            data: bytes = super().data_to_send()
            if data.startswith((b"GET ", b"HTTP/")):
                return data
            return b"".join(rewrite(list(driver.split_frames(data))))

    return Resent


def pongs_last(frames: list[bytes]) -> list[bytes]:
    return sorted(frames, key=lambda raw: raw[0] == FIN | PONG and len(frames) > 1)


def no_pongs(frames: list[bytes]) -> list[bytes]:
    return [raw for raw in frames if raw[0] != FIN | PONG]


def audio_overtakes_text(frames: list[bytes]) -> list[bytes]:
    return sorted(frames, key=lambda raw: raw[0] != FIN | BINARY)


def close_said_twice(frames: list[bytes]) -> list[bytes]:
    return [said for raw in frames for said in ([raw, raw] if raw[0] == FIN | CLOSE else [raw])]


class ReusesKeys(Core):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options | {"entropy": lambda count: b"same" * (count // 4)})


class RaisesTooLate(Core):
    """Queues what is right about odd audio, then says that it is odd."""

    def send_audio(self, pcm: Any) -> None:
        if len(pcm) % 2:
            super().send_audio(pcm[:-1])
        super().send_audio(pcm)


class AnswersBeforeItChecks(Core):
    def send_tool_call(self, call_id: str, name: str, arguments: str) -> None:
        try:
            super().send_tool_call(call_id, name, arguments)
        except LocalProtocolError:
            if self.open_calls:
                self.dialect._calls.answer(self.open_calls[0])
            raise


class KeepingOutbox(Outbox):
    __slots__ = ()

    def drop_audio(self) -> None:
        """Does not."""


class KeepsStaleAudio(Core):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.dialect.outbox.__class__ = KeepingOutbox


class SilentAfterClose(Core):
    """The published SDKs: sending after the end does nothing."""

    def send_audio(self, pcm: Any) -> None:
        if self.error is None:
            super().send_audio(pcm)


# Mistakes in the life of a session


class WaitsForEver(Core):
    """Forgets the time that a peer has to answer a close."""

    def next_deadline(self) -> float | None:
        return None if self.state is State.CLOSING else super().next_deadline()


class TimersOutliveTheEnd(Core):
    def next_deadline(self) -> float | None:
        deadline: float | None = super().next_deadline()
        return 1e9 if self.state is State.CLOSED else deadline


class SendsOnAfterFailing(Core):
    def send_failed(self) -> None:
        try:
            self.send_audio(b"\0\0")
        except SpekoError:
            pass
        late = self.data_to_send()
        super().send_failed()
        vars(self)["late"] = late

    def data_to_send(self) -> bytes:
        late: bytes = vars(self).pop("late", b"")
        return super().data_to_send() + late


class NeverPings(Core):
    def next_deadline(self) -> float | None:
        self._timers.stop("ping")
        return super().next_deadline()


class SecondCloseCounts(Core):
    def close(self, code: int = 1000, reason: str = "") -> None:
        super().close(code, reason)
        if self.state is State.CLOSING:
            self.send_failed()


def no_call_is_moot(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Calls, "abandon_open", lambda self: None)


def calls_stay_open(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Calls, "answer", lambda self, call_id: None)


def takes_what_is_not_offered(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ServerProtocol, "_takes", lambda _, extension: extension in COMMANDS)


def sends_what_is_not_offered(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Capabilities, "takes", lambda *_: True)


def refuses_in_silence(patch: pytest.MonkeyPatch) -> None:
    def refuse(self: ServerProtocol, extension: str, text: str, _: str) -> None:
        self.events.append(Unknown(extension, text))

    patch.setattr(ServerProtocol, "_refuse", refuse)


def refuses_for_ever(patch: pytest.MonkeyPatch) -> None:
    def refuse(self: ServerProtocol, extension: str, text: str, problem: str) -> None:
        self.events.append(Unknown(extension, text))
        if self.state is State.OPEN:
            self._queue_short(encode(ErrorFrame(f"{extension.upper()}_REFUSED", problem)))

    patch.setattr(ServerProtocol, "_refuse", refuse)


def a_long_text_ends_the_session(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ServerProtocol, "text_limit", property(lambda self: self.limits.max_text_size))


def usage_is_whole_for_everybody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ServerProtocol, "_queue_usage", ServerProtocol._queue_frame)


def header_of_another_size(shape: AudioShape) -> None:
    shape.head = framing.header(framing.BINARY, shape.size ^ 4, shape.head[1] & framing.MASKED)
    shape.start = shape.head + bytes(4)


def last_word_unmasked(shape: AudioShape) -> None:
    """In Python."""
    shape.ones &= (1 << 8 * shape.size) - 1


DELIVERY = [LosesTheOddByte, ErrorOvertakesEvents, ClosesTwice, NeverSaysClose, InterruptionComesTwice]
DELIVERY += [ErrorChanges, EndOfInputOvertakesFrames]
SENDING: list[type] = [ReusesKeys, RaisesTooLate, AnswersBeforeItChecks, KeepsStaleAudio, SilentAfterClose]
LIFE: list[type] = [WaitsForEver, TimersOutliveTheEnd, SendsOnAfterFailing, NeverPings, SecondCloseCounts]
REWRITES = [pongs_last, no_pongs, audio_overtakes_text, close_said_twice]
TRANSLATIONS = [accept_any_length, accept_reserved_bits, accept_bad_utf8, ignore_close_codes]


MOST = 5000
"""Examples within which a mistake must have been found. Most are found at once, and end the search there."""


def test_both_proofs_pass_what_is_not_broken() -> None:
    pair = ClientConnection, ServerConnection
    run_machine(pair, 30)
    run_differential(pair, 30)


@pytest.mark.parametrize("variant", DELIVERY + SENDING + LIFE)
def test_machine_finds_it(variant: type) -> None:
    with pytest.raises(AssertionError):
        run_machine(broken(variant), MOST)


@pytest.mark.parametrize("rewrite", REWRITES)
def test_machine_finds_what_is_sent_wrongly(rewrite: Callable[[list[bytes]], list[bytes]]) -> None:
    with pytest.raises(AssertionError):
        run_machine(broken(resent(rewrite)), MOST)


@pytest.mark.parametrize("mistake", [no_call_is_moot, calls_stay_open])
def test_machine_finds_calls_miscounted(mistake: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake(monkeypatch)
    with pytest.raises(AssertionError):
        run_machine((ClientConnection, ServerConnection), MOST)


@pytest.mark.parametrize(
    "mistake",
    [
        takes_what_is_not_offered,
        sends_what_is_not_offered,
        refuses_in_silence,
        refuses_for_ever,
        a_long_text_ends_the_session,
        usage_is_whole_for_everybody,
    ],
)
def test_machine_finds_extensions_mishandled(mistake: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake(monkeypatch)
    with pytest.raises(AssertionError):
        run_machine((ClientConnection, ServerConnection), MOST)


@pytest.mark.parametrize("mistake", [header_of_another_size, last_word_unmasked])
def test_machine_finds_audio_framed_wrongly(
    mistake: Callable[[AudioShape], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_plain_shape", "_masked_shape", "_wide_shape"):
        shape_of = getattr(framing, name).__wrapped__

        def mistaken(size: int, shape_of: Callable[[int], AudioShape] = shape_of) -> AudioShape:
            shape = shape_of(size)
            mistake(shape)
            return shape

        monkeypatch.setattr(framing, name, mistaken)
    with pytest.raises(AssertionError):
        run_machine((ClientConnection, ServerConnection), MOST)


@pytest.mark.parametrize(
    "variant",
    [
        LosesTheOddByte,
        ErrorOvertakesEvents,
        ForgetsTheTail,
        EndOfInputOvertakesFrames,
        IgnoresLimits,
        ReusesKeys,
    ],
)
def test_differential_finds_it(variant: type) -> None:
    with pytest.raises(AssertionError):
        run_differential(broken(variant), 500)


@pytest.mark.parametrize("translate", TRANSLATIONS)
def test_differential_finds_what_is_let_pass(translate: Callable[[int, bytes, bytes], bytes]) -> None:
    with pytest.raises(AssertionError):
        run_differential(broken(translated(translate)), 2000, "hostile")


def test_differential_finds_that_masks_are_not_demanded() -> None:
    _, server = broken(translated(accept_any_mask))
    with pytest.raises(AssertionError):
        run_differential((ClientConnection, server), 2000, "hostile")
