"""PCM16 audio: devices, playback, arithmetic, WAV files and resampling.

- `Microphone`, `Speaker`: this computer's;
- `EchoCanceller`, `NoiseSuppressor`: what a microphone hears, without the loudspeaker and without noise;
- `Playback`: a buffer for unplayed audio;
- `TurnDetector`: where the user's speech begins and ends;
- `BargeInDetector`: whether the user talks over the assistant;
- `gain`, `mix`, `downmix`, `rms_dbfs`, `peak_dbfs`: arithmetic on PCM16;
- `pcm_to_numpy`, `numpy_to_pcm`: arrays;
- `wav`: files; `resample`: sample rate conversion.

Importing this package, or any module of it, imports neither sounddevice nor pywebrtc-audio nor
soxr nor numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_exports

if TYPE_CHECKING:
    from ._barge_in import BargeInDetector
    from ._devices import DeviceError, Microphone, Speaker
    from ._echo import EchoCanceller, NoiseSuppressor
    from ._numpy import numpy_to_pcm, pcm_to_numpy
    from ._pcm import downmix, duration, gain, mix, peak_dbfs, rms_dbfs, silence
    from ._playback import Flushed, Playback
    from ._turns import (
        Backchannel,
        EndOfTurn,
        NothingSaid,
        SpeechSoFar,
        SpeechStarted,
        SpeechStopped,
        Timing,
        TurnDetector,
        TurnEvent,
    )
    from ._voice_activity import IsSpeech, energy_vad, webrtc_vad

__all__ = [
    "Backchannel",
    "BargeInDetector",
    "DeviceError",
    "EchoCanceller",
    "EndOfTurn",
    "Flushed",
    "IsSpeech",
    "Microphone",
    "NoiseSuppressor",
    "NothingSaid",
    "Playback",
    "Speaker",
    "SpeechSoFar",
    "SpeechStarted",
    "SpeechStopped",
    "Timing",
    "TurnDetector",
    "TurnEvent",
    "downmix",
    "duration",
    "energy_vad",
    "gain",
    "mix",
    "numpy_to_pcm",
    "pcm_to_numpy",
    "peak_dbfs",
    "rms_dbfs",
    "silence",
    "webrtc_vad",
]


lazy_exports(
    __name__,
    {
        "_barge_in": "BargeInDetector",
        "_devices": "DeviceError Microphone Speaker",
        "_echo": "EchoCanceller NoiseSuppressor",
        "_numpy": "numpy_to_pcm pcm_to_numpy",
        "_pcm": "downmix duration gain mix peak_dbfs rms_dbfs silence",
        "_playback": "Flushed Playback",
        "_turns": "Backchannel EndOfTurn NothingSaid SpeechSoFar SpeechStarted SpeechStopped Timing "
        "TurnDetector TurnEvent",
        "_voice_activity": "IsSpeech energy_vad webrtc_vad",
    },
)
