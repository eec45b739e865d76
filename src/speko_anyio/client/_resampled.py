"""A provider's core for a user whose sample rates differ from the provider's."""

from __future__ import annotations

from collections import deque
from typing import Final, Literal

from ..audio.resample import Resampler
from ..protocol._client_core import CoreWrapper
from ..protocol._dialect import NEED_DATA, NeedData
from ..protocol._pcm import Buffer, pcm_bytes
from ..protocol._resampling import Converter
from ..protocol._state import State
from ..protocol.frames import Audio, Close, Frame, Interruption, Ready, ResponseEnd, ToolCall, Usage
from ..providers._connection import ProviderConnection

_CUTS: Final = (ToolCall, Usage, ResponseEnd, Close)
"""Frames that must follow all the speech generated before them."""


class ResampledCore(CoreWrapper):
    """A provider's core that resamples audio in both directions.

    It accepts audio at `input_sample_rate` and returns audio at `output_sample_rate`, samples a second.
    """

    def __init__(self, core: ProviderConnection, *, input_sample_rate: int, output_sample_rate: int) -> None:
        super().__init__(core)
        self._provider = core.dialect
        self._rates = input_sample_rate, output_sample_rate
        self._input = Converter(Resampler)
        self._output = Converter(Resampler)
        self._events: deque[Frame] = deque()
        self._responding = False
        # Load the library now, rather than with the first audio; this raises if it is missing.
        for rates in (
            (input_sample_rate, core.input_sample_rate),
            (core.output_sample_rate, output_sample_rate),
        ):
            Resampler(*rates)

    @property
    def input_sample_rate(self) -> int:
        return self._rates[0]

    @property
    def output_sample_rate(self) -> int:
        return self._rates[1]

    # Events out

    def next_event(self) -> Frame | Literal[NeedData.NEED_DATA]:
        while not self._events:
            event = self._core.next_event()
            if event is NEED_DATA:
                was_responding, self._responding = self._responding, self._provider.responding
                if self._responding or not was_responding:
                    return NEED_DATA
                self._emit_audio(self._output.flush())
                if not self._events:
                    return NEED_DATA
            else:
                self._receive(event)
        return self._events.popleft()

    def _receive(self, event: Frame) -> None:
        match event:
            case Audio(pcm=pcm, sample_rate=rate):
                self._responding = True
                self._emit_audio(self._output.convert(pcm, rate, self.output_sample_rate))
                return
            case Ready():
                event = Ready(self.input_sample_rate, self.output_sample_rate)
            case Interruption():
                self._output.reset()
            case _ if isinstance(event, _CUTS):
                self._emit_audio(self._output.flush())
            case _:
                pass
        self._events.append(event)

    def _emit_audio(self, pcm: bytes) -> None:
        if pcm:
            self._events.append(Audio(pcm, self.output_sample_rate))

    # Verbs

    def send_audio(self, pcm: Buffer) -> None:
        if type(pcm) is not bytes:
            pcm = pcm_bytes(pcm)
        if len(pcm) & 1 or self._core.state is not State.OPEN:
            self._core.send_audio(pcm)  # raises the error
        self._core.send_audio(self._input.convert(pcm, self.input_sample_rate, self._core.input_sample_rate))

    def commit(self) -> None:
        self._send_rest()
        self._core.commit()

    def end_turn(self) -> None:
        self._send_rest()
        self._core.end_turn()

    def _send_rest(self) -> None:
        # The resampler still holds the end of the user's speech.
        self._core.send_audio(self._input.flush())

    def clear(self) -> None:
        self._input.reset()
        self._core.clear()
