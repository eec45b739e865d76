"""Messages as the carriers' documentation shows them, with numbers and ids of nobody."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any, Final

ULAW: Final = bytes(range(160))
"""20 ms of audio."""


def twilio(**start: Any) -> list[dict[str, Any]]:
    """Return the messages of a call (https://www.twilio.com/docs/voice/media-streams/websocket-messages)."""
    sid = "MZ00000000000000000000000000000001"
    return [
        {"event": "connected", "protocol": "Call", "version": "1.0.0"},
        {
            "event": "start",
            "sequenceNumber": "1",
            "start": {
                "accountSid": "AC00000000000000000000000000000001",
                "streamSid": sid,
                "callSid": "CA00000000000000000000000000000001",
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": {"from": "+15550100001", "to": "+15550100002", "FirstName": "Jane"},
                **start,
            },
            "streamSid": sid,
        },
        {
            "event": "media",
            "sequenceNumber": "2",
            "media": {
                "track": "inbound",
                "chunk": "1",
                "timestamp": "5",
                "payload": base64.b64encode(ULAW).decode(),
            },
            "streamSid": sid,
        },
        {
            "event": "dtmf",
            "streamSid": sid,
            "sequenceNumber": "3",
            "dtmf": {"track": "inbound_track", "digit": "1"},
        },
        {"event": "mark", "sequenceNumber": "4", "streamSid": sid, "mark": {"name": "my label"}},
        {
            "event": "stop",
            "sequenceNumber": "5",
            "stop": {
                "accountSid": "AC00000000000000000000000000000001",
                "callSid": "CA00000000000000000000000000000001",
            },
            "streamSid": sid,
        },
    ]


def changed(message: dict[str, Any], path: str, value: Any) -> str:
    """Return the message as text, with another value at `path`, such as ``media.payload``."""
    message = copy.deepcopy(message)
    *outer, name = path.split(".")
    inner = message
    for step in outer:
        inner = inner[step]
    inner[name] = value
    return json.dumps(message)
