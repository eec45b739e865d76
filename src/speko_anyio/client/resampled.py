"""A provider's core for a user who has other sample rates than the provider."""

from __future__ import annotations

from collections import deque
from typing import Final, Literal

from ..audio.resample import Resampler
from ..protocol.dialect import NEED_DATA, NeedData
from ..protocol.errors import SpekoError
from ..protocol.frames import Audio, Close, Frame, Interruption, Ready, ResponseEnd, ToolCall, Usage
from ..protocol.pcm import Buffer, pcm_bytes
from ..protocol.state import State
from ..providers.connection import ProviderConnection
from ..providers.resampling import Converter

_CUTS: Final = (ToolCall, Usage, ResponseEnd, Close)
"""What follows all the speech that was made before it."""


class ResampledCore:
    """A `ClientCore` around a provider's: audio is at `input_sample_rate` and `output_sample_rate`, samples a
    second, whatever the provider takes and gives."""

    def __init__(self, core: ProviderConnection, *, input_sample_rate: int, output_sample_rate: int) -> None:
        self.input_sample_rate = input_sample_rate
        self.output_sample_rate = output_sample_rate
        self._core = core
        self._input = Converter(Resampler)
        self._output = Converter(Resampler)
        self._events: deque[Frame] = deque()
        self._responding = False
        # The libraries are loaded now, not with the first audio; when one is missing it is told now.
        for rates in (
            (input_sample_rate, core.input_sample_rate),
            (core.output_sample_rate, output_sample_rate),
        ):
            Resampler(*rates)

    # Events out

    def next_event(self) -> Frame | Literal[NeedData.NEED_DATA]:
        while not self._events:
            event = self._core.next_event()
            if event is NEED_DATA:
                was_responding, self._responding = self._responding, self._core.responding
                if self._responding or not was_responding:
                    return NEED_DATA
                self._tell_audio(self._output.flush())
                if not self._events:
                    return NEED_DATA
            else:
                self._receive(event)
        return self._events.popleft()

    def _receive(self, event: Frame) -> None:
        match event:
            case Audio(pcm=pcm, sample_rate=rate):
                self._responding = True
                self._tell_audio(self._output.convert(pcm, rate, self.output_sample_rate))
                return
            case Ready():
                event = Ready(self.input_sample_rate, self.output_sample_rate)
            case Interruption():
                self._output.reset()
            case _ if isinstance(event, _CUTS):
                self._tell_audio(self._output.flush())
            case _:
                pass
        self._events.append(event)

    def _tell_audio(self, pcm: bytes) -> None:
        if pcm:
            self._events.append(Audio(pcm, self.output_sample_rate))

    # Verbs

    def send_audio(self, pcm: Buffer) -> None:
        if type(pcm) is not bytes:
            pcm = pcm_bytes(pcm)
        if len(pcm) & 1 or self._core.state is not State.OPEN:
            self._core.send_audio(pcm)  # which says what is wrong
        self._core.send_audio(self._input.convert(pcm, self.input_sample_rate, self._core.input_sample_rate))

    def commit(self) -> None:
        self._send_rest()
        self._core.commit()

    def end_turn(self) -> None:
        self._send_rest()
        self._core.end_turn()

    def _send_rest(self) -> None:
        # The end of what the user said is still in there.
        self._core.send_audio(self._input.flush())

    def clear(self) -> None:
        self._input.reset()
        self._core.clear()

    def interrupt(self) -> None:
        self._core.interrupt()

    def send_tool_result(self, call_id: str, output: str) -> None:
        self._core.send_tool_result(call_id, output)

    # The rest is the core's

    @property
    def state(self) -> State:
        return self._core.state

    @property
    def closed(self) -> Close | None:
        return self._core.closed

    @property
    def error(self) -> SpekoError | None:
        return self._core.error

    @property
    def has_output(self) -> bool:
        return self._core.has_output

    @property
    def odd_fields(self) -> int:
        return self._core.odd_fields

    def receive_data(self, data: bytes) -> None:
        self._core.receive_data(data)

    def receive_eof(self) -> None:
        self._core.receive_eof()

    def receive_lost(self, reason: str = "the connection was lost") -> None:
        self._core.receive_lost(reason)

    def data_to_send(self) -> bytes:
        return self._core.data_to_send()

    def send_failed(self) -> None:
        self._core.send_failed()

    def close(self, code: int = 1000, reason: str = "") -> None:
        self._core.close(code, reason)

    def next_deadline(self) -> float | None:
        return self._core.next_deadline()

    def handle_timeout(self, now: float) -> None:
        self._core.handle_timeout(now)

    def suspend_keepalive(self) -> None:
        self._core.suspend_keepalive()

    def resume_keepalive(self) -> None:
        self._core.resume_keepalive()
