"""A phone call that reaches OpenAI's double over SIP: its webhook, its line, and what was asked of it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias

from ._double_session import Json

CallState: TypeAlias = Literal["ringing", "answered", "rejected", "referred", "ended"]


class LineSession(Protocol):
    """A session that has joined a call."""

    def press(self, key: str) -> None: ...
    def hear_line(self, pcm: bytes) -> None: ...
    def close(self, code: int = ..., reason: str = ...) -> None: ...


class PhoneCall:
    """A call to `OpenAIDouble`, which `OpenAIDouble.ring` makes.

    - `call_id`: as in the webhook.
    - `state`: where the call is in its life.
    - `config`: the session that it was accepted with, as the client sent it.
    - `status_code`, `target_uri`: of its rejection or transfer.
    """

    def __init__(self, call_id: str, *, caller: str, called: str, secret: str) -> None:
        self.call_id = call_id
        self.state: CallState = "ringing"
        self.config: Json = {}
        self.status_code: int | None = None
        self.target_uri: str | None = None
        self._sip_headers = [
            {"name": "From", "value": f"<sip:{caller}@sip.example.com>;tag=1"},
            {"name": "To", "value": f"<sip:{called}@sip.example.com>"},
            {"name": "Call-ID", "value": f"{call_id}@sip.example.com"},
        ]
        self._secret = secret
        self._sessions: list[LineSession] = []

    def webhook(self, now: float) -> tuple[bytes, dict[str, str]]:
        """Return the body and the headers of the webhook that announces the call, signed at `now`.

        `now` is in seconds since 1970.
        """
        body = json.dumps(
            {
                "object": "event",
                "id": f"evt_{self.call_id}",
                "type": "realtime.call.incoming",
                "created_at": int(now),
                "data": {"call_id": self.call_id, "sip_headers": self._sip_headers},
            }
        ).encode()
        webhook_id, timestamp = f"wh_{self.call_id}", str(int(now))
        key = base64.b64decode(self._secret.removeprefix("whsec_"))
        signed = f"{webhook_id}.{timestamp}.".encode() + body
        signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return body, {
            "Content-Type": "application/json",
            "Webhook-Id": webhook_id,
            "Webhook-Timestamp": timestamp,
            "Webhook-Signature": f"v1,{signature}",
        }

    # The caller

    def press(self, key: str) -> None:
        """Press a key: each session that has joined hears of it."""
        self._each(lambda session: session.press(key))

    def speak(self, pcm: bytes) -> None:
        """Say `pcm`, PCM16 mono at 24 kHz, such as `tone`; the double's turn detection hears it."""
        self._each(lambda session: session.hear_line(pcm))

    def hang_up(self) -> None:
        """End the call, and with it the sessions that have joined."""
        self._end("ended")

    # For the double

    def joined(self, session: LineSession) -> None:
        """Note another session."""
        self._sessions.append(session)

    def act(self, action: str, body: Json) -> tuple[int, str, str] | None:
        """Do what a client asks; return the status, code and text of the refusal, if it can't be done."""
        if self.state != ("ringing" if action in ("accept", "reject") else "answered"):
            return 404, "call_not_found", f"No call with id {self.call_id} can {action}: it is {self.state}."
        if action == "accept":
            self.config = body
            self.state = "answered"
        elif action == "reject":
            self.status_code = body.get("status_code", 603)
            self._end("rejected")
        elif action == "refer":
            if not isinstance(body.get("target_uri"), str):
                return 400, "missing_required_parameter", "Missing required parameter: 'target_uri'."
            self.target_uri = body["target_uri"]
            self._end("referred")
        else:
            self._end("ended")
        return None

    def _end(self, state: CallState) -> None:
        self.state = state
        self._each(lambda session: session.close(1000, ""))

    def _each(self, act: Callable[[LineSession], None]) -> None:
        for session in self._sessions:
            act(session)
