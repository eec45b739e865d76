"""Messages as the carriers' documentation shows them, with numbers and ids of nobody."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from typing import Any, Final

from speko_anyio.telephony import CARRIERS, CarrierStream

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


def telnyx(**start: Any) -> list[dict[str, Any]]:
    """Return the messages of a call.

    https://developers.telnyx.com/api-reference/websockets/stream-call-media-over-websocket
    """
    stream_id = "00000000-0000-0000-0000-000000000001"
    return [
        {"event": "connected", "version": "1.0.0"},
        {
            "event": "start",
            "sequence_number": "1",
            "stream_id": stream_id,
            "start": {
                "user_id": "00000000-0000-0000-0000-000000000002",
                "call_control_id": "v2:0000000000000000",
                "call_session_id": "00000000-0000-0000-0000-000000000003",
                "from": "+15550100001",
                "to": "+15550100002",
                "tags": ["TAG1"],
                "client_state": "aGF2ZSBhIG5pY2UgZGF5ID1d",
                "custom_parameters": {"customer_id": "customer_123"},
                "media_format": {"encoding": "PCMU", "sample_rate": 8000, "channels": 1},
                **start,
            },
        },
        {
            "event": "media",
            "sequence_number": "2",
            "stream_id": stream_id,
            "media": {
                "track": "inbound",
                "chunk": "1",
                "timestamp": "5",
                "payload": base64.b64encode(ULAW).decode(),
            },
        },
        {
            "event": "dtmf",
            "sequence_number": "3",
            "stream_id": stream_id,
            "occurred_at": "2026-01-01T00:00:00.000000Z",
            "dtmf": {"digit": "1"},
        },
        {"event": "mark", "sequence_number": "4", "stream_id": stream_id, "mark": {"name": "my label"}},
        {
            "event": "stop",
            "sequence_number": "5",
            "stream_id": stream_id,
            "stop": {
                "user_id": "00000000-0000-0000-0000-000000000002",
                "call_control_id": "v2:0000000000000000",
            },
        },
    ]


def plivo(extra_headers: Any = "from=15550100001;to=15550100002;userId=12345", **start: Any) -> list[Any]:
    """Return the messages of a call.

    https://www.plivo.com/docs/voice-agents/audio-streaming/concepts/audio-streaming-reference
    """
    stream_id = "00000000-0000-0000-0000-000000000001"
    return [
        {
            "event": "start",
            "sequenceNumber": 1,
            "start": {
                "callId": "00000000-0000-0000-0000-000000000002",
                "streamId": stream_id,
                "accountId": "MA000000000000000000",
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000},
                **start,
            },
            "extra_headers": extra_headers,
        },
        {
            "event": "media",
            "sequenceNumber": 2,
            "streamId": stream_id,
            "media": {
                "track": "inbound",
                "timestamp": "1705312200000",
                "chunk": 1,
                "payload": base64.b64encode(ULAW).decode(),
            },
            "extra_headers": extra_headers,
        },
        {
            "event": "dtmf",
            "sequenceNumber": 3,
            "streamId": stream_id,
            "dtmf": {"track": "inbound", "timestamp": "1705312200100", "digit": "1"},
        },
        {"event": "playedStream", "sequenceNumber": 4, "streamId": stream_id, "name": "my label"},
        {"event": "clearedAudio", "sequenceNumber": 5, "streamId": stream_id},
        {"event": "stop", "sequenceNumber": 6, "streamId": stream_id},
    ]


def vonage(content_type: str = "audio/l16;rate=16000", **headers: Any) -> list[Any]:
    """Return the messages of a call: https://developer.vonage.com/en/voice/voice-api/concepts/websockets."""
    return [
        {
            "event": "websocket:connected",
            "content-type": content_type,
            "uuid": "00000000-0000-0000-0000-000000000001",
            "from": "15550100001",
            "to": "15550100002",
            **headers,
        },
        bytes(range(256)) + bytes(384),
        {"event": "websocket:dtmf", "digit": "1", "duration": 260},
        {"event": "websocket:notify", "payload": {"name": "my label"}},
        {"event": "websocket:cleared"},
    ]


CALLS: Final[dict[str, Callable[[], list[Any]]]] = {
    "twilio": twilio,
    "telnyx": telnyx,
    "plivo": plivo,
    "vonage": vonage,
}
"""The messages of a call, by the name of the carrier."""


def on_the_wire(message: Any) -> str | bytes:
    """Return the WebSocket message."""
    return message if isinstance(message, bytes) else json.dumps(message)


def answered(name: str) -> CarrierStream:
    """Return the stream of a carrier, after its start."""
    stream = CARRIERS[name]()
    for message in CALLS[name]():
        stream.receive_message(on_the_wire(message))
        if stream.started is not None:
            break
    return stream


def changed(message: dict[str, Any], path: str, value: Any) -> str:
    """Return the message as text, with another value at `path`, such as ``media.payload``."""
    message = copy.deepcopy(message)
    *outer, name = path.split(".")
    inner = message
    for step in outer:
        inner = inner[step]
    inner[name] = value
    return json.dumps(message)
